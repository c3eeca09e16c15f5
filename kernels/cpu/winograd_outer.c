/*
 * winograd_outer.c - weight gradient of a 3x3 convolution by F(4x4, 3x3): dw = G^T [sum over tiles of
 * (A dy A^T) * (B^T x B)] G. winograd.h has the algebra.
 *
 * Narrow layers: a piece of work is a slice of the tiles, which block by block are transformed and add their 36
 * products to the slice's sums. Wide layers: the threads share a block's transformed tiles and a piece is a range of K
 * times one of C, whose sums fit L2 and become dw at once where one block is all. Slices, blocks and ranges depend on
 * the shape alone and are added in order, so the result is bit-equal for any number of threads.
 */
#include "kernels/cpu/winograd.h"

#include "kernels/cpu/winograd_transform.h"

#define CHAIN 64  /* tiles whose products are one chain of sums; also a block */
#define ONCE 128  /* so many tiles are one block */
#define NARROW 64 /* channels on either side, at most: slices */
#define RANGE 64  /* channels of a range */

TILE_DEFINE_OUTER(products, WINO_STRIP)

typedef struct wino_outer {
    const conv_args *a;
    wino_map x, dy;
    int64_t block;          /* tiles */
    wino_layout x_at, y_at; /* of a block */
    int64_t range;          /* channels of a range; its sums: [frequency][strip of c][k][c] */
    int64_t strip, freq, floats;
} wino_outer;

/* sums (+)= over the tiles of a block y^T x, for ks by cs channels */
static void multiply(const wino_outer *j, int64_t tiles, const float *y, int64_t ks, const float *x, int64_t cs,
                     float *sums, bool add)
{
    int64_t each = tile_rows(cpu_min64(ks, WINO_STRIP), 2);
    for (int64_t c = 0; c < cs; c += GEMM_NR) {
        bool wide = cs - c > CPU_LANES;
        const float *b = x + c / WINO_STRIP * j->x_at.strip + c % WINO_STRIP;
        float *place = sums + c / WINO_STRIP * j->strip + c % WINO_STRIP, *row[GEMM_MR];
        for (int64_t k = 0, rows; k < ks; k += rows) {
            rows = cpu_min64(cpu_min64(each, WINO_STRIP - k % WINO_STRIP), ks - k);
            for (int i = 0; i < rows; i++) row[i] = place + (k + i) * WINO_STRIP;
            tile_kernel *kernel = products[wide][cpu_ceil_div(rows, 2)];
            tile_out out = {.row = row, .rows = (int)rows, .cols = wide ? GEMM_NR : CPU_LANES, .add = add};
            for (int64_t t = 0; t < tiles; t += CHAIN, out.add = true) {
                tile_walk walk = {.segments = 1, .depth = cpu_min64(CHAIN, tiles - t), .b_step = WINO_STRIP};
                kernel(&walk, y + k / WINO_STRIP * j->y_at.strip + t * WINO_STRIP + k % WINO_STRIP, b + t * WINO_STRIP,
                       &out);
            }
        }
    }
}

/* dw (+)= G^T (the slices' sums, in order) G for ks by cs channels from (k0, c0) */
static void finish(const wino_outer *j, const float *sums, int64_t slices, int64_t k0, int64_t ks, int64_t c0,
                   int64_t cs)
{
    const conv_args *a = j->a;
    for (int64_t k = 0; k < ks; k++)
        for (int64_t c = 0; c < cs; c += CPU_LANES) {
            const float *s = sums + c / WINO_STRIP * j->strip + k * WINO_STRIP + c % WINO_STRIP;
            cpu_vec u[WINO_FREQS], w[9];
            for (int f = 0; f < WINO_FREQS; f++) u[f] = cpu_load(s + f * j->freq);
            for (int64_t slice = 1; slice < slices; slice++)
                for (int f = 0; f < WINO_FREQS; f++) u[f] += cpu_load(s + slice * j->floats + f * j->freq);
            wino_weight_gradient(u, w);
            for (int t = 0; t < 9; t++)
                tile_store(a->dw + ((k0 + k) * 9 + t) * a->c + c0 + c, w[t], (int)cpu_min64(CPU_LANES, cs - c), NULL,
                           a->accumulate_dw);
        }
}

/* All channels are one range. */
static int run_slices(sag_kernel_env *env, const wino_outer *j)
{
    /* Pieces of work: eight of a few blocks, or up to 32 of eight; the fewer, the less there is to add. */
    int64_t blocks = cpu_ceil_div(j->x.tiles, j->block), slices = blocks / 8 < 8 ? 8 : cpu_min64(blocks / 8, 32);
    slices = cpu_min64(slices, cpu_ceil_div(blocks, 3));
    int64_t per_slice = cpu_ceil_div(blocks, slices) * j->block;
    slices = cpu_ceil_div(j->x.tiles, per_slice);
    int64_t x_floats = WINO_FREQS * j->x_at.freq, floats = x_floats + WINO_FREQS * j->y_at.freq;
    float *sums = env->scratch(env, (size_t)(slices * j->floats) * sizeof *sums);
    float *memory = env->scratch(env, (size_t)(env->threads * floats) * sizeof *memory);
    if (!sums || !memory) return SAG_KERNEL_NO_MEMORY;
    int64_t k = j->a->k, c = j->a->c;
    tile_grid x_grid = wino_grid(&j->x, j->x.x, j->x.h, j->x.w, c);
    tile_grid dy_grid = wino_grid(&j->dy, j->dy.x, j->dy.h, j->dy.w, k);
#pragma omp parallel num_threads(env->threads) if (env->threads > 1)
    {
        float *x = memory + omp_get_thread_num() * floats, *y = x + x_floats;
#pragma omp for schedule(dynamic)
        for (int64_t slice = 0; slice < slices; slice++) {
            int64_t first = slice * per_slice, last = cpu_min64(j->x.tiles, first + per_slice);
            for (int64_t t0 = first; t0 < last; t0 += j->block) {
                int64_t tiles = cpu_min64(j->block, last - t0);
                for (int64_t t = 0; t < tiles; t++)
                    wino_transform_tile(&j->x, t0 + t, 0, c, 6, x + t * WINO_STRIP, &j->x_at);
                for (int64_t t = 0; t < tiles; t++)
                    wino_transform_tile(&j->dy, t0 + t, 0, k, 4, y + t * WINO_STRIP, &j->y_at);
                int64_t next = t0 + tiles, coming = cpu_min64(j->block, last - next);
                for (int f = 0; f < WINO_FREQS; f++) {
                    tile_grid_prefetch(&x_grid, next, coming, f, WINO_FREQS, 0, c, 0);
                    tile_grid_prefetch(&dy_grid, next, coming, f, WINO_FREQS, 0, k, 0);
                    multiply(j, tiles, y + f * j->y_at.freq, k, x + f * j->x_at.freq, c,
                             sums + slice * j->floats + f * j->freq, t0 > first);
                }
            }
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < k; i++) finish(j, sums + i * WINO_STRIP, slices, i, 1, 0, c);
    }
    return SAG_KERNEL_OK;
}

/* The sums stay with the thread where one block is all, else with the range. */
static int run_ranges(sag_kernel_env *env, const wino_outer *j)
{
    int64_t k_ranges = cpu_ceil_div(j->a->k, j->range), c_ranges = cpu_ceil_div(j->a->c, j->range);
    int64_t ranges = k_ranges * c_ranges, tiles_all = j->x.tiles;
    bool once = tiles_all <= j->block;
    int64_t parts = once ? 1 : 6; /* of the frequencies, for more pieces */
    float *x = env->scratch(env, (size_t)(WINO_FREQS * (j->x_at.freq + j->y_at.freq)) * sizeof *x);
    float *memory = env->scratch(env, (size_t)((once ? env->threads : ranges) * j->floats) * sizeof *memory);
    if (!x || !memory) return SAG_KERNEL_NO_MEMORY;
    float *y = x + WINO_FREQS * j->x_at.freq;
    int64_t x_parts = cpu_ceil_div(j->a->c, RANGE), y_parts = cpu_ceil_div(j->a->k, RANGE);
#pragma omp parallel num_threads(env->threads) if (env->threads > 1)
    for (int64_t first = 0; first < tiles_all; first += j->block) {
        int64_t tiles = cpu_min64(j->block, tiles_all - first);
#pragma omp for schedule(dynamic, 4)
        for (int64_t piece = 0; piece < tiles * (x_parts + y_parts); piece++) {
            int64_t t = piece % tiles, part = piece / tiles;
            if (part < x_parts) {
                int64_t c = part * RANGE;
                wino_transform_tile(&j->x, first + t, c, cpu_min64(RANGE, j->a->c - c), 6,
                                    x + c / WINO_STRIP * j->x_at.strip + t * WINO_STRIP, &j->x_at);
            } else {
                int64_t k = (part - x_parts) * RANGE;
                wino_transform_tile(&j->dy, first + t, k, cpu_min64(RANGE, j->a->k - k), 4,
                                    y + k / WINO_STRIP * j->y_at.strip + t * WINO_STRIP, &j->y_at);
            }
        }
#pragma omp for schedule(dynamic)
        for (int64_t piece = 0; piece < ranges * parts; piece++) {
            int64_t range = piece / parts, f0 = piece % parts * WINO_FREQS / parts;
            float *sums = memory + (once ? omp_get_thread_num() : range) * j->floats;
            int64_t k0 = range / c_ranges * j->range, ks = cpu_min64(j->range, j->a->k - k0);
            int64_t c0 = range % c_ranges * j->range, cs = cpu_min64(j->range, j->a->c - c0);
            for (int64_t f = f0; f < f0 + WINO_FREQS / parts; f++)
                multiply(j, tiles, y + f * j->y_at.freq + k0 / WINO_STRIP * j->y_at.strip, ks,
                         x + f * j->x_at.freq + c0 / WINO_STRIP * j->x_at.strip, cs, sums + f * j->freq, first > 0);
            if (once) finish(j, sums, 1, k0, ks, c0, cs);
        }
    }
#pragma omp parallel for num_threads(env->threads) schedule(static) if (env->threads > 1)
    for (int64_t k = 0; k < (once ? 0 : j->a->k); k++)
        for (int64_t c = 0; c < c_ranges; c++)
            finish(j, memory + (k / j->range * c_ranges + c) * j->floats + k % j->range * WINO_STRIP, 1, k, 1,
                   c * j->range, cpu_min64(j->range, j->a->c - c * j->range));
    return SAG_KERNEL_OK;
}

int CPU_ISA(winograd_bwd_w)(sag_kernel_env *env, const conv_args *a)
{
    int64_t rows = cpu_ceil_div(a->p, WINO_STEP), cols = cpu_ceil_div(a->q, WINO_STEP), tiles = a->n * rows * cols;
    wino_outer j = {.a = a,
                    .x = {.x = a->x, .h = a->h, .w = a->w_in, .c = a->c, .top = -a->pad_h, .left = -a->pad_w, .relu = a->relu},
                    .dy = {.x = a->dy, .h = a->p, .w = a->q, .c = a->k}};
    j.x.rows = j.dy.rows = rows, j.x.cols = j.dy.cols = cols, j.x.tiles = j.dy.tiles = tiles;
    int64_t zeros = round_up(a->c > a->k ? a->c : a->k, 16);
    float *memory = env->scratch(env, (size_t)zeros * sizeof *memory);
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    gemm_clear(memory, zeros);
    j.x.zeros = j.dy.zeros = memory;
    env->flops = 2.0 * WINO_FREQS * (double)(tiles * a->c * a->k);

    bool slices = a->k <= NARROW && a->c <= NARROW;
    j.block = tiles <= ONCE && !slices ? tiles : a->k * a->c > 256 * 256 ? ONCE : cpu_min64(CHAIN, tiles);
    j.x_at = wino_layout_of(j.block, a->c), j.y_at = wino_layout_of(j.block, a->k);
    j.range = RANGE;
    j.strip = cpu_min64(j.range, a->k) * WINO_STRIP;
    j.freq = cpu_ceil_div(cpu_min64(j.range, a->c), WINO_STRIP) * j.strip + 16;
    j.floats = WINO_FREQS * j.freq;
    return (slices ? run_slices : run_ranges)(env, &j);
}
