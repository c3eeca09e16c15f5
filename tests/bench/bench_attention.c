/*
 * bench_attention.c - GFLOP/s of fused attention, forward and backward, on the shapes that the networks use.
 *   ninja bench_attention && ./bench_attention [threads [b n d e]]    the best of at least 4 runs and 0.4 s
 * Counted: 2 N Nk (D + E) multiplies and adds forward, 2 N Nk (3 D + 2 E) backward; exp is not counted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/sagan.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static sag_tensor *make(sag_context *ctx, int64_t b, int64_t n, int64_t c)
{
    sag_tensor *t = NULL;
    if (sag_tensor_create(ctx, SAG_F32, sag_shape3(b, n, c), &t) != SAG_OK) exit(1);
    float *x = sag_tensor_data(t);
    for (int64_t i = 0; i < b * n * c; i++) x[i] = (float)((i * 7919) % 2001 - 1000) / 1000.0f;
    return t;
}

static void measure(sag_context *ctx, int64_t b, int64_t nq, int64_t nk, int64_t d, int64_t e)
{
    sag_tensor *in[3] = {make(ctx, b, nq, d), make(ctx, b, nk, d), make(ctx, b, nk, e)}, *dy = make(ctx, b, nq, e);
    for (int i = 0; i < 3; i++) sag_tensor_require_grad(in[i]);
    const double scale = 1, pairs = (double)(b * nq) * (double)nk;
    double forward = 1e9, backward = 1e9;
    const double begin = now();
    for (int k = 0; k < 4 || now() - begin < 0.4; k++) {
        sag_tensor *out[SAG_MAX_OUT];
        const double t0 = now();
        if (sag_op_apply(ctx, SAG_OP_attention, in, &scale, out) != SAG_OK) exit(1);
        const double t1 = now();
        if (sag_tape_backward_from(out[0], dy) != SAG_OK) exit(1);
        const double t2 = now();
        sag_tensor_release(out[0]);
        forward = t1 - t0 < forward ? t1 - t0 : forward;
        backward = t2 - t1 < backward ? t2 - t1 : backward;
    }
    printf("b %-3lld nq %-6lld nk %-6lld d %-3lld e %-4lld forward %7.2f ms %6.1f GFLOP/s   backward %7.2f ms %6.1f "
           "GFLOP/s\n",
           (long long)b, (long long)nq, (long long)nk, (long long)d, (long long)e, 1e3 * forward,
           2e-9 * pairs * (double)(d + e) / forward, 1e3 * backward, 2e-9 * pairs * (double)(3 * d + 2 * e) / backward);
    for (int i = 0; i < 3; i++) sag_tensor_release(in[i]);
    sag_tensor_release(dy);
}

int main(int argc, char **argv)
{
    sag_context *ctx = NULL;
    if (sag_context_create(SAG_CPU, &ctx) != SAG_OK) return 1;
    if (argc > 1) sag_context_set_threads(ctx, atoi(argv[1]));
    printf("%s, %d threads\n", sag_cpu_isa(), sag_context_threads(ctx));
    if (argc > 5) {
        const int64_t n = atoi(argv[3]);
        measure(ctx, atoi(argv[2]), n, n, atoi(argv[4]), atoi(argv[5]));
    } else {
        measure(ctx, 8, 1024, 1024, 1, 8);
        measure(ctx, 8, 1024, 1024, 2, 16);
        measure(ctx, 8, 1024, 1024, 4, 32);
        measure(ctx, 8, 1024, 1024, 8, 64);
        measure(ctx, 4, 1024, 1024, 16, 128);
        measure(ctx, 2, 1024, 1024, 32, 256);
        measure(ctx, 4, 1024, 256, 16, 64);
        measure(ctx, 1, 4096, 4096, 2, 16);
        measure(ctx, 1, 4096, 4096, 4, 32);
        measure(ctx, 1, 4096, 4096, 16, 128);
        measure(ctx, 16, 256, 256, 16, 128);
        measure(ctx, 16, 256, 256, 32, 256);
    }
    sag_context_destroy(ctx);
    return 0;
}
