/*
 * bench_conv.c - GFLOP/s of the convolution kernels by shape and direction. Not a test.
 *   bench_conv [threads] [substring of a shape's name]
 * Multiplies that the fused forms save are not counted: the rate is that of the work done. Best of several runs.
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

static double best_seconds(sag_kernel_env *env, int (*kernel)(sag_kernel_env *, const conv_args *), const conv_args *a)
{
    double best = 1e9, begin = now(env->threads);
    for (int i = 0; i < 200 && (i < 3 || now(env->threads) - begin < 0.3); i++) {
        arena_at = 0;
        double t = now(env->threads);
        if (kernel(env, a) != SAG_KERNEL_OK) return 1e9;
        t = now(env->threads) - t;
        if (t < best) best = t;
    }
    return best;
}

int main(int argc, char **argv)
{
    sag_kernel_env env = {.threads = argc > 1 ? atoi(argv[1]) : 1, .scratch = scratch};
    const sag_backend *cpu = sag_cpu_backend();
    void *state = NULL;
    if (cpu->open(&state) != SAG_KERNEL_OK || !(arena = aligned_alloc(64, ARENA))) return 1;
    memset(arena, 0, ARENA);
    const sag_kernel_table *t = cpu->kernels;
    printf("%s, %d threads; GFLOP/s\n%-34s %8s %8s %8s\n", cpu->detail(), env.threads, "shape", "fwd", "bwd_x",
           "bwd_w");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const bench_shape *s = &shapes[i];
        char name[80];
        snprintf(name, sizeof name, "%s %lldx%lldx%lldx%lld -> %lld %lldx%lld/%lld",
                 s->form == UP     ? "up"
                 : s->form == POOL ? "pool"
                                   : "conv",
                 (long long)s->n, (long long)s->h, (long long)s->h, (long long)s->c, (long long)s->k, (long long)s->r,
                 (long long)s->r, (long long)s->stride);
        if (argc > 2 && !strstr(name, argv[2])) continue;
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
        a.x = x, a.y = y, a.w = w, a.b = b, a.dx = dx, a.dy = dy, a.dw = dw, a.db = db;
        double taps = s->form == PLAIN ? (double)(a.p * a.q * a.r * a.s)
                      : s->form == UP  ? 16.0 * (double)(a.h * a.w_in)
                                       : 16.0 * (double)(a.p * a.q);
        double flop = 2e-9 * taps * (double)(a.n * a.c * a.k);
        double fwd = best_seconds(&env,
                                  s->form == UP     ? t->upconv_fwd
                                  : s->form == POOL ? t->convpool_fwd
                                                    : t->conv2d_fwd,
                                  &a);
        double bwd_x = best_seconds(&env,
                                    s->form == UP     ? t->upconv_bwd_x
                                    : s->form == POOL ? t->convpool_bwd_x
                                                      : t->conv2d_bwd_x,
                                    &a);
        double bwd_w = best_seconds(&env,
                                    s->form == UP     ? t->upconv_bwd_w
                                    : s->form == POOL ? t->convpool_bwd_w
                                                      : t->conv2d_bwd_w,
                                    &a);
        printf("%-34s %8.1f %8.1f %8.1f\n", name, flop / fwd, flop / bwd_x, flop / bwd_w);
        fflush(stdout);
        free(x), free(y), free(w), free(b), free(dx), free(dy), free(dw), free(db);
    }
    free(arena);
    cpu->close(state);
    return 0;
}
