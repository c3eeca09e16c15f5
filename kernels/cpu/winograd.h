/*
 * winograd.h - 3x3 convolutions at stride 1 with 36 multiplies for 16 outputs, where the plain way has 144.
 *
 * F(4x4, 3x3): y = A^T [(G w G^T) * (B^T x B)] A on tiles of 6x6 inputs and 4x4 outputs, `*` element by element, so
 * that the sum over channels is 36 matrix products; dw = G^T [(A dy A^T) * (B^T x B)] G. After Lavin and Gray, "Fast
 * Algorithms for Convolutional Neural Networks" (2015), but with the points 0, +-5/8, +-3/2 and infinity in place of
 * 0, +-1, +-2: they halve the rounding error, which so stays near that of the plain sums. Entries of B and A are exact
 * in f32; the divisors of Lagrange's polynomials are in G.
 */
#ifndef SAG_CPU_WINOGRAD_H
#define SAG_CPU_WINOGRAD_H

#include "kernels/cpu/gemm_pack.h"

#define WINO_SIDE 6
#define WINO_STEP 4
#define WINO_FREQS (WINO_SIDE * WINO_SIDE)
#define WINO_STRIP 32 /* channels that lie together in transformed data */
#define WINO_DEPTH 16 /* channels are filled up with zeros to a multiple of this */

/*
 * A map of NHWC pixels seen as tiles: tile (i, j) of an image has its first pixel at (4 i + top, 4 j + left).
 */
typedef struct wino_map {
    const float *x;
    int64_t h, w, c;
    int64_t rows, cols; /* tiles of an image */
    int64_t top, left;
    int64_t tiles;
    bool relu;          /* the pixels are max(x, 0) */
    const float *zeros; /* as many as channels */
} wino_map;

/* Where transformed tiles lie: [frequency][strip][tile][channel of the strip]. */
typedef struct wino_layout {
    int64_t strip, freq; /* floats from one to the next */
} wino_layout;

static inline wino_layout wino_layout_of(int64_t tiles, int64_t channels)
{
    wino_layout at = {.strip = tiles * WINO_STRIP};
    at.freq =
        cpu_ceil_div(channels, WINO_STRIP) * at.strip + 16; /* off the powers of two, on which cache sets repeat */
    return at;
}

typedef enum wino_way { WINO_FWD, WINO_BWD_X, WINO_BWD_W } wino_way;

/* Is it possible, allowed and faster than the plain way? */
bool CPU_ISA(winograd_suits)(const sag_kernel_env *env, const conv_args *a, wino_way way);
int CPU_ISA(winograd_fwd)(sag_kernel_env *env, const conv_args *a);
int CPU_ISA(winograd_bwd_x)(sag_kernel_env *env, const conv_args *a);
int CPU_ISA(winograd_bwd_w)(sag_kernel_env *env, const conv_args *a); /* dw only */

#endif
