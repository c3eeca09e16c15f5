/*
 * bench_conv.c - GFLOP/s of the convolution kernels by shape and direction. Not a test.
 *   bench_conv [threads] [substring of a shape's name, or conv:N,H,C,K up:.. pool:..] [relu] [residual | half]
 * relu, residual (half: of half the size): folded into the op.
 * Multiplies that the fused forms save are not counted, those that Winograd's algorithm saves are: its rate may be
 * above the machine's. Behind each rate: how many times faster than without Winograd. Medians of runs that take turns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernel_table.h"

enum { PLAIN, UP, POOL };

typedef struct bench_shape {
    int form;
    int64_t n, h, c, k, r, stride; /* h: side of x */
} bench_shape;

static const bench_shape shapes[] = {
    {PLAIN, 16, 64, 64, 64, 3, 1}, {PLAIN, 16, 32, 128, 128, 3, 1}, {PLAIN, 16, 16, 256, 256, 3, 1},
    {PLAIN, 8, 8, 512, 512, 3, 1}, {PLAIN, 8, 4, 512, 512, 3, 1},   {PLAIN, 16, 64, 32, 32, 3, 1},
    {PLAIN, 16, 64, 16, 16, 3, 1}, {PLAIN, 16, 64, 8, 8, 3, 1},     {PLAIN, 16, 64, 16, 64, 3, 1},
    {PLAIN, 16, 64, 64, 16, 3, 1}, {PLAIN, 16, 64, 3, 64, 3, 1},    {PLAIN, 16, 64, 64, 3, 3, 1},
    {PLAIN, 16, 64, 1, 16, 3, 1},  {PLAIN, 16, 64, 16, 1, 3, 1},    {PLAIN, 16, 64, 64, 64, 1, 1},
    {PLAIN, 16, 64, 16, 32, 1, 1}, {PLAIN, 16, 64, 64, 8, 1, 1},    {PLAIN, 16, 64, 64, 128, 4, 2},
    {UP, 16, 32, 64, 64, 3, 1},    {UP, 16, 16, 128, 64, 3, 1},     {UP, 16, 32, 16, 16, 3, 1},
    {UP, 8, 4, 512, 512, 3, 1},    {POOL, 16, 64, 64, 64, 3, 1},    {POOL, 16, 64, 16, 16, 3, 1},
    {POOL, 8, 8, 512, 512, 3, 1},
};

static char *arena;
static size_t arena_at;
enum { ARENA = 1 << 29 };

static void *scratch(sag_kernel_env *env, size_t bytes)
{
    (void)env;
    size_t at = (arena_at + 63) / 64 * 64;
    if (at + bytes > ARENA) return NULL;
    arena_at = at + bytes;
    return arena + at;
}

/* One thread: its processor time, so that a busy machine disturbs less. */
static double now(int threads)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *numbers(int64_t n)
{
    float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 63) / 64 * 64);
    if (!x) exit(1);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(i * 2654435761u % 1000u) / 500.0f - 1.0f;
    return x;
}

static double seconds(sag_kernel_env *env, int (*kernel)(sag_kernel_env *, const conv_args *), const conv_args *a)
{
    arena_at = 0;
    double t = now(env->threads);
    if (kernel(env, a) != SAG_KERNEL_OK) return 1e9;
    return now(env->threads) - t;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(sag_kernel_env *env, int (*kernel)(sag_kernel_env *, const conv_args *), const conv_args *a,
                   double flop)
{
    enum { RUNS = 101 };
    double fast[RUNS], plain[RUNS], begin = now(env->threads);
    sag_kernel_env without = *env;
    without.no_winograd = 1;
    seconds(env, kernel, a), seconds(&without, kernel, a);
    int n = 0;
    for (; n < RUNS && (n < 3 || now(env->threads) - begin < 0.4); n++) {
        fast[n] = seconds(env, kernel, a);
        plain[n] = seconds(&without, kernel, a);
    }
    qsort(fast, (size_t)n, sizeof *fast, by_size);
    qsort(plain, (size_t)n, sizeof *plain, by_size);
    printf(" %8.1f %5.2f", flop / fast[n / 2], plain[n / 2] / fast[n / 2]);
}

int main(int argc, char **argv)
{
    sag_kernel_env env = {.threads = argc > 1 ? atoi(argv[1]) : 1, .scratch = scratch};
    const sag_backend *cpu = sag_cpu_backend();
    void *state = NULL;
    if (cpu->open(&state) != SAG_KERNEL_OK || !(arena = aligned_alloc(64, ARENA))) return 1;
    memset(arena, 0, ARENA);
    const sag_kernel_table *t = cpu->kernels;
    printf("%s, %d threads; GFLOP/s\n%-34s %8s %5s %8s %5s %8s %5s\n", cpu->detail(), env.threads, "shape", "fwd", "x",
           "bwd_x", "x", "bwd_w", "x");
    bench_shape one = {PLAIN, 0, 0, 0, 0, 3, 1};
    long long n_, h_, c_, k_;
    char form_[8];
    bool own = argc > 2 && sscanf(argv[2], "%7[a-z]:%lld,%lld,%lld,%lld", form_, &n_, &h_, &c_, &k_) == 5;
    if (own) one = (bench_shape){form_[0] == 'u' ? UP : form_[0] == 'p' ? POOL : PLAIN, n_, h_, c_, k_, 3, 1};
    bool relu = false, residual = false, half = false;
    for (int i = 3; i < argc; i++) {
        relu |= strcmp(argv[i], "relu") == 0;
        half |= strcmp(argv[i], "half") == 0;
        residual |= half || strcmp(argv[i], "residual") == 0;
    }
    size_t count = own ? 1 : sizeof shapes / sizeof *shapes;
    for (size_t i = 0; i < count; i++) {
        const bench_shape *s = own ? &one : &shapes[i];
        char name[80];
        snprintf(name, sizeof name, "%s %lldx%lldx%lldx%lld -> %lld %lldx%lld/%lld",
                 s->form == UP     ? "up"
                 : s->form == POOL ? "pool"
                                   : "conv",
                 (long long)s->n, (long long)s->h, (long long)s->h, (long long)s->c, (long long)s->k, (long long)s->r,
                 (long long)s->r, (long long)s->stride);
        if (argc > 2 && !own && !strstr(name, argv[2])) continue;
        conv_args a = {.n = s->n,
                       .h = s->h,
                       .w_in = s->h,
                       .c = s->c,
                       .k = s->k,
                       .r = s->r,
                       .s = s->r,
                       .stride = s->stride,
                       .pad_h = (s->r - 1) / 2,
                       .pad_w = (s->r - 1) / 2};
        a.p = s->form == UP ? 2 * s->h : s->form == POOL ? s->h / 2 : (s->h + 2 * a.pad_h - s->r) / s->stride + 1;
        a.q = a.p;
        int64_t nx = a.n * a.h * a.w_in * a.c, ny = a.n * a.p * a.q * a.k, nw = a.k * a.r * a.s * a.c;
        float *x = numbers(nx), *y = numbers(ny), *w = numbers(nw), *b = numbers(a.k), *dx = numbers(nx),
              *dy = numbers(ny);
        float *dw = numbers(nw), *db = numbers(a.k);
        a.relu = relu, a.residual_half = half, a.residual = residual ? numbers(ny) : NULL;
        a.x = x, a.y = y, a.w = w, a.b = b, a.dx = dx, a.dy = dy, a.dw = dw, a.db = db;
        double taps = s->form == PLAIN ? (double)(a.p * a.q * a.r * a.s)
                      : s->form == UP  ? 16.0 * (double)(a.h * a.w_in)
                                       : 16.0 * (double)(a.p * a.q);
        double flop = 2e-9 * taps * (double)(a.n * a.c * a.k);
        printf("%-34s", name);
        report(&env, s->form == UP ? t->upconv_fwd : s->form == POOL ? t->convpool_fwd : t->conv2d_fwd, &a, flop);
        report(&env, s->form == UP ? t->upconv_bwd_x : s->form == POOL ? t->convpool_bwd_x : t->conv2d_bwd_x, &a, flop);
        report(&env, s->form == UP ? t->upconv_bwd_w : s->form == POOL ? t->convpool_bwd_w : t->conv2d_bwd_w, &a, flop);
        printf("\n");
        fflush(stdout);
        free((void *)(uintptr_t)a.residual), free(x), free(y), free(w), free(b), free(dx), free(dy), free(dw), free(db);
    }
    free(arena);
    cpu->close(state);
    return 0;
}
