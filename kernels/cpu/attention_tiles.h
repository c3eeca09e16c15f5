/*
 * attention_tiles.h - what training (attention.c, attention_bwd.c) and inspection (attention_view.c) share: keys in
 * tiles turned round, so that lanes run over keys, the scores of a block of queries against one tile, powers of two.
 */
#ifndef SAG_CPU_ATTENTION_TILES_H
#define SAG_CPU_ATTENTION_TILES_H

#include "kernels/cpu/tile_product.h"
#include "kernels/cpu/vec_math.h"

#define TILE_KEYS 64
#define BLOCK_QUERIES 64  /* with TILE_KEYS: a map of 16 KiB, so that two fit into a cache of 32 or 48 */
#define SERIAL_WORK 20000 /* numbers or pairs below which a parallel region costs more than it saves */

#define PANEL (TILE_VECS * CPU_LANES) /* what map_block computes at once */

/* Row length of a tile in memory; a few keys do not pay for a whole tile. */
static inline int64_t tile_stride(int64_t n)
{
    return cpu_min64(TILE_KEYS, cpu_ceil_div(n, PANEL) * PANEL);
}

/* to[c][r] = factor * from[r][c], zero for r beyond `rows` up to `stride`, whole vectors. */
static inline void turn_rows(float *to, int64_t stride, const float *from, int64_t rows, int64_t cols, float factor)
{
    const int64_t whole_rows = rows / CPU_LANES * CPU_LANES, whole_cols = cols / CPU_LANES * CPU_LANES;
    for (int64_t c = 0; c < cols; c++) {
        for (int64_t r = c < whole_cols ? whole_rows : 0; r < rows; r++)
            to[c * stride + r] = factor * from[r * cols + c];
        for (int64_t r = rows; r < stride; r++) to[c * stride + r] = 0;
    }
    for (int64_t r = 0; r < whole_rows; r += CPU_LANES)
        for (int64_t c = 0; c < whole_cols; c += CPU_LANES)
            transpose_square(from + r * cols + c, cols, to + c * stride + r, stride);
    for (int64_t c = 0; c < whole_cols && factor != 1; c++)
        for (int64_t r = 0; r < whole_rows; r++) to[c * stride + r] *= factor;
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
        turn_rows(packed + i * cols * stride, stride, x + (i / tiles * n + j0) * cols, keys, cols, factor);
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
 * Softmax in base 2: training packs one side times log2(e), so that a score is the exponent of 2 and needs no reduction
 * by ln 2. Scores of a block are safe where |q_i| max |k_j| says so: then 2^s is neither infinite nor a denormal
 * number, and neither is 2^(s - lse) in backward.
 */
#define LOG2_E 1.44269504f
#define LN_2 0.693147181f
#define SAFE_SCORE 54.0f /* base 2: 2 * 54 + log2(SAFE_KEYS) < 126 */
#define SAFE_KEYS 131072

/* The largest squared length of rows {rows, d}; NaN if a number is not finite. */
static inline float longest_row(const float *x, int64_t rows, int64_t d)
{
    float most = 0, not_finite = 0;
    for (int64_t r = 0; r < rows; r++, x += d) {
        float sum = 0;
        for (int64_t c = 0; c < d; c++) sum += x[c] * x[c];
        not_finite += sum * 0.0f; /* NaN from NaN and infinity */
        most = sum > most ? sum : most;
    }
    return most + not_finite;
}

/* {batch}: of the keys, scaled as scores are. */
static inline const float *longest_keys(sag_kernel_env *env, const attention_args *a)
{
    float *longest = env->scratch(env, (size_t)a->batch * sizeof *longest);
    if (!longest) return NULL;
    const float factor = a->scale * LOG2_E;
#pragma omp parallel for num_threads(env->threads) schedule(static) if (a->batch * a->nk * a->d > SERIAL_WORK)
    for (int64_t b = 0; b < a->batch; b++)
        longest[b] = longest_row((const float *)a->k + b * a->nk * a->d, a->nk, a->d) * factor * factor;
    return longest;
}

static inline bool scores_are_safe(const attention_args *a, int64_t row0, int64_t rows, float longest_key)
{
    const float longest = longest_row((const float *)a->q + row0 * a->d, rows, a->d);
    return a->nk <= SAFE_KEYS && longest * longest_key < SAFE_SCORE * SAFE_SCORE; /* Cauchy-Schwarz; false for NaN */
}

#define MAP_ROWS 2 /* rows of a map that are computed together: sums enough, and registers left for exp2 */
#define MAP_VECS (MAP_ROWS * TILE_VECS)
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)

/*
 * 2^x for -126 < x < 128, within 1.1 * 2^-23 of the value; NaN stays. With shuffles by a variable index: x = n / LANES
 * + r, the magic sum leaves n in its low bits; 2^(n mod LANES / LANES) comes from a table of one vector, whose entries
 * lack what the low bits of n add to them when n is shifted to the exponent; 2^r - 1 is a cubic on |r| <= 1 / (2
 * LANES). That takes 4 multiply-adds, fewer than the polynomial of degree 6 on |r| <= 1/2 where there is no table.
 */
CPU_INLINE void exp2_bounded(cpu_vec *x, const int n)
{
#if CPU_LANES >= 8
#if CPU_LANES == 16
    enum { BITS = 4 };
    static const cpu_uvec table = {0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532,
                                   0x3f75fed7, 0x3f75583f, 0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c,
                                   0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
    const float c2 = 0.240233555f, c3 = 0.0555050857f;
#else
    enum { BITS = 3 };
    static const cpu_uvec table = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                   0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
    const float c2 = 0.240254685f, c3 = 0.0555080138f;
#endif
    const float magic = 12582912.0f / (1 << BITS); /* 1.5 * 2^23 / LANES: the last bit is worth 1 / LANES */
    cpu_vec t[MAP_VECS], p[MAP_VECS];
    EACH(i, n) t[i] = x[i] + magic;
    EACH(i, n) p[i] = t[i] - magic;
    EACH(i, n) x[i] = x[i] - p[i];
    EACH(i, n) p[i] = x[i] * c3 + c2;
    EACH(i, n) p[i] = p[i] * x[i] + 0.693147182f;
    EACH(i, n) p[i] = p[i] * x[i];
    EACH(i, n) x[i] = __builtin_shuffle((cpu_vec)table, (cpu_ivec)t[i]);
    EACH(i, n) x[i] = (cpu_vec)((cpu_uvec)x[i] + ((cpu_uvec)t[i] << (23 - BITS)));
    EACH(i, n) x[i] = p[i] * x[i] + x[i];
#else
    EACH(i, n)
    {
        const cpu_vec t = x[i] + 12583039.0f; /* 1.5 * 2^23 + 127: the exponent field of 2^round(x) */
        const cpu_vec r = x[i] - (t - 12583039.0f);
        cpu_vec p = r * 1.54531634e-4f + 1.33908633e-3f;
        p = p * r + 9.61808302e-3f;
        p = p * r + 5.55035695e-2f;
        p = p * r + 0.240226507f;
        p = p * r + 0.693147182f;
        p = p * r + 1.0f;
        x[i] = p * (cpu_vec)((cpu_uvec)t << 23);
    }
#endif
}
static inline cpu_vec exp2_below(cpu_vec x) /* x < 128; 0 below -126, NaN stays */
{
    cpu_vec y = x;
    exp2_bounded(&y, 1);
    return cpu_select(x < -126.0f, (cpu_vec){0}, y);
}

/* p[r][v] = 2^(start[r] + sum over c of a[r][c] b[c][v]), a {rows, depth}, b {depth, b_row}; start may be NULL. */
CPU_INLINE void map_block(const int rows, const int64_t depth, const float *a, const float *b, int64_t b_row,
                          const float *start, const bool safe, cpu_vec p[MAP_ROWS][TILE_VECS])
{
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < TILE_VECS; v++) p[r][v] = start ? cpu_splat(start[r]) : (cpu_vec){0};
    for (int64_t c = 0; c < depth; c++, b += b_row)
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < TILE_VECS; v++) p[r][v] += cpu_splat(a[r * depth + c]) * cpu_load(b + v * CPU_LANES);
    if (safe) {
        exp2_bounded(p[0], rows * TILE_VECS);
        return;
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < TILE_VECS; v++) p[r][v] = exp2_below(p[r][v]);
}

/* attention_bwd.c */
int CPU_ISA(attention_bwd)(sag_kernel_env *env, const attention_args *a);
/* attention_view.c */
int CPU_ISA(attention_map)(sag_kernel_env *env, const attention_map_args *a);
int CPU_ISA(attention_stats)(sag_kernel_env *env, const attention_map_args *a);

#endif
