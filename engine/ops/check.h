/* check.h - the questions that most ops ask of their inputs before they run. Each answers with a status and its words. */
#ifndef SAG_OPS_CHECK_H
#define SAG_OPS_CHECK_H

#include <math.h>

#include "engine/internal.h"

static inline sag_status want_dtype(const sag_op_call *c, int i, sag_dtype dtype)
{
    if (!c->in[i] || c->in_dtype[i] == dtype) return SAG_OK;
    return sag_op_fail(c, SAG_ERR_DTYPE, "'%s' must be %s, not %s", sag_op_describe(c->op)->in[i].name, sag_dtype_name(dtype),
                       sag_dtype_name(c->in_dtype[i]));
}

/* An activation: f32, or bf16 where the device has kernels for it. */
static inline sag_status want_float(const sag_op_call *c, int i)
{
    if (!c->in[i] || c->in_dtype[i] == SAG_F32 || c->in_dtype[i] == SAG_BF16) return SAG_OK;
    return sag_op_fail(c, SAG_ERR_DTYPE, "'%s' must be f32 or bf16, not %s; convert it with cast",
                       sag_op_describe(c->op)->in[i].name, sag_dtype_name(c->in_dtype[i]));
}

static inline sag_status want_same_dtype(const sag_op_call *c, int i, int j)
{
    if (c->in_dtype[i] == c->in_dtype[j]) return SAG_OK;
    const sag_op_info *info = sag_op_describe(c->op);
    return sag_op_fail(c, SAG_ERR_DTYPE, "'%s' is %s but '%s' is %s; convert one with cast", info->in[i].name,
                       sag_dtype_name(c->in_dtype[i]), info->in[j].name, sag_dtype_name(c->in_dtype[j]));
}

static inline sag_status want_same_shape(const sag_op_call *c, int i, int j)
{
    if (sag_shape_equal(c->in_shape[i], c->in_shape[j])) return SAG_OK;
    const sag_op_info *info = sag_op_describe(c->op);
    return sag_op_fail(c, SAG_ERR_SHAPE, "'%s' and '%s' must have equal shapes", info->in[i].name, info->in[j].name);
}

/* Input i is one-dimensional with n elements (an absent optional one is fine). */
static inline sag_status want_vector(const sag_op_call *c, int i, int64_t n)
{
    if (!c->in[i] || (c->in_shape[i].rank == 1 && c->in_shape[i].dim[0] == n)) return SAG_OK;
    return sag_op_fail(c, SAG_ERR_SHAPE, "'%s' must have shape {%lld}", sag_op_describe(c->op)->in[i].name, (long long)n);
}

/* A clock or counter: one 64-bit number in two i32 words. */
static inline sag_status want_clock(const sag_op_call *c, int i)
{
    SAG_TRY(want_dtype(c, i, SAG_I32));
    return want_vector(c, i, 2);
}

/* Attribute k as a whole number in low..high. */
static inline sag_status want_whole(const sag_op_call *c, int k, int64_t low, int64_t high, int64_t *out)
{
    double v = c->attr[k];
    *out = 0;
    if (!(v >= (double)low && v <= (double)high) || floor(v) != v) {
        return sag_op_fail(c, SAG_ERR_ARG, "%s = %g, but it must be a whole number from %lld to %lld",
                           sag_op_describe(c->op)->attr[k].name, v, (long long)low, (long long)high);
    }
    *out = (int64_t)v;
    return SAG_OK;
}

/*
 * sag_grad_in of input 0 for a rule that turns each element of dout[0] into that of the gradient: where nobody else has
 * dout[0], the gradient takes over its memory and g->data is dout[0]'s, to be written in place. A fresh buffer would be
 * read into the caches only to be overwritten.
 */
static inline sag_status grad_in_place(sag_op_call *c, sag_grad *g)
{
    const sag_var *v = c->in_var[0];
    sag_tensor *dy = c->dout[0];
    bool mine = sag_needs(c, 0) && dy && dy->refs == 1 && dy->storage->refs == 1;
    if (!mine || v->base || v->leaf || v->touched || v->dtype != dy->dtype) return sag_grad_in(c, 0, g);
    SAG_TRY(sag_grad_pass(c, 0, 0));
    *g = (sag_grad){.data = sag_data(dy)};
    return SAG_OK;
}

#endif
