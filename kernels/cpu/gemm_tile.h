/*
 * gemm_tile.h - the register tile under gemm.c and outer.c: acc[i][j] += a(i, k) * b(k, j) over k, then one store.
 * a(i, k) = a[i * a_row + k * a_step] is broadcast, b(k, ..) = b[k * ldb ..] is one or two vectors. Inlined with constant
 * rows, vectors and strides, so that the accumulators are registers.
 */
#ifndef SAG_CPU_GEMM_TILE_H
#define SAG_CPU_GEMM_TILE_H

#include "kernels/cpu/gemm.h"

/* Where a tile goes: row[i] + col, `rows` by `cols` of it are real; add: to what is there; bias: {cols} or NULL. */
typedef struct tile_out {
    float *const *row;
    int64_t col;
    int rows, cols;
    bool add;
    const float *bias;
} tile_out;

typedef void tile_kernel(int64_t depth, const float *a, int64_t a_step, const float *b, int64_t ldb, const tile_out *out);

static inline void tile_store_edge(const float *tile, int width, const tile_out *out)
{
    for (int i = 0; i < out->rows; i++) {
        float *c = out->row[i] + out->col;
        for (int j = 0; j < out->cols; j++) {
            float v = tile[i * width + j];
            if (out->bias) v += out->bias[j];
            c[j] = out->add ? c[j] + v : v;
        }
    }
}

__attribute__((always_inline)) static inline void tile_run(const int rows, const int vectors, int64_t depth,
                                                           const float *a, const int64_t a_row, const int64_t a_step,
                                                           const float *b, const int64_t ldb, const tile_out *out)
{
    cpu_vec acc[2 * GEMM_MR];
#pragma GCC unroll 28
    for (int i = 0; i < rows * vectors; i++) acc[i] = (cpu_vec){0};
#pragma GCC unroll 1
    for (int64_t k = 0; k < depth; k++) {
        cpu_vec b0 = cpu_load(b);
        cpu_vec b1 = vectors == 2 ? cpu_load(b + CPU_LANES) : b0;
#pragma GCC unroll 28
        for (int i = 0; i < rows; i++) {
            cpu_vec x = cpu_splat(a[i * a_row]);
            acc[i * vectors] += x * b0;
            if (vectors == 2) acc[i * vectors + 1] += x * b1;
        }
        a += a_step;
        b += ldb;
    }
    if (out->cols == vectors * CPU_LANES) {
#pragma GCC unroll 28
        for (int i = 0; i < rows; i++) {
            if (i >= out->rows) break;
            float *c = out->row[i] + out->col;
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) {
                cpu_vec v = acc[i * vectors + j];
                if (out->bias) v += cpu_load(out->bias + j * CPU_LANES);
                if (out->add) v = cpu_load(c + j * CPU_LANES) + v;
                cpu_store(c + j * CPU_LANES, v);
            }
        }
    } else {
        float tile[2 * GEMM_MR * CPU_LANES];
#pragma GCC unroll 28
        for (int i = 0; i < rows * vectors; i++) cpu_store(tile + i * CPU_LANES, acc[i]);
        tile_store_edge(tile, vectors * CPU_LANES, out);
    }
}

/* Kernels for 2, 4 .. GEMM_MR rows of two vectors and 4, 8 .. 2 GEMM_MR rows of one; `row` is the constant a_row, `step`
 * the constant or variable a_step. */
#if CPU_LANES == 16
#define TILE_SIZES(X, family) X(family, 1) X(family, 2) X(family, 3) X(family, 4) X(family, 5) X(family, 6) X(family, 7)
#else
#define TILE_SIZES(X, family) X(family, 1) X(family, 2) X(family, 3)
#endif
#define TILE_VARIANTS (GEMM_MR / 2 + 1)

#endif
