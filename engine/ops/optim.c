/*
 * optim.c - what changes parameters and their kin in place: Adam, moving average, fill, assign, axpy, and the ring that
 * carries losses out of a step. Hyperparameters and counters are tensors, so a captured step follows their changes.
 */
#include "engine/ops/check.h"

static sag_status adam_args_of(const sag_op_call *c, adam_args *a)
{
    for (int i = 0; i < 4; i++) {
        SAG_TRY(want_dtype(c, i, SAG_F32));
        SAG_TRY(want_same_shape(c, i, 0));
    }
    SAG_TRY(want_clock(c, 4));
    SAG_TRY(want_dtype(c, 5, SAG_F32));
    SAG_TRY(want_vector(c, 5, 6));
    *a = (adam_args){.w = sag_data(c->in[0]), .g = sag_data(c->in[1]), .m = sag_data(c->in[2]), .v = sag_data(c->in[3]),
                     .count = sag_data(c->in[4]), .hyper = sag_data(c->in[5]), .n = c->in[0]->numel, .tf_eps = c->attr[0] != 0};
    return SAG_OK;
}

/* Positions of the inputs: target, source, clock, hyper. */
static sag_status ema_args_of(const sag_op_call *c, int target, int source, int clock, int hyper, ema_args *a)
{
    SAG_TRY(want_dtype(c, target, SAG_F32));
    SAG_TRY(want_dtype(c, source, SAG_F32));
    SAG_TRY(want_same_shape(c, target, source));
    SAG_TRY(want_clock(c, clock));
    SAG_TRY(want_dtype(c, hyper, SAG_F32));
    SAG_TRY(want_vector(c, hyper, 2));
    *a = (ema_args){.target = sag_data(c->in[target]), .source = sag_data(c->in[source]), .clock = sag_data(c->in[clock]),
                    .hyper = sag_data(c->in[hyper]), .n = c->in[target]->numel};
    return SAG_OK;
}

sag_status sag_op_adam_fwd(sag_op_call *c)
{
    adam_args a;
    SAG_TRY(adam_args_of(c, &a));
    return SAG_RUN(c, adam, &a);
}

sag_status sag_op_adam_ema_fwd(sag_op_call *c)
{
    adam_args a;
    SAG_TRY(adam_args_of(c, &a));
    SAG_TRY(ema_args_of(c, 6, 0, 7, 8, &a.average));
    return SAG_RUN(c, adam, &a);
}

sag_status sag_op_ema_fwd(sag_op_call *c)
{
    ema_args a;
    SAG_TRY(ema_args_of(c, 0, 1, 2, 3, &a));
    return SAG_RUN(c, ema, &a);
}

sag_status sag_op_fill_fwd(sag_op_call *c)
{
    double v = c->attr[0];
    sag_dtype d = c->in_dtype[0];
    double low = d == SAG_U8 ? 0 : (double)INT32_MIN, high = d == SAG_U8 ? 255 : (double)INT32_MAX;
    if ((d == SAG_U8 || d == SAG_I32) && (!(v >= low && v <= high) || floor(v) != v)) {
        return sag_op_fail(c, SAG_ERR_ARG, "value = %g does not fit %s", v, sag_dtype_name(d));
    }
    fill_args a = {.x = sag_data(c->in[0]), .n = c->in[0]->numel, .value = v, .dtype = d};
    return SAG_RUN(c, fill, &a);
}

sag_status sag_op_assign_fwd(sag_op_call *c)
{
    SAG_TRY(want_same_shape(c, 0, 1));
    SAG_TRY(want_same_dtype(c, 0, 1));
    int64_t bytes = c->in[0]->numel * (int64_t)sag_dtype_size(c->in_dtype[0]);
    copy_block_args a = {.src = sag_data(c->in[1]), .dst = sag_data(c->in[0]), .outer = 1, .inner = bytes,
                         .dst_stride = bytes, .src_stride = bytes, .act = c->in_dtype[0]};
    return SAG_RUN(c, copy_block, &a);
}

sag_status sag_op_axpy_fwd(sag_op_call *c)
{
    SAG_TRY(want_float(c, 0));
    SAG_TRY(want_same_dtype(c, 0, 1));
    SAG_TRY(want_same_shape(c, 0, 1));
    axpy_args a = {.y = sag_data(c->in[0]), .x = sag_data(c->in[1]), .n = c->in[0]->numel, .a = (float)c->attr[0],
                   .act = c->in_dtype[0]};
    return SAG_RUN(c, axpy, &a);
}

sag_status sag_op_record_fwd(sag_op_call *c)
{
    SAG_TRY(want_dtype(c, 0, SAG_F32));
    SAG_TRY(want_dtype(c, 1, SAG_F32));
    SAG_TRY(want_vector(c, 1, 1));
    SAG_TRY(want_clock(c, 2));
    if (c->in_shape[0].rank != 2) return sag_op_fail(c, SAG_ERR_SHAPE, "'ring' must be {rows, values}");
    record_args a = {.ring = sag_data(c->in[0]), .x = sag_data(c->in[1]), .clock = sag_data(c->in[2]),
                     .rows = c->in_shape[0].dim[0], .columns = c->in_shape[0].dim[1]};
    SAG_TRY(want_whole(c, 0, 0, a.columns - 1, &a.column));
    return SAG_RUN(c, record, &a);
}
