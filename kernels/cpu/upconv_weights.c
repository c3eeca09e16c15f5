/*
 * upconv_weights.c - weight gradient of upconv and convpool by the products of upconv.h: the same 25 products with
 * the roles changed, dw = sum over tiles of (data of the large map) x (data of the small map), then the sums of taps
 * transposed. For a small pixel's pair (y0, y1): product 0 takes y0 + y1, 1 and 2 take y0, 3 and 4 take y1.
 *
 * A piece of work is a slice of the tiles times a range of K times a range of C: block by block of tiles it transforms
 * both maps and adds their products to its sums. The slices depend on the shape alone and are added in order, so the
 * result is bit-equal for any number of threads.
 */
#include "kernels/cpu/upconv.h"

#define BLOCK 84 /* tiles whose products are one chain of sums */
#define RANGE 64 /* channels of either side in a piece */
#define SMALL_KINDS 9
#define FINISH_ROWS 8

static const int small_kind[UP_WEIGHTS] = {0, 1, 1, 2, 2};

/* One of the two maps, in tiles. */
typedef struct tiled_map {
    const float *map;
    const float *zeros;
    int64_t h, w, c;
    bool large, relu; /* relu: of the large one */
    int64_t range;               /* of channels in a piece */
    int64_t kind, strip, floats; /* of the data: [strip][kind][tile][channel] */
} tiled_map;

typedef struct weights_job {
    tiled_map x, dy;              /* columns and rows of the products */
    int64_t rows, columns, tiles; /* of an image; of all */
    int64_t slices, per_slice;    /* blocks in a slice */
    int64_t k_ranges, c_ranges;
    int64_t c_ld, product, sums; /* floats: of sums [product][k][c] */
    float *dw;
    int64_t c;
    bool turned;
    int accumulate;
    float scale;
} weights_job;

CPU_INLINE void small_sums(const up_window *x, const bool edge, int64_t c, int n, float *out, int64_t kind)
{
    cpu_vec y0 = up_pixel(x, edge, 0, 0, c, n), y1 = up_pixel(x, edge, 0, 1, c, n);
    cpu_vec y2 = up_pixel(x, edge, 1, 0, c, n), y3 = up_pixel(x, edge, 1, 1, c, n);
    cpu_vec left = y0 + y2, right = y1 + y3;
    cpu_store(out, left + right);
    cpu_store(out + kind, left);
    cpu_store(out + 2 * kind, right);
    cpu_store(out + 3 * kind, y0 + y1);
    cpu_store(out + 4 * kind, y0);
    cpu_store(out + 5 * kind, y1);
    cpu_store(out + 6 * kind, y2 + y3);
    cpu_store(out + 7 * kind, y2);
    cpu_store(out + 8 * kind, y3);
}

/* Channels c0 .. c0+count of one tile, zeros up to a multiple of UP_DEPTH. */
CPU_INLINE void transform_tile(const tiled_map *m, const up_window *x, const bool edge, const bool relu, int64_t c0,
                               int64_t count, float *v)
{
    for (int64_t c = 0; c < round_up(count, UP_DEPTH); c += CPU_LANES) {
        float *o = v + c / UP_STRIP * m->strip + c % UP_STRIP;
        int n = c + CPU_LANES <= count ? CPU_LANES : c < count ? (int)(count - c) : 0;
        if (m->large && n == CPU_LANES)
            up_large(x, edge, relu, c0 + c, CPU_LANES, o, m->kind);
        else if (m->large)
            up_large(x, edge, relu, c0 + c, n, o, m->kind);
        else if (n == CPU_LANES)
            small_sums(x, edge, c0 + c, CPU_LANES, o, m->kind);
        else
            small_sums(x, edge, c0 + c, n, o, m->kind);
    }
}

static void transform_block(const weights_job *j, const tiled_map *m, int64_t t0, int64_t depth, int64_t c0,
                            int64_t count, float *v)
{
    up_window x = {.zeros = m->zeros, .c = m->c};
    for (int64_t t = t0; t < t0 + depth; t++, v += UP_STRIP) {
        int64_t image = t / (j->rows * j->columns), r = t / j->columns % j->rows, s = t % j->columns;
        int side = m->large ? 6 : 2;
        int64_t i0 = m->large ? 4 * r - 1 : 2 * r, j0 = m->large ? 4 * s - 1 : 2 * s;
        bool edge = up_window_at(&x, m->map, m->h, m->w, image, i0, j0, side, side);
        if (m->relu)
            edge ? transform_tile(m, &x, true, true, c0, count, v) : transform_tile(m, &x, false, true, c0, count, v);
        else
            edge ? transform_tile(m, &x, true, false, c0, count, v) : transform_tile(m, &x, false, false, c0, count, v);
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

static tiled_map map_of(const float *map, int64_t h, int64_t w, int64_t c, bool large)
{
    tiled_map m = {.map = map, .h = h, .w = w, .c = c, .large = large};
    m.range = cpu_min64(c, RANGE);
    m.kind = BLOCK * UP_STRIP + 16;
    m.strip = (large ? UP_PRODUCTS : SMALL_KINDS) * m.kind;
    m.floats = cpu_ceil_div(m.range, UP_STRIP) * m.strip;
    return m;
}

int CPU_ISA(upconv_weights)(sag_kernel_env *env, const conv_args *a, bool pool)
{
    weights_job j = {.x = map_of(a->x, a->h, a->w_in, a->c, pool),
                     .dy = map_of(a->dy, a->p, a->q, a->k, !pool),
                     .dw = a->dw,
                     .c = a->c,
                     .turned = !pool,
                     .accumulate = a->accumulate_dw,
                     .scale = pool ? 0.25f : 1.0f};
    j.x.relu = a->relu;
    j.rows = cpu_ceil_div(pool ? a->p : a->h, 2), j.columns = cpu_ceil_div(pool ? a->q : a->w_in, 2);
    j.tiles = a->n * j.rows * j.columns;
    j.k_ranges = cpu_ceil_div(a->k, j.dy.range), j.c_ranges = cpu_ceil_div(a->c, j.x.range);
    j.c_ld = round_up(j.x.range, UP_DEPTH) + 16;
    j.product = j.dy.range * j.c_ld;
    j.sums = UP_PRODUCTS * j.product;

    /* Slices: enough for 32 pieces of work, none below a few blocks, the sums not above 32 MiB unless one will do. */
    int64_t ranges = j.k_ranges * j.c_ranges, blocks = cpu_ceil_div(j.tiles, BLOCK);
    j.slices = cpu_min64(cpu_ceil_div(32, ranges), cpu_ceil_div(blocks, 3));
    j.slices = cpu_min64(j.slices, 8 * 1024 * 1024 / (ranges * j.sums) + 1);
    j.per_slice = cpu_ceil_div(blocks, j.slices);
    j.slices = cpu_ceil_div(blocks, j.per_slice);

    int64_t k_pieces = cpu_ceil_div(j.dy.range, FINISH_ROWS);
    int64_t zeros = round_up(6 * (a->c > a->k ? a->c : a->k) + 16, 16), data = j.x.floats + j.dy.floats;
    int64_t own = data + (j.slices == 1 ? j.sums : 0), shared = j.slices == 1 ? 0 : j.slices * ranges * j.sums;
    int threads = j.tiles * a->c * a->k < 8192 ? 1 : env->threads;
    float *memory = env->scratch(env, (size_t)(zeros + shared + threads * own) * sizeof *memory);
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    gemm_clear(memory, zeros);
    env->flops = 2.0 * UP_PRODUCTS * (double)(j.tiles * a->c * a->k);
    j.x.zeros = j.dy.zeros = memory;
    float *all_sums = memory + zeros;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *v = all_sums + shared + omp_get_thread_num() * own, *y = v + j.x.floats;
#pragma omp for schedule(dynamic)
        for (int64_t piece = 0; piece < j.slices * ranges; piece++) {
            int64_t slice = piece / ranges, range = piece % ranges;
            int64_t k0 = range / j.c_ranges * j.dy.range, ks = cpu_min64(j.dy.range, a->k - k0);
            int64_t c0 = range % j.c_ranges * j.x.range, cs = cpu_min64(j.x.range, a->c - c0);
            int64_t first = slice * j.per_slice * BLOCK, last = cpu_min64(j.tiles, first + j.per_slice * BLOCK);
            float *sums = j.slices == 1 ? v + data : all_sums + piece * j.sums;
            for (int64_t t = first; t < last; t += BLOCK) {
                int64_t depth = cpu_min64(BLOCK, last - t);
                transform_block(&j, &j.x, t, depth, c0, cs, v);
                transform_block(&j, &j.dy, t, depth, k0, ks, y);
                for (int p = 0; p < UP_PRODUCTS; p++) {
                    int small = 3 * small_kind[p / UP_WEIGHTS] + small_kind[p % UP_WEIGHTS];
                    multiply(&j, y + (pool ? small : p) * j.dy.kind, ks, v + (pool ? p : small) * j.x.kind, cs, depth,
                             sums + p * j.product, t > first);
                }
            }
            if (j.slices == 1) finish(&j, sums, 0, k0, ks, c0, cs);
        }
        if (j.slices > 1) {
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
