/*
 * outer.c - weight gradients, dw = sum over pixels of g^T patch, and sums of columns (bias gradients).
 *
 * The sum runs over pixels, which are many, into a matrix that may be small. Work is cut into (slice of pixels) x (block of
 * columns); one slice adds its pixels in order, chunk by chunk, and the slices are added in order at the end. Cuts depend
 * on the shape alone, so the result is bit-equal for any number of threads.
 */
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/patches.h"

#define OUTER_CHUNK 128  /* pixels between two passes over the sums: patches of a strip fit in L1 */
#define OUTER_COLUMNS 192 /* a multiple of GEMM_NR */

#define OUTER_TILE(family, v)                                                                                    \
    static void family##_2x##v(int64_t depth, const float *a, int64_t a_step, const float *b, int64_t ldb,       \
                               const tile_out *out)                                                              \
    {                                                                                                            \
        tile_run(2 * v, 2, depth, a, 1, a_step, b, ldb, out);                                                    \
    }                                                                                                            \
    static void family##_1x##v(int64_t depth, const float *a, int64_t a_step, const float *b, int64_t ldb,       \
                               const tile_out *out)                                                              \
    {                                                                                                            \
        tile_run(4 * v, 1, depth, a, 1, a_step, b, ldb, out);                                                    \
    }
TILE_SIZES(OUTER_TILE, outer)
#define OUTER_WIDE(family, v) family##_2x##v,
#define OUTER_NARROW(family, v) family##_1x##v,
static tile_kernel *const outer_wide[TILE_VARIANTS] = {NULL, TILE_SIZES(OUTER_WIDE, outer)};
static tile_kernel *const outer_narrow[TILE_VARIANTS] = {NULL, TILE_SIZES(OUTER_NARROW, outer)};

/* Reads up to 3 floats past row i0 + rows of g when the tile is larger than what is left: see `pad`. */
static void outer_tiles(const float *g, int64_t ld, int64_t rows, int64_t depth, const float *panel, int64_t cols, float *dw,
                        int64_t dw_ld, bool add)
{
    for (int64_t j = 0; j < cols; j += GEMM_NR) {
        bool wide = cols - j > CPU_LANES;
        int64_t most = wide ? GEMM_MR : 2 * GEMM_MR, grain = wide ? 2 : 4;
        int64_t tiles = cpu_ceil_div(rows, most), each = cpu_ceil_div(cpu_ceil_div(rows, tiles), grain) * grain;
        for (int64_t i = 0; i < rows; i += each) {
            float *row[2 * GEMM_MR];
            tile_out out = {.row = row, .col = j, .rows = (int)cpu_min64(each, rows - i),
                            .cols = (int)cpu_min64(GEMM_NR, cols - j), .add = add};
            for (int t = 0; t < out.rows; t++) row[t] = dw + (i + t) * dw_ld;
            int64_t v = cpu_ceil_div(out.rows, grain);
            (wide ? outer_wide : outer_narrow)[v](depth, g + i, ld, panel + j, OUTER_COLUMNS, &out);
        }
    }
}

int CPU_ISA(outer)(sag_kernel_env *env, const patches *x, int64_t pixels, const float *g, int64_t rows, int64_t ld,
                   float *dw, int accumulate)
{
    int64_t columns = x->r * x->s * x->c, blocks = cpu_ceil_div(columns, OUTER_COLUMNS);
    int64_t chunks = cpu_ceil_div(pixels, OUTER_CHUNK);
    /* Slices: enough for 32 pieces of work, none below 8 chunks, partial sums not above 16 MiB unless one suffices. */
    int64_t slices = cpu_min64(cpu_ceil_div(32, blocks), cpu_ceil_div(chunks, 8));
    slices = cpu_min64(slices, 4 * 1024 * 1024 / (rows * columns) + 1);
    int64_t per_slice = cpu_ceil_div(chunks, slices);
    slices = cpu_ceil_div(chunks, per_slice);

    int threads = pixels * rows * columns < 32768 ? 1 : env->threads;
    int64_t panel_floats = OUTER_CHUNK * OUTER_COLUMNS;
    int64_t g_ld = cpu_ceil_div(rows, 4) * 4, g_floats = cpu_ceil_div(OUTER_CHUNK * g_ld, 16) * 16;
    bool pad = rows % 4 != 0; /* tiles step by 2 or 4 rows: a copy of g with whole steps */
    int64_t each = panel_floats + (pad ? g_floats : 0);
    int64_t sum_floats = slices > 1 ? slices * rows * columns : 0;
    float *memory = env->scratch(env, (size_t)(threads * each + sum_floats) * sizeof(float));
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    float *sums = memory + threads * each;

#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t u = 0; u < slices * blocks; u++) {
        float *panel = memory + omp_get_thread_num() * each, *g_copy = panel + panel_floats;
        int64_t slice = u / blocks, j0 = u % blocks * OUTER_COLUMNS, cols = cpu_min64(OUTER_COLUMNS, columns - j0);
        int64_t whole = cpu_ceil_div(cols, CPU_LANES) * CPU_LANES;
        float *out = (slices > 1 ? sums + slice * rows * columns : dw) + j0;
        int64_t m1 = cpu_min64(pixels, (slice + 1) * per_slice * OUTER_CHUNK);
        bool add = slices == 1 && accumulate;
        for (int64_t m0 = slice * per_slice * OUTER_CHUNK; m0 < m1; m0 += OUTER_CHUNK) {
            int64_t depth = cpu_min64(OUTER_CHUNK, m1 - m0);
            CPU_ISA(patches_fetch)(x, m0, depth, j0, cols, panel, OUTER_COLUMNS);
            if (whole > cols)
                for (int64_t m = 0; m < depth; m++) gemm_clear(panel + m * OUTER_COLUMNS + cols, whole - cols);
            const float *left = g + m0 * ld;
            int64_t left_ld = ld;
            if (pad) {
                for (int64_t m = 0; m < depth; m++) {
                    gemm_copy(g_copy + m * g_ld, left + m * ld, rows);
                    gemm_clear(g_copy + m * g_ld + rows, g_ld - rows);
                }
                left = g_copy, left_ld = g_ld;
            }
            outer_tiles(left, left_ld, rows, depth, panel, cols, out, columns, add);
            add = true;
        }
    }
    if (slices > 1) {
        int64_t n = rows * columns;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && n > 16384)
        for (int64_t b = 0; b < cpu_ceil_div(n, 4096); b++) {
            int64_t from = b * 4096, to = cpu_min64(n, from + 4096);
            if (!accumulate) gemm_clear(dw + from, to - from);
            for (int64_t s = 0; s < slices; s++)
                for (int64_t i = from; i < to; i++) dw[i] += sums[s * n + i];
        }
    }
    return SAG_KERNEL_OK;
}

#define SUM_ROWS 512 /* rows of one partial sum */

int CPU_ISA(column_sum)(sag_kernel_env *env, const float *x, int64_t rows, int64_t cols, float *y, int accumulate)
{
    int64_t blocks = cpu_ceil_div(rows, SUM_ROWS);
    float *sums = env->scratch(env, (size_t)(blocks * cols) * sizeof(float));
    if (!sums) return SAG_KERNEL_NO_MEMORY;
    int threads = rows * cols < 65536 ? 1 : env->threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t b = 0; b < blocks; b++) {
        float *s = sums + b * cols;
        gemm_clear(s, cols);
        for (int64_t m = b * SUM_ROWS; m < cpu_min64(rows, (b + 1) * SUM_ROWS); m++)
            for (int64_t j = 0; j < cols; j++) s[j] += x[m * cols + j];
    }
    for (int64_t j = 0; j < cols; j++) {
        double s = accumulate ? (double)y[j] : 0.0;
        for (int64_t b = 0; b < blocks; b++) s += (double)sums[b * cols + j];
        y[j] = (float)s;
    }
    return SAG_KERNEL_OK;
}
