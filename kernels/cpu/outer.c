/*
 * outer.c - weight gradients, dw = sum over pixels of g^T patch, and sums of columns (bias gradients).
 *
 * The sum runs over pixels, which are many, into a matrix that may be small. Work is cut into (slice of pixels) x (block of
 * columns); one slice adds its pixels in order, chunk by chunk, and the slices are added in order at the end. Cuts depend
 * on the shape alone, so the result is bit-equal for any number of threads.
 */
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/patches.h"

#define OUTER_CHUNK 128   /* pixels between two passes over the sums: patches of a strip fit in L1 */
#define OUTER_COLUMNS 192 /* a multiple of GEMM_NR */
#define OUTER_LD 208      /* rows of patches an odd number of cache lines apart, so that they spread over the sets of L1 */
#define OUTER_STEP 16     /* g is repacked: [tile][pixel][OUTER_STEP rows], one cache line for each pixel */

#define OUTER_TILE(family, v)                                                                                    \
    static void family##_2x##v(int64_t depth, const float *a, int64_t a_step, const float *b, int64_t ldb,       \
                               const tile_out *out)                                                              \
    {                                                                                                            \
        (void)a_step, (void)ldb;                                                                                 \
        tile_run(2 * v, 2, depth, a, 1, OUTER_STEP, b, OUTER_LD, out);                                           \
    }                                                                                                            \
    static void family##_1x##v(int64_t depth, const float *a, int64_t a_step, const float *b, int64_t ldb,       \
                               const tile_out *out)                                                              \
    {                                                                                                            \
        (void)a_step, (void)ldb;                                                                                 \
        tile_run(2 * v, 1, depth, a, 1, OUTER_STEP, b, OUTER_LD, out);                                           \
    }
TILE_SIZES(OUTER_TILE, outer)
#define OUTER_WIDE(family, v) family##_2x##v,
#define OUTER_NARROW(family, v) family##_1x##v,
static tile_kernel *const outer_wide[TILE_VARIANTS] = {NULL, TILE_SIZES(OUTER_WIDE, outer)};
static tile_kernel *const outer_narrow[TILE_VARIANTS] = {NULL, TILE_SIZES(OUTER_NARROW, outer)};

/* Rows of dw that one tile covers: an even number, as equal as can be. */
static int64_t tile_rows(int64_t rows)
{
    return cpu_ceil_div(cpu_ceil_div(rows, cpu_ceil_div(rows, GEMM_MR)), 2) * 2;
}

static void pack_g(const float *g, int64_t ld, int64_t rows, int64_t each, int64_t depth, float *dst)
{
    for (int64_t i = 0; i < rows; i += each, dst += OUTER_CHUNK * OUTER_STEP) {
        int64_t n = cpu_min64(each, rows - i);
        for (int64_t m = 0; m < depth; m++) {
            gemm_copy(dst + m * OUTER_STEP, g + m * ld + i, n);
            if (n % 2) dst[m * OUTER_STEP + n] = 0.0f;
        }
    }
}

static void outer_tiles(const float *g, int64_t rows, int64_t each, int64_t depth, const float *panel, int64_t cols, float *dw,
                        int64_t dw_ld, bool add)
{
    for (int64_t j = 0; j < cols; j += GEMM_NR) {
        tile_kernel *const *kernels = cols - j > CPU_LANES ? outer_wide : outer_narrow;
        const float *a = g;
        for (int64_t i = 0; i < rows; i += each, a += OUTER_CHUNK * OUTER_STEP) {
            float *row[GEMM_MR];
            tile_out out = {.row = row, .col = j, .rows = (int)cpu_min64(each, rows - i),
                            .cols = (int)cpu_min64(GEMM_NR, cols - j), .add = add};
            for (int t = 0; t < out.rows; t++) row[t] = dw + (i + t) * dw_ld;
            kernels[cpu_ceil_div(out.rows, 2)](depth, a, 0, panel + j, 0, &out);
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
    int64_t each = tile_rows(rows), panel_floats = OUTER_CHUNK * OUTER_LD;
    int64_t own_floats = panel_floats + cpu_ceil_div(rows, each) * OUTER_CHUNK * OUTER_STEP;
    int64_t sum_floats = slices > 1 ? slices * rows * columns : 0;
    float *memory = env->scratch(env, (size_t)(threads * own_floats + sum_floats) * sizeof(float));
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    float *sums = memory + threads * own_floats;

#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t u = 0; u < slices * blocks; u++) {
        float *panel = memory + omp_get_thread_num() * own_floats, *g_copy = panel + panel_floats;
        int64_t slice = u / blocks, j0 = u % blocks * OUTER_COLUMNS, cols = cpu_min64(OUTER_COLUMNS, columns - j0);
        int64_t whole = cpu_ceil_div(cols, CPU_LANES) * CPU_LANES;
        float *out = (slices > 1 ? sums + slice * rows * columns : dw) + j0;
        int64_t m1 = cpu_min64(pixels, (slice + 1) * per_slice * OUTER_CHUNK);
        bool add = slices == 1 && accumulate;
        for (int64_t m0 = slice * per_slice * OUTER_CHUNK; m0 < m1; m0 += OUTER_CHUNK) {
            int64_t depth = cpu_min64(OUTER_CHUNK, m1 - m0);
            CPU_ISA(patches_fetch)(x, m0, depth, j0, cols, panel, OUTER_LD);
            if (whole > cols)
                for (int64_t m = 0; m < depth; m++) gemm_clear(panel + m * OUTER_LD + cols, whole - cols);
            pack_g(g + m0 * ld, ld, rows, each, depth, g_copy);
            outer_tiles(g_copy, rows, each, depth, panel, cols, out, columns, add);
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
