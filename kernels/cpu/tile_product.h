/*
 * tile_product.h - the small matrix product inside fused kernels: C[m][n] (+)= sum_k A[m][k] B[k][n] on operands that
 * sit in the caches. Lanes run over n, a block of rows x vectors of C stays in registers over the whole depth.
 *
 * A is read by single elements at any row and depth stride (so A may be stored either way round); rows of B and C are
 * whole vectors: the caller pads them. The order of the sum over k is the same for every m, n and block shape.
 */
#ifndef SAG_CPU_TILE_PRODUCT_H
#define SAG_CPU_TILE_PRODUCT_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/transpose.h"

/* Accumulators + one row of B + one broadcast fill the 32 or 16 vector registers; narrow blocks have more rows, so that
 * there are sums enough to hide the latency of a multiply-add. */
#if CPU_LANES == 16
#define TILE_ROWS 6
#define TILE_VECS 4
#define NARROW_ROWS 8
#elif CPU_LANES == 8
#define TILE_ROWS 6
#define TILE_VECS 2
#define NARROW_ROWS 8
#else
#define TILE_ROWS 4
#define TILE_VECS 2
#define NARROW_ROWS 6
#endif

typedef struct tile_operands {
    const float *a, *b;
    float *c;
    int64_t a_row, a_depth, b_row, c_row; /* strides in floats */
    int64_t depth;
    const float *start; /* what the sums of a row begin with; NULL: 0 */
    bool accumulate;
} tile_operands;

CPU_INLINE void tile_block(const int rows, const int vecs, const tile_operands *t, int64_t row, int64_t column)
{
    const float *a = t->a + row * t->a_row, *b = t->b + column;
    float *c = t->c + row * t->c_row + column;
    const int64_t a_row = t->a_row, a_depth = t->a_depth, b_row = t->b_row, depth = t->depth;
    cpu_vec sum[NARROW_ROWS][TILE_VECS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) sum[r][v] = t->start ? cpu_splat(t->start[row + r]) : (cpu_vec){0};
    for (int64_t k = 0; k < depth; k++) {
        cpu_vec line[TILE_VECS];
        for (int v = 0; v < vecs; v++) line[v] = cpu_load(b + v * CPU_LANES);
        for (int r = 0; r < rows; r++) {
            const cpu_vec x = cpu_splat(a[r * a_row]);
            for (int v = 0; v < vecs; v++) sum[r][v] += x * line[v];
        }
        a += a_depth;
        b += b_row;
    }
    for (int r = 0; r < rows; r++, c += t->c_row)
        for (int v = 0; v < vecs; v++) {
            float *at = c + v * CPU_LANES;
            cpu_store(at, t->accumulate ? cpu_load(at) + sum[r][v] : sum[r][v]);
        }
}

/* Blocks of rows that differ by one at most: a last block of one row would wait for its own sums. */
CPU_INLINE void tile_panel(const int vecs, const tile_operands *t, int64_t m, int64_t column)
{
    const int64_t most = vecs == TILE_VECS ? TILE_ROWS : NARROW_ROWS;
    int64_t blocks = cpu_ceil_div(m, most);
    for (int64_t row = 0, rows; row < m; row += rows, blocks--) {
        rows = cpu_ceil_div(m - row, blocks);
        switch (rows) {
#if NARROW_ROWS > 6
        case 8:
            if (vecs < TILE_VECS) tile_block(8, vecs, t, row, column);
            break;
        case 7:
            if (vecs < TILE_VECS) tile_block(7, vecs, t, row, column);
            break;
#endif
        case 6:
            if (vecs < TILE_VECS || TILE_ROWS == 6) tile_block(6, vecs, t, row, column);
            break;
        case 5:
            if (vecs < TILE_VECS || TILE_ROWS == 6) tile_block(5, vecs, t, row, column);
            break;
        case 4: tile_block(4, vecs, t, row, column); break;
        case 3: tile_block(3, vecs, t, row, column); break;
        case 2: tile_block(2, vecs, t, row, column); break;
        case 1: tile_block(1, vecs, t, row, column); break;
        default: break;
        }
    }
}

/* m rows, `vectors` * CPU_LANES columns. A panel of B stays in L1 while all rows pass over it. */
static inline void tile_product(const tile_operands *t, int64_t m, int64_t vectors)
{
    int64_t v = 0;
    for (; v + TILE_VECS <= vectors; v += TILE_VECS) tile_panel(TILE_VECS, t, m, v * CPU_LANES);
    switch (vectors - v) {
#if TILE_VECS > 2
    case 3: tile_panel(3, t, m, v * CPU_LANES); break;
    case 2: tile_panel(2, t, m, v * CPU_LANES); break;
#endif
    case 1: tile_panel(1, t, m, v * CPU_LANES); break;
    default: break;
    }
}

/*
 * The same with lanes over the depth, for a C of few columns: C[m][n] (+)= sum over k of A[m][k] B[n][k], the depth in
 * whole vectors. cols divides CPU_LANES, rows of C follow each other. CPU_LANES sums of vectors stay in registers and
 * are then added across, all at once. Rows of A up to a multiple of CPU_LANES / cols are read; their sums are not
 * stored.
 */
/* A group of 2 s lanes holds partial sums of one row: its halves are added, which leaves room for the row of a second
 * vector: its own lanes stay (a blend), those across come over (a shuffle). */
#define SUM_STAY(l, s) ((l) & (s) ? CPU_LANES + (l) : (l))
#define SUM_CROSS(l, s) ((l) & (s) ? CPU_LANES + (l) - (s) : (l) + (s))
#define SUM_STAGE(x, s)                                                                                                \
    _Pragma("GCC unroll 8") for (int i_ = 0; i_ < (s); i_++) x[i_] =                                                   \
        __builtin_shuffle(x[i_], x[i_ + (s)], EXCHANGE(SUM_STAY, s)) +                                                 \
        __builtin_shuffle(x[i_], x[i_ + (s)], EXCHANGE(SUM_CROSS, s));

/* Lane i is the sum of the lanes of x[i]. */
CPU_INLINE cpu_vec sum_across(cpu_vec *x)
{
#if CPU_LANES >= 16
    SUM_STAGE(x, 8)
#endif
#if CPU_LANES >= 8
    SUM_STAGE(x, 4)
#endif
    SUM_STAGE(x, 2)
    SUM_STAGE(x, 1)
    return x[0];
}

CPU_INLINE void lane_block(const int cols, const tile_operands *t, int64_t row, int64_t rows, int64_t vectors)
{
    const int each = CPU_LANES / cols;
    const float *a = t->a + row * t->a_row, *b = t->b;
    const int64_t a_row = t->a_row, b_row = t->b_row;
    cpu_vec sum[CPU_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < CPU_LANES; i++) sum[i] = (cpu_vec){0};
    for (int64_t v = 0; v < vectors; v++, a += CPU_LANES, b += CPU_LANES) {
        cpu_vec column[CPU_LANES];
        for (int n = 0; n < cols; n++) column[n] = cpu_load(b + n * b_row);
        for (int m = 0; m < each; m++) {
            const cpu_vec x = cpu_load(a + m * a_row);
            for (int n = 0; n < cols; n++) sum[m * cols + n] += x * column[n];
        }
    }
    float *c = t->c + row * cols;
    cpu_vec total = sum_across(sum);
    if (each <= rows) {
        cpu_store(c, t->accumulate ? cpu_load(c) + total : total);
        return;
    }
    for (int64_t i = 0; i < rows * cols; i++) c[i] = t->accumulate ? c[i] + total[i] : total[i];
}

/* More columns than these are better off in lanes, even in half of them. */
static inline bool lanes_fit(int64_t cols)
{
    return cols == 1 || cols == 2 || (cols == 4 && CPU_LANES >= 8) || (cols == 8 && CPU_LANES >= 16);
}

static inline void lane_product(const tile_operands *t, int64_t m, int64_t cols, int64_t vectors)
{
    for (int64_t row = 0; row < m; row += CPU_LANES / cols) {
        switch (cols) {
        case 1: lane_block(1, t, row, m - row, vectors); break;
        case 2: lane_block(2, t, row, m - row, vectors); break;
        case 4: lane_block(4, t, row, m - row, vectors); break;
#if CPU_LANES == 16
        case 8: lane_block(8, t, row, m - row, vectors); break;
#endif
        default: break;
        }
    }
}

/* n rounded up to whole vectors. */
static inline int64_t tile_padded(int64_t n)
{
    return cpu_ceil_div(n, CPU_LANES) * CPU_LANES;
}

#endif
