/*
 * winograd_outer.c - weight gradient of a 3x3 convolution by F(4x4, 3x3): dw = G^T [sum over tiles of
 * (A dy A^T) * (B^T x B)] G. winograd.h has the algebra.
 *
 * Narrow layers: a piece of work is a slice of the tiles, which block by block are transformed and add their 36
 * products to the slice's sums. Others take one row of the frequencies at a time: its sums and its data stay in L2
 * beside all channels of a range, and what two threads share are the pixels. Very wide layers of few tiles: the threads
 * share all transformed tiles, and a piece is a range of K times one of C, whose sums fit L2 and become dw at once.
 * Slices, blocks, rows and ranges depend on the shape alone and are added in order, so the result is bit-equal for any
 * number of threads.
 */
#include "kernels/cpu/winograd.h"

#include "kernels/cpu/winograd_transform.h"

#define CHAIN 64                    /* tiles whose products are one chain of sums; also a block */
#define NARROW 64                   /* channels on either side, at most: slices */
#define ROW_RANGE 256               /* channels of a range of one row of frequencies, at most */
#define SLICE_TILES 512             /* of such a layer, about: the sums of a slice are written and read again */
#define MOST_SUMS (4 * 1024 * 1024) /* floats of all slices' sums, about */
#define WIDE (256 * 256)            /* beyond so many channels times channels ... */
#define ONE_BLOCK 128               /* ... so many tiles are one block that the threads share */
#define PART 64                     /* channels of a range there, and of a piece of its transforms */

TILE_DEFINE_OUTER(products, WINO_STRIP)

typedef struct wino_outer {
    const conv_args *a;
    wino_map x, dy;
    int64_t block, slices, per_slice;           /* block, per_slice: tiles */
    int64_t k_range, c_range, c_ranges, ranges; /* channels of a range; how many along C, and in all */
    wino_layout x_at, y_at;                     /* of a block */
    int64_t strip, freq, floats;                /* of a range's sums: [frequency][strip of c][k][c] */
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
static void finish(const wino_outer *j, const float *sums, int64_t slice_floats, int64_t k0, int64_t ks, int64_t c0,
                   int64_t cs)
{
    const conv_args *a = j->a;
    for (int64_t k = 0; k < ks; k++)
        for (int64_t c = 0; c < cs; c += CPU_LANES) {
            const float *s = sums + c / WINO_STRIP * j->strip + k * WINO_STRIP + c % WINO_STRIP;
            float added[WINO_FREQS * CPU_LANES];
            int64_t freq = j->freq;
            for (int f = 0; f < WINO_FREQS && j->slices > 1; f++) {
                cpu_vec sum = cpu_load(s + f * j->freq);
                for (int64_t slice = 1; slice < j->slices; slice++)
                    sum += cpu_load(s + slice * slice_floats + f * j->freq);
                cpu_store(added + f * CPU_LANES, sum);
            }
            if (j->slices > 1) s = added, freq = CPU_LANES;
            cpu_vec w[9];
            wino_weight_gradient(s, freq, w);
            for (int t = 0; t < 9; t++)
                tile_store(a->dw + ((k0 + k) * 9 + t) * a->c + c0 + c, w[t], (int)cpu_min64(CPU_LANES, cs - c), NULL,
                           a->accumulate_dw);
        }
}

/* Channels of a range. */
typedef struct range {
    int64_t k0, ks, c0, cs;
} range;

static range range_of(const wino_outer *j, int64_t i)
{
    int64_t k0 = i / j->c_ranges * j->k_range, c0 = i % j->c_ranges * j->c_range;
    return (range){k0, cpu_min64(j->k_range, j->a->k - k0), c0, cpu_min64(j->c_range, j->a->c - c0)};
}

/* All channels are one range. */
static int run_slices(sag_kernel_env *env, const wino_outer *j)
{
    int64_t x_floats = WINO_FREQS * j->x_at.freq, floats = x_floats + WINO_FREQS * j->y_at.freq;
    float *sums = env->scratch(env, (size_t)(j->slices * j->floats) * sizeof *sums);
    float *memory = env->scratch(env, (size_t)(env->threads * floats) * sizeof *memory);
    if (!sums || !memory) return SAG_KERNEL_NO_MEMORY;
    int64_t k = j->a->k, c = j->a->c;
    tile_grid x_grid = wino_grid(&j->x, j->x.x, j->x.h, j->x.w, c);
    tile_grid dy_grid = wino_grid(&j->dy, j->dy.x, j->dy.h, j->dy.w, k);
#pragma omp parallel num_threads(env->threads) if (env->threads > 1)
    {
        float *x = memory + omp_get_thread_num() * floats, *y = x + x_floats;
#pragma omp for schedule(dynamic)
        for (int64_t slice = 0; slice < j->slices; slice++) {
            int64_t first = slice * j->per_slice, last = cpu_min64(j->x.tiles, first + j->per_slice);
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
        for (int64_t i = 0; i < k; i++) finish(j, sums + i * WINO_STRIP, j->floats, i, 1, 0, c);
    }
    return SAG_KERNEL_OK;
}

/* All tiles are one block, whose transformed data the threads share: a range's sums become dw at once. */
static int run_once(sag_kernel_env *env, const wino_outer *j)
{
    float *x = env->scratch(env, (size_t)(WINO_FREQS * (j->x_at.freq + j->y_at.freq)) * sizeof *x);
    float *memory = env->scratch(env, (size_t)(env->threads * j->floats) * sizeof *memory);
    if (!x || !memory) return SAG_KERNEL_NO_MEMORY;
    float *y = x + WINO_FREQS * j->x_at.freq;
    int64_t tiles = j->x.tiles, x_parts = cpu_ceil_div(j->a->c, PART), y_parts = cpu_ceil_div(j->a->k, PART);
#pragma omp parallel num_threads(env->threads) if (env->threads > 1)
    {
#pragma omp for schedule(dynamic, 4)
        for (int64_t piece = 0; piece < tiles * (x_parts + y_parts); piece++) {
            int64_t t = piece % tiles, part = piece / tiles;
            if (part < x_parts) {
                int64_t c = part * PART;
                wino_transform_tile(&j->x, t, c, cpu_min64(PART, j->a->c - c), 6,
                                    x + c / WINO_STRIP * j->x_at.strip + t * WINO_STRIP, &j->x_at);
            } else {
                int64_t k = (part - x_parts) * PART;
                wino_transform_tile(&j->dy, t, k, cpu_min64(PART, j->a->k - k), 4,
                                    y + k / WINO_STRIP * j->y_at.strip + t * WINO_STRIP, &j->y_at);
            }
        }
#pragma omp for schedule(dynamic)
        for (int64_t piece = 0; piece < j->ranges; piece++) {
            range r = range_of(j, piece);
            float *sums = memory + omp_get_thread_num() * j->floats;
            for (int f = 0; f < WINO_FREQS; f++)
                multiply(j, tiles, y + f * j->y_at.freq + r.k0 / WINO_STRIP * j->y_at.strip, r.ks,
                         x + f * j->x_at.freq + r.c0 / WINO_STRIP * j->x_at.strip, r.cs, sums + f * j->freq, false);
            finish(j, sums, 0, r.k0, r.ks, r.c0, r.cs);
        }
    }
    return SAG_KERNEL_OK;
}

/* A piece is one row of the frequencies, for a range and a slice of the tiles. */
static int run_rows(sag_kernel_env *env, const wino_outer *j)
{
    int64_t x_floats = WINO_SIDE * j->x_at.freq, floats = x_floats + WINO_SIDE * j->y_at.freq;
    float *sums = env->scratch(env, (size_t)(j->slices * j->ranges * j->floats) * sizeof *sums);
    float *memory = env->scratch(env, (size_t)(env->threads * floats) * sizeof *memory);
    if (!sums || !memory) return SAG_KERNEL_NO_MEMORY;
#pragma omp parallel num_threads(env->threads) if (env->threads > 1)
    {
        float *x = memory + omp_get_thread_num() * floats, *y = x + x_floats;
#pragma omp for schedule(dynamic)
        for (int64_t piece = 0; piece < j->slices * j->ranges * WINO_SIDE; piece++) {
            int row = (int)(piece % WINO_SIDE);
            int64_t area = piece / WINO_SIDE; /* a slice's range */
            range r = range_of(j, area % j->ranges);
            int64_t first = area / j->ranges * j->per_slice, last = cpu_min64(j->x.tiles, first + j->per_slice);
            for (int64_t t0 = first; t0 < last; t0 += j->block) {
                int64_t tiles = cpu_min64(j->block, last - t0);
                for (int64_t t = 0; t < tiles; t++)
                    wino_transform_tile_row(&j->x, t0 + t, r.c0, r.cs, 6, row, x + t * WINO_STRIP, &j->x_at);
                for (int64_t t = 0; t < tiles; t++)
                    wino_transform_tile_row(&j->dy, t0 + t, r.k0, r.ks, 4, row, y + t * WINO_STRIP, &j->y_at);
                for (int f = 0; f < WINO_SIDE; f++)
                    multiply(j, tiles, y + f * j->y_at.freq, r.ks, x + f * j->x_at.freq, r.cs,
                             sums + area * j->floats + (row * WINO_SIDE + f) * j->freq, t0 > first);
            }
        }
#pragma omp for schedule(static) collapse(2)
        for (int64_t i = 0; i < j->ranges; i++)
            for (int64_t k = 0; k < j->k_range; k++) {
                range r = range_of(j, i);
                if (k < r.ks)
                    finish(j, sums + i * j->floats + k * WINO_STRIP, j->ranges * j->floats, r.k0 + k, 1, r.c0, r.cs);
            }
    }
    return SAG_KERNEL_OK;
}

typedef enum wino_cut { SLICES, ONCE, ROWS } wino_cut;

/* How the work is cut, from the shape alone. */
static wino_cut cut(wino_outer *j)
{
    int64_t tiles = j->x.tiles, k = j->a->k, c = j->a->c;
    wino_cut way = k <= NARROW && c <= NARROW ? SLICES : k * c > WIDE && tiles <= ONE_BLOCK ? ONCE : ROWS;
    int64_t most = way == ROWS ? ROW_RANGE : PART;
    j->k_range = cpu_min64(k, most), j->c_range = cpu_min64(c, most);
    j->block = cpu_min64(tiles, way == ONCE ? ONE_BLOCK : CHAIN);
    j->slices = 1;
    if (way == SLICES) {
        /* Eight of a few blocks, or up to 32 of eight; the fewer, the less there is to add. */
        int64_t blocks = cpu_ceil_div(tiles, j->block);
        j->slices = cpu_min64(blocks / 8 < 8 ? 8 : cpu_min64(blocks / 8, 32), cpu_ceil_div(blocks, 3));
    } else if (way == ROWS) {
        j->slices = cpu_min64(cpu_ceil_div(tiles, SLICE_TILES), cpu_min64(8, MOST_SUMS / (WINO_FREQS * k * c) + 1));
        if (j->slices == 1 && k <= ROW_RANGE && c <= ROW_RANGE) /* six pieces are few */
            *(k > c ? &j->k_range : &j->c_range) = round_up(cpu_ceil_div(k > c ? k : c, 2), WINO_STRIP);
    }
    j->per_slice = round_up(cpu_ceil_div(tiles, j->slices), j->block);
    j->slices = cpu_ceil_div(tiles, j->per_slice);
    j->c_ranges = cpu_ceil_div(c, j->c_range), j->ranges = cpu_ceil_div(k, j->k_range) * j->c_ranges;
    j->strip = j->k_range * WINO_STRIP;
    j->freq = cpu_ceil_div(j->c_range, WINO_STRIP) * j->strip + 16;
    j->floats = WINO_FREQS * j->freq;
    j->x_at = wino_layout_of(j->block, way == ONCE ? c : j->c_range);
    j->y_at = wino_layout_of(j->block, way == ONCE ? k : j->k_range);
    return way;
}

int CPU_ISA(winograd_bwd_w)(sag_kernel_env *env, const conv_args *a)
{
    int64_t rows = cpu_ceil_div(a->p, WINO_STEP), cols = cpu_ceil_div(a->q, WINO_STEP), tiles = a->n * rows * cols;
    wino_outer j = {
        .a = a,
        .x = {.x = a->x, .h = a->h, .w = a->w_in, .c = a->c, .top = -a->pad_h, .left = -a->pad_w, .relu = a->relu},
        .dy = {.x = a->dy, .h = a->p, .w = a->q, .c = a->k}};
    j.x.rows = j.dy.rows = rows, j.x.cols = j.dy.cols = cols, j.x.tiles = j.dy.tiles = tiles;
    int64_t zeros = round_up(a->c > a->k ? a->c : a->k, 16);
    float *memory = env->scratch(env, (size_t)zeros * sizeof *memory);
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    gemm_clear(memory, zeros);
    j.x.zeros = j.dy.zeros = memory;
    env->flops = 2.0 * WINO_FREQS * (double)(tiles * a->c * a->k);

    switch (cut(&j)) {
    case SLICES: return run_slices(env, &j);
    case ONCE: return run_once(env, &j);
    default: return run_rows(env, &j);
    }
}
