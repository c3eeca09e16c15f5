/*
 * upconv.h - upconv (nearest x2, then 3x3) and convpool (3x3, then 2x2 mean) with 25 multiplies for 2x2 pixels of the
 * small map, where the plain way has 144, exact but for rounding: all other coefficients are 0 and +-1.
 *
 * In one dimension, with taps w0 w1 w2 and S = w0 + w1 + w2. Each is a strided convolution with four taps, w0, w0 + w1,
 * w1 + w2, w2, of which the even and the odd ones both sum to S. So differences of pixels need two taps' products
 * and the pixel itself one, which all share: Karatsuba's identity, a x + b x' = (a + b) x' + a (x - x').
 *
 *   convpool ("reduce"), two small pixels y0 y1 from six large ones x0 .. x5, five products:
 *     s  = S (x2 + x3)
 *     y0 = s + w0 (x0 - x2) + (w0 + w1) (x1 - x3)
 *     y1 = s + (w1 + w2) (x4 - x2) + w2 (x5 - x3)                                             (times 1/2, the mean)
 *
 *   upconv ("expand"), four large pixels y0 .. y3 around the small x1, from x0 x1 x2, five products:
 *     s  = S x1
 *     y0 = s + (w0 + w1) (x0 - x1)        y1 = s + w0 (x0 - x1)
 *     y2 = s + w2 (x2 - x1)               y3 = s + (w1 + w2) (x2 - x1)
 *
 * The data gradient of the one is the other with the taps turned. In two dimensions both are nested: 25 products, which
 * over channels are 25 matrix products. Products are numbered by their weights: 0: S, 1: w0, 2: w0 + w1, 3: w1 + w2,
 * 4: w2, and (row, column) as 5 row + column.
 *
 * Expand's tiles lie over every second small pixel 2t, so that the large pixels 4t-1 .. 4t+2 are theirs. The first has
 * no use for product 2, and one beyond the last pixel for no other: with even sides no product is wasted, when
 * product 2 is counted from the second tile, the seam between two of them.
 */
#ifndef SAG_CPU_UPCONV_H
#define SAG_CPU_UPCONV_H

#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/gemm_tile.h"

#define UP_WEIGHTS 5
#define UP_PRODUCTS (UP_WEIGHTS * UP_WEIGHTS)
#define UP_STRIP 32 /* channels that lie together in transformed data: [strip][kind][tile][channel] */
#define UP_DEPTH 16 /* channels are filled up with zeros to a multiple of this */

/* Six lines of pixels with `c` channels, the columns from the first pixel of a tile on; a line outside the map points
 * to zeros. Columns first .. last of the six exist. */
typedef struct up_window {
    const float *line[6];
    const float *zeros; /* six pixels */
    int64_t c, first, last;
} up_window;

/* Pixel (row, column) of a window, n channels from c on. */
CPU_INLINE cpu_vec up_pixel(const up_window *x, const bool edge, int row, int column, int64_t c, int n)
{
    const float *p = edge && (column < x->first || column > x->last) ? x->zeros : x->line[row] + column * x->c;
    return cpu_load_part(p + c, n);
}

/* Sets lines from .. to of the window at (i, j) of a map of h x w pixels. */
static inline void up_window_lines(up_window *x, const float *map, int64_t h, int64_t w, int64_t image, int64_t i,
                                   int64_t j, int from, int to)
{
    for (int r = from; r < to; r++)
        x->line[r] = i + r >= 0 && i + r < h ? map + ((image * h + i + r) * w + j) * x->c : x->zeros;
}
/* And its columns, from j on. True if one of them is missing. */
static inline bool up_window_columns(up_window *x, int64_t w, int64_t j, int columns)
{
    x->first = j < 0 ? -j : 0, x->last = w - 1 - j;
    return x->first > 0 || x->last < columns - 1;
}

/* The six lines from (i, j) on of a map of h x w pixels, `rows` and `columns` of them looked at. True if one is missing
 * at the sides. */
static inline bool up_window_at(up_window *x, const float *map, int64_t h, int64_t w, int64_t image, int64_t i,
                                int64_t j, int rows, int columns)
{
    up_window_lines(x, map, h, w, image, i, j, 0, rows);
    return up_window_columns(x, w, j, columns);
}

/* The lines of a 6x6 tile that a row of convpool's products is about: the sum of the two, then differences. */
static const int up_plus[UP_WEIGHTS] = {2, 0, 1, 4, 5}, up_minus[UP_WEIGHTS] = {3, 2, 3, 2, 3};

/* A row of the differences that convpool's products want of six columns of large pixels, or with relu of max(x, 0): to
 * out + column * kind, from lines a and b of the window, a + sign b. */
CPU_INLINE void up_large_row(const up_window *x, const bool edge, const bool relu, int a, int b, float sign, int64_t c,
                             int n, float *out, int64_t kind)
{
    cpu_vec d[6];
#pragma GCC unroll 6
    for (int s = 0; s < 6; s++) {
        cpu_vec p = up_pixel(x, edge, a, s, c, n), q = up_pixel(x, edge, b, s, c, n);
        if (relu) p = cpu_relu(p), q = cpu_relu(q);
        d[s] = p + sign * q;
    }
    cpu_store(out, d[2] + d[3]);
    cpu_store(out + kind, d[0] - d[2]);
    cpu_store(out + 2 * kind, d[1] - d[3]);
    cpu_store(out + 3 * kind, d[4] - d[2]);
    cpu_store(out + 4 * kind, d[5] - d[3]);
}

int CPU_ISA(upconv_weights)(sag_kernel_env *env, const conv_args *a, bool pool); /* dw only */

#endif
