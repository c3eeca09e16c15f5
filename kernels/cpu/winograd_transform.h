/*
 * winograd_transform.h - the transforms of winograd.h on vectors of channels, one dimension at a time. Points come in
 * pairs +-p, so the even and the odd part are formed once for both.
 */
#ifndef SAG_CPU_WINOGRAD_TRANSFORM_H
#define SAG_CPU_WINOGRAD_TRANSFORM_H

#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/winograd.h"

#define WINO_P 0.625f
#define WINO_Q 1.5f
#define WINO_P2 (WINO_P * WINO_P)
#define WINO_Q2 (WINO_Q * WINO_Q)
/* One over the product of a point's distances from the others. */
#define WINO_G0 (1.0f / (WINO_P2 * WINO_Q2))
#define WINO_GP (1.0f / (2.0f * WINO_P2 * (WINO_P2 - WINO_Q2)))
#define WINO_GQ (1.0f / (2.0f * WINO_Q2 * (WINO_Q2 - WINO_P2)))

#define WINO_INLINE __attribute__((always_inline)) static inline

WINO_INLINE cpu_vec wino_load(const float *p, int n)
{
    return n == CPU_LANES ? cpu_load(p) : load_part(p, n);
}

/* o = B^T d; o has stride `to` */
WINO_INLINE void wino_b(const cpu_vec *d, int from, cpu_vec *o, int to)
{
    cpu_vec d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from], d5 = d[5 * from];
    cpu_vec even_p = d4 - WINO_Q2 * d2, odd_p = d3 - WINO_Q2 * d1;
    cpu_vec even_q = d4 - WINO_P2 * d2, odd_q = d3 - WINO_P2 * d1;
    o[0] = (d4 - (WINO_P2 + WINO_Q2) * d2) + (WINO_P2 * WINO_Q2) * d0;
    o[to] = even_p + WINO_P * odd_p;
    o[2 * to] = even_p - WINO_P * odd_p;
    o[3 * to] = even_q + WINO_Q * odd_q;
    o[4 * to] = even_q - WINO_Q * odd_q;
    o[5 * to] = (d5 - (WINO_P2 + WINO_Q2) * d3) + (WINO_P2 * WINO_Q2) * d1;
}

/* o = A^T m, 6 -> 4 */
WINO_INLINE void wino_a(const cpu_vec *m, int from, cpu_vec *o, int to)
{
    cpu_vec sp = m[from] + m[2 * from], dp = m[from] - m[2 * from];
    cpu_vec sq = m[3 * from] + m[4 * from], dq = m[3 * from] - m[4 * from];
    o[0] = m[0] + (sp + sq);
    o[to] = WINO_P * dp + WINO_Q * dq;
    o[2 * to] = WINO_P2 * sp + WINO_Q2 * sq;
    o[3 * to] = m[5 * from] + ((WINO_P2 * WINO_P) * dp + (WINO_Q2 * WINO_Q) * dq);
}

/* o = A y, 4 -> 6 */
WINO_INLINE void wino_a_transposed(const cpu_vec *y, int from, cpu_vec *o, int to)
{
    cpu_vec y0 = y[0], y1 = y[from], y2 = y[2 * from], y3 = y[3 * from];
    cpu_vec even_p = y0 + WINO_P2 * y2, odd_p = y1 + WINO_P2 * y3;
    cpu_vec even_q = y0 + WINO_Q2 * y2, odd_q = y1 + WINO_Q2 * y3;
    o[0] = y0;
    o[to] = even_p + WINO_P * odd_p;
    o[2 * to] = even_p - WINO_P * odd_p;
    o[3 * to] = even_q + WINO_Q * odd_q;
    o[4 * to] = even_q - WINO_Q * odd_q;
    o[5 * to] = y3;
}

/* o = G g, 3 -> 6 */
WINO_INLINE void wino_g(const cpu_vec *g, int from, cpu_vec *o, int to)
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
WINO_INLINE void wino_g_transposed(const cpu_vec *u, int from, cpu_vec *o, int to)
{
    cpu_vec sp = WINO_GP * (u[from] + u[2 * from]), dp = WINO_GP * (u[from] - u[2 * from]);
    cpu_vec sq = WINO_GQ * (u[3 * from] + u[4 * from]), dq = WINO_GQ * (u[3 * from] - u[4 * from]);
    o[0] = WINO_G0 * u[0] + (sp + sq);
    o[to] = WINO_P * dp + WINO_Q * dq;
    o[2 * to] = u[5 * from] + (WINO_P2 * sp + WINO_Q2 * sq);
}

/* Pointers to the side x side pixels of a tile, to zeros outside the map and for tiles beyond the last. */
static inline void wino_pixels(const wino_map *m, int64_t tile, int side, const float **pixel)
{
    int64_t per_image = m->rows * m->cols, image = tile / per_image, rest = tile % per_image;
    int64_t i0 = rest / m->cols * WINO_STEP + m->top, j0 = rest % m->cols * WINO_STEP + m->left;
    for (int i = 0; i < side; i++) {
        bool inside = tile < m->tiles && i0 + i >= 0 && i0 + i < m->h;
        int64_t line = (image * (m->h >> m->doubling) + ((i0 + i) >> m->doubling)) * (m->w >> m->doubling);
        for (int j = 0; j < side; j++) {
            bool real = inside && j0 + j >= 0 && j0 + j < m->w;
            pixel[i * side + j] = real ? m->x + (line + ((j0 + j) >> m->doubling)) * m->c : m->zeros;
        }
    }
}

/* out[f * freq] = (B^T x B)[f] for CPU_LANES channels from c, n of them real */
WINO_INLINE void wino_input(const float *const *pixel, int64_t c, int n, float *out, int64_t freq)
{
    cpu_vec d[6], t[36], o[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) {
#pragma GCC unroll 6
        for (int j = 0; j < 6; j++) d[j] = wino_load(pixel[i * 6 + j] + c, n);
        wino_b(d, 1, t + i * 6, 1);
    }
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) {
        wino_b(t + j, 6, o, 1);
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++) cpu_store(out + (i * 6 + j) * freq, o[i]);
    }
}

/* out[f * freq] = (A y A^T)[f] */
WINO_INLINE void wino_output_gradient(const float *const *pixel, int64_t c, int n, float *out, int64_t freq)
{
    cpu_vec d[4], t[24], o[6];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) d[j] = wino_load(pixel[i * 4 + j] + c, n);
        wino_a_transposed(d, 1, t + i * 6, 1);
    }
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) {
        wino_a_transposed(t + j, 6, o, 1);
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++) cpu_store(out + (i * 6 + j) * freq, o[i]);
    }
}

/* y[16] = A^T m A */
WINO_INLINE void wino_output(const float *m, int64_t freq, cpu_vec *y)
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
WINO_INLINE void wino_weights(const cpu_vec *w, float *out, int64_t freq)
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
WINO_INLINE void wino_weight_gradient(const cpu_vec *u, cpu_vec *w)
{
    cpu_vec t[18];
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) wino_g_transposed(u + i * 6, 1, t + i * 3, 1);
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++) wino_g_transposed(t + j, 3, w + j, 3);
}

/* Channels c0 .. c0+count of one tile to `out`, zeros up to a multiple of WINO_DEPTH. `side`: 6 for wino_input, 4 for
 * wino_output_gradient. */
WINO_INLINE void wino_transform_tile(const wino_map *m, int64_t tile, int64_t c0, int64_t count, const int side,
                                     float *out, const wino_layout *at)
{
    const float *pixel[36];
    wino_pixels(m, tile, side, pixel);
    int64_t c = 0;
    for (; c + CPU_LANES <= count; c += CPU_LANES) {
        float *o = out + c / WINO_STRIP * at->strip + c % WINO_STRIP;
        if (side == 6)
            wino_input(pixel, c0 + c, CPU_LANES, o, at->freq);
        else
            wino_output_gradient(pixel, c0 + c, CPU_LANES, o, at->freq);
    }
    for (; c < round_up(count, WINO_DEPTH); c += CPU_LANES) {
        float *o = out + c / WINO_STRIP * at->strip + c % WINO_STRIP;
        int n = c < count ? (int)(count - c) : 0;
        if (side == 6)
            wino_input(pixel, c0 + c, n, o, at->freq);
        else
            wino_output_gradient(pixel, c0 + c, n, o, at->freq);
    }
}

#endif
