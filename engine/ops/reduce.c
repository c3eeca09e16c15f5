/*
 * reduce.c - sums, means, norm, extremes and counts. Sum and mean keep nothing; norm keeps its input and output.
 * Results are f32 {1}, or x's shape without the axis.
 */
#include "engine/ops/check.h"

/* x as {outer, axis, inner}; axis -1: everything as one axis. A tensor that loses its only dimension becomes {1}. */
static sag_status layout(sag_op_call *c, reduce_args *a, sag_shape *y)
{
    sag_shape x = c->in_shape[0];
    int64_t axis;
    SAG_TRY(want_whole(c, 0, -1, x.rank - 1, &axis));
    a->outer = a->inner = 1;
    *y = sag_shape1(1);
    if (axis < 0) {
        a->axis = sag_numel(x);
        return SAG_OK;
    }
    a->axis = x.dim[axis];
    int n = 0;
    for (int i = 0; i < x.rank; i++) {
        if (i == axis) continue;
        *(i < axis ? &a->outer : &a->inner) *= x.dim[i];
        y->dim[n++] = x.dim[i];
    }
    y->rank = n > 0 ? n : 1;
    return SAG_OK;
}

static sag_status sum_fwd(sag_op_call *c, sag_reduce kind)
{
    SAG_TRY(want_float(c, 0));
    reduce_args a = {.kind = kind, .act = c->in_dtype[0]};
    sag_shape y;
    SAG_TRY(layout(c, &a, &y));
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], y));
    a.x = sag_data(c->in[0]);
    a.y = sag_data(c->out[0]);
    return SAG_RUN(c, reduce_fwd, &a);
}

static sag_status sum_bwd(sag_op_call *c, sag_reduce kind)
{
    reduce_args a = {.kind = kind, .act = c->in_dtype[0]};
    sag_shape y;
    sag_grad g;
    SAG_TRY(layout(c, &a, &y));
    SAG_TRY(sag_grad_in(c, 0, &g));
    if (!g.data) return SAG_OK;
    a.dy = sag_data(c->dout[0]);
    a.dx = g.data;
    a.accumulate = g.accumulate;
    return SAG_RUN(c, reduce_bwd, &a);
}

sag_status sag_op_sum_fwd(sag_op_call *c)
{
    return sum_fwd(c, SAG_REDUCE_SUM);
}
sag_status sag_op_sum_bwd(sag_op_call *c)
{
    return sum_bwd(c, SAG_REDUCE_SUM);
}
sag_status sag_op_mean_fwd(sag_op_call *c)
{
    return sum_fwd(c, SAG_REDUCE_MEAN);
}
sag_status sag_op_mean_bwd(sag_op_call *c)
{
    return sum_bwd(c, SAG_REDUCE_MEAN);
}

/* --------------------------------------------------------------------------------------- one number of all */

static sag_status whole_fwd(sag_op_call *c, sag_reduce kind, sag_dtype dtype)
{
    SAG_TRY(want_float(c, 0));
    SAG_TRY(sag_out(c, 0, dtype, sag_shape1(1)));
    reduce_args a = {.kind = kind, .x = sag_data(c->in[0]), .y = sag_data(c->out[0]), .outer = 1, .axis = c->in[0]->numel,
                     .inner = 1, .act = c->in_dtype[0]};
    return SAG_RUN(c, reduce_fwd, &a);
}

sag_status sag_op_norm_fwd(sag_op_call *c)
{
    c->keep_in = 1u;
    c->keep_out = 1u;
    return whole_fwd(c, SAG_REDUCE_NORM, c->in_dtype[0]);
}

sag_status sag_op_norm_bwd(sag_op_call *c)
{
    sag_grad g;
    SAG_TRY(sag_grad_in(c, 0, &g));
    if (!g.data) return SAG_OK;
    reduce_args a = {.kind = SAG_REDUCE_NORM, .x = sag_data(c->in[0]), .y_saved = sag_data(c->out[0]),
                     .dy = sag_data(c->dout[0]), .dx = g.data, .outer = 1, .axis = c->in[0]->numel, .inner = 1,
                     .accumulate = g.accumulate, .act = c->in_dtype[0]};
    return SAG_RUN(c, reduce_bwd, &a);
}

sag_status sag_op_max_fwd(sag_op_call *c)
{
    return whole_fwd(c, SAG_REDUCE_MAX, c->in_dtype[0]);
}
sag_status sag_op_min_fwd(sag_op_call *c)
{
    return whole_fwd(c, SAG_REDUCE_MIN, c->in_dtype[0]);
}
sag_status sag_op_count_nonfinite_fwd(sag_op_call *c)
{
    return whole_fwd(c, SAG_REDUCE_COUNT_NONFINITE, SAG_F32);
}

sag_status sag_op_argmax_fwd(sag_op_call *c)
{
    SAG_TRY(want_float(c, 0));
    sag_shape x = c->in_shape[0], y = x;
    int64_t cols = x.dim[x.rank - 1];
    if (cols > INT32_MAX) return sag_op_fail(c, SAG_ERR_SHAPE, "the last dimension must fit i32");
    if (x.rank > 1) y.rank--;
    y.dim[x.rank - 1] = x.rank > 1 ? 0 : 1;
    SAG_TRY(sag_out(c, 0, SAG_I32, y));
    reduce_args a = {.x = sag_data(c->in[0]), .y = sag_data(c->out[0]), .outer = c->in[0]->numel / cols, .axis = cols,
                     .inner = 1, .act = c->in_dtype[0]};
    return SAG_RUN(c, argmax, &a);
}
