/*
 * norm.c - batch normalisation and its class-conditional form. Kept for backward: x, the mean and rstd that were used,
 * gain (and labels), and bias where the ReLU is fused: its mask is taken from x again, so y is not kept.
 *
 * Inputs: x, gain, bias, [labels,] running_mean, running_var. A plain norm sees x as one image of N*H*W rows.
 */
#include "engine/ops/check.h"

enum { X, GAIN, BIAS };

typedef struct layout {
    int labels, mean, var; /* positions of inputs; labels -1: plain */
} layout;

static layout layout_of(const sag_op_call *c)
{
    layout plain = {-1, 3, 4}, conditional = {3, 4, 5};
    return c->op == SAG_OP_cond_batch_norm ? conditional : plain;
}

/* What forward and backward have in common. */
static batch_norm_args common_args(const sag_op_call *c, layout l)
{
    sag_shape x = c->in_shape[X];
    batch_norm_args a = {.n = 1, .c = x.dim[x.rank - 1], .classes = 1, .train = c->attr[0] != 0,
                         .momentum = (float)c->attr[1], .eps = (float)c->attr[2], .relu = c->attr[3] != 0,
                         .gain_offset = (float)c->attr[4], .act = c->in_dtype[X]};
    a.x = sag_data(c->in[X]);
    a.gain = sag_data(c->in[GAIN]);
    a.bias = sag_data(c->in[BIAS]);
    if (l.labels >= 0) {
        a.n = x.dim[0];
        a.classes = c->in_shape[GAIN].dim[0];
        a.labels = sag_data(c->in[l.labels]);
    }
    a.spatial = sag_numel(x) / (a.n * a.c);
    a.mean = sag_data(c->saved[0]);
    a.rstd = sag_data(c->saved[1]);
    return a;
}

static sag_status check_parameters(const sag_op_call *c, layout l, int64_t channels)
{
    const sag_op_info *info = sag_op_describe(c->op);
    for (int i = GAIN; i <= BIAS; i++) {
        SAG_TRY(want_dtype(c, i, SAG_F32));
        if (l.labels < 0) {
            SAG_TRY(want_vector(c, i, channels));
        } else if (c->in_shape[i].rank != 2 || c->in_shape[i].dim[1] != channels ||
                   c->in_shape[i].dim[0] != c->in_shape[GAIN].dim[0]) {
            return sag_op_fail(c, SAG_ERR_SHAPE, "'%s' must be a table {classes, %lld}, and gain's and bias's classes equal",
                               info->in[i].name, (long long)channels);
        }
    }
    if (l.labels >= 0) {
        SAG_TRY(want_dtype(c, l.labels, SAG_I32));
        SAG_TRY(want_vector(c, l.labels, c->in_shape[X].dim[0]));
    }
    for (int i = l.mean; i <= l.var; i++) {
        SAG_TRY(want_dtype(c, i, SAG_F32));
        SAG_TRY(want_vector(c, i, channels));
    }
    return SAG_OK;
}

static sag_status norm_fwd(sag_op_call *c)
{
    layout l = layout_of(c);
    sag_shape x = c->in_shape[X];
    SAG_TRY(want_float(c, X));
    if (x.rank < 2) return sag_op_fail(c, SAG_ERR_SHAPE, "'x' needs at least the dimensions {N, C}");
    int64_t channels = x.dim[x.rank - 1];
    SAG_TRY(check_parameters(c, l, channels));
    if (!(c->attr[2] >= 0)) return sag_op_fail(c, SAG_ERR_ARG, "eps = %g must be at least 0", c->attr[2]);
    bool train = c->attr[0] != 0;
    if (train && sag_numel(x) == channels) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "training needs more than one value per channel; use a larger batch");
    }
    if (!train && (!c->in[l.mean] || !c->in[l.var])) {
        return sag_op_fail(c, SAG_ERR_ARG, "with train off, running_mean and running_var are needed");
    }
    SAG_TRY(sag_out(c, 0, c->in_dtype[X], x));
    const bool resumed = c->saved[0] && c->saved[1]; /* a second run of the call */
    for (int i = 0; i < 2 && !resumed; i++) SAG_TRY(sag_save(c, i, SAG_F32, sag_shape1(channels)));
    batch_norm_args a = common_args(c, l);
    a.resumed = resumed;
    a.running_mean = sag_data(c->in[l.mean]);
    a.running_var = sag_data(c->in[l.var]);
    a.y = sag_data(c->out[0]);
    c->keep_in = 1u << X | 1u << GAIN;
    if (l.labels >= 0) c->keep_in |= 1u << l.labels;
    if (!c->in[GAIN]) c->keep_in &= ~(1u << GAIN);
    if (a.relu && c->in[BIAS]) c->keep_in |= 1u << BIAS;
    return SAG_RUN(c, batch_norm_fwd, &a);
}

static sag_status norm_bwd(sag_op_call *c)
{
    batch_norm_args a = common_args(c, layout_of(c));
    sag_grad x, gain, bias;
    SAG_TRY(grad_in_place(c, &x));
    SAG_TRY(sag_grad_in(c, GAIN, &gain));
    SAG_TRY(sag_grad_in(c, BIAS, &bias));
    a.dy = sag_data(c->dout[0]);
    a.dx = x.data;
    a.dgain = gain.data;
    a.dbias = bias.data;
    a.accumulate = x.accumulate;
    a.accumulate_dgain = gain.accumulate;
    a.accumulate_dbias = bias.accumulate;
    return SAG_RUN(c, batch_norm_bwd, &a);
}

sag_status sag_op_batch_norm_fwd(sag_op_call *c)
{
    return norm_fwd(c);
}
sag_status sag_op_batch_norm_bwd(sag_op_call *c)
{
    return norm_bwd(c);
}
sag_status sag_op_cond_batch_norm_fwd(sag_op_call *c)
{
    return norm_fwd(c);
}
sag_status sag_op_cond_batch_norm_bwd(sag_op_call *c)
{
    return norm_bwd(c);
}
