/*
 * conv.cuh - the two matrix products that all convolutions are made of, and how weights lie for the first.
 *
 *   conv_pixels  y[pixel][k] = sum over (r, s, c) of (patch of x at pixel) * w[k][r][s][c]: forward and data gradient
 *   conv_outer   dw[k][r][s][c] = sum over pixels of dy[pixel][k] * (patch of x at pixel): the weight gradient
 *
 * A strided convolution gathers: output (i, j) sees x from (stride i - pad, stride j - pad) on. Its transpose scatters:
 * the output falls into stride x stride phases, and within a phase every pixel sees the same taps of w, in reverse order,
 * as in a convolution of stride 1. No multiply meets a zero that upsampling put there.
 */
#ifndef SAG_CUDA_CONV_CUH
#define SAG_CUDA_CONV_CUH

#include "kernels/cuda/cuda.cuh"

enum conv_math { CONV_PLAIN, CONV_TF32, CONV_BF16 };

/* How f32 or bf16 activations are multiplied here. */
conv_math conv_math_for(const sag_kernel_env *env, sag_dtype act);

/* Weights as they are stored, {K,R,S,C} f32, and what to make of them. */
enum conv_fold {
    CONV_AS_IS,
    CONV_FOLD_POOL, /* 3x3 to the 4x4 of "convolve, then mean of 2x2" */
    CONV_FOLD_UP,   /* 3x3 to the 4x4 of "upsample, then convolve" as the transpose of a strided convolution */
};
struct conv_weights {
    const float *w;
    int k, c;
    conv_fold fold;
    bool transposed;    /* the product's outputs are C, its inputs K */
    const float *sigma; /* {1} or NULL: w / *sigma stands in place of w */
};

struct conv_pixels_job {
    const void *x;
    void *y;
    const float *bias; /* {k} or NULL */
    int64_t images;
    int h, w, c;         /* x {images, h, w, c} */
    int out_h, out_w, k; /* y {images, out_h, out_w, k} */
    int r, s, stride, pad_h, pad_w;
    bool scatter;
    int accumulate;
    bool relu;            /* x is read as max(x, 0); NaN stays NaN */
    const void *mask;     /* like y, or NULL: sums are 0 where it is 0 or less (the gradient of a ReLU of it) */
    const void *residual; /* like y, or {images, out_h / 2, out_w / 2, k} if halved, or NULL: added to the sums in f32 */
    bool halved;
    sag_dtype act;
};
/* Not both: a mask and a residual. A residual with scatter: no. */
int conv_pixels(sag_kernel_env *env, const conv_pixels_job *job, const conv_weights *weights);

/*
 * The weights as conv_pixels reads them, in scratch: element {phase of taps, k, pitch}, a row holding (tap, c) in the
 * order in which the phase meets its taps, then zeros to the end of the last stage. bf16, or f32, which tf32 rounds here.
 */
struct conv_lines {
    const void *data;
    int64_t pitch; /* a multiple of 32 */
};
int conv_lay_out(sag_kernel_env *env, const conv_pixels_job *job, const conv_weights *weights, conv_math math,
                 conv_lines *lines);

/* Phase a of a transpose in one dimension: output a + stride * i meets `count` of R taps, r = first + stride * t; the
 * first of them in reverse order at input i + top. */
struct conv_taps {
    int first, count, top;
};
__host__ __device__ static inline conv_taps conv_taps_of(int a, int pad, int stride, int r)
{
    conv_taps t;
    t.first = (a + pad) % stride;
    t.count = t.first < r ? (r - t.first + stride - 1) / stride : 0;
    t.top = (a + pad) / stride - t.count + 1;
    return t;
}

struct conv_outer_job {
    const void *x, *dy;
    int64_t images;
    int h, w, c;    /* x {images, h, w, c} */
    int rows, cols; /* pixels of dy of each phase */
    int step;       /* dy {images, step rows, step cols, k}; phase (a, b): pixels (step i + a, step j + b) */
    int k;
    int r, s, stride; /* pixel (i, j) of phase (a, b) sees x from (stride i + a - pad_h, stride j + b - pad_w) on */
    int pad_h, pad_w;
    bool relu; /* x is read as max(x, 0) */
    sag_dtype act;
    bool want_weights, want_bias;
    /* answers, in scratch: sums[piece][phase][k][r][s][c] and bias_sums[piece][phase][k], to be added in that order */
    float *sums, *bias_sums;
    int pieces, phases;
};
int conv_outer(sag_kernel_env *env, conv_outer_job *job);
/* to {n} = or += the sum of `pieces` rows of from {pieces, n} */
int conv_add_pieces(sag_kernel_env *env, float *to, const float *from, int64_t n, int pieces, int accumulate);

/* upconv.cu */
void conv_register_upconv(sag_kernel_table *t);

/* The kernels count pixels of an image, channels of a patch and places in a map in ints. */
static inline bool conv_fits(const conv_args *a)
{
    const int64_t most = (int64_t)1 << 30;
    return a->h + 2 * a->pad_h < most && a->w_in + 2 * a->pad_w < most && a->p < most && a->q < most &&
           a->stride < most && a->h * a->w_in < most && a->p * a->q < most && a->k * a->r * a->s < most &&
           a->c * a->r * a->s < most;
}
static inline bool conv_aligned(const void *p)
{
    return (reinterpret_cast<uintptr_t>(p) & 15u) == 0;
}
static inline size_t conv_size_of(sag_dtype act)
{
    return act == SAG_BF16 ? 2 : 4;
}
__host__ __device__ static inline int conv_least(int a, int b)
{
    return a < b ? a : b;
}

#endif
