/*
 * winograd_transform.h - the transforms of winograd.h on vectors of channels, one dimension at a time. Points come in
 * pairs +-p, so the even and the odd part are formed once for both.
 */
#ifndef SAG_CPU_WINOGRAD_TRANSFORM_H
#define SAG_CPU_WINOGRAD_TRANSFORM_H

#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/tile_grid.h"
#include "kernels/cpu/winograd.h"

#define WINO_P 0.625f
#define WINO_Q 1.5f
#define WINO_P2 (WINO_P * WINO_P)
#define WINO_Q2 (WINO_Q * WINO_Q)
/* One over the product of a point's distances from the others. */
#define WINO_G0 (1.0f / (WINO_P2 * WINO_Q2))
#define WINO_GP (1.0f / (2.0f * WINO_P2 * (WINO_P2 - WINO_Q2)))
#define WINO_GQ (1.0f / (2.0f * WINO_Q2 * (WINO_Q2 - WINO_P2)))

/* Rows of B^T: the points +-p, where other2 is the square of the other pair's, and the ends (0, infinity). */
CPU_INLINE void wino_b_pair(cpu_vec d1, cpu_vec d2, cpu_vec d3, cpu_vec d4, const float p, const float other2,
                            cpu_vec *plus, cpu_vec *minus)
{
    cpu_vec even = d4 - other2 * d2, odd = d3 - other2 * d1;
    *plus = even + p * odd;
    *minus = even - p * odd;
}
CPU_INLINE cpu_vec wino_b_end(cpu_vec d0, cpu_vec d2, cpu_vec d4)
{
    return (d4 - (WINO_P2 + WINO_Q2) * d2) + (WINO_P2 * WINO_Q2) * d0;
}
/* B^T d, every number to its own place. */
CPU_INLINE void wino_b_store(const cpu_vec *d, float *out, int64_t step)
{
    cpu_vec plus, minus;
    cpu_store(out, wino_b_end(d[0], d[2], d[4]));
    wino_b_pair(d[1], d[2], d[3], d[4], WINO_P, WINO_Q2, &plus, &minus);
    cpu_store(out + step, plus), cpu_store(out + 2 * step, minus);
    wino_b_pair(d[1], d[2], d[3], d[4], WINO_Q, WINO_P2, &plus, &minus);
    cpu_store(out + 3 * step, plus), cpu_store(out + 4 * step, minus);
    cpu_store(out + 5 * step, wino_b_end(d[1], d[3], d[5]));
}

/* o = A^T m, 6 -> 4 */
CPU_INLINE void wino_a(const cpu_vec *m, int from, cpu_vec *o, int to)
{
    cpu_vec sp = m[from] + m[2 * from], dp = m[from] - m[2 * from];
    cpu_vec sq = m[3 * from] + m[4 * from], dq = m[3 * from] - m[4 * from];
    o[0] = m[0] + (sp + sq);
    o[to] = WINO_P * dp + WINO_Q * dq;
    o[2 * to] = WINO_P2 * sp + WINO_Q2 * sq;
    o[3 * to] = m[5 * from] + ((WINO_P2 * WINO_P) * dp + (WINO_Q2 * WINO_Q) * dq);
}

/* Two rows of A: the points +-p; the ends take y0 and y3 as they are. */
CPU_INLINE void wino_a_pair(cpu_vec y0, cpu_vec y1, cpu_vec y2, cpu_vec y3, const float p, cpu_vec *plus,
                            cpu_vec *minus)
{
    cpu_vec even = y0 + (p * p) * y2, odd = y1 + (p * p) * y3;
    *plus = even + p * odd;
    *minus = even - p * odd;
}
/* A y, 4 -> 6, every number to its own place. */
CPU_INLINE void wino_a_store(const cpu_vec *y, float *out, int64_t step)
{
    cpu_vec plus, minus;
    cpu_store(out, y[0]);
    wino_a_pair(y[0], y[1], y[2], y[3], WINO_P, &plus, &minus);
    cpu_store(out + step, plus), cpu_store(out + 2 * step, minus);
    wino_a_pair(y[0], y[1], y[2], y[3], WINO_Q, &plus, &minus);
    cpu_store(out + 3 * step, plus), cpu_store(out + 4 * step, minus);
    cpu_store(out + 5 * step, y[3]);
}

/* o = G g, 3 -> 6 */
CPU_INLINE void wino_g(const cpu_vec *g, int from, cpu_vec *o, int to)
{
    cpu_vec g0 = g[0], g1 = g[from], g2 = g[2 * from];
    cpu_vec even_p = WINO_GP * (g0 + WINO_P2 * g2), even_q = WINO_GQ * (g0 + WINO_Q2 * g2);
    o[0] = WINO_G0 * g0;
    o[to] = even_p + (WINO_GP * WINO_P) * g1;
    o[2 * to] = even_p - (WINO_GP * WINO_P) * g1;
    o[3 * to] = even_q + (WINO_GQ * WINO_Q) * g1;
    o[4 * to] = even_q - (WINO_GQ * WINO_Q) * g1;
    o[5 * to] = g2;
}

/* o = G^T u, 6 -> 3 */
CPU_INLINE void wino_g_transposed(const cpu_vec *u, int from, cpu_vec *o, int to)
{
    cpu_vec sp = WINO_GP * (u[from] + u[2 * from]), dp = WINO_GP * (u[from] - u[2 * from]);
    cpu_vec sq = WINO_GQ * (u[3 * from] + u[4 * from]), dq = WINO_GQ * (u[3 * from] - u[4 * from]);
    o[0] = WINO_G0 * u[0] + (sp + sq);
    o[to] = WINO_P * dp + WINO_Q * dq;
    o[2 * to] = u[5 * from] + (WINO_P2 * sp + WINO_Q2 * sq);
}

/* The tiles of a map of h x w pixels with c channels that has the outputs of the tiles of `m`. */
static inline tile_grid wino_grid(const wino_map *m, const float *x, int64_t h, int64_t w, int64_t c)
{
    return (tile_grid){
        .x = x, .h = h, .w = w, .c = c, .rows = m->rows, .cols = m->cols, .step = WINO_STEP, .tiles = m->tiles};
}

/* The pixels of a tile: `row` and `step` where it lies inside the map, else a pointer each, to zeros outside. */
typedef struct wino_pixels {
    const float *row[WINO_SIDE];
    int64_t step;
    const float *pixel[WINO_FREQS];
} wino_pixels;

/* Lines first, first + step, .. of a tile. */
typedef struct wino_lines {
    int first, step, count;
} wino_lines;

/* Those that row r of the frequencies takes, of an input (side 6) or an output's gradient (side 4); ALL_ROWS: all. */
#define ALL_ROWS -1
static inline wino_lines wino_lines_of(int side, int r)
{
    bool end = r == 0 || r == WINO_SIDE - 1;
    if (r == ALL_ROWS) return (wino_lines){0, 1, side};
    if (side == 6) return end ? (wino_lines){r > 0, 2, 3} : (wino_lines){1, 1, 4};
    return end ? (wino_lines){r > 0 ? 3 : 0, 1, 1} : (wino_lines){0, 1, 4};
}

/* Returns whether these lines of the side x side pixels are rows. */
CPU_INLINE bool wino_find_pixels(const wino_map *m, int64_t tile, int side, wino_lines lines, wino_pixels *s)
{
    uint32_t rows = (uint32_t)m->rows, cols = (uint32_t)m->cols, line_of = (uint32_t)tile / cols;
    int64_t image = line_of / rows, i0 = line_of % rows * WINO_STEP + m->top;
    int64_t j0 = (uint32_t)tile % cols * WINO_STEP + m->left;
    bool exists = tile < m->tiles;
    bool inside = exists && i0 >= 0 && j0 >= 0 && i0 + side <= m->h && j0 + side <= m->w;
    s->step = m->c;
    for (int l = 0, i = lines.first; l < lines.count; l++, i += lines.step) {
        int64_t line = (image * m->h + i0 + i) * m->w;
        if (inside) {
            s->row[i] = m->x + (line + j0) * m->c;
            continue;
        }
        bool real_line = exists && i0 + i >= 0 && i0 + i < m->h;
        for (int j = 0; j < side; j++) {
            bool real = real_line && j0 + j >= 0 && j0 + j < m->w;
            s->pixel[i * side + j] = real ? m->x + (line + j0 + j) * m->c : m->zeros;
        }
    }
    return inside;
}

/* CPU_LANES channels from c of pixel (i, j), n of them real. */
CPU_INLINE cpu_vec wino_pixel(const wino_pixels *s, const bool rows, const bool relu, const int side, int i, int j,
                              int64_t c, int n)
{
    cpu_vec x = cpu_load_part((rows ? s->row[i] + j * s->step : s->pixel[i * side + j]) + c, n);
    return relu ? cpu_relu(x) : x;
}

/*
 * out[f * freq] = (B^T x B)[f]. Two rows at a time: the pixels are loaded twice or thrice, which is cheaper than to
 * spill the 36 numbers between the dimensions.
 */
CPU_INLINE void wino_input(const wino_pixels *s, const bool rows, const bool relu, int64_t c, int n, float *out,
                           int64_t freq)
{
#define AT(i) wino_pixel(s, rows, relu, 6, i, j, c, n)
    cpu_vec plus[6], minus[6];
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) plus[j] = wino_b_end(AT(0), AT(2), AT(4));
    wino_b_store(plus, out, freq);
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) wino_b_pair(AT(1), AT(2), AT(3), AT(4), WINO_P, WINO_Q2, plus + j, minus + j);
    wino_b_store(plus, out + 6 * freq, freq), wino_b_store(minus, out + 12 * freq, freq);
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) wino_b_pair(AT(1), AT(2), AT(3), AT(4), WINO_Q, WINO_P2, plus + j, minus + j);
    wino_b_store(plus, out + 18 * freq, freq), wino_b_store(minus, out + 24 * freq, freq);
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) plus[j] = wino_b_end(AT(1), AT(3), AT(5));
    wino_b_store(plus, out + 30 * freq, freq);
#undef AT
}

/* out[f * freq] = (A y A^T)[f], in the same way */
CPU_INLINE void wino_output_gradient(const wino_pixels *s, const bool rows, int64_t c, int n, float *out, int64_t freq)
{
#define AT(i) wino_pixel(s, rows, false, 4, i, j, c, n)
    cpu_vec plus[4], minus[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) plus[j] = AT(0);
    wino_a_store(plus, out, freq);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) wino_a_pair(AT(0), AT(1), AT(2), AT(3), WINO_P, plus + j, minus + j);
    wino_a_store(plus, out + 6 * freq, freq), wino_a_store(minus, out + 12 * freq, freq);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) wino_a_pair(AT(0), AT(1), AT(2), AT(3), WINO_Q, plus + j, minus + j);
    wino_a_store(plus, out + 18 * freq, freq), wino_a_store(minus, out + 24 * freq, freq);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) plus[j] = AT(3);
    wino_a_store(plus, out + 30 * freq, freq);
#undef AT
}

/* Row r of the frequencies alone, in the same sums: out[j * freq], j: its six. end: r is 0 or 5. */
CPU_INLINE void wino_row(const wino_pixels *s, const bool rows, const bool relu, const int side, int r, const bool end,
                         int64_t c, int n, float *out, int64_t freq)
{
#define AT(i) wino_pixel(s, rows, relu, side, i, j, c, n)
    cpu_vec v[6], other; /* of the pair +-p, p is this row's and -p another's */
    const int first = wino_lines_of(side, r).first;
    const float size = r <= 2 ? WINO_P : WINO_Q, p = r % 2 ? size : -size, other2 = r <= 2 ? WINO_Q2 : WINO_P2;
#pragma GCC unroll 6
    for (int j = 0; j < side; j++) {
        if (side == 6 && end) v[j] = wino_b_end(AT(first), AT(first + 2), AT(first + 4));
        if (side == 6 && !end) wino_b_pair(AT(1), AT(2), AT(3), AT(4), p, other2, v + j, &other);
        if (side == 4 && end) v[j] = AT(first);
        if (side == 4 && !end) wino_a_pair(AT(0), AT(1), AT(2), AT(3), p, v + j, &other);
    }
    if (side == 6)
        wino_b_store(v, out, freq);
    else
        wino_a_store(v, out, freq);
#undef AT
}

/* y[16] = A^T m A */
CPU_INLINE void wino_output(const float *m, int64_t freq, cpu_vec *y)
{
    cpu_vec d[6], t[24];
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) {
#pragma GCC unroll 6
        for (int j = 0; j < 6; j++) d[j] = cpu_load(m + (i * 6 + j) * freq);
        wino_a(d, 1, t + i * 4, 1);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) wino_a(t + j, 4, y + j, 4);
}

/* out[f * freq] = (G w G^T)[f] */
CPU_INLINE void wino_weights(const cpu_vec *w, float *out, int64_t freq)
{
    cpu_vec t[18], o[6];
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) wino_g(w + i * 3, 1, t + i * 6, 1);
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) {
        wino_g(t + j, 6, o, 1);
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++) cpu_store(out + (i * 6 + j) * freq, o[i]);
    }
}

/* w[9] = G^T u G */
CPU_INLINE void wino_weight_gradient(const float *u, int64_t freq, cpu_vec *w)
{
    cpu_vec d[6], t[18];
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) {
#pragma GCC unroll 6
        for (int j = 0; j < 6; j++) d[j] = cpu_load(u + (i * 6 + j) * freq);
        wino_g_transposed(d, 1, t + i * 3, 1);
    }
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++) wino_g_transposed(t + j, 3, w + j, 3);
}

/* What a tile's pixels are transformed to: all frequencies, or a row of them. */
typedef enum wino_part { WHOLE, END_ROW, PAIR_ROW } wino_part;

CPU_INLINE void wino_transform_vector(const wino_pixels *s, const bool rows, const bool relu, const int side,
                                      const wino_part part, int r, int64_t c, int n, float *out, int64_t freq)
{
    if (part != WHOLE)
        wino_row(s, rows, relu, side, r, part == END_ROW, c, n, out, freq);
    else if (side == 6)
        wino_input(s, rows, relu, c, n, out, freq);
    else
        wino_output_gradient(s, rows, c, n, out, freq);
}

CPU_INLINE void wino_transform_pixels(const wino_map *m, const bool relu, int64_t tile, int64_t c0, int64_t count,
                                      const int side, const wino_part part, int r, float *out, const wino_layout *at)
{
#define OUT (out + c / WINO_STRIP * at->strip + c % WINO_STRIP)
#define TRANSFORM(rows, n) wino_transform_vector(&s, rows, relu, side, part, r, c0 + c, n, OUT, at->freq)
    wino_pixels s;
    wino_lines lines = wino_lines_of(side, r);
    int64_t c = 0, full = count - count % CPU_LANES;
    if (wino_find_pixels(m, tile, side, lines, &s)) {
        for (; c < full; c += CPU_LANES) TRANSFORM(true, CPU_LANES);
        for (int l = 0, i = lines.first; c < count && l < lines.count; l++, i += lines.step)
            for (int j = 0; j < side; j++) s.pixel[i * side + j] = s.row[i] + j * s.step;
    } else {
        for (; c < full; c += CPU_LANES) TRANSFORM(false, CPU_LANES);
    }
    if (c < count) TRANSFORM(false, (int)(count - c)), c += CPU_LANES;
    for (; c < round_up(count, WINO_DEPTH); c += CPU_LANES)
        for (int f = 0; f < (part == WHOLE ? WINO_FREQS : WINO_SIDE); f++) cpu_store(OUT + f * at->freq, (cpu_vec){0});
#undef TRANSFORM
#undef OUT
}

/* Channels c0 .. c0+count of one tile to `out`, zeros up to a multiple of WINO_DEPTH. `side`: 6 for wino_input, 4 for
 * wino_output_gradient. Products in B^T x B are each added to one number, so relu's own copy rounds like the other. */
CPU_INLINE void wino_transform_tile(const wino_map *m, int64_t tile, int64_t c0, int64_t count, const int side,
                                    float *out, const wino_layout *at)
{
    if (side == 6 && m->relu)
        wino_transform_pixels(m, true, tile, c0, count, side, WHOLE, ALL_ROWS, out, at);
    else
        wino_transform_pixels(m, false, tile, c0, count, side, WHOLE, ALL_ROWS, out, at);
}

/* The same of row r of the frequencies alone: out[f * freq], f: its six. */
CPU_INLINE void wino_transform_tile_row(const wino_map *m, int64_t tile, int64_t c0, int64_t count, const int side,
                                        int r, float *out, const wino_layout *at)
{
    bool relu = side == 6 && m->relu, end = r == 0 || r == WINO_SIDE - 1;
    if (relu && end)
        wino_transform_pixels(m, true, tile, c0, count, side, END_ROW, r, out, at);
    else if (relu)
        wino_transform_pixels(m, true, tile, c0, count, side, PAIR_ROW, r, out, at);
    else if (end)
        wino_transform_pixels(m, false, tile, c0, count, side, END_ROW, r, out, at);
    else
        wino_transform_pixels(m, false, tile, c0, count, side, PAIR_ROW, r, out, at);
}

#endif
