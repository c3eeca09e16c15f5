/*
 * patches.h - the two geometries of a convolution: which numbers of an NHWC map form a patch, and where a pixel lies.
 * Rows of patches feed the matrix products of gemm.c and outer.c.
 */
#ifndef SAG_CPU_PATCHES_H
#define SAG_CPU_PATCHES_H

#include "kernels/cpu/gemm.h"

/*
 * Patch m belongs to pixel (i, j) of image g in a grid of rows x cols. It covers r x s pixels of a map of h x w pixels
 * with c channels, from x[g][i * stride + top][j * stride + left] on, with zeros outside the map. As a row of numbers it
 * is ordered (r, s, c).
 */
typedef struct patches {
    const float *x;
    int64_t h, w, c;
    int64_t rows, cols;
    int64_t stride, top, left, r, s;
} patches;

/* Pixel m of the same kind of grid lies at map[g][i * step + top][j * step + left] of a map of h x w with c channels.
 */
typedef struct places {
    float *map;
    int64_t h, w, c;
    int64_t rows, cols;
    int64_t step, top, left;
} places;

gemm_fetch CPU_ISA(patches_fetch); /* a is a patches */
gemm_place CPU_ISA(places_rows);   /* c is a places */

/* The patches that the outputs of a convolution see: of x, which is a->x or what the op reads in its place. */
static inline patches patches_of(const conv_args *a, const float *x)
{
    return (patches){.x = x,
                     .h = a->h,
                     .w = a->w_in,
                     .c = a->c,
                     .rows = a->p,
                     .cols = a->q,
                     .stride = a->stride,
                     .top = -a->pad_h,
                     .left = -a->pad_w,
                     .r = a->r,
                     .s = a->s};
}

/* Rows i0 .. i0+rows of a map, in_cols pixels of each from column `left` on, to rows of row_ld floats; zeros outside the
 * map and behind the pixels. */
void CPU_ISA(patches_copy_rows)(const patches *x, int64_t image, int64_t i0, int64_t rows, int64_t in_cols,
                                int64_t row_ld, float *band);

/*
 * band.c: the same product for narrow maps, whose patches would take longer to fetch than to multiply. Rows of the map
 * are copied once, with their borders of zeros, and the taps of the kernel read them in place.
 */
bool CPU_ISA(band_fits)(const gemm_job *job);
int64_t CPU_ISA(band_bytes)(const gemm_job *job, int threads);
void CPU_ISA(band_run)(const gemm_job *job, void *memory, int threads);

/*
 * Weight gradient: dw[i * columns + j] (+)= sum over pixels m of g[m * ld + i] * patch(m)[j], i < rows, j < columns =
 * r*s*c. The pixels are cut into slices by the shape alone and their sums added in order.
 */
int CPU_ISA(outer)(sag_kernel_env *env, const patches *x, int64_t pixels, const float *g, int64_t rows, int64_t ld,
                   float *dw, int accumulate);

/* y[c] (+)= sum of rows of x {rows, cols}. */
int CPU_ISA(column_sum)(sag_kernel_env *env, const float *x, int64_t rows, int64_t cols, float *y, int accumulate);

/* upconv.c: the fused resampling convolutions, registered by conv.c. */
void CPU_ISA(upconv_fill)(sag_kernel_table *t);

#endif
