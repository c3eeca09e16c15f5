/*
 * band.c - convolution of narrow maps (8 to 64 channels), where fetching every patch would cost as much as the product.
 *
 * A band is a few rows of the output of one image. The rows of the map that it needs are copied once, with zeros around
 * and each pixel BAND_LD floats from the next; a tile is a run of pixels in one output row, and the sum over (r, s, c)
 * is one segment of `c` for each tap, which starts at another pixel. The band stays in L2, and B is read once for each
 * tile.
 */
#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/patches.h"

#define BAND_CHANNELS 64
#define BAND_LD 80      /* an odd number of cache lines: neighbouring pixels fall into different sets of L1 */
#define BAND_TAPS 64    /* r * s at most */
#define BAND_PIXELS 192 /* about so many outputs in a band */
#define BAND_COLS 512   /* widest row of outputs */

TILE_DEFINE(dense_tiles, BAND_LD)
TILE_DEFINE(strided_tiles, 2 * BAND_LD)

typedef struct band_plan {
    int64_t images, out_rows, bands; /* bands of out_rows rows an image */
    int64_t in_cols;                 /* pixels of a copied row */
    int64_t b_floats, band_floats;
} band_plan;

static band_plan plan_of(const gemm_job *job)
{
    const patches *x = job->a;
    band_plan p = {.images = job->m / (x->rows * x->cols)};
    p.out_rows = BAND_PIXELS / x->cols;
    if (p.out_rows < 1) p.out_rows = 1;
    if (p.out_rows > x->rows) p.out_rows = x->rows;
    p.bands = cpu_ceil_div(x->rows, p.out_rows);
    p.in_cols = (x->cols - 1) * x->stride + x->s;
    int64_t in_rows = (p.out_rows - 1) * x->stride + x->r;
    p.b_floats = packed_floats(job->n, job->k);
    /* The last tile of the last row may look at up to 3 pixels more. */
    p.band_floats = (in_rows * p.in_cols + 3 * x->stride) * BAND_LD;
    return p;
}

/* The segments are whole groups of lanes when c is a multiple of 4. */
bool CPU_ISA(band_fits)(const gemm_job *job)
{
    if (job->fetch != CPU_ISA(patches_fetch)) return false;
    const patches *x = job->a;
    return x->c >= 8 && x->c <= BAND_CHANNELS && x->c % 4 == 0 && x->stride <= 2 && x->r * x->s <= BAND_TAPS &&
           x->r * x->s > 1 && x->cols >= 8 && x->cols <= BAND_COLS;
}

int64_t CPU_ISA(band_bytes)(const gemm_job *job, int threads)
{
    band_plan p = plan_of(job);
    return (p.b_floats + threads * p.band_floats) * (int64_t)sizeof(float);
}

/* `rows` rows of x from row i0 of image g, in_cols pixels each from column `left`, zeros outside. */
static void copy_band(const patches *x, int64_t g, int64_t i0, int64_t rows, int64_t in_cols, float *band)
{
    int64_t first = x->left < 0 ? -x->left : 0, last = cpu_min64(in_cols, x->w - x->left);
    for (int64_t i = i0; i < i0 + rows; i++) {
        bool inside = i >= 0 && i < x->h;
        const float *src = x->x + (g * x->h + i) * x->w * x->c + x->left * x->c;
        for (int64_t j = 0; j < in_cols; j++, band += BAND_LD) {
            if (inside && j >= first && j < last)
                gemm_copy(band, src + j * x->c, x->c);
            else
                gemm_clear(band, x->c);
        }
    }
    for (int64_t j = 0; j < 3 * x->stride; j++) gemm_clear(band + j * BAND_LD, x->c);
}

/* One row of outputs: pixels m0 .. m0+cols, from the copied row that `band` points to. */
static void run_row(const gemm_job *job, const tile_walk *walk, const float *packed, const float *band, int64_t m0)
{
    const patches *x = job->a;
    float *row[BAND_COLS], *plus[BAND_COLS];
    job->place(job->c, m0, x->cols, row);
    if (job->place_plus) job->place_plus(job->plus, m0, x->cols, plus);
    for (int64_t n = 0; n < job->n; n += GEMM_NR) {
        strip_kind kind = strip_kind_of(job->n - n);
        int64_t grain = strip_grain(kind), each = tile_rows(x->cols, grain);
        const float *b = packed_strip(packed, job->n, 0, job->k, n / GEMM_NR);
        for (int64_t j = 0; j < x->cols; j += each) {
            tile_out out = {.row = row + j,
                            .col = n,
                            .rows = (int)cpu_min64(each, x->cols - j),
                            .cols = (int)cpu_min64(GEMM_NR, job->n - n),
                            .add = job->accumulate != 0,
                            .bias = job->bias ? job->bias + n : NULL};
            (x->stride == 1 ? dense_tiles : strided_tiles)[kind][cpu_ceil_div(out.rows, grain)](
                walk, band + j * x->stride * BAND_LD, b, &out);
        }
        if (job->place_plus) gemm_add_rows(row, plus, x->cols, n, cpu_min64(GEMM_NR, job->n - n));
    }
}

void CPU_ISA(band_run)(const gemm_job *job, void *memory, int threads)
{
    const patches *x = job->a;
    band_plan p = plan_of(job);
    float *packed = memory, *bands = packed + p.b_floats;
    int64_t tap[BAND_TAPS];
    for (int64_t t = 0; t < x->r * x->s; t++) tap[t] = (t / x->s * p.in_cols + t % x->s) * BAND_LD;
    tile_walk walk = {.segments = x->r * x->s, .depth = x->c, .a_at = tap};
    CPU_ISA(gemm_pack)(&job->b, job->n, job->k, round_up(job->k, 4), packed, threads);
    if (job->m * job->n * job->k < 32768) threads = 1;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t u = 0; u < p.images * p.bands; u++) {
        float *band = bands + omp_get_thread_num() * p.band_floats;
        int64_t g = u / p.bands, i0 = u % p.bands * p.out_rows, rows = cpu_min64(p.out_rows, x->rows - i0);
        copy_band(x, g, i0 * x->stride + x->top, (rows - 1) * x->stride + x->r, p.in_cols, band);
        for (int64_t i = 0; i < rows; i++)
            run_row(job, &walk, packed, band + i * x->stride * p.in_cols * BAND_LD, (g * x->rows + i0 + i) * x->cols);
    }
}
