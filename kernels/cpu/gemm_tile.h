/*
 * gemm_tile.h - the register tile under gemm.c, band.c and outer.c: acc[i][j] += a(i, k) * b(k, j) over k, one store.
 * a(i, k) = a[i * a_row + k * a_step] is broadcast, b(k, ..) = b[k * b_step ..] is one or two vectors. Inlined with
 * constant rows, vectors and strides, so that the accumulators are registers. The sum over k may come in segments, each
 * `depth` long, between which one operand jumps (the taps of a kernel) while the other goes on.
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

/* Segment t starts at a + a_at[t] (NULL: where the last one ended) and b + b_at[t] (likewise). b_step: see tile_run. */
typedef struct tile_walk {
    int64_t segments, depth;
    const int64_t *a_at, *b_at;
    int64_t b_step;
} tile_walk;

typedef void tile_kernel(const tile_walk *walk, const float *a, const float *b, const tile_out *out);

/* One vector of a result: `n` numbers at c, with bias and what is there. */
static inline void tile_store(float *c, cpu_vec v, int n, const float *bias, bool add)
{
    if (n > CPU_LANES) n = CPU_LANES;
    if (n <= 0) return;
    if (bias) v += cpu_load_part(bias, n);
    if (add) v = cpu_load_part(c, n) + v;
    cpu_store_part(c, v, n);
}

/* The same for a tile that hangs over the last column; out of line, it is rare. */
__attribute__((noinline, unused)) static void tile_store_edge(const float *tile, int vectors, const tile_out *out)
{
    for (int i = 0; i < out->rows; i++)
        for (int j = 0; j < vectors; j++) {
            int at = j * CPU_LANES;
            tile_store(out->row[i] + out->col + at, cpu_load(tile + i * vectors * CPU_LANES + at), out->cols - at,
                       out->bias ? out->bias + at : NULL, out->add);
        }
}

/* b_step 0: taken from the walk. */
CPU_INLINE void tile_run(const int rows, const int vectors, const int64_t a_row, const int64_t a_step,
                         const int64_t b_step, const tile_walk *walk, const float *a, const float *b,
                         const tile_out *out)
{
    const float *a0 = a, *b0 = b;
    const int64_t step = b_step ? b_step : walk->b_step;
    cpu_vec acc[2 * GEMM_MR];
#pragma GCC unroll 28
    for (int i = 0; i < rows * vectors; i++) acc[i] = (cpu_vec){0};
#pragma GCC unroll 1
    for (int64_t t = 0; t < walk->segments; t++) {
        if (walk->a_at) a = a0 + walk->a_at[t];
        if (walk->b_at) b = b0 + walk->b_at[t];
#pragma GCC unroll 1
        for (int64_t k = walk->depth; k > 0; k--) {
            cpu_vec w0 = cpu_load(b);
            cpu_vec w1 = vectors == 2 ? cpu_load(b + CPU_LANES) : w0;
#pragma GCC unroll 28
            for (int i = 0; i < rows; i++) {
                cpu_vec x = cpu_splat(a[i * a_row]);
                acc[i * vectors] += x * w0;
                if (vectors == 2) acc[i * vectors + 1] += x * w1;
            }
            a += a_step;
            b += step;
        }
    }
    if (out->cols == vectors * CPU_LANES) {
#pragma GCC unroll 28
        for (int i = 0; i < rows; i++) {
            if (i >= out->rows) break;
            float *c = out->row[i] + out->col;
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++)
                tile_store(c + j * CPU_LANES, acc[i * vectors + j], CPU_LANES,
                           out->bias ? out->bias + j * CPU_LANES : NULL, out->add);
        }
    } else {
        float tile[2 * GEMM_MR * CPU_LANES];
#pragma GCC unroll 28
        for (int i = 0; i < rows * vectors; i++) cpu_store(tile + i * CPU_LANES, acc[i]);
        tile_store_edge(tile, vectors, out);
    }
}

/*
 * Few columns: a vector holds CPU_LANES / group of them, each in `group` neighbouring lanes that take turns along k. So
 * a(i, k .. k+group) is broadcast as a whole, and the lanes of a column are added at the end. b is packed to match.
 */
#if CPU_LANES > 4
#define TILE_GROUPS (CPU_LANES / 4) /* the largest group: 4 columns remain */

static inline cpu_vec splat_group(const float *p, const int group)
{
#if CPU_LANES == 16
    if (group == 4) {
        __m128 x = _mm_loadu_ps(p);
        return (cpu_vec)_mm512_broadcast_f32x4(x);
    }
#endif
    typedef double pairs __attribute__((vector_size(CPU_LANES * 4)));
    double x;
    memcpy(&x, p, sizeof x);
    (void)group;
#if CPU_LANES == 16
    return (cpu_vec)(pairs){x, x, x, x, x, x, x, x};
#else
    return (cpu_vec)(pairs){x, x, x, x};
#endif
}

/* Sums of groups of lanes, in the first CPU_LANES / group lanes. */
static inline cpu_vec fold_groups(cpu_vec v, const int group)
{
#if CPU_LANES == 16
    v += __builtin_shuffle(v, (cpu_ivec){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
    if (group == 2) return __builtin_shuffle(v, (cpu_ivec){0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15});
    v += __builtin_shuffle(v, (cpu_ivec){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
    return __builtin_shuffle(v, (cpu_ivec){0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15});
#else
    (void)group;
    v += __builtin_shuffle(v, (cpu_ivec){1, 0, 3, 2, 5, 4, 7, 6});
    return __builtin_shuffle(v, (cpu_ivec){0, 2, 4, 6, 1, 3, 5, 7});
#endif
}

/* The depth of a segment is a multiple of group. */
CPU_INLINE void tile_run_groups(const int rows, const int group, const int64_t a_row, const tile_walk *walk,
                                const float *a, const float *b, const tile_out *out)
{
    const float *a0 = a;
    cpu_vec acc[2 * GEMM_MR];
#pragma GCC unroll 28
    for (int i = 0; i < rows; i++) acc[i] = (cpu_vec){0};
#pragma GCC unroll 1
    for (int64_t t = 0; t < walk->segments; t++) {
        if (walk->a_at) a = a0 + walk->a_at[t];
#pragma GCC unroll 1
        for (int64_t k = walk->depth; k > 0; k -= group) {
            cpu_vec w = cpu_load(b);
#pragma GCC unroll 28
            for (int i = 0; i < rows; i++) acc[i] += splat_group(a + i * a_row, group) * w;
            a += group;
            b += CPU_LANES;
        }
    }
#pragma GCC unroll 28
    for (int i = 0; i < rows; i++) {
        if (i >= out->rows) break;
        tile_store(out->row[i] + out->col, fold_groups(acc[i], group), out->cols, out->bias, out->add);
    }
}
#endif

/* ---------------------------------------------------------------------------------------- strips of B */

/* A strip of up to GEMM_NR columns: two vectors, or what suits the few columns at the end. */
typedef enum strip_kind { STRIP_WIDE, STRIP_NARROW, STRIP_PAIRS, STRIP_FOURS, STRIP_KINDS } strip_kind;

static inline strip_kind strip_kind_of(int64_t cols)
{
    if (cols > CPU_LANES) return STRIP_WIDE;
    if (CPU_LANES == 16 && cols <= 4) return STRIP_FOURS;
    if (CPU_LANES > 4 && cols <= CPU_LANES / 2) return STRIP_PAIRS;
    return STRIP_NARROW;
}
static inline int strip_group(strip_kind kind)
{
    return kind == STRIP_FOURS ? 4 : kind == STRIP_PAIRS ? 2 : 1;
}
/* Tiles have a multiple of so many rows, up to GEMM_MR / 2 times as many. */
static inline int64_t strip_grain(strip_kind kind)
{
    return kind == STRIP_WIDE ? 2 : 4;
}
/* Rows of a tile when `rows` are cut as evenly as the grain allows: no small rest, which would starve the pipeline. */
static inline int64_t tile_rows(int64_t rows, int64_t grain)
{
    int64_t tiles = cpu_ceil_div(rows, grain * (GEMM_MR / 2));
    return cpu_ceil_div(cpu_ceil_div(rows, tiles), grain) * grain;
}

#if CPU_LANES == 16
#define TILE_SIZES(X, family, row)                                                                                     \
    X(family, row, 1)                                                                                                  \
    X(family, row, 2) X(family, row, 3) X(family, row, 4) X(family, row, 5) X(family, row, 6) X(family, row, 7)
#else
#define TILE_SIZES(X, family, row) X(family, row, 1) X(family, row, 2) X(family, row, 3)
#endif
#define TILE_VARIANTS (GEMM_MR / 2 + 1)
#define TILE_NAME(family, kind, v) family##_##kind##v
#define TILE_FUNCTION(family, kind, v)                                                                                 \
    static void TILE_NAME(family, kind, v)(const tile_walk *w, const float *a, const float *b, const tile_out *out)

#define TILE_DEFINE_WIDE(family, row, v)                                                                               \
    TILE_FUNCTION(family, wide, v)                                                                                     \
    {                                                                                                                  \
        tile_run(2 * v, 2, row, 1, 2 * CPU_LANES, w, a, b, out);                                                       \
    }
#define TILE_DEFINE_NARROW(family, row, v)                                                                             \
    TILE_FUNCTION(family, narrow, v)                                                                                   \
    {                                                                                                                  \
        tile_run(4 * v, 1, row, 1, CPU_LANES, w, a, b, out);                                                           \
    }
#define TILE_DEFINE_PAIRS(family, row, v)                                                                              \
    TILE_FUNCTION(family, pairs, v)                                                                                    \
    {                                                                                                                  \
        tile_run_groups(4 * v, 2, row, w, a, b, out);                                                                  \
    }
#define TILE_DEFINE_FOURS(family, row, v)                                                                              \
    TILE_FUNCTION(family, fours, v)                                                                                    \
    {                                                                                                                  \
        tile_run_groups(4 * v, 4, row, w, a, b, out);                                                                  \
    }
#define TILE_ENTRY_WIDE(family, row, v) TILE_NAME(family, wide, v),
#define TILE_ENTRY_NARROW(family, row, v) TILE_NAME(family, narrow, v),
#define TILE_ENTRY_PAIRS(family, row, v) TILE_NAME(family, pairs, v),
#define TILE_ENTRY_FOURS(family, row, v) TILE_NAME(family, fours, v),

/* Kernels [kind][rows / grain] for rows of A that lie `row` floats apart. */
#if CPU_LANES == 16
#define TILE_DEFINE(family, row)                                                                                       \
    TILE_SIZES(TILE_DEFINE_WIDE, family, row)                                                                          \
    TILE_SIZES(TILE_DEFINE_NARROW, family, row)                                                                        \
    TILE_SIZES(TILE_DEFINE_PAIRS, family, row)                                                                         \
    TILE_SIZES(TILE_DEFINE_FOURS, family, row)                                                                         \
    static tile_kernel *const family[STRIP_KINDS][TILE_VARIANTS] = {                                                   \
        {NULL, TILE_SIZES(TILE_ENTRY_WIDE, family, row)},                                                              \
        {NULL, TILE_SIZES(TILE_ENTRY_NARROW, family, row)},                                                            \
        {NULL, TILE_SIZES(TILE_ENTRY_PAIRS, family, row)},                                                             \
        {NULL, TILE_SIZES(TILE_ENTRY_FOURS, family, row)}};
#elif CPU_LANES == 8
#define TILE_DEFINE(family, row)                                                                                       \
    TILE_SIZES(TILE_DEFINE_WIDE, family, row)                                                                          \
    TILE_SIZES(TILE_DEFINE_NARROW, family, row)                                                                        \
    TILE_SIZES(TILE_DEFINE_PAIRS, family, row)                                                                         \
    static tile_kernel *const family[STRIP_KINDS][TILE_VARIANTS] = {                                                   \
        {NULL, TILE_SIZES(TILE_ENTRY_WIDE, family, row)},                                                              \
        {NULL, TILE_SIZES(TILE_ENTRY_NARROW, family, row)},                                                            \
        {NULL, TILE_SIZES(TILE_ENTRY_PAIRS, family, row)}};
#else
#define TILE_DEFINE(family, row)                                                                                       \
    TILE_SIZES(TILE_DEFINE_WIDE, family, row)                                                                          \
    TILE_SIZES(TILE_DEFINE_NARROW, family, row)                                                                        \
    static tile_kernel *const family[STRIP_KINDS][TILE_VARIANTS] = {                                                   \
        {NULL, TILE_SIZES(TILE_ENTRY_WIDE, family, row)}, {NULL, TILE_SIZES(TILE_ENTRY_NARROW, family, row)}};
#endif

/* Sums of outer products: rows of A lie side by side, `step` floats from one k to the next; b_step is the walk's.
 * Kernels [two vectors?][rows / 2]. */
#define TILE_OUTER_WIDE(family, step, v)                                                                               \
    TILE_FUNCTION(family, wide, v)                                                                                     \
    {                                                                                                                  \
        tile_run(2 * v, 2, 1, step, 0, w, a, b, out);                                                                  \
    }
#define TILE_OUTER_NARROW(family, step, v)                                                                             \
    TILE_FUNCTION(family, narrow, v)                                                                                   \
    {                                                                                                                  \
        tile_run(2 * v, 1, 1, step, 0, w, a, b, out);                                                                  \
    }
#define TILE_DEFINE_OUTER(family, step)                                                                                \
    TILE_SIZES(TILE_OUTER_WIDE, family, step)                                                                          \
    TILE_SIZES(TILE_OUTER_NARROW, family, step)                                                                        \
    static tile_kernel *const family[2][TILE_VARIANTS] = {{NULL, TILE_SIZES(TILE_ENTRY_NARROW, family, step)},         \
                                                          {NULL, TILE_SIZES(TILE_ENTRY_WIDE, family, step)}};

#endif
