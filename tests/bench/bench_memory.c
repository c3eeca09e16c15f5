/*
 * bench_memory.c - how fast the memory-bound ops run, in GB/s of the bytes they must move, beside a plain copy.
 * usage: bench_memory [threads] [repetitions] [images] [part of a label]: 16 images leave the caches, 1 stays in them
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/sagan.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static sag_context *ctx;
static int repetitions = 5;
static const char *wanted = "";

static void check(sag_status s)
{
    if (s == SAG_OK) return;
    fprintf(stderr, "%s\n", sag_error_message());
    exit(1);
}

static sag_tensor *tensor(sag_dtype dtype, sag_shape shape)
{
    sag_tensor *t = NULL;
    check(sag_tensor_zeros(ctx, dtype, shape, &t));
    if (dtype == SAG_F32) {
        float *x = sag_tensor_data(t);
        for (int64_t i = 0; i < sag_tensor_numel(t); i++) x[i] = (float)(i * 7919 % 2001) * 1e-3f - 1;
    }
    return t;
}

/* Best of the repetitions; forward, then backward where an input wants a gradient. Tensors of x's size moved: f, b. */
static void measure(const char *label, sag_op op, sag_tensor **in, const double *attr, double f, double b)
{
    if (!strstr(label, wanted)) return;
    const sag_op_info *info = sag_op_describe(op);
    double bytes = (double)sag_tensor_numel(in[0]) * (double)sag_dtype_size(sag_tensor_dtype(in[0]));
    double best_f = 1e9, best_b = 1e9;
    sag_tensor *dy = NULL;
    if (b > 0) check(sag_tensor_require_grad(in[0]));
    for (int r = 0; r < repetitions; r++) {
        sag_tensor *out[SAG_MAX_OUT] = {0};
        double t = now();
        check(sag_op_apply(ctx, op, in, attr, out));
        t = now() - t;
        best_f = t < best_f ? t : best_f;
        if (b > 0) {
            if (!dy) dy = tensor(SAG_F32, sag_tensor_shape(out[0]));
            check(sag_tensor_zero_grad(in[0]));
            double start = now();
            check(sag_tape_backward_from(out[0], dy));
            t = now() - start;
            best_b = t < best_b ? t : best_b;
        }
        for (int i = 0; i < info->n_out; i++) sag_tensor_release(out[i]);
    }
    sag_tensor_release(dy);
    printf("%-22s forward %7.1f GB/s %8.2f ms", label, f * bytes / best_f * 1e-9, best_f * 1e3);
    if (b > 0) printf("   backward %8.2f ms", best_b * 1e3);
    printf("\n");
}

/* A discriminator's slab: 3x3 convolutions from 64 channels up, each twice; 14.6 million weights. */
static void spectral(void)
{
    enum { LAYERS = 8 };
    int32_t table[LAYERS][5], w = 0, u = 0, v = 0;
    for (int i = 0; i < LAYERS; i++) {
        int32_t rows = 64 << (i + 1) / 2, cols = 9 * (64 << i / 2);
        memcpy(table[i], (int32_t[]){w, rows, cols, u, v}, sizeof table[i]);
        w += rows * cols, u += rows, v += cols;
    }
    sag_tensor *in[5] = {tensor(SAG_F32, sag_shape1(w)), tensor(SAG_F32, sag_shape1(u)), tensor(SAG_F32, sag_shape1(v)),
                         tensor(SAG_F32, sag_shape1(LAYERS)), tensor(SAG_I32, sag_shape2(LAYERS, 5))};
    memcpy(sag_tensor_data(in[4]), table, sizeof table);
    double attr[4] = {1, 1e-12, 1, 0};
    measure("spectral_norm", SAG_OP_spectral_norm, in, attr, 2, 2);
    for (int i = 0; i < 5; i++) sag_tensor_release(in[i]);
}

int main(int argc, char **argv)
{
    check(sag_context_create(SAG_CPU, &ctx));
    if (argc > 1) sag_context_set_threads(ctx, atoi(argv[1]));
    if (argc > 2) repetitions = atoi(argv[2]);
    int64_t n = argc > 3 ? atoi(argv[3]) : 16;
    if (argc > 4) wanted = argv[4];
    printf("%s, %d threads\n", sag_cpu_isa(), sag_context_threads(ctx));
    sag_shape s = sag_shape4(n, 64, 64, 128), half = sag_shape4(n, 32, 32, 128);
    sag_tensor *x = tensor(SAG_F32, s), *z = tensor(SAG_F32, s), *c = tensor(SAG_F32, sag_shape1(128));
    sag_tensor *v = tensor(SAG_F32, s), *m = tensor(SAG_F32, s), *small = tensor(SAG_F32, half), *clock = tensor(SAG_I32, sag_shape1(2));
    sag_tensor *table = tensor(SAG_F32, sag_shape2(10, 128)), *labels = tensor(SAG_I32, sag_shape1(n));
    sag_tensor *hyper = tensor(SAG_F32, sag_shape1(6)), *gamma = tensor(SAG_F32, sag_shape1(1)), *ring = tensor(SAG_U8, s);
    sag_tensor *rgb = tensor(SAG_F32, sag_shape4(4 * n, 128, 128, 3)), *c3 = tensor(SAG_F32, sag_shape1(3));
    sag_tensor *target = tensor(SAG_F32, s), *squares = NULL, *decay = tensor(SAG_F32, sag_shape1(2));
    check(sag_tensor_zeros(ctx, SAG_F32, s, &squares));
    memcpy(sag_tensor_data(hyper), (float[6]){1e-4f, 0, 0.9f, 1e-8f, 0, 1}, 6 * sizeof(float));
    memcpy(sag_tensor_data(decay), (float[2]){0.999f, 0}, 2 * sizeof(float));
    double relu[5] = {1, 0.1, 1e-5, 1, 0}, key[5] = {1, 2, 0, 1, 0}, last = 3, turn[4] = {0, 3, 1, 2}, one = 1;
    double flip[4] = {1, 2, 1, 0}, to_bf16 = SAG_BF16;
#define RUN(label, op, attr, f, b, ...) measure(label, SAG_OP_##op, (sag_tensor *[]){__VA_ARGS__}, attr, f, b)
    RUN("copy", assign, NULL, 2, 0, z, v);
    RUN("fill", fill, &one, 1, 0, v);
    RUN("axpy", axpy, &one, 3, 0, v, z);
    RUN("adam", adam, NULL, 7, 0, v, z, m, squares, clock, hyper);
    RUN("adam_ema", adam_ema, NULL, 9, 0, v, z, m, squares, clock, hyper, target, clock, decay);
    RUN("ema", ema, NULL, 3, 0, v, z, clock, decay);
    RUN("uniform", uniform, key, 1, 0, v, clock);
    RUN("normal", normal, key, 1, 0, v, clock);
    RUN("pixels_to_float", pixels_to_float, flip, 5, 0, ring, clock);
    RUN("float_to_pixels", float_to_pixels, NULL, 1.25, 0, z);
    RUN("cast to bf16", cast, &to_bf16, 1.5, 0, z);
    RUN("relu", relu, NULL, 2, 3, x);
    RUN("tanh", tanh, NULL, 2, 3, x);
    RUN("exp", exp, NULL, 2, 3, x);
    RUN("softplus", softplus, NULL, 2, 3, x);
    RUN("add", add, NULL, 3, 2, x, z);
    RUN("mul channels", mul, NULL, 2, 2, x, c);
    RUN("mul channels 3", mul, NULL, 2, 2, rgb, c3);
    RUN("gated_add", gated_add, NULL, 3, 2, x, z, gamma);
    RUN("batch_norm", batch_norm, relu, 3, 7, x, c, c, NULL, NULL);
    RUN("batch_norm 3", batch_norm, relu, 3, 7, rgb, c3, c3, NULL, NULL);
    RUN("cond_batch_norm", cond_batch_norm, relu, 3, 7, x, table, table, labels, NULL, NULL);
    RUN("upsample", upsample, NULL, 5, 5, small);
    RUN("mean_pool", mean_pool, NULL, 1.25, 1.25, x);
    RUN("mean_pool 3", mean_pool, NULL, 1.25, 1.25, rgb);
    RUN("max_pool", max_pool, NULL, 1.5, 1.5, x);
    RUN("global_sum_pool", global_sum_pool, NULL, 1, 1, x);
    RUN("sum", sum, NULL, 1, 1, x);
    RUN("sum of channels", sum, &last, 1, 1, x);
    RUN("max", max, NULL, 1, 0, x);
    RUN("count_nonfinite", count_nonfinite, NULL, 1, 0, x);
    RUN("concat axis 4", concat, &last, 4, 3, x, z);
    RUN("permute", permute, turn, 2, 2, x);
    spectral();
    return 0;
}
