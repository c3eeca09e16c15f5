/*
 * pointwise.c - functions of one tensor, arithmetic of two with a broadcast second operand, and the gate of
 * self-attention. Backward keeps the input or the output, whichever the derivative is written in; scale keeps neither,
 * add and sub of equal shapes hand the gradient on without a copy.
 */
#include "engine/ops/check.h"

/* ------------------------------------------------------------------------------------------------- unary */

enum { KEEP_NONE, KEEP_X, KEEP_Y };

static sag_status unary_fwd(sag_op_call *c, sag_unary kind, int keep)
{
    SAG_TRY(want_float(c, 0));
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], c->in_shape[0]));
    if (keep == KEEP_X) c->keep_in = 1u;
    if (keep == KEEP_Y) c->keep_out = 1u;
    unary_args a = {.kind = kind, .x = sag_data(c->in[0]), .y = sag_data(c->out[0]), .n = c->in[0]->numel,
                    .a = (float)c->attr[0], .b = (float)c->attr[1], .act = c->in_dtype[0]};
    return SAG_RUN(c, unary_fwd, &a);
}

static sag_status unary_bwd(sag_op_call *c, sag_unary kind, int keep)
{
    sag_grad g;
    SAG_TRY(grad_in_place(c, &g));
    if (!g.data) return SAG_OK;
    const sag_tensor *kept = keep == KEEP_X ? c->in[0] : keep == KEEP_Y ? c->out[0] : NULL;
    unary_args a = {.kind = kind, .x = sag_data(kept), .dy = sag_data(c->dout[0]), .dx = g.data, .n = c->dout[0]->numel,
                    .a = (float)c->attr[0], .b = (float)c->attr[1], .accumulate = g.accumulate, .act = c->in_dtype[0]};
    return SAG_RUN(c, unary_bwd, &a);
}

#define UNARY(name, kind, keep)                                                                         \
    sag_status sag_op_##name##_fwd(sag_op_call *c) { return unary_fwd(c, SAG_UNARY_##kind, keep); }     \
    sag_status sag_op_##name##_bwd(sag_op_call *c) { return unary_bwd(c, SAG_UNARY_##kind, keep); }
UNARY(relu, RELU, KEEP_Y)
UNARY(leaky_relu, LEAKY_RELU, KEEP_X)
UNARY(tanh, TANH, KEEP_Y)
UNARY(sigmoid, SIGMOID, KEEP_Y)
UNARY(softplus, SOFTPLUS, KEEP_X)
UNARY(exp, EXP, KEEP_Y)
UNARY(log, LOG, KEEP_X)
UNARY(sqrt, SQRT, KEEP_Y)
UNARY(square, SQUARE, KEEP_X)
UNARY(abs, ABS, KEEP_X)
UNARY(scale, SCALE, KEEP_NONE)

/* ------------------------------------------------------------------------------------------------ binary */

/* b is a's shape, {1}, or the trailing dimensions of a. */
static bool broadcasts(sag_shape a, sag_shape b)
{
    if (b.rank == 1 && b.dim[0] == 1) return true;
    if (b.rank > a.rank) return false;
    for (int i = 0; i < b.rank; i++) {
        if (b.dim[b.rank - 1 - i] != a.dim[a.rank - 1 - i]) return false;
    }
    return true;
}

static bool reads_operands(sag_binary kind)
{
    return kind == SAG_BINARY_MUL || kind == SAG_BINARY_DIV;
}

static sag_status binary_fwd(sag_op_call *c, sag_binary kind)
{
    SAG_TRY(want_float(c, 0));
    SAG_TRY(want_same_dtype(c, 0, 1));
    if (!broadcasts(c->in_shape[0], c->in_shape[1])) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "'b' must have a's shape, or be {1}, or have the trailing dimensions of 'a'");
    }
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], c->in_shape[0]));
    if (reads_operands(kind)) { /* da reads b; db reads a, and for a quotient b too */
        if (sag_needs(c, 1)) c->keep_in |= 1u;
        if (sag_needs(c, 0) || kind == SAG_BINARY_DIV) c->keep_in |= 2u;
    }
    binary_args a = {.kind = kind, .a = sag_data(c->in[0]), .b = sag_data(c->in[1]), .y = sag_data(c->out[0]),
                     .n = c->in[0]->numel, .nb = c->in[1]->numel, .act = c->in_dtype[0]};
    return SAG_RUN(c, binary_fwd, &a);
}

static sag_status binary_bwd(sag_op_call *c, sag_binary kind)
{
    bool same = sag_shape_equal(c->in_shape[0], c->in_shape[1]); /* a {1} added to a {1, 1} has a gradient of its own shape */
    binary_args a = {.kind = kind, .a = sag_data(c->in[0]), .b = sag_data(c->in[1]), .dy = sag_data(c->dout[0]),
                     .n = sag_numel(c->in_shape[0]), .nb = sag_numel(c->in_shape[1]), .act = c->in_dtype[0]};
    sag_grad g;
    if (!reads_operands(kind)) {
        SAG_TRY(sag_grad_pass(c, 0, 0));
        if (kind == SAG_BINARY_ADD && same) return sag_grad_pass(c, 1, 0);
    } else {
        SAG_TRY(sag_grad_in(c, 0, &g));
        a.da = g.data;
        a.accumulate_a = g.accumulate;
        if (a.da) SAG_TRY(SAG_RUN(c, binary_bwd, &a));
        a.da = NULL;
    }
    SAG_TRY(sag_grad_in(c, 1, &g)); /* after da is done: a and b may be one tensor */
    a.db = g.data;
    a.accumulate_b = g.accumulate;
    return a.db ? SAG_RUN(c, binary_bwd, &a) : SAG_OK;
}

#define BINARY(name, kind)                                                                         \
    sag_status sag_op_##name##_fwd(sag_op_call *c) { return binary_fwd(c, SAG_BINARY_##kind); }    \
    sag_status sag_op_##name##_bwd(sag_op_call *c) { return binary_bwd(c, SAG_BINARY_##kind); }
BINARY(add, ADD)
BINARY(sub, SUB)
BINARY(mul, MUL)
BINARY(div, DIV)

/* ------------------------------------------------------------------------------------------------- gated */

/* y = x + gamma * o */
sag_status sag_op_gated_add_fwd(sag_op_call *c)
{
    SAG_TRY(want_float(c, 0));
    SAG_TRY(want_same_dtype(c, 0, 1));
    SAG_TRY(want_same_shape(c, 0, 1));
    SAG_TRY(want_dtype(c, 2, SAG_F32));
    SAG_TRY(want_vector(c, 2, 1));
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], c->in_shape[0]));
    if (sag_needs(c, 2)) c->keep_in |= 1u << 1;
    if (sag_needs(c, 1)) c->keep_in |= 1u << 2;
    gated_add_args a = {.x = sag_data(c->in[0]), .o = sag_data(c->in[1]), .gamma = sag_data(c->in[2]),
                        .y = sag_data(c->out[0]), .n = c->in[0]->numel, .act = c->in_dtype[0]};
    return SAG_RUN(c, gated_add_fwd, &a);
}

sag_status sag_op_gated_add_bwd(sag_op_call *c)
{
    SAG_TRY(sag_grad_pass(c, 0, 0));
    sag_grad o, gamma;
    SAG_TRY(sag_grad_in(c, 1, &o));
    SAG_TRY(sag_grad_in(c, 2, &gamma));
    if (!o.data && !gamma.data) return SAG_OK;
    gated_add_args a = {.o = sag_data(c->in[1]), .gamma = sag_data(c->in[2]), .dy = sag_data(c->dout[0]),
                        .dout_o = o.data, .dgamma = gamma.data, .n = c->dout[0]->numel, .accumulate_o = o.accumulate,
                        .accumulate_gamma = gamma.accumulate, .act = c->in_dtype[0]};
    return SAG_RUN(c, gated_add_bwd, &a);
}
