/*
 * kernel_args.h - plain argument structs, one per kernel family: pointers into device memory and sizes, nothing else.
 *
 * Activations are `void *` of dtype `act` (f32, or bf16 on CUDA); parameters, statistics and gradients of parameters
 * are `float *`. `accumulate`: add to the destination instead of overwriting it. A NULL destination is not wanted.
 * dx is the gradient of x.
 */
#ifndef SAG_KERNEL_ARGS_H
#define SAG_KERNEL_ARGS_H

#include "kernels/kernel_types.h"

/* Letters: N images of H x W with C channels in, K out; kernel R x S; output P x Q. x {N,H,W,C}, w {K,R,S,C}, y {N,P,Q,K}.
 * upconv: P = 2H, convpool: P = H/2; both R = S = 3, stride and pad unused.
 * fwd: y = conv(x, w) + b.  bwd_x: dx from dy, w.  bwd_w: dw and db (either may be NULL) from x, dy.
 * NaN passes max(x, 0) and the gradient's mask, as in SAG_UNARY_RELU. */
typedef struct conv_args {
    const void *x, *dy;
    const float *w, *b;
    const float *sigma; /* {1} or NULL. fwd and bwd_x: w / *sigma stands in place of w; bwd_w does not look at it */
    void *y, *dx;
    float *dw, *db;
    int64_t n, h, w_in, c, k, r, s, p, q;
    int64_t stride, pad_h, pad_w;
    int accumulate;    /* dx */
    int accumulate_dw;
    int accumulate_db;
    int relu;             /* conv2d and convpool: x is read as max(x, 0) in fwd and bwd_w; bwd_x reads x: dx (+)= gradient
                           * where x > 0, else 0 */
    const void *residual; /* conv2d_fwd: added to y in f32 before rounding, or NULL; dtype act. {N,P,Q,K}, or with
                           * residual_half {N,P/2,Q/2,K}, each number for 2x2 pixels */
    int residual_half;
    sag_dtype act;
} conv_args;

/* y[b] = op(a[b]) op(b[b]) (+ bias row), b = 0..batch-1; all operands dtype `act` but `bias`. a {M,K} or {K,M} if
 * trans_a, b {K,N} or {N,K} if trans_b, y {M,N}. stride_*: elements between batches (0: shared). */
typedef struct matmul_args {
    const void *a, *b;
    const float *bias; /* {N} or NULL */
    void *y;
    int64_t batch, m, n, k, stride_a, stride_b, stride_y;
    int trans_a, trans_b, accumulate;
    sag_dtype act_a, act_b, act_y;
} matmul_args;

/* y[c] = sum over rows of x {rows, cols} */
typedef struct column_sum_args {
    const void *x;
    float *y;
    int64_t rows, cols;
    int accumulate;
    sag_dtype act;
} column_sum_args;

typedef enum sag_unary {
    SAG_UNARY_RELU, SAG_UNARY_LEAKY_RELU, SAG_UNARY_TANH, SAG_UNARY_SIGMOID, SAG_UNARY_SOFTPLUS, SAG_UNARY_EXP,
    SAG_UNARY_LOG, SAG_UNARY_SQRT, SAG_UNARY_SQUARE, SAG_UNARY_ABS, SAG_UNARY_SCALE
} sag_unary;

/* y = f(x). bwd: dx (+)= dy * f'(x); `x` is the input for leaky_relu, softplus, log, square, abs and the *output* for relu,
 * tanh, sigmoid, exp, sqrt (what the op kept); scale needs neither. dx may be dy. a: slope or factor; b: offset. */
typedef struct unary_args {
    sag_unary kind;
    const void *x, *dy;
    void *y, *dx;
    int64_t n;
    float a, b;
    int accumulate;
    sag_dtype act;
} unary_args;

typedef enum sag_binary { SAG_BINARY_ADD, SAG_BINARY_SUB, SAG_BINARY_MUL, SAG_BINARY_DIV } sag_binary;

/* y[i] = a[i] op b[i mod nb]; n is a multiple of nb. bwd: da {n} and db {nb} (sum over the repeats, fixed order). */
typedef struct binary_args {
    sag_binary kind;
    const void *a, *b, *dy;
    void *y, *da, *db;
    int64_t n, nb;
    int accumulate_a, accumulate_b;
    sag_dtype act;
} binary_args;

/* y = x + gamma * o. bwd: do = gamma * dy, dgamma = sum(dy * o); dx is dy, which the tape passes on. */
typedef struct gated_add_args {
    const void *x, *o, *dy;
    const float *gamma;
    void *y, *dout_o;
    float *dgamma;
    int64_t n;
    int accumulate_o, accumulate_gamma;
    sag_dtype act;
} gated_add_args;

/*
 * x seen as {n, spatial, c}; statistics over n * spatial rows. train: mean and rstd are computed, kept for backward, and
 * the running ones move: r += momentum * (batch - r), variance unbiased there. Not train: mean and rstd are derived from
 * the running statistics (and stored in mean, rstd all the same). labels NULL: gain, bias {c} or NULL; else tables
 * {classes, c}. y = f((x - mean) * rstd * (gain + gain_offset) + bias), f = ReLU if relu; without gain the factor is 1.
 * resumed: mean and rstd are there from an earlier call; only y is made. bwd: with relu the mask is that of y > 0, found from x and
 * bias; dx may be dy. Sums in f32 over fixed blocks, combined in f64.
 */
typedef struct batch_norm_args {
    const void *x, *dy;
    void *y, *dx;
    const float *gain, *bias; /* bwd: bias only with relu */
    const int32_t *labels;
    float *running_mean, *running_var; /* written in train mode; may be NULL then */
    float *mean, *rstd;                /* {c}: written by fwd, read by bwd */
    float *dgain, *dbias;              /* shapes of gain and bias, or NULL */
    int64_t n, spatial, c, classes;
    float momentum, eps, gain_offset;
    int train, resumed, relu, accumulate, accumulate_dgain, accumulate_dbias;
    sag_dtype act;
} batch_norm_args;

/* x {n,h,w,c} -> y {n,p,q,c}. max_pool keeps the winner's index inside its image plane (h * w_in) in `winner`
 * {n,p,q,c}. */
typedef struct pool_args {
    const void *x, *dy;
    void *y, *dx;
    int32_t *winner;
    int64_t n, h, w_in, c, p, q, size, stride, pad;
    int include_pad, accumulate;
    sag_dtype act;
} pool_args;

/* Copies `outer` rows of `inner` bytes between strided places: dst + i * dst_stride <- src + i * src_stride (bytes).
 * accumulate: adds, elements of dtype act. Serves concat, slice, assign and their gradients. */
typedef struct copy_block_args {
    const void *src;
    void *dst;
    int64_t outer, inner, dst_stride, src_stride;
    int accumulate;
    sag_dtype act;
} copy_block_args;

/* y's dimension i is x's dimension d[i]; shape is x's, padded with 1 to rank 4. */
typedef struct permute_args {
    const void *x;
    void *y;
    int64_t shape[4];
    int d[4];
    int accumulate;
    sag_dtype act;
} permute_args;

typedef enum sag_reduce {
    SAG_REDUCE_SUM, SAG_REDUCE_MEAN, SAG_REDUCE_NORM, SAG_REDUCE_MAX, SAG_REDUCE_MIN, SAG_REDUCE_COUNT_NONFINITE
} sag_reduce;

/* x {outer, axis, inner} -> y {outer, inner}. norm, max, min, count: outer = inner = 1. argmax: inner = 1, y i32.
 * bwd (sum, mean, norm): dx from dy; norm also reads x and y. Blocks of fixed size, combined in f64 in order. */
typedef struct reduce_args {
    sag_reduce kind;
    const void *x, *dy, *y_saved;
    void *y, *dx;
    int64_t outer, axis, inner;
    int accumulate;
    sag_dtype act;
} reduce_args;

/* rows x cols, over cols; bwd needs y. */
typedef struct softmax_args {
    const void *dy, *x, *y_saved;
    void *y, *dx;
    int64_t rows, cols;
    int log, accumulate;
    sag_dtype act;
} softmax_args;

/* q {B,NQ,D}, k {B,NK,D}, v {B,NK,E}, o {B,NQ,E}, lse {B,NQ}: log of the sum of exp(scale * q.k), to the base that the
 * backend likes; only its own backward reads it. */
typedef struct attention_args {
    const void *q, *k, *v, *o_saved, *do_;
    void *o, *dq, *dk, *dv;
    float *lse;
    int64_t batch, nq, nk, d, e;
    float scale;
    int accumulate_q, accumulate_k, accumulate_v;
    sag_dtype act;
} attention_args;

/* p {B,M,NK} for queries {M}, or stats {2}: mean entropy, mean distance; see ops.def. */
typedef struct attention_map_args {
    const void *q, *k;
    const int32_t *queries;
    float *p, *stats;
    int64_t batch, nq, nk, d, m, width;
    float scale;
    sag_dtype act;
} attention_map_args;

/*
 * layers {L,5} in device memory: offset in w, rows, cols, offset in u, offset in v. Each power iteration:
 * v = normalise(W^T u), u = normalise(W v), normalise(x) = x / (|x| + eps), or x / max(|x|, eps) if eps_max; sigma = u^T W v.
 * divisor {L}: sigma, or 1 for a layer with |sigma| < SAG_TINY_SIGMA (all weights zero), which keeps its u and v.
 * u_used, v_used: the vectors that fwd ended with (kept for bwd; also copied to u, v if update).
 * bwd: dw += ddivisor u v^T per layer, nothing where the divisor was not sigma.
 * through: the gradient also flows through the iterations (one-step unrolling from u_start, as the official code).
 */
#define SAG_TINY_SIGMA 1e-30f
typedef struct spectral_norm_args {
    const float *w, *ddivisor;
    float *divisor, *dw;
    float *u, *v, *sigma;
    float *u_used, *v_used, *sigma_used; /* saved for backward */
    float *u_start;                      /* saved for backward when through */
    const int32_t *layers;
    int64_t n, n_layers, n_u, n_v;
    int iterations, update, through, eps_max;
    float eps;
} spectral_norm_args;

/* The gradient of w / sigma, w {n}, sigma {1}. g = dL/d(w / sigma): dw (+)= g / sigma, dsigma (+)= -<g, w> / sigma^2, summed in
 * f64 in a fixed order. dw may be g. */
typedef struct sigma_bwd_args {
    const float *g, *w, *sigma;
    float *dw, *dsigma;
    int64_t n;
    int accumulate_dw, accumulate_dsigma;
} sigma_bwd_args;

/* table {v,d}, index {n}. bwd adds the rows of dy in order of n. */
typedef struct embedding_args {
    const float *table;
    const int32_t *index;
    void *y;
    const void *dy;
    float *dtable;
    int64_t v, d, n;
    int accumulate;
    sag_dtype act;
} embedding_args;

typedef enum sag_gan_loss { SAG_LOSS_HINGE, SAG_LOSS_BCE, SAG_LOSS_WASSERSTEIN } sag_gan_loss;

/* Discriminator loss of real and fake, or generator loss when real is NULL. dloss {1} in device memory. */
typedef struct gan_loss_args {
    sag_gan_loss kind;
    const void *real, *fake;
    float *y;
    const float *dy;
    void *dreal, *dfake;
    int64_t n_real, n_fake;
    int accumulate_real, accumulate_fake;
    sag_dtype act;
} gan_loss_args;

typedef struct cross_entropy_args {
    const void *logits;
    const int32_t *labels;
    float *y;
    const float *dy;
    void *dlogits;
    int64_t n, k;
    int accumulate;
    sag_dtype act;
} cross_entropy_args;

typedef enum sag_random { SAG_RANDOM_UNIFORM, SAG_RANDOM_NORMAL, SAG_RANDOM_INT } sag_random;

/* Element i takes word i % 4 of the Philox block (i / 4, stream, clock[0], clock[1]) under the key seed. */
typedef struct random_args {
    sag_random kind;
    void *x;
    const int32_t *clock;
    int64_t n;
    uint64_t seed;
    uint32_t stream;
    float a, b, bound; /* low, high; mean, std and bound in std */
    int64_t low, high;
} random_args;

typedef struct tick_args {
    int32_t *clock;
    int64_t by;
} tick_args;

typedef struct ema_args {
    float *target; /* NULL only inside adam_args: no average */
    const float *source;
    const int32_t *clock;
    const float *hyper; /* decay, first step that averages */
    int64_t n;
} ema_args;

/* hyper: rate, beta1, beta2, eps, weight decay, factor on g. count is ticked before use. average: of w, after its step. */
typedef struct adam_args {
    float *w, *m, *v;
    const float *g;
    int32_t *count;
    const float *hyper;
    int64_t n;
    int tf_eps;
    ema_args average;
} adam_args;

typedef struct fill_args {
    void *x;
    int64_t n;
    double value;
    sag_dtype dtype;
} fill_args;

typedef struct axpy_args {
    void *y;
    const void *x;
    int64_t n;
    float a;
    sag_dtype act;
} axpy_args;

typedef struct record_args {
    float *ring;
    const float *x;
    const int32_t *clock;
    int64_t rows, columns, column;
} record_args;

/* Image i flips if word 0 of Philox block (i, stream, clock) is odd; noise of element j is word j % 4 of block
 * (j / 4, stream + 1, clock). */
typedef struct pixels_args {
    const void *x;
    void *y;
    const int32_t *clock;
    int64_t n, h, w_in, c;
    uint64_t seed;
    uint32_t stream;
    int flip;
    float dequantize;
} pixels_args;

typedef struct cast_args {
    const void *x;
    void *y;
    int64_t n;
    sag_dtype from, to;
} cast_args;

#endif
