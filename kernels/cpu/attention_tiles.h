/*
 * attention_tiles.h - what training (attention.c, attention_bwd.c) and inspection (attention_view.c) share: keys in tiles
 * turned round, so that lanes run over keys, the scores of a block of queries against one tile, powers of two.
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

/* The rows of x with zeros up to whole vectors; x itself where nothing is missing. */
static inline const float *pad_rows(sag_kernel_env *env, const float *x, int64_t rows, int64_t cols)
{
    const int64_t padded = tile_padded(cols);
    if (padded == cols) return x;
    float *to = env->scratch(env, (size_t)(rows * padded) * sizeof *to);
    if (!to) return NULL;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (rows * padded > SERIAL_WORK)
    for (int64_t r = 0; r < rows; r++) {
        memcpy(to + r * padded, x + r * cols, (size_t)cols * sizeof *to);
        memset(to + r * padded + cols, 0, (size_t)(padded - cols) * sizeof *to);
    }
    return to;
}

/*
 * Softmax in base 2: training packs the keys times log2(e), so that a score is the exponent of 2 and needs no reduction
 * by ln 2. x + 1.5 * 2^23 + 127 leaves the exponent field of 2^n in its low bits, n = round(x); the polynomial is 2^r on
 * |r| <= 1/2, 9e-9 off. The result is within 1.5 ulp.
 */
#define LOG2_E 1.44269504f
#define LN_2 0.693147181f

static inline cpu_vec exp2_bounded(cpu_vec x) /* -126 < x < 128 */
{
    const cpu_vec t = x + 12583039.0f, r = x - (t - 12583039.0f);
    cpu_vec p = r * 1.54531634e-4f + 1.33908633e-3f;
    p = p * r + 9.61808302e-3f;
    p = p * r + 5.55035695e-2f;
    p = p * r + 0.240226507f;
    p = p * r + 0.693147182f;
    p = p * r + 1.0f;
    return p * (cpu_vec)((cpu_uvec)t << 23);
}
static inline cpu_vec exp2_below(cpu_vec x) /* x < 128; 0 below -126, NaN stays */
{
    return cpu_select(x < -126.0f, (cpu_vec){0}, exp2_bounded(x));
}

/* What the fused loops know: whole tiles, so that distances are constants and one pointer serves all rows of a tile, and
 * d = C / 8 of narrow networks. */
static inline bool is_few(int64_t d, int64_t nk)
{
    return (d == 1 || d == 2 || d == 4) && tile_stride(nk) == TILE_KEYS;
}

/* The score of one query against a vector of keys. */
__attribute__((always_inline)) static inline cpu_vec score_few(const int d, const cpu_vec *q, const float *kt)
{
    cpu_vec s = q[0] * cpu_load(kt);
    for (int c = 1; c < d; c++) s += q[c] * cpu_load(kt + c * TILE_KEYS);
    return s;
}

/* attention_bwd.c */
int CPU_ISA(attention_bwd)(sag_kernel_env *env, const attention_args *a);
/* attention_view.c */
int CPU_ISA(attention_map)(sag_kernel_env *env, const attention_map_args *a);
int CPU_ISA(attention_stats)(sag_kernel_env *env, const attention_map_args *a);

#endif
