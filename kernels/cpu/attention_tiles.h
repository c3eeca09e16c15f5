/*
 * attention_tiles.h - what training (attention.c) and inspection (attention_view.c) share: keys in tiles turned round,
 * so that lanes run over keys, and the scores of a block of queries against one tile.
 */
#ifndef SAG_CPU_ATTENTION_TILES_H
#define SAG_CPU_ATTENTION_TILES_H

#include "kernels/cpu/tile_product.h"
#include "kernels/cpu/vec_math.h"

#define TILE_KEYS 128
#define BLOCK_QUERIES 48  /* a multiple of TILE_ROWS on every level that has 6 or 4 of them */
#define SERIAL_WORK 20000 /* numbers or pairs below which a parallel region costs more than it saves */

/* Row length of a tile in memory; a few keys do not pay for a whole tile. */
static inline int64_t tile_stride(int64_t n)
{
    return cpu_min64(TILE_KEYS, tile_padded(n));
}

/* x {batch, n, cols} as tiles turned round, {batch, tiles, cols, stride}, zero beyond the last row of x. */
static inline float *pack_keys(sag_kernel_env *env, const float *x, int64_t batch, int64_t n, int64_t cols,
                               float factor)
{
    const int64_t tiles = cpu_ceil_div(n, TILE_KEYS), items = batch * tiles, stride = tile_stride(n);
    float *packed = env->scratch(env, (size_t)(items * cols * stride) * sizeof *packed);
    if (!packed) return NULL;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (items * cols * stride > SERIAL_WORK)
    for (int64_t i = 0; i < items; i++) {
        const int64_t j0 = i % tiles * TILE_KEYS, keys = cpu_min64(TILE_KEYS, n - j0);
        const float *from = x + (i / tiles * n + j0) * cols;
        float *to = packed + i * cols * stride;
        for (int64_t c = 0; c < cols; c++) {
            for (int64_t j = 0; j < keys; j++) to[c * stride + j] = factor * from[j * cols + c];
            for (int64_t j = keys; j < stride; j++) to[c * stride + j] = 0;
        }
    }
    return packed;
}

/* s {rows, TILE_KEYS} = q k^T over one tile. */
static inline int64_t score_tile(float *s, const float *q, const float *kt, int64_t kt_row, int64_t rows, int64_t keys,
                                 int64_t d)
{
    const int64_t vectors = cpu_ceil_div(keys, CPU_LANES);
    tile_product(
        &(tile_operands){
            .a = q, .a_row = d, .a_depth = 1, .b = kt, .b_row = kt_row, .c = s, .c_row = TILE_KEYS, .depth = d},
        rows, vectors);
    return vectors;
}

/* attention_view.c */
int CPU_ISA(attention_map)(sag_kernel_env *env, const attention_map_args *a);
int CPU_ISA(attention_stats)(sag_kernel_env *env, const attention_map_args *a);

#endif
