/*
 * conv.c - conv2d, upconv and convpool. x {N,H,W,C}, w {K,R,S,C}, b {K} or absent, y {N,P,Q,K}. With sigma {1} the
 * convolution is by w / sigma, which is never stored.
 *
 * dx needs w, and x too if a ReLU is fused, whose mask x is; dw needs x, and with sigma w; db and the residual's gradient
 * neither: each is kept only if the gradient that reads it is wanted. A frozen w records nothing but what dx needs.
 */
#include "engine/ops/check.h"

enum { X, W, B, CONV2D_RESIDUAL, CONV2D_SIGMA, OTHERS_SIGMA = 3 }; /* upconv and convpool have no residual */
enum { STRIDE, PAD_H, PAD_W, RELU };

static int sigma_input(const sag_op_call *c)
{
    return c->op == SAG_OP_conv2d ? CONV2D_SIGMA : OTHERS_SIGMA;
}

static sag_status check_operands(const sag_op_call *c)
{
    sag_shape x = c->in_shape[X], w = c->in_shape[W], b = c->in_shape[B];
    if (x.rank != 4) return sag_op_fail(c, SAG_ERR_SHAPE, "x must have rank 4, {N,H,W,C}");
    if (w.rank != 4) return sag_op_fail(c, SAG_ERR_SHAPE, "w must have rank 4, {K,R,S,C}");
    if (x.dim[3] != w.dim[3]) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "x has %lld channels but w takes %lld; the last dimensions must be equal",
                           (long long)x.dim[3], (long long)w.dim[3]);
    }
    if (c->in[B] && (b.rank != 1 || b.dim[0] != w.dim[0])) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "b must be {%lld}, one number for each output channel of w",
                           (long long)w.dim[0]);
    }
    if (c->in_dtype[X] != SAG_F32 && c->in_dtype[X] != SAG_BF16) {
        return sag_op_fail(c, SAG_ERR_DTYPE, "x must be f32 or bf16, got %s", sag_dtype_name(c->in_dtype[X]));
    }
    if (c->in_dtype[W] != SAG_F32 || (c->in[B] && c->in_dtype[B] != SAG_F32)) {
        return sag_op_fail(c, SAG_ERR_DTYPE, "w and b must be f32");
    }
    const int sigma = sigma_input(c);
    if (c->in[sigma]) {
        SAG_TRY(want_dtype(c, sigma, SAG_F32));
        SAG_TRY(want_vector(c, sigma, 1));
    }
    return SAG_OK;
}

/* Sizes for the kernel; the same from forward and backward, which both know all shapes. */
static conv_args sizes_of(const sag_op_call *c, int64_t stride, int64_t pad_h, int64_t pad_w)
{
    const int64_t *x = c->in_shape[X].dim, *w = c->in_shape[W].dim, *y = c->out_shape[0].dim;
    return (conv_args){.n = x[0],
                       .h = x[1],
                       .w_in = x[2],
                       .c = x[3],
                       .k = w[0],
                       .r = w[1],
                       .s = w[2],
                       .p = y[1],
                       .q = y[2],
                       .stride = stride,
                       .pad_h = pad_h,
                       .pad_w = pad_w,
                       .act = c->in_dtype[X]};
}

static void bind_forward(sag_op_call *c, conv_args *a)
{
    a->x = sag_data(c->in[X]);
    a->w = sag_data(c->in[W]);
    a->b = sag_data(c->in[B]);
    a->y = sag_data(c->out[0]);
    const int sigma = sigma_input(c);
    a->sigma = sag_data(c->in[sigma]);
    const unsigned weights = c->in[sigma] ? 1u << W | 1u << sigma : 1u << W;
    if (sag_needs(c, X)) c->keep_in |= a->relu ? weights | 1u << X : weights;
    if (sag_needs(c, W)) c->keep_in |= 1u << X;
    if (c->in[sigma] && (sag_needs(c, W) || sag_needs(c, sigma))) c->keep_in |= weights | 1u << X;
}

/*
 * dw and db by the kernel. With sigma what the kernel finds is G = dL/d(w / sigma): dw = G / sigma, in place where nothing is
 * there yet, and dsigma = -<G, w> / sigma^2.
 */
#define RUN_DW(c, kernel, a)                                                                                                     \
    do {                                                                                                                         \
        sigma_bwd_args quotient = {0};                                                                                           \
        SAG_TRY(bind_dw(c, a, &quotient));                                                                                       \
        if ((a)->dw || (a)->db) SAG_TRY(SAG_RUN(c, kernel, a));                                                                  \
        if (quotient.g) SAG_TRY(SAG_RUN(c, sigma_bwd, &quotient));                                                               \
    } while (0)

static sag_status bind_dw(sag_op_call *c, conv_args *a, sigma_bwd_args *quotient)
{
    sag_grad dw, db, dsigma = {0};
    const int sigma = sigma_input(c);
    a->x = sag_data(c->in[X]);
    a->dy = sag_data(c->dout[0]);
    SAG_TRY(sag_grad_in(c, W, &dw));
    SAG_TRY(sag_grad_in(c, B, &db));
    a->dw = dw.data;
    a->accumulate_dw = dw.accumulate;
    a->db = db.data;
    a->accumulate_db = db.accumulate;
    if (!c->in[sigma]) return SAG_OK;
    SAG_TRY(sag_grad_in(c, sigma, &dsigma));
    if (!dw.data && !dsigma.data) return SAG_OK;
    const int64_t n = sag_numel(c->in_shape[W]);
    if (!dw.data || dw.accumulate) {
        a->dw = c->ctx->env.scratch(&c->ctx->env, (size_t)n * sizeof *a->dw);
        if (!a->dw) return sag_scratch_fail(c);
        a->accumulate_dw = 0;
    }
    *quotient = (sigma_bwd_args){.g = a->dw, .w = sag_data(c->in[W]), .sigma = sag_data(c->in[sigma]), .dw = dw.data,
                                 .dsigma = dsigma.data, .n = n, .accumulate_dw = dw.accumulate,
                                 .accumulate_dsigma = dsigma.accumulate};
    return SAG_OK;
}

/* After dw, whose scratch is free again. */
static sag_status bind_dx(sag_op_call *c, conv_args *a)
{
    sag_grad dx;
    if (!a->relu) { /* only dw read it: dx may have its memory */
        sag_tensor_release(c->in[X]);
        c->in[X] = NULL;
    }
    sag_arena_reset(c->ctx);
    SAG_TRY(sag_grad_in(c, X, &dx));
    a->x = sag_data(c->in[X]);
    a->w = sag_data(c->in[W]);
    a->sigma = sag_data(c->in[sigma_input(c)]);
    a->dx = dx.data;
    a->accumulate = dx.accumulate;
    return SAG_OK;
}

/* ------------------------------------------------------------------------------------------------ conv2d */

/* (size + 2 pad - kernel) / stride + 1; sizes of existing tensors and pads below 2^31 do not overflow. */
static sag_status output_size(const sag_op_call *c, const char *name, int64_t size, int64_t kernel, int64_t pad,
                              int64_t stride, int64_t *out)
{
    int64_t room = size + 2 * pad - kernel;
    if (room < 0) {
        return sag_op_fail(c, SAG_ERR_SHAPE,
                           "the kernel is larger than the padded input: %s %lld + 2 * %lld < %lld; pad more", name,
                           (long long)size, (long long)pad, (long long)kernel);
    }
    *out = room / stride + 1;
    return SAG_OK;
}

/* The residual has y's shape, or half its height and width. */
static sag_status check_residual(const sag_op_call *c, sag_shape y)
{
    sag_shape r = c->in_shape[CONV2D_RESIDUAL], half = sag_shape4(y.dim[0], y.dim[1] / 2, y.dim[2] / 2, y.dim[3]);
    if (!c->in[CONV2D_RESIDUAL]) return SAG_OK;
    SAG_TRY(want_same_dtype(c, CONV2D_RESIDUAL, X));
    if (!sag_shape_equal(r, y) && (y.dim[1] % 2 || y.dim[2] % 2 || !sag_shape_equal(r, half))) {
        char text[96];
        return sag_op_fail(c, SAG_ERR_SHAPE, "'residual' must have the shape of y, %s, or half that height and width, both even",
                           sag_shape_text(y, text, sizeof text));
    }
    return SAG_OK;
}

/* Of y = ... + residual: dy, or its sums over 2x2 pixels. */
static sag_status residual_bwd(sag_op_call *c)
{
    if (!sag_needs(c, CONV2D_RESIDUAL)) return SAG_OK;
    if (sag_shape_equal(c->in_shape[CONV2D_RESIDUAL], c->out_shape[0])) return sag_grad_pass(c, CONV2D_RESIDUAL, 0);
    const int64_t *r = c->in_shape[CONV2D_RESIDUAL].dim, *y = c->out_shape[0].dim;
    sag_grad g;
    SAG_TRY(sag_grad_in(c, CONV2D_RESIDUAL, &g));
    pool_args a = {.n = r[0], .h = r[1], .w_in = r[2], .c = r[3], .p = y[1], .q = y[2], .dy = sag_data(c->dout[0]), .dx = g.data,
                   .accumulate = g.accumulate, .act = c->in_dtype[X]};
    return SAG_RUN(c, upsample_bwd, &a);
}

sag_status sag_op_conv2d_fwd(sag_op_call *c)
{
    int64_t stride = 1, pad_h = 0, pad_w = 0, p = 0, q = 0;
    SAG_TRY(check_operands(c));
    SAG_TRY(want_whole(c, STRIDE, 1, INT32_MAX, &stride));
    SAG_TRY(want_whole(c, PAD_H, 0, INT32_MAX, &pad_h));
    SAG_TRY(want_whole(c, PAD_W, 0, INT32_MAX, &pad_w));
    sag_shape x = c->in_shape[X], w = c->in_shape[W];
    SAG_TRY(output_size(c, "height", x.dim[1], w.dim[1], pad_h, stride, &p));
    SAG_TRY(output_size(c, "width", x.dim[2], w.dim[2], pad_w, stride, &q));
    sag_shape y = sag_shape4(x.dim[0], p, q, w.dim[0]);
    SAG_TRY(check_residual(c, y));
    SAG_TRY(sag_out(c, 0, c->in_dtype[X], y));
    conv_args a = sizes_of(c, stride, pad_h, pad_w);
    a.relu = c->attr[RELU] != 0;
    a.residual = sag_data(c->in[CONV2D_RESIDUAL]);
    a.residual_half = a.residual && !sag_shape_equal(c->in_shape[CONV2D_RESIDUAL], y);
    bind_forward(c, &a);
    return SAG_RUN(c, conv2d_fwd, &a);
}

sag_status sag_op_conv2d_bwd(sag_op_call *c)
{
    SAG_TRY(residual_bwd(c));
    conv_args a = sizes_of(c, (int64_t)c->attr[STRIDE], (int64_t)c->attr[PAD_H], (int64_t)c->attr[PAD_W]);
    a.relu = c->attr[RELU] != 0;
    RUN_DW(c, conv2d_bwd_w, &a);
    SAG_TRY(bind_dx(c, &a));
    return a.dx ? SAG_RUN(c, conv2d_bwd_x, &a) : SAG_OK;
}

/* ---------------------------------------------------------------------------------------- upconv, convpool */

static sag_status check_3x3(const sag_op_call *c)
{
    SAG_TRY(check_operands(c));
    if (c->in_shape[W].dim[1] != 3 || c->in_shape[W].dim[2] != 3) {
        return sag_op_fail(c, SAG_ERR_SHAPE,
                           "w must be a 3x3 kernel, {K,3,3,C}; use conv2d with upsample or mean pooling for others");
    }
    return SAG_OK;
}

sag_status sag_op_upconv_fwd(sag_op_call *c)
{
    SAG_TRY(check_3x3(c));
    sag_shape x = c->in_shape[X];
    SAG_TRY(sag_out(c, 0, c->in_dtype[X], sag_shape4(x.dim[0], 2 * x.dim[1], 2 * x.dim[2], c->in_shape[W].dim[0])));
    conv_args a = sizes_of(c, 1, 1, 1);
    bind_forward(c, &a);
    return SAG_RUN(c, upconv_fwd, &a);
}

sag_status sag_op_upconv_bwd(sag_op_call *c)
{
    conv_args a = sizes_of(c, 1, 1, 1);
    RUN_DW(c, upconv_bwd_w, &a);
    SAG_TRY(bind_dx(c, &a));
    return a.dx ? SAG_RUN(c, upconv_bwd_x, &a) : SAG_OK;
}

sag_status sag_op_convpool_fwd(sag_op_call *c)
{
    SAG_TRY(check_3x3(c));
    sag_shape x = c->in_shape[X];
    if (x.dim[1] % 2 || x.dim[2] % 2) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "H and W must be even, got %lld x %lld; pad or resize the input",
                           (long long)x.dim[1], (long long)x.dim[2]);
    }
    SAG_TRY(sag_out(c, 0, c->in_dtype[X], sag_shape4(x.dim[0], x.dim[1] / 2, x.dim[2] / 2, c->in_shape[W].dim[0])));
    conv_args a = sizes_of(c, 1, 1, 1);
    a.relu = c->attr[0] != 0;
    bind_forward(c, &a);
    return SAG_RUN(c, convpool_fwd, &a);
}

sag_status sag_op_convpool_bwd(sag_op_call *c)
{
    conv_args a = sizes_of(c, 1, 1, 1);
    a.relu = c->attr[0] != 0;
    RUN_DW(c, convpool_bwd_w, &a);
    SAG_TRY(bind_dx(c, &a));
    return a.dx ? SAG_RUN(c, convpool_bwd_x, &a) : SAG_OK;
}
