/*
 * few_channels.h - convolutions at stride 1 with up to 4 channels on one side: a network's first and last, at full
 * resolution. A product over R * S * few numbers leaves no time to copy patches. With m a pixel, f a channel of the
 * few, n one of the many, t a tap, three loops do all six directions:
 *
 *   spread:  many[m][n] = sum over t, f of few[m + t][f] * w[t][f][n]    lanes over n, a run of pixels in registers
 *   collect: few[m][f]  = sum over t, n of many[m + t][n] * w[f][t][n]   lanes over n, added across at the end
 *   weigh:   w[t][f][n] = sum over m of few[m + t][f] * many[m][n]       lanes over n, (t, f) in registers
 *
 * The data gradient is the other's forward pass with its taps turned by 180 degrees, and the weight gradient where y
 * has the few channels sums over the pixels of x, turned as well. Rows of the few are copied with their borders of
 * zeros; the many are read and written in place, and fetched ahead, or the loops would wait for memory. The weight
 * gradient of a 1x1 kernel is weigh's as well, up to FEW_FLAT weights: its pixels follow one another, nothing is
 * copied.
 */
#ifndef SAG_CPU_FEW_CHANNELS_H
#define SAG_CPU_FEW_CHANNELS_H

#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/patches.h"

#define FEW 4
#define FEW_TAPS 7      /* R and S at most */
#define FEW_FLOATS 8192 /* of the many channels' map in a band of rows, about: they stay in L1 */
#define FEW_FLAT 16384  /* weights of a 1x1 kernel at most: a chunk's sums stay in L2 */
#define FEW_SMALL 32768 /* multiply-adds that one thread does alone */

typedef enum few_way { FEW_FWD, FEW_BWD_X, FEW_BWD_W } few_way;

/* Is it possible? Then it is faster than the plain way. By the shape alone. */
bool CPU_ISA(few_suits)(const conv_args *a, few_way way);
int CPU_ISA(few_fwd)(sag_kernel_env *env, const conv_args *a);
int CPU_ISA(few_bwd_x)(sag_kernel_env *env, const conv_args *a);
int CPU_ISA(few_bwd_w)(sag_kernel_env *env, const conv_args *a); /* dw, and db unless it is NULL */

/* One direction of one convolution: `in` is read, patch by patch of its map. */
typedef struct few_job {
    patches in;
    int64_t images, few, many;
    int64_t out_rows, bands; /* of a band of the grid; of an image */
    const float *w;
    bool few_last; /* w {many,R,S,few}, else {few,R,S,many} */
    bool turned;   /* the taps of `in` are those of w in reverse order */
} few_job;

/* turned: of dy as seen from the pixels of x */
few_job CPU_ISA(few_job_of)(const conv_args *a, bool turned);

/* A 1x1 kernel without borders: a patch is a pixel, and all pixels follow one another. */
static inline bool few_flat(const patches *p)
{
    return p->r == 1 && p->s == 1 && p->top == 0 && p->left == 0;
}

/* Where w has tap (r, s) of `in` and the channels f and n. */
static inline int64_t few_weight_at(const few_job *j, int64_t r, int64_t s, int64_t f, int64_t n)
{
    const patches *p = &j->in;
    if (j->turned) r = p->r - 1 - r, s = p->s - 1 - s;
    return j->few_last ? ((n * p->r + r) * p->s + s) * j->few + f : ((f * p->r + r) * p->s + s) * j->many + n;
}

/* Copied rows of a map with few channels. */
typedef struct few_band {
    int64_t in_cols, row_ld, floats;
} few_band;

static inline few_band few_band_of(const few_job *j)
{
    const patches *p = &j->in;
    few_band b = {.in_cols = p->cols + p->s - 1};
    b.row_ld = b.in_cols * p->c;
    /* The last tile of the last row may look at some pixels more. */
    b.floats = round_up((j->out_rows + p->r - 1) * b.row_ld + FEW * GEMM_MR, 16);
    return b;
}

static inline void few_copy_band(const few_job *j, const few_band *b, int64_t image, int64_t i0, int64_t rows,
                                 float *band)
{
    const patches *p = &j->in;
    CPU_ISA(patches_copy_rows)(p, image, i0 + p->top, rows + p->r - 1, b->in_cols, b->row_ld, band);
    gemm_clear(band + (rows + p->r - 1) * b->row_ld, FEW * GEMM_MR);
}

/* n <= CPU_LANES numbers; without masks there are only whole vectors (few_suits). */
static inline cpu_vec few_load(const float *p, int64_t n)
{
#if CPU_LANES == 16
    return (cpu_vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
#else
    (void)n;
    return cpu_load(p);
#endif
}

#endif
