/*
 * upconv.c - upconv and convpool, forward and data gradient, by the products of upconv.h.
 *
 * Block by block of tiles: transform the pixels, 25 products with the transformed weights, transform back; neither
 * transformed map exists as a whole. Each thread has blocks of its own, which fit its L2, unless so many channels meet
 * so few tiles that writing out all transformed weights would take longer than that saves. A block is a run of rows of
 * tiles, across images where these are small. Each output is the same chain of sums however the work is cut.
 */
#include "kernels/cpu/upconv.h"

#include "kernels/cpu/patches.h"
#include "kernels/cpu/taps.h"

#define BLOCK_FLOATS 100000 /* of transformed data in a block, about, so that it stays in L2 beside the weights */
#define OUTPUTS 64          /* channels whose products a block has at once */
#define WIDE (64 * 128)     /* more channels in times out: transformed weights would leave L2 */
#define WIDEST (256 * 256)  /* and L3 */
#define MANY_TILES 512      /* for these it is worth to transform weights once and write them out, up to WIDEST */
#define WIDE_TILES 256      /* of a block else: what they have to be worth transforming for */
#define PAST (24 << 20)     /* bytes of output that leave the caches before anyone reads them */
#define CHUNK 64            /* inner channels of one chain of sums, times the terms of a product */

enum { TILE_ROW, SEAM_ROW, ROW_KINDS };

typedef struct resampling {
    const float *in;
    float *out;
    const float *w, *bias;
    const float *mask;   /* of the output's shape: outputs count where it is above 0, else they are 0; or NULL */
    bool expand, turned; /* turned: the data gradient; taps reversed, and `k` is the last dimension of w */
    bool relu;           /* of what reduce takes in */
    int accumulate;
    bool past; /* the output, in whole lines, goes past the caches: it is more than they hold */
    float scale;
    int64_t c, k;        /* channels in and out of the products */
    int64_t n, h, width; /* the small map */
    int64_t image_rows;  /* rows of tiles of an image */
    int64_t columns[ROW_KINDS];
    int64_t depth; /* c with the zeros */
    int64_t rows;  /* of a block, at most */
    int64_t out_kinds;
    int64_t kind, v_strip, m_strip; /* floats from one to the next */
    int64_t u_product, u_strip;
    const float *zeros;
} resampling;

/* What each number of a product stands for: the kind of data, of tile, and expand's order of products in a tile. */
static const int expand_data[UP_WEIGHTS] = {0, 1, 2, 3, 3};
static const int expand_row[UP_WEIGHTS] = {TILE_ROW, TILE_ROW, SEAM_ROW, TILE_ROW, TILE_ROW};
static const int data_row[4] = {TILE_ROW, TILE_ROW, SEAM_ROW, TILE_ROW};
static const int expand_order[4] = {2, 1, 4, 3};
static const int reduce_terms[3][2] = {{0, 0}, {1, 2}, {3, 4}}, reduce_count[3] = {1, 2, 2};

/* ----------------------------------------------------------------------------------------- weights */

/* o = (S, w0, w0 + w1, w1 + w2, w2) */
CPU_INLINE void weight_sums(const cpu_vec *w, int from, cpu_vec *o)
{
    cpu_vec low = w[0] + w[from];
    o[0] = low + w[2 * from];
    o[1] = w[0];
    o[2] = low;
    o[3] = w[from] + w[2 * from];
    o[4] = w[2 * from];
}

static int64_t strip_width(const resampling *j, int64_t k)
{
    return j->k - k > CPU_LANES ? GEMM_NR : CPU_LANES;
}

/* Inner channels c0 .. c0+depth for the output channels of the strip at k: u[product][c][k] */
static void transform_weights(const resampling *j, int64_t k, int64_t c0, int64_t depth, float *u)
{
    int64_t width = strip_width(j, k);
    for (int64_t half = 0; half < width; half += CPU_LANES)
        for (int64_t c = 0; c < depth; c += CPU_LANES) {
            float tile[9][CPU_LANES * CPU_LANES];
            load_taps(j->w, j->turned, j->c, j->k, c0 + c, k + half, tile);
            for (int64_t l = 0; l < CPU_LANES; l++) {
                cpu_vec w[9], rows[15], o[UP_WEIGHTS];
                float *to = u + (c + l) * width + half;
#pragma GCC unroll 9
                for (int tap = 0; tap < 9; tap++) w[tap] = cpu_load(tile[tap] + l * CPU_LANES);
#pragma GCC unroll 3
                for (int r = 0; r < 3; r++) weight_sums(w + 3 * r, 1, rows + 5 * r);
#pragma GCC unroll 5
                for (int s = 0; s < UP_WEIGHTS; s++) {
                    weight_sums(rows + s, UP_WEIGHTS, o);
#pragma GCC unroll 5
                    for (int r = 0; r < UP_WEIGHTS; r++) cpu_store(to + (5 * r + s) * j->u_product, o[r]);
                }
            }
        }
}

/* ------------------------------------------------------------------------------------------ blocks */

/* Rows g0 .. g1 of the tiles of all images, and how many of each kind of row that makes. */
typedef struct block {
    int64_t g0, g1, rows[ROW_KINDS];
} block;

/* A row of tiles: its image, its place in it, and its place among the block's rows of either kind; -1: it is none. */
typedef struct tile_line {
    int64_t image, t, slot[ROW_KINDS];
} tile_line;

/* How many rows of a kind lie before row g: an image has (h + 1) / 2 tile rows, its first ones, and h / 2 seams, before
 * all but its first row. */
static int64_t rows_before(const resampling *j, int64_t g, int kind)
{
    int64_t image = g / j->image_rows, t = g % j->image_rows, tile_rows = (j->h + 1) / 2;
    if (kind == TILE_ROW) return image * tile_rows + cpu_min64(t, tile_rows);
    return image * (j->h / 2) + (t > 0 ? t - 1 : 0);
}

static block block_at(const resampling *j, int64_t g0, int64_t all)
{
    block b = {.g0 = g0, .g1 = cpu_min64(all, g0 + j->rows)};
    for (int kind = 0; kind < ROW_KINDS; kind++) b.rows[kind] = rows_before(j, b.g1, kind) - rows_before(j, g0, kind);
    return b;
}

static tile_line line_at(const resampling *j, const block *b, int64_t g)
{
    tile_line line = {.image = g / j->image_rows, .t = g % j->image_rows};
    bool is[ROW_KINDS] = {2 * line.t<j->h, line.t> 0};
    for (int kind = 0; kind < ROW_KINDS; kind++)
        line.slot[kind] = is[kind] ? rows_before(j, g, kind) - rows_before(j, b->g0, kind) : -1;
    return line;
}

/* The last tile of each kind is where data go that nobody wants, or zeros come from. */
static int64_t spare_tile(const resampling *j)
{
    return j->rows * j->columns[TILE_ROW];
}

static int64_t tile_at(const resampling *j, const tile_line *line, int row_kind, int column_kind, int64_t t)
{
    int64_t column = column_kind == SEAM_ROW ? t - 1 : t, row = line->slot[row_kind];
    if (row < 0 || column < 0 || column >= j->columns[column_kind]) return spare_tile(j);
    return row * j->columns[column_kind] + column;
}

/* Offsets of tile t of a line in data whose dimensions have the given kinds of tiles, `n` each: at[row * n + column].
 * Between the edges they only move on from those of tile t - 1. */
CPU_INLINE void locate(const resampling *j, const tile_line *line, const int *kinds, const int n, int64_t t,
                       int64_t *at)
{
    if (t > 1 && t < j->columns[TILE_ROW]) {
        for (int r = 0; r < n; r++)
            for (int s = 0, go = line->slot[kinds[r]] < 0 ? 0 : UP_STRIP; s < n; s++) at[r * n + s] += go;
        return;
    }
    for (int r = 0; r < n; r++)
        for (int s = 0; s < n; s++)
            at[r * n + s] = (r * n + s) * j->kind + tile_at(j, line, kinds[r], kinds[s], t) * UP_STRIP;
}

/* --------------------------------------------------------------------------------- pixels to data */

/* Small pixels (x0 x1 x2) to (x1, x0 - x1, x2 - x1) in both dimensions: kinds 0, 1 and 2, 3 of expand_data. */
CPU_INLINE void small_differences(const up_window *x, const bool edge, int64_t c, int n, const int64_t *at, float *v)
{
#pragma GCC unroll 3
    for (int r = 0; r < 3; r++) {
        cpu_vec d[3];
#pragma GCC unroll 3
        for (int s = 0; s < 3; s++) {
            d[s] = up_pixel(x, edge, 1, s, c, n);
            if (r) d[s] = up_pixel(x, edge, r == 1 ? 0 : 2, s, c, n) - d[s];
        }
        cpu_vec before = d[0] - d[1], after = d[2] - d[1];
        int first = r == 0 ? 0 : r == 1 ? 1 : 3, last = r == 0 ? 0 : r == 1 ? 2 : 3;
#pragma GCC unroll 2
        for (int kind = first; kind <= last; kind++) {
            cpu_store(v + at[4 * kind], d[1]);
            cpu_store(v + at[4 * kind + 1], before);
            cpu_store(v + at[4 * kind + 2], before);
            cpu_store(v + at[4 * kind + 3], after);
        }
    }
}

CPU_INLINE void expand_tile(const resampling *j, const up_window *x, const bool edge, const int64_t *at, float *v)
{
    for (int64_t c = 0; c < j->depth; c += CPU_LANES) {
        float *o = v + c / UP_STRIP * j->v_strip + c % UP_STRIP;
        if (c + CPU_LANES <= j->c)
            small_differences(x, edge, c, CPU_LANES, at, o);
        else
            small_differences(x, edge, c, c < j->c ? (int)(j->c - c) : 0, at, o);
    }
}

CPU_INLINE void large_differences(const up_window *x, const bool edge, const bool relu, int64_t c, int n, float *v,
                                  int64_t kind)
{
#pragma GCC unroll 5
    for (int r = 0; r < UP_WEIGHTS; r++)
        up_large_row(x, edge, relu, up_plus[r], up_minus[r], r ? -1.0f : 1.0f, c, n, v + r * UP_WEIGHTS * kind, kind);
}

CPU_INLINE void reduce_tile(const resampling *j, const up_window *x, const bool edge, const bool relu, float *v)
{
    for (int64_t c = 0; c < j->depth; c += CPU_LANES) {
        float *o = v + c / UP_STRIP * j->v_strip + c % UP_STRIP;
        if (c + CPU_LANES <= j->c)
            large_differences(x, edge, relu, c, CPU_LANES, o, j->kind);
        else
            large_differences(x, edge, relu, c, c < j->c ? (int)(j->c - c) : 0, o, j->kind);
    }
}

static void transform_line(const resampling *j, const tile_line *line, float *v)
{
    up_window x = {.zeros = j->zeros, .c = j->c};
    if (j->expand) {
        int64_t at[16];
        for (int64_t t = 0; t <= j->width / 2; t++) {
            locate(j, line, data_row, 4, t, at);
            if (up_window_at(&x, j->in, j->h, j->width, line->image, 2 * line->t - 1, 2 * t - 1, 3, 3))
                expand_tile(j, &x, true, at, v);
            else
                expand_tile(j, &x, false, at, v);
        }
        return;
    }
    float *o = v + line->slot[TILE_ROW] * j->columns[TILE_ROW] * UP_STRIP;
    for (int64_t t = 0; t < j->columns[TILE_ROW]; t++, o += UP_STRIP) {
        bool edge = up_window_at(&x, j->in, 2 * j->h, 2 * j->width, line->image, 4 * line->t - 1, 4 * t - 1, 6, 6);
        if (j->relu)
            edge ? reduce_tile(j, &x, true, true, o) : reduce_tile(j, &x, false, true, o);
        else
            edge ? reduce_tile(j, &x, true, false, o) : reduce_tile(j, &x, false, false, o);
    }
}

/* ---------------------------------------------------------------------------------------- products */

TILE_SIZES(TILE_DEFINE_WIDE, up, UP_STRIP)
TILE_SIZES(TILE_DEFINE_NARROW, up, UP_STRIP)
static tile_kernel *const wide_tiles[TILE_VARIANTS] = {NULL, TILE_SIZES(TILE_ENTRY_WIDE, up, UP_STRIP)};
static tile_kernel *const narrow_tiles[TILE_VARIANTS] = {NULL, TILE_SIZES(TILE_ENTRY_NARROW, up, UP_STRIP)};

/* One of the sums that the output wants: of `terms` products, of data kind in[] by weights at[]. */
typedef struct product {
    int out, terms, in[4], at[4];
    int row, column; /* kinds of tiles */
} product;

static product product_of(const resampling *j, int index)
{
    product p = {.out = index};
    if (j->expand) {
        int r = index / UP_WEIGHTS, s = index % UP_WEIGHTS;
        p.terms = 1, p.in[0] = 4 * expand_data[r] + expand_data[s], p.at[0] = index;
        p.row = expand_row[r], p.column = expand_row[s];
        return p;
    }
    for (int a = 0; a < reduce_count[index / 3]; a++)
        for (int b = 0; b < reduce_count[index % 3]; b++)
            p.in[p.terms] = p.at[p.terms] = UP_WEIGHTS * reduce_terms[index / 3][a] + reduce_terms[index % 3][b],
            p.terms++;
    return p;
}

/* m (+)= v u for one strip of output channels at k, inner channels of u from c0 on. */
static void multiply(const resampling *j, const block *b, const product *p, int64_t k, int64_t c0, int64_t depth,
                     const float *u, const float *v, float *m, bool add)
{
    bool wide = strip_width(j, k) == GEMM_NR;
    int64_t grain = wide ? 2 : 4, width = wide ? GEMM_NR : CPU_LANES;
    int64_t tiles = b->rows[p->row] * j->columns[p->column];
    if (tiles == 0) return; /* a map one pixel wide has no seams */
    int64_t each = tile_rows(tiles, grain);
    int64_t a_at[4 * CHUNK / UP_STRIP], b_at[4 * CHUNK / UP_STRIP], segments = 0;
    int64_t whole = depth / UP_STRIP * UP_STRIP; /* the last strip may be half as deep */
    for (int t = 0; t < p->terms; t++)
        for (int64_t c = 0; c < whole; c += UP_STRIP, segments++) {
            a_at[segments] = p->in[t] * j->kind + (c0 + c) / UP_STRIP * j->v_strip;
            b_at[segments] = p->at[t] * j->u_product + c * width;
        }
    tile_walk walk = {.segments = segments, .depth = UP_STRIP, .a_at = a_at, .b_at = b_at};
    int64_t rest_a[4], rest_b[4];
    for (int t = 0; t < p->terms; t++) {
        rest_a[t] = p->in[t] * j->kind + (c0 + whole) / UP_STRIP * j->v_strip;
        rest_b[t] = p->at[t] * j->u_product + whole * width;
    }
    tile_walk rest = {.segments = p->terms, .depth = depth - whole, .a_at = rest_a, .b_at = rest_b};
    float *row[2 * GEMM_MR], *to = m + p->out * j->kind + k % UP_STRIP;
    for (int64_t i = 0; i < tiles; i += each) {
        tile_out out = {.row = row, .rows = (int)cpu_min64(each, tiles - i), .cols = (int)width, .add = add};
        for (int l = 0; l < out.rows; l++) row[l] = to + (i + l) * UP_STRIP;
        tile_kernel *kernel = (wide ? wide_tiles : narrow_tiles)[cpu_ceil_div(out.rows, grain)];
        if (segments) {
            kernel(&walk, v + i * UP_STRIP, u, &out);
            out.add = true;
        }
        if (rest.depth) kernel(&rest, v + i * UP_STRIP, u, &out);
    }
}

/* --------------------------------------------------------------------------------- data to pixels */

/* side x side pixels from (i0, j0) on, of those that the map has, n channels. whole: it has all. */
CPU_INLINE void store_square(const resampling *j, const cpu_vec *o, int64_t image, int64_t i0, int64_t j0,
                             const int side, const bool masked, const bool whole, int64_t k, const int64_t n)
{
    int64_t h = j->h << j->expand, w = j->width << j->expand;
    int64_t at = ((image * h + i0) * w + j0) * j->k + k, line = w * j->k;
    float *y = j->out + at;
    const float *x = masked ? j->mask + at : NULL;
    cpu_vec scale = cpu_splat(j->scale), bias = j->bias ? cpu_load_part(j->bias + k, n) : (cpu_vec){0};
#pragma GCC unroll 4
    for (int r = 0; r < side; r++)
#pragma GCC unroll 4
        for (int s = 0; s < side; s++) {
            if (!whole && (i0 + r < 0 || i0 + r >= h || j0 + s < 0 || j0 + s >= w)) continue;
            cpu_vec v = scale * o[r * side + s] + bias;
            if (masked) v = cpu_relu_gradient(cpu_load_part(x + r * line + s * j->k, n), v);
#if CPU_LANES == 16
            if (whole && j->past) {
                _mm512_stream_ps(y + r * line + s * j->k, (__m512)v);
                continue;
            }
#endif
            tile_store(y + r * line + s * j->k, v, (int)n, NULL, j->accumulate);
        }
}

CPU_INLINE void store_pixels(const resampling *j, const cpu_vec *o, int64_t image, int64_t i0, int64_t j0,
                             const int side, const bool masked, int64_t k)
{
    bool whole = i0 >= 0 && i0 + side <= j->h << j->expand && j0 >= 0 && j0 + side <= j->width << j->expand;
    if (j->k - k < CPU_LANES)
        store_square(j, o, image, i0, j0, side, masked, false, k, j->k - k);
    else if (whole)
        store_square(j, o, image, i0, j0, side, masked, true, k, CPU_LANES);
    else
        store_square(j, o, image, i0, j0, side, masked, false, k, CPU_LANES);
}

/* 4x4 large pixels of a tile from its 25 products. */
CPU_INLINE void expand_pixels(const int64_t *at, const float *m, cpu_vec *o)
{
    cpu_vec s[UP_WEIGHTS];
#pragma GCC unroll 5
    for (int q = 0; q < UP_WEIGHTS; q++) s[q] = cpu_load(m + at[q]);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        cpu_vec z[UP_WEIGHTS];
        const int64_t *line = at + 5 * expand_order[r];
#pragma GCC unroll 5
        for (int q = 0; q < UP_WEIGHTS; q++) z[q] = s[q] + cpu_load(m + line[q]);
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) o[4 * r + q] = z[0] + z[expand_order[q]];
    }
}

static void store_expanded(const resampling *j, const tile_line *line, int64_t k0, int64_t k1, const float *m)
{
    int64_t at[UP_PRODUCTS];
    for (int64_t t = 0; t <= j->width / 2; t++) {
        locate(j, line, expand_row, UP_WEIGHTS, t, at);
        for (int64_t k = k0; k < k1; k += CPU_LANES) {
            cpu_vec o[16];
            expand_pixels(at, m + (k - k0) / UP_STRIP * j->m_strip + k % UP_STRIP, o);
            if (j->mask)
                store_pixels(j, o, line->image, 4 * line->t - 1, 4 * t - 1, 4, true, k);
            else
                store_pixels(j, o, line->image, 4 * line->t - 1, 4 * t - 1, 4, false, k);
        }
    }
}

static void store_reduced(const resampling *j, const tile_line *line, int64_t k0, int64_t k1, const float *m)
{
    const float *at = m + line->slot[TILE_ROW] * j->columns[TILE_ROW] * UP_STRIP;
    for (int64_t t = 0; t < j->columns[TILE_ROW]; t++, at += UP_STRIP)
        for (int64_t k = k0; k < k1; k += CPU_LANES) {
            const float *s = at + (k - k0) / UP_STRIP * j->m_strip + k % UP_STRIP;
            cpu_vec z[9], o[4];
#pragma GCC unroll 9
            for (int p = 0; p < 9; p++) z[p] = cpu_load(s + p * j->kind);
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) {
                int a = 3 * (1 + p / 2), b = 1 + p % 2;
                o[p] = (z[0] + z[b]) + (z[a] + z[a + b]);
            }
            store_pixels(j, o, line->image, 2 * line->t, 2 * t, 2, false, k);
        }
}

/* Output channels k0 .. k1, whose strips begin at m. */
static void store_block(const resampling *j, const block *b, int64_t k0, int64_t k1, const float *m)
{
    for (int64_t g = b->g0; g < b->g1; g++) {
        tile_line line = line_at(j, b, g);
        (j->expand ? store_expanded : store_reduced)(j, &line, k0, k1, m);
    }
#if CPU_LANES == 16
    if (j->past) _mm_sfence(); /* stores past the caches are seen after the next barrier only with this */
#endif
}

/* ------------------------------------------------------------------------------------------- whole */

/* The spare tile of m stands for products that are 0, beyond the map. */
static void clear_spare(const resampling *j, float *m)
{
    for (int64_t p = 0; p < j->out_kinds; p++) gemm_clear(m + p * j->kind + spare_tile(j) * UP_STRIP, UP_STRIP);
}

/* Weights are transformed once. Each thread has its own block, whose products are made and stored OUTPUTS channels at a
 * time. */
static void run_narrow(const resampling *j, int64_t all, float *u, float *memory, int threads)
{
    int64_t strips = cpu_ceil_div(j->k, GEMM_NR), chunks = cpu_ceil_div(j->depth, CHUNK);
    int64_t m_strips = cpu_ceil_div(cpu_min64(j->k, OUTPUTS), UP_STRIP);
    int64_t v_floats = cpu_ceil_div(j->c, UP_STRIP) * j->v_strip, own = v_floats + m_strips * j->m_strip;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t piece = 0; piece < strips * chunks; piece++) {
            int64_t s = piece / chunks, c = piece % chunks * CHUNK, k = s * GEMM_NR;
            transform_weights(j, k, c, cpu_min64(CHUNK, j->depth - c), u + s * j->u_strip + c * strip_width(j, k));
        }
        float *v = memory + omp_get_thread_num() * own, *m = v + v_floats;
        for (int64_t s = 0; s < m_strips; s++) clear_spare(j, m + s * j->m_strip);
#pragma omp for schedule(dynamic)
        for (int64_t g = 0; g < all; g += j->rows) {
            block b = block_at(j, g, all);
            for (int64_t i = g; i < b.g1; i++) {
                tile_line line = line_at(j, &b, i);
                transform_line(j, &line, v);
            }
            for (int64_t k0 = 0; k0 < j->k; k0 += OUTPUTS) {
                int64_t k1 = cpu_min64(j->k, k0 + OUTPUTS);
                for (int i = 0; i < j->out_kinds; i++) {
                    product p = product_of(j, i);
                    for (int64_t k = k0; k < k1; k += GEMM_NR)
                        for (int64_t c = 0; c < j->depth; c += CHUNK)
                            multiply(j, &b, &p, k, c, cpu_min64(CHUNK, j->depth - c),
                                     u + k / GEMM_NR * j->u_strip + c * strip_width(j, k), v,
                                     m + (k - k0) / UP_STRIP * j->m_strip, c > 0);
                }
                store_block(j, &b, k0, k1, m);
            }
        }
    }
}

/* All threads work on one block. A thread takes some output channels and transforms their weights chunk by chunk as
 * they are needed: they are never written out. */
static void run_wide(const resampling *j, int64_t all, float *v, float *memory, int threads)
{
    int64_t k_strips = cpu_ceil_div(j->k, UP_STRIP), own = UP_STRIP / GEMM_NR * j->u_strip + j->m_strip;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *u = memory + omp_get_thread_num() * own, *m = u + UP_STRIP / GEMM_NR * j->u_strip;
        clear_spare(j, m);
        for (int64_t g0 = 0; g0 < all; g0 += j->rows) {
            block b = block_at(j, g0, all);
#pragma omp for schedule(dynamic)
            for (int64_t g = b.g0; g < b.g1; g++) {
                tile_line line = line_at(j, &b, g);
                transform_line(j, &line, v);
            }
#pragma omp for schedule(dynamic)
            for (int64_t s = 0; s < k_strips; s++) {
                int64_t k0 = s * UP_STRIP, k1 = cpu_min64(j->k, k0 + UP_STRIP);
                for (int64_t c = 0; c < j->depth; c += CHUNK)
                    for (int64_t k = k0; k < k1; k += GEMM_NR) {
                        int64_t depth = cpu_min64(CHUNK, j->depth - c);
                        transform_weights(j, k, c, depth, u);
                        for (int i = 0; i < j->out_kinds; i++) {
                            product p = product_of(j, i);
                            multiply(j, &b, &p, k, c, depth, u, v, m, c > 0);
                        }
                    }
                store_block(j, &b, k0, k1, m);
            }
        }
    }
}

static int run(sag_kernel_env *env, resampling *j)
{
    j->columns[TILE_ROW] = cpu_ceil_div(j->width, 2), j->columns[SEAM_ROW] = j->width / 2;
    j->image_rows = j->expand ? j->h / 2 + 1 : cpu_ceil_div(j->h, 2);
    int64_t in_kinds = j->expand ? 16 : UP_PRODUCTS;
    j->out_kinds = j->expand ? UP_PRODUCTS : 9;
    j->depth = round_up(j->c, UP_DEPTH);
    int64_t all = j->n * j->image_rows, c_strips = cpu_ceil_div(j->c, UP_STRIP);
    int64_t m_strips = cpu_ceil_div(cpu_min64(j->k, OUTPUTS), UP_STRIP);
    int64_t tiles = j->n * cpu_ceil_div(j->h, 2) * j->columns[TILE_ROW];
    bool wide = j->c * j->k > (tiles < MANY_TILES ? WIDE : WIDEST);
    int64_t line_floats = (in_kinds * c_strips + j->out_kinds * m_strips) * UP_STRIP * j->columns[TILE_ROW];
    j->rows = wide ? WIDE_TILES / j->columns[TILE_ROW] : BLOCK_FLOATS / line_floats;
    if (j->rows < 1) j->rows = 1;
    int64_t blocks = cpu_ceil_div(all, cpu_min64(j->rows, all));
    if (!wide) blocks = round_up(blocks, env->threads);
    j->rows = cpu_ceil_div(all, blocks); /* blocks as even as can be, as many for each thread */
    j->kind = (spare_tile(j) + 1) * UP_STRIP + 16;
    j->v_strip = in_kinds * j->kind, j->m_strip = j->out_kinds * j->kind;
    j->u_product = (wide ? cpu_min64(CHUNK, j->depth) : j->depth) * GEMM_NR + 16;
    j->u_strip = UP_PRODUCTS * j->u_product;

    int64_t v_floats = c_strips * j->v_strip, zeros = round_up(6 * j->c + 16, 16), shared = v_floats, own;
    if (wide)
        own = UP_STRIP / GEMM_NR * j->u_strip + j->m_strip;
    else
        own = v_floats + m_strips * j->m_strip, shared = cpu_ceil_div(j->k, GEMM_NR) * j->u_strip;
    int threads = j->n * j->h * j->width * j->c * j->k < 32768 ? 1 : env->threads;
    float *memory = env->scratch(env, (size_t)(zeros + shared + threads * own + UP_STRIP) * sizeof *memory);
    if (!memory) return SAG_KERNEL_NO_MEMORY;
    gemm_clear(memory, zeros);
    int64_t out_pixels = j->n * j->h * j->width << 2 * j->expand;
    j->past = j->k % 16 == 0 && (uintptr_t)j->out % 64 == 0 && !j->accumulate && out_pixels * j->k * 4 >= PAST;
    double across = (double)j->columns[TILE_ROW], down = (double)cpu_ceil_div(j->h, 2);
    if (j->expand) across = 4 * across + (double)j->columns[SEAM_ROW], down = 4 * down + (double)(j->h / 2);
    env->flops = (j->expand ? 2 : 2 * UP_PRODUCTS) * across * down * (double)(j->n * j->c * j->k);
    j->zeros = memory;
    (wide ? run_wide : run_narrow)(j, all, memory + zeros, memory + zeros + shared, threads);
    return SAG_KERNEL_OK;
}

static int forward(sag_kernel_env *env, const conv_args *a, bool pool)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    resampling j = {.in = a->x,
                    .out = a->y,
                    .w = a->w,
                    .bias = a->b,
                    .expand = !pool,
                    .relu = a->relu,
                    .scale = (pool ? 0.25f : 1.0f) * cpu_inverse_sigma(a),
                    .c = a->c,
                    .k = a->k,
                    .n = a->n,
                    .h = pool ? a->p : a->h,
                    .width = pool ? a->q : a->w_in};
    return run(env, &j);
}

static int data_gradient(sag_kernel_env *env, const conv_args *a, bool pool)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    resampling j = {.in = a->dy,
                    .out = a->dx,
                    .w = a->w,
                    .mask = a->relu ? a->x : NULL,
                    .expand = pool,
                    .turned = true,
                    .accumulate = a->accumulate,
                    .scale = (pool ? 0.25f : 1.0f) * cpu_inverse_sigma(a),
                    .c = a->k,
                    .k = a->c,
                    .n = a->n,
                    .h = pool ? a->p : a->h,
                    .width = pool ? a->q : a->w_in};
    return run(env, &j);
}

static int weight_gradient(sag_kernel_env *env, const conv_args *a, bool pool)
{
    if (a->act != SAG_F32) return SAG_KERNEL_UNSUPPORTED;
    int result = a->dw ? CPU_ISA(upconv_weights)(env, a, pool) : SAG_KERNEL_OK;
    if (a->db && result == SAG_KERNEL_OK)
        result = CPU_ISA(column_sum)(env, a->dy, a->n * a->p * a->q, a->k, a->db, a->accumulate_db);
    return result;
}

static int cpu_upconv_fwd(sag_kernel_env *env, const conv_args *a)
{
    return forward(env, a, false);
}
static int cpu_upconv_bwd_x(sag_kernel_env *env, const conv_args *a)
{
    return data_gradient(env, a, false);
}
static int cpu_upconv_bwd_w(sag_kernel_env *env, const conv_args *a)
{
    return weight_gradient(env, a, false);
}
static int cpu_convpool_fwd(sag_kernel_env *env, const conv_args *a)
{
    return forward(env, a, true);
}
static int cpu_convpool_bwd_x(sag_kernel_env *env, const conv_args *a)
{
    return data_gradient(env, a, true);
}
static int cpu_convpool_bwd_w(sag_kernel_env *env, const conv_args *a)
{
    return weight_gradient(env, a, true);
}

void CPU_ISA(upconv_fill)(sag_kernel_table *t)
{
    t->upconv_fwd = cpu_upconv_fwd;
    t->upconv_bwd_x = cpu_upconv_bwd_x;
    t->upconv_bwd_w = cpu_upconv_bwd_w;
    t->convpool_fwd = cpu_convpool_fwd;
    t->convpool_bwd_x = cpu_convpool_bwd_x;
    t->convpool_bwd_w = cpu_convpool_bwd_w;
}
