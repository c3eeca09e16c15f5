/* softmax.c - softmax and log_softmax over the last dimension, of any rank. Saved: y. */
#include "engine/internal.h"

static softmax_args describe(const sag_op_call *c, int log)
{
    const sag_shape s = c->in_shape[0];
    const int64_t cols = s.dim[s.rank - 1];
    return (softmax_args){.rows = sag_numel(s) / cols, .cols = cols, .log = log, .act = c->in_dtype[0]};
}

static sag_status forward(sag_op_call *c, int log)
{
    if (c->in_dtype[0] != SAG_F32 && c->in_dtype[0] != SAG_BF16)
        return sag_op_fail(c, SAG_ERR_DTYPE, "x must be f32 or bf16");
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], c->in_shape[0]));
    softmax_args a = describe(c, log);
    a.x = sag_data(c->in[0]);
    a.y = sag_data(c->out[0]);
    c->keep_out = 1u;
    return SAG_RUN(c, softmax_fwd, &a);
}

static sag_status backward(sag_op_call *c, int log)
{
    sag_grad dx;
    SAG_TRY(sag_grad_in(c, 0, &dx));
    if (!dx.data) return SAG_OK;
    softmax_args a = describe(c, log);
    a.y_saved = sag_data(c->out[0]);
    a.dy = sag_data(c->dout[0]);
    a.dx = dx.data;
    a.accumulate = dx.accumulate;
    return SAG_RUN(c, softmax_bwd, &a);
}

sag_status sag_op_softmax_fwd(sag_op_call *c)
{
    return forward(c, 0);
}

sag_status sag_op_softmax_bwd(sag_op_call *c)
{
    return backward(c, 0);
}

sag_status sag_op_log_softmax_fwd(sag_op_call *c)
{
    return forward(c, 1);
}

sag_status sag_op_log_softmax_bwd(sag_op_call *c)
{
    return backward(c, 1);
}
