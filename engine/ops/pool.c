/*
 * pool.c - nearest upsampling and the pools, on {N,H,W,C}. Linear ones keep nothing; max_pool keeps the winners' indices.
 */
#include "engine/ops/check.h"

static sag_status want_images(const sag_op_call *c)
{
    SAG_TRY(want_float(c, 0));
    if (c->in_shape[0].rank != 4) return sag_op_fail(c, SAG_ERR_SHAPE, "'x' must be {N, H, W, C}");
    return SAG_OK;
}

static pool_args args_of(const sag_op_call *c)
{
    const int64_t *x = c->in_shape[0].dim, *y = c->out_shape[0].dim;
    pool_args a = {.n = x[0], .h = x[1], .w_in = x[2], .c = x[3], .p = y[1], .q = y[2], .act = c->in_dtype[0]};
    a.x = sag_data(c->in[0]);
    a.y = sag_data(c->out[0]);
    a.dy = sag_data(c->dout[0]);
    return a;
}

/* -------------------------------------------------------------------------------- upsample, global sum */

sag_status sag_op_upsample_fwd(sag_op_call *c)
{
    SAG_TRY(want_images(c));
    sag_shape y = c->in_shape[0];
    if (__builtin_mul_overflow(y.dim[1], 2, &y.dim[1]) || __builtin_mul_overflow(y.dim[2], 2, &y.dim[2])) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "the result is too large");
    }
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], y));
    pool_args a = args_of(c);
    return SAG_RUN(c, upsample_fwd, &a);
}

sag_status sag_op_upsample_bwd(sag_op_call *c)
{
    sag_grad g;
    SAG_TRY(sag_grad_in(c, 0, &g));
    if (!g.data) return SAG_OK;
    pool_args a = args_of(c);
    a.dx = g.data;
    a.accumulate = g.accumulate;
    return SAG_RUN(c, upsample_bwd, &a);
}

sag_status sag_op_global_sum_pool_fwd(sag_op_call *c)
{
    SAG_TRY(want_images(c));
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], sag_shape2(c->in_shape[0].dim[0], c->in_shape[0].dim[3])));
    pool_args a = args_of(c);
    a.p = a.q = 1;
    return SAG_RUN(c, global_sum_pool_fwd, &a);
}

sag_status sag_op_global_sum_pool_bwd(sag_op_call *c)
{
    sag_grad g;
    SAG_TRY(sag_grad_in(c, 0, &g));
    if (!g.data) return SAG_OK;
    pool_args a = args_of(c);
    a.p = a.q = 1;
    a.dx = g.data;
    a.accumulate = g.accumulate;
    return SAG_RUN(c, global_sum_pool_bwd, &a);
}

/* ------------------------------------------------------------------------------------------- windows */

typedef struct windows {
    int64_t size, stride, pad;
} windows;

static sag_status windows_of(const sag_op_call *c, windows *w, sag_shape *y)
{
    SAG_TRY(want_images(c));
    SAG_TRY(want_whole(c, 0, 1, INT32_MAX, &w->size));
    SAG_TRY(want_whole(c, 1, 1, INT32_MAX, &w->stride));
    SAG_TRY(want_whole(c, 2, 0, INT32_MAX, &w->pad));
    if (w->pad >= w->size) {
        return sag_op_fail(c, SAG_ERR_ARG, "pad = %lld must be less than size = %lld, or a window sees padding only",
                           (long long)w->pad, (long long)w->size);
    }
    *y = c->in_shape[0];
    for (int i = 1; i <= 2; i++) {
        int64_t room = y->dim[i] + 2 * w->pad - w->size;
        if (room < 0) {
            return sag_op_fail(c, SAG_ERR_SHAPE, "a window of %lld does not fit into H, W with padding %lld",
                               (long long)w->size, (long long)w->pad);
        }
        y->dim[i] = room / w->stride + 1;
    }
    return SAG_OK;
}

static pool_args window_args(const sag_op_call *c)
{
    pool_args a = args_of(c);
    a.size = (int64_t)c->attr[0];
    a.stride = (int64_t)c->attr[1];
    a.pad = (int64_t)c->attr[2];
    return a;
}

sag_status sag_op_mean_pool_fwd(sag_op_call *c)
{
    windows w;
    sag_shape y;
    SAG_TRY(windows_of(c, &w, &y));
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], y));
    pool_args a = window_args(c);
    a.include_pad = c->attr[3] != 0;
    return SAG_RUN(c, mean_pool_fwd, &a);
}

sag_status sag_op_mean_pool_bwd(sag_op_call *c)
{
    sag_grad g;
    SAG_TRY(sag_grad_in(c, 0, &g));
    if (!g.data) return SAG_OK;
    pool_args a = window_args(c);
    a.include_pad = c->attr[3] != 0;
    a.dx = g.data;
    a.accumulate = g.accumulate;
    return SAG_RUN(c, mean_pool_bwd, &a);
}

sag_status sag_op_max_pool_fwd(sag_op_call *c)
{
    windows w;
    sag_shape y;
    SAG_TRY(windows_of(c, &w, &y));
    if (y.dim[0] > 0 && c->in_shape[0].dim[1] > INT32_MAX / c->in_shape[0].dim[2]) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "H * W must fit i32");
    }
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], y));
    SAG_TRY(sag_save(c, 0, SAG_I32, y));
    pool_args a = window_args(c);
    a.winner = sag_data(c->saved[0]);
    return SAG_RUN(c, max_pool_fwd, &a);
}

sag_status sag_op_max_pool_bwd(sag_op_call *c)
{
    sag_grad g;
    SAG_TRY(sag_grad_in(c, 0, &g));
    if (!g.data) return SAG_OK;
    pool_args a = window_args(c);
    a.winner = sag_data(c->saved[0]);
    a.dx = g.data;
    a.accumulate = g.accumulate;
    return SAG_RUN(c, max_pool_bwd, &a);
}
