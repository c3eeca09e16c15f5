/*
 * upconv_weights.c - weight gradient of upconv and convpool by the products of upconv.h: the same 25 products with
 * the roles changed, dw = sum over tiles of (data of the large map) x (data of the small map), then the sums of taps
 * transposed. For a small pixel's pair (y0, y1): product 0 takes y0 + y1, 1 and 2 take y0, 3 and 4 take y1.
 *
 * A piece of work is a slice of the tiles times a range of K times a range of C times some rows of products: block by
 * block of tiles it transforms both maps for these rows and adds their products to its sums. Narrow layers take all
 * rows at once. Wide ones take row by row: sums and data of one row stay in L2 beside all channels, so that no pixel is
 * transformed again for another range. Slices, ranges and rows depend on the shape alone and are added in order, so the
 * result is bit-equal for any number of threads.
 */
#include "kernels/cpu/tile_grid.h"
#include "kernels/cpu/upconv.h"

#define CHAIN 84         /* tiles whose products are one chain of sums, at most; also a block */
#define NARROW (64 * 64) /* so many channels times channels, at most: all products at once */
#define NARROW_SIDE 128  /* and no side wider than this */
#define RANGE 256        /* channels of a range, at most */
#define LEAST_RANGE 64   /* and at least, where it takes smaller ones to make enough pieces */
#define WHOLE_RANGE 64   /* of a piece that has all tiles and all products */
#define WHOLE_PIECES 16  /* where there are so many */
#define WHOLE_TILES 320  /* and tiles are so few that the sums' way through memory would cost more than it saves */
#define SLICE_TILES 512  /* of a wide layer, about: the sums of a slice are written and read again */
#define FINISH_ROWS 8

/* The small map's kind for each product of a dimension: the sum of two pixels, or one of them. */
enum { SUM, FIRST, SECOND, SMALL_SIDE };
static const int small_kind[UP_WEIGHTS] = {SUM, FIRST, FIRST, SECOND, SECOND};

/* One of the two maps, in tiles. */
typedef struct tiled_map {
    tile_grid grid;
    const float *zeros;
    bool large, relu;            /* relu: of the large one */
    int64_t range;               /* of channels in a piece */
    int64_t kind, strip, floats; /* of a block's data: [strip][kind][tile][channel] */
} tiled_map;

typedef struct weights_job {
    tiled_map x, dy;                  /* columns and rows of the products */
    int64_t block, slices, per_slice; /* tiles */
    int rows, step; /* rows of products in a piece, and those that are in a block's data at once: one or all */
    int64_t k_ranges, c_ranges;
    int64_t c_ld, product, sums; /* floats: of a range's sums [product][k][c] */
    float *dw;
    int64_t c;
    bool turned;
    int accumulate;
    float scale;
} weights_job;

/* A line of the small map's sums: of lines a and b, or of a alone. */
CPU_INLINE void small_row(const up_window *x, const bool edge, int a, int b, int64_t c, int n, float *out, int64_t kind)
{
    cpu_vec left = up_pixel(x, edge, a, 0, c, n), right = up_pixel(x, edge, a, 1, c, n);
    if (a != b) left += up_pixel(x, edge, b, 0, c, n), right += up_pixel(x, edge, b, 1, c, n);
    cpu_store(out + SUM * kind, left + right);
    cpu_store(out + FIRST * kind, left);
    cpu_store(out + SECOND * kind, right);
}

/* What row r of the products takes, one vector of channels; `all`: rows lie behind one another, else r is alone. */
CPU_INLINE void transform_row(const tiled_map *m, const bool all, int r, const up_window *x, const bool edge,
                              const bool relu, int64_t c, int n, float *out)
{
    if (m->large) {
        up_large_row(x, edge, relu, up_plus[r], up_minus[r], r ? -1.0f : 1.0f, c, n,
                     out + (all ? r * UP_WEIGHTS : 0) * m->kind, m->kind);
        return;
    }
    int kind = small_kind[r];
    small_row(x, edge, kind == SECOND, kind != FIRST, c, n, out + (all ? kind * SMALL_SIDE : 0) * m->kind, m->kind);
}

/* Rows r .. r+step of the data of one tile, channels c0 .. c0+count, zeros up to a multiple of UP_DEPTH. */
CPU_INLINE void transform_tile(const tiled_map *m, int r, int step, const up_window *x, const bool edge,
                               const bool relu, int64_t c0, int64_t count, float *v)
{
    for (int64_t c = 0; c < round_up(count, UP_DEPTH); c += CPU_LANES) {
        float *o = v + c / UP_STRIP * m->strip + c % UP_STRIP;
        int n = c + CPU_LANES <= count ? CPU_LANES : c < count ? (int)(count - c) : 0;
        if (step == 1) {
            if (n == CPU_LANES)
                transform_row(m, false, r, x, edge, relu, c0 + c, CPU_LANES, o);
            else
                transform_row(m, false, r, x, edge, relu, c0 + c, n, o);
            continue;
        }
#pragma GCC unroll 5
        for (int i = 0; i < UP_WEIGHTS; i++) {
            if (!m->large && (i == 2 || i == 4)) continue; /* of the same lines as the one before */
            if (n == CPU_LANES)
                transform_row(m, true, i, x, edge, relu, c0 + c, CPU_LANES, o);
            else
                transform_row(m, true, i, x, edge, relu, c0 + c, n, o);
        }
    }
}

static void transform_block(const tiled_map *m, int r, int step, int64_t t0, int64_t depth, int64_t c0, int64_t count,
                            float *v)
{
    const tile_grid *g = &m->grid;
    up_window x = {.zeros = m->zeros, .c = g->c};
    int64_t line = t0 / g->cols, image = line / g->rows, top = line % g->rows * g->step, left = t0 % g->cols * g->step;
    int a = m->large ? up_plus[r] : small_kind[r] == SECOND, b = m->large ? up_minus[r] : small_kind[r] != FIRST;
    for (int64_t t = 0; t < depth; t++, v += UP_STRIP) {
        int64_t i0 = top - m->large, j0 = left - m->large;
        if (step == 1) {
            up_window_lines(&x, g->x, g->h, g->w, image, i0, j0, a, a + 1);
            up_window_lines(&x, g->x, g->h, g->w, image, i0, j0, b, b + 1);
        } else {
            up_window_lines(&x, g->x, g->h, g->w, image, i0, j0, 0, m->large ? 6 : 2);
        }
        bool edge = up_window_columns(&x, g->w, j0, m->large ? 6 : 2);
        if (m->relu)
            edge ? transform_tile(m, r, step, &x, true, true, c0, count, v)
                 : transform_tile(m, r, step, &x, false, true, c0, count, v);
        else
            edge ? transform_tile(m, r, step, &x, true, false, c0, count, v)
                 : transform_tile(m, r, step, &x, false, false, c0, count, v);
        if ((left += g->step) < g->w) continue;
        left = 0, top += g->step;
        if (top >= g->h) top = 0, image++;
    }
}

TILE_DEFINE_OUTER(products, UP_STRIP)

/* sums[k][c] (+)= over `depth` tiles of y[tile][k] v[tile][c] */
static void multiply(const weights_job *j, const float *y, int64_t ks, const float *v, int64_t cs, int64_t depth,
                     float *sums, bool add)
{
    tile_walk walk = {.segments = 1, .depth = depth, .b_step = UP_STRIP};
    for (int64_t k0 = 0; k0 < ks; k0 += UP_STRIP, y += j->dy.strip) {
        int64_t rows = cpu_min64(UP_STRIP, ks - k0), each = tile_rows(rows, 2);
        for (int64_t c = 0; c < cs; c += GEMM_NR) {
            bool wide = cs - c > CPU_LANES;
            const float *b = v + c / UP_STRIP * j->x.strip + c % UP_STRIP;
            for (int64_t k = 0; k < rows; k += each) {
                float *row[GEMM_MR];
                tile_out out = {.row = row,
                                .col = c,
                                .rows = (int)cpu_min64(each, rows - k),
                                .cols = wide ? GEMM_NR : CPU_LANES,
                                .add = add};
                for (int i = 0; i < out.rows; i++) row[i] = sums + (k0 + k + i) * j->c_ld;
                products[wide][cpu_ceil_div(out.rows, 2)](&walk, y + k, b, &out);
            }
        }
    }
}

/* From a product's sums to the taps in them: the transpose of upconv.h's weights. */
CPU_INLINE void taps_of(const cpu_vec *g, int from, cpu_vec *w, int to)
{
    cpu_vec low = g[0] + g[2 * from], high = g[0] + g[3 * from];
    w[0] = low + g[from];
    w[to] = low + g[3 * from];
    w[2 * to] = high + g[4 * from];
}

/* dw (+)= the slices' sums, in order, for ks rows and cs columns */
static void finish(const weights_job *j, const float *sums, int64_t slice_floats, int64_t k0, int64_t ks, int64_t c0,
                   int64_t cs)
{
    for (int64_t k = 0; k < ks; k++)
        for (int64_t c = 0; c < cs; c += CPU_LANES) {
            const float *s = sums + k * j->c_ld + c;
            cpu_vec g[UP_PRODUCTS], rows[15], w[9];
            for (int p = 0; p < UP_PRODUCTS; p++) g[p] = cpu_load(s + p * j->product);
            for (int64_t slice = 1; slice < j->slices; slice++)
                for (int p = 0; p < UP_PRODUCTS; p++) g[p] += cpu_load(s + slice * slice_floats + p * j->product);
            for (int q = 0; q < UP_WEIGHTS; q++) taps_of(g + q, UP_WEIGHTS, rows + q, UP_WEIGHTS);
            for (int r = 0; r < 3; r++) taps_of(rows + r * UP_WEIGHTS, 1, w + 3 * r, 1);
            for (int tap = 0; tap < 9; tap++)
                tile_store(j->dw + ((k0 + k) * 9 + (j->turned ? 8 - tap : tap)) * j->c + c0 + c,
                           cpu_splat(j->scale) * w[tap], (int)cpu_min64(CPU_LANES, cs - c), NULL, j->accumulate);
        }
}

static tiled_map map_of(const float *map, int64_t n, int64_t h, int64_t w, int64_t c, bool large)
{
    int64_t step = large ? 4 : 2, rows = cpu_ceil_div(h, step), cols = cpu_ceil_div(w, step);
    tile_grid grid = {
        .x = map, .h = h, .w = w, .c = c, .rows = rows, .cols = cols, .step = step, .tiles = n * rows * cols};
    return (tiled_map){.grid = grid, .large = large};
}

static void lay_out(tiled_map *m, const weights_job *j)
{
    int kinds = m->large ? UP_WEIGHTS : SMALL_SIDE;
    m->kind = j->block * UP_STRIP + 16;
    m->strip = (j->step == 1 ? kinds : kinds * kinds) * m->kind;
    m->floats = cpu_ceil_div(m->range, UP_STRIP) * m->strip;
}

/* Sums of the products' rows r0 .. r0+j->rows over the tiles first .. last, for ks by cs channels from (k0, c0). */
static void run_piece(const weights_job *j, int r0, int64_t first, int64_t last, int64_t k0, int64_t ks, int64_t c0,
                      int64_t cs, float *v, float *sums)
{
    float *y = v + j->x.floats;
    for (int r = r0; r < r0 + j->rows; r += j->step)
        for (int64_t t = first; t < last; t += j->block) {
            int64_t depth = cpu_min64(j->block, last - t);
            transform_block(&j->x, r, j->step, t, depth, c0, cs, v);
            transform_block(&j->dy, r, j->step, t, depth, k0, ks, y);
            for (int p = 0; p < j->step * UP_WEIGHTS; p++) {
                int column = small_kind[p % UP_WEIGHTS], small = SMALL_SIDE * small_kind[p / UP_WEIGHTS] + column;
                multiply(j, y + (j->dy.large ? p : small) * j->dy.kind, ks, v + (j->x.large ? p : small) * j->x.kind,
                         cs, depth, sums + (r * UP_WEIGHTS + p) * j->product, t > first);
            }
        }
}

/* How the work is cut, from the shape alone. */
static void cut(weights_job *j)
{
    tiled_map *large = j->x.large ? &j->x : &j->dy, *small = j->x.large ? &j->dy : &j->x;
    int64_t tiles = large->grid.tiles, blocks = cpu_ceil_div(tiles, CHAIN), c = large->grid.c, k = small->grid.c;
    large->range = cpu_min64(c, RANGE), small->range = cpu_min64(k, RANGE);
    j->rows = j->step = 1;
    if (c * k <= NARROW && c <= NARROW_SIDE && k <= NARROW_SIDE) {
        j->rows = j->step = UP_WEIGHTS;
        j->slices = cpu_min64(blocks < 16 ? 4 : blocks < 64 ? 8 : blocks / 8, cpu_min64(blocks, 32));
    } else if (tiles <= WHOLE_TILES && cpu_ceil_div(c, WHOLE_RANGE) * cpu_ceil_div(k, WHOLE_RANGE) >= WHOLE_PIECES) {
        large->range = cpu_min64(c, WHOLE_RANGE), small->range = cpu_min64(k, WHOLE_RANGE);
        j->rows = UP_WEIGHTS;
        if (blocks == 1) j->step = UP_WEIGHTS;
        j->slices = 1;
    } else {
        j->slices = tiles < SLICE_TILES ? 1 : cpu_min64(tiles / SLICE_TILES, 8);
        int64_t beside = UP_WEIGHTS * j->slices * cpu_ceil_div(k, small->range);
        while (large->range > LEAST_RANGE && beside * cpu_ceil_div(c, large->range) < 20)
            large->range = round_up(large->range / 2, UP_STRIP);
    }
    j->k_ranges = cpu_ceil_div(j->dy.grid.c, j->dy.range), j->c_ranges = cpu_ceil_div(j->x.grid.c, j->x.range);
    j->c_ld = round_up(j->x.range, UP_DEPTH) + 16;
    j->product = j->dy.range * j->c_ld;
    j->sums = UP_PRODUCTS * j->product;
    j->slices = cpu_min64(j->slices, 8 * 1024 * 1024 / (j->k_ranges * j->c_ranges * j->sums) + 1); /* about 32 MiB */
    j->per_slice = cpu_ceil_div(tiles, j->slices);
    j->slices = cpu_ceil_div(tiles, j->per_slice);
    j->block = cpu_ceil_div(j->per_slice, cpu_ceil_div(j->per_slice, CHAIN)); /* as even as can be */
    lay_out(&j->x, j), lay_out(&j->dy, j);
}

int CPU_ISA(upconv_weights)(sag_kernel_env *env, const conv_args *a, bool pool)
{
    weights_job j = {.x = map_of(a->x, a->n, a->h, a->w_in, a->c, pool),
                     .dy = map_of(a->dy, a->n, a->p, a->q, a->k, !pool),
                     .dw = a->dw,
                     .c = a->c,
                     .turned = !pool,
                     .accumulate = a->accumulate_dw,
                     .scale = pool ? 0.25f : 1.0f};
    j.x.relu = a->relu;
    cut(&j);
    int64_t tiles = j.x.grid.tiles, ranges = j.k_ranges * j.c_ranges, parts = UP_WEIGHTS / j.rows;
    bool whole = j.slices * parts == 1; /* a piece's sums become dw at once */

    int64_t k_pieces = cpu_ceil_div(j.dy.range, FINISH_ROWS);
    int64_t zeros = round_up(6 * (a->c > a->k ? a->c : a->k) + 16, 16), data = j.x.floats + j.dy.floats;
    int64_t own = data + (whole ? j.sums : 0), shared = whole ? 0 : j.slices * ranges * j.sums;
    int threads = tiles * a->c * a->k < 8192 ? 1 : env->threads;
    float *memory = env->scratch(env, (size_t)(zeros + shared + threads * own) * sizeof *memory);
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    gemm_clear(memory, zeros);
    env->flops = 2.0 * UP_PRODUCTS * (double)(tiles * a->c * a->k);
    j.x.zeros = j.dy.zeros = memory;
    float *all_sums = memory + zeros;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *v = all_sums + shared + omp_get_thread_num() * own;
#pragma omp for schedule(dynamic)
        for (int64_t piece = 0; piece < j.slices * ranges * parts; piece++) {
            int64_t range = piece / parts % ranges, slice = piece / parts / ranges;
            int64_t k0 = range / j.c_ranges * j.dy.range, ks = cpu_min64(j.dy.range, a->k - k0);
            int64_t c0 = range % j.c_ranges * j.x.range, cs = cpu_min64(j.x.range, a->c - c0);
            int64_t first = slice * j.per_slice, last = cpu_min64(tiles, first + j.per_slice);
            float *sums = whole ? v + data : all_sums + (slice * ranges + range) * j.sums;
            run_piece(&j, (int)(piece % parts), first, last, k0, ks, c0, cs, v, sums);
            if (whole) finish(&j, sums, 0, k0, ks, c0, cs);
        }
        if (!whole) {
#pragma omp for schedule(static)
            for (int64_t u = 0; u < ranges * k_pieces; u++) {
                int64_t range = u / k_pieces, k0 = range / j.c_ranges * j.dy.range, c0 = range % j.c_ranges * j.x.range;
                int64_t k = u % k_pieces * FINISH_ROWS, ks = cpu_min64(j.dy.range, a->k - k0);
                if (k < ks)
                    finish(&j, all_sums + range * j.sums + k * j.c_ld, ranges * j.sums, k0 + k,
                           cpu_min64(FINISH_ROWS, ks - k), c0, cpu_min64(j.x.range, a->c - c0));
            }
        }
    }
    return SAG_KERNEL_OK;
}
