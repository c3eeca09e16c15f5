/*
 * outer.c - weight gradients, dw = sum over pixels of g^T patch, and sums of columns (bias gradients).
 *
 * The sum runs over pixels, which are many, into a matrix that may be small. The pixels are cut into slices; one slice
 * adds its pixels in order, chunk by chunk, and the slices are added in order at the end. The cuts depend on the shape
 * alone, so the result is bit-equal for any number of threads. Patches come in one of two ways. Wide maps: a panel of
 * patches is fetched for a block of columns of dw. Narrow maps: rows of the map are copied with their borders, and each
 * row of the kernel reads its s * c columns in place.
 */
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/patches.h"

#define OUTER_CHUNK 128   /* pixels between two passes over the sums: patches of a strip fit in L1 */
#define OUTER_COLUMNS 384 /* a multiple of GEMM_NR */
#define OUTER_LD 400  /* rows of patches an odd number of cache lines apart, so that they spread over the sets of L1 */
#define OUTER_STEP 16 /* g is repacked: [tile][pixel][OUTER_STEP rows], one cache line for each pixel */
#define OUTER_BAND_CHANNELS 64
#define OUTER_BAND_COLS 512

TILE_DEFINE_OUTER(products, OUTER_STEP)

typedef struct outer_job {
    const patches *x;
    const float *g;
    int64_t rows, ld, columns;    /* of g and of dw */
    int64_t each;                 /* rows of a tile */
    int64_t chunk;                /* pixels of a chunk, at most */
    int64_t g_floats, own_floats; /* a thread's copies: of g, of g and patches */
} outer_job;

/* `depth` pixels of g from m0, tile by tile. */
static void pack_g(const outer_job *o, int64_t m0, int64_t depth, float *dst)
{
    for (int64_t i = 0; i < o->rows; i += o->each, dst += o->chunk * OUTER_STEP) {
        int n = (int)cpu_min64(o->each, o->rows - i);
        const float *src = o->g + m0 * o->ld + i;
        for (int64_t m = 0; m < depth; m++, src += o->ld) {
            if (CPU_LANES == OUTER_STEP) {
                cpu_store(dst + m * OUTER_STEP, cpu_load_part(src, n));
            } else {
                gemm_copy(dst + m * OUTER_STEP, src, n);
                dst[m * OUTER_STEP + n] = 0.0f; /* tiles have an even number of rows */
            }
        }
    }
}

/* dw[i][j] (+)= over the pixels of `walk`, j < cols */
static void outer_tiles(const outer_job *o, const tile_walk *walk, const float *g, const float *panel, int64_t cols,
                        float *dw, bool add)
{
    for (int64_t j = 0; j < cols; j += GEMM_NR) {
        tile_kernel *const *kernels = products[cols - j > CPU_LANES];
        const float *a = g;
        for (int64_t i = 0; i < o->rows; i += o->each, a += o->chunk * OUTER_STEP) {
            float *row[GEMM_MR];
            tile_out out = {.row = row,
                            .col = j,
                            .rows = (int)cpu_min64(o->each, o->rows - i),
                            .cols = (int)cpu_min64(GEMM_NR, cols - j),
                            .add = add};
            for (int t = 0; t < out.rows; t++) row[t] = dw + (i + t) * o->columns;
            kernels[cpu_ceil_div(out.rows, 2)](walk, a, panel + j, &out);
        }
    }
}

/* ------------------------------------------------------------------------------------------- wide maps */

static void panel_slice(const outer_job *o, int64_t m0, int64_t m1, int64_t j0, float *memory, float *dw, bool add)
{
    float *g = memory, *panel = memory + o->g_floats;
    int64_t cols = cpu_min64(OUTER_COLUMNS, o->columns - j0), whole = cpu_ceil_div(cols, CPU_LANES) * CPU_LANES;
    for (; m0 < m1; m0 += o->chunk, add = true) {
        int64_t depth = cpu_min64(o->chunk, m1 - m0);
        tile_walk walk = {.segments = 1, .depth = depth, .b_step = OUTER_LD};
        CPU_ISA(patches_fetch)(o->x, m0, depth, j0, cols, panel, OUTER_LD);
        for (int64_t m = 0; whole > cols && m < depth; m++) gemm_clear(panel + m * OUTER_LD + cols, whole - cols);
        pack_g(o, m0, depth, g);
        outer_tiles(o, &walk, g, panel, cols, dw + j0, add);
    }
}

/* ----------------------------------------------------------------------------------------- narrow maps */

typedef struct band_shape {
    int64_t out_rows, bands; /* rows of the grid in a chunk; chunks of an image */
    int64_t in_cols, row_ld; /* pixels of a copied row, floats from one row to the next */
    int64_t floats;
} band_shape;

static bool band_fits(const patches *x)
{
    return x->c <= OUTER_BAND_CHANNELS && x->cols >= 8 && x->cols <= OUTER_BAND_COLS && x->rows * x->cols >= 64 &&
           x->r * x->s > 1;
}

static band_shape band_of(const patches *x)
{
    band_shape b = {.out_rows = cpu_min64(x->rows, x->cols < OUTER_CHUNK ? OUTER_CHUNK / x->cols : 1)};
    b.bands = cpu_ceil_div(x->rows, b.out_rows);
    b.in_cols = (x->cols - 1) * x->stride + x->s;
    b.row_ld = cpu_ceil_div(b.in_cols * x->c, 16) * 16;
    b.floats = ((b.out_rows - 1) * x->stride + x->r) * b.row_ld + GEMM_NR; /* vectors reach over the end of a run */
    return b;
}

/* Chunks c0 .. c1, each some rows of one image. */
static void band_slice(const outer_job *o, const band_shape *b, int64_t c0, int64_t c1, float *memory, float *dw,
                       bool add)
{
    const patches *x = o->x;
    float *g = memory, *band = memory + o->g_floats;
    int64_t run = x->s * x->c, at[OUTER_CHUNK];
    for (int64_t i = 0; i < b->out_rows; i++) at[i] = i * x->stride * b->row_ld;
    for (int64_t c = c0; c < c1; c++, add = true) {
        int64_t image = c / b->bands, i0 = c % b->bands * b->out_rows, rows = cpu_min64(b->out_rows, x->rows - i0);
        tile_walk walk = {.segments = rows, .depth = x->cols, .b_at = at, .b_step = x->stride * x->c};
        CPU_ISA(patches_copy_rows)
        (x, image, i0 * x->stride + x->top, (rows - 1) * x->stride + x->r, b->in_cols, b->row_ld, band);
        gemm_clear(band + ((rows - 1) * x->stride + x->r) * b->row_ld, GEMM_NR);
        pack_g(o, (image * x->rows + i0) * x->cols, rows * x->cols, g);
        for (int64_t r = 0; r < x->r; r++) outer_tiles(o, &walk, g, band + r * b->row_ld, run, dw + r * run, add);
    }
}

/* --------------------------------------------------------------------------------------------------- both */

/* dw (+)= the slices' sums, in order */
static void add_slices(const float *sums, int64_t slices, int64_t n, float *dw, int accumulate, int threads)
{
    enum { PIECE = 4096 };
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && n > 16384)
    for (int64_t b = 0; b < cpu_ceil_div(n, PIECE); b++) {
        int64_t from = b * PIECE, to = cpu_min64(n, from + PIECE);
        if (!accumulate) gemm_clear(dw + from, to - from);
        for (int64_t s = 0; s < slices; s++)
            for (int64_t i = from; i < to; i++) dw[i] += sums[s * n + i];
    }
}

int CPU_ISA(outer)(sag_kernel_env *env, const patches *x, int64_t pixels, const float *g, int64_t rows, int64_t ld,
                   float *dw, int accumulate)
{
    outer_job o = {.x = x, .g = g, .rows = rows, .ld = ld, .columns = x->r * x->s * x->c, .each = tile_rows(rows, 2)};
    bool narrow = band_fits(x);
    band_shape band = narrow ? band_of(x) : (band_shape){0};
    o.chunk = narrow ? band.out_rows * x->cols : OUTER_CHUNK;
    o.g_floats = cpu_ceil_div(rows, o.each) * o.chunk * OUTER_STEP;
    o.own_floats = cpu_ceil_div(o.g_floats + (narrow ? band.floats : OUTER_CHUNK * OUTER_LD), 16) * 16;

    /* Slices: enough for 32 pieces of work, none below a few chunks, the partial sums not above 16 MiB unless one will
     * do. */
    int64_t blocks = narrow ? 1 : cpu_ceil_div(o.columns, OUTER_COLUMNS), n = rows * o.columns;
    int64_t chunks = narrow ? pixels / (x->rows * x->cols) * band.bands : cpu_ceil_div(pixels, o.chunk);
    int64_t slices = cpu_min64(cpu_ceil_div(32, blocks), cpu_ceil_div(chunks, 4));
    slices = cpu_min64(slices, 4 * 1024 * 1024 / n + 1);
    int64_t per_slice = cpu_ceil_div(chunks, slices);
    slices = cpu_ceil_div(chunks, per_slice);

    int threads = pixels * n < 32768 ? 1 : env->threads;
    float *memory = env->scratch(env, (size_t)(threads * o.own_floats + (slices > 1 ? slices * n : 0)) * sizeof(float));
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    float *sums = memory + threads * o.own_floats;
    bool add = slices == 1 && accumulate;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t u = 0; u < slices * blocks; u++) {
        float *own = memory + omp_get_thread_num() * o.own_floats;
        int64_t slice = u / blocks, first = slice * per_slice, last = cpu_min64(chunks, first + per_slice);
        float *out = slices > 1 ? sums + slice * n : dw;
        if (narrow)
            band_slice(&o, &band, first, last, own, out, add);
        else
            panel_slice(&o, first * o.chunk, cpu_min64(pixels, last * o.chunk), u % blocks * OUTER_COLUMNS, own, out,
                        add);
    }
    if (slices > 1) add_slices(sums, slices, n, dw, accumulate, threads);
    return SAG_KERNEL_OK;
}

#define SUM_ROWS 512  /* a piece of work */
#define SHORT_ROWS 64 /* summed in f32: a bias in front of a batch norm has a gradient that is all cancellation */
#define SUM_VECTORS 8

/* s += the sums of columns that come again every `vectors` vectors, n numbers. False: cols does not divide those. */
CPU_INLINE bool sum_side_by_side(const float *x, int64_t n, int64_t cols, double *s, int vectors)
{
    const int64_t width = vectors * CPU_LANES;
    if (width % cols != 0) return false;
    cpu_vec sum[SUM_VECTORS] = {0};
    float line[SUM_VECTORS * CPU_LANES];
    int64_t i = 0;
    for (; i + width <= n; i += width)
        for (int k = 0; k < vectors; k++) sum[k] += cpu_load(x + i + k * CPU_LANES);
    memcpy(line, sum, sizeof line);
    for (int64_t j = 0; j < width; j++) s[j % cols] += (double)line[j];
    for (; i < n; i++) s[i % cols] += (double)x[i];
    return true;
}

/* s += the sums of `count` vectors' columns, the last of which has `last`. */
CPU_INLINE void sum_strip(const float *x, int64_t rows, int64_t cols, double *s, const int count, int64_t last)
{
    cpu_vec sum[SUM_VECTORS] = {0};
    for (int64_t r = 0; r < rows; r++, x += cols)
        for (int k = 0; k < count; k++) sum[k] += cpu_load_part(x + k * CPU_LANES, k + 1 < count ? CPU_LANES : last);
    for (int k = 0; k < count; k++)
        for (int64_t l = 0; l < (k + 1 < count ? CPU_LANES : last); l++) s[k * CPU_LANES + l] += (double)sum[k][l];
}

static void sum_rows(const float *x, int64_t rows, int64_t cols, double *s)
{
    const int64_t n = rows * cols;
    if (sum_side_by_side(x, n, cols, s, SUM_VECTORS) || sum_side_by_side(x, n, cols, s, 6)) return; /* 6: multiples of 3 */
    int64_t j = 0;
    for (; j + SUM_VECTORS * CPU_LANES <= cols; j += SUM_VECTORS * CPU_LANES)
        sum_strip(x + j, rows, cols, s + j, SUM_VECTORS, CPU_LANES);
    for (; j < cols; j += CPU_LANES) sum_strip(x + j, rows, cols, s + j, 1, cpu_min64(CPU_LANES, cols - j));
}

int CPU_ISA(column_sum)(sag_kernel_env *env, const float *x, int64_t rows, int64_t cols, float *y, int accumulate)
{
    const int64_t blocks = cpu_ceil_div(rows, SUM_ROWS);
    double *sums = env->scratch(env, (size_t)(blocks * cols) * sizeof *sums);
    if (!sums) return SAG_KERNEL_NO_MEMORY;
    int threads = rows * cols < 65536 ? 1 : env->threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t b = 0; b < blocks; b++) {
        double *s = sums + b * cols;
        for (int64_t j = 0; j < cols; j++) s[j] = 0;
        for (int64_t r = b * SUM_ROWS; r < cpu_min64(rows, (b + 1) * SUM_ROWS); r += SHORT_ROWS)
            sum_rows(x + r * cols, cpu_min64(SHORT_ROWS, cpu_min64(rows, (b + 1) * SUM_ROWS) - r), cols, s);
    }
    for (int64_t b = 1; b < blocks; b++)
        for (int64_t j = 0; j < cols; j++) sums[j] += sums[b * cols + j];
    for (int64_t j = 0; j < cols; j++) y[j] = (float)(accumulate ? (double)y[j] + sums[j] : sums[j]);
    return SAG_KERNEL_OK;
}
