/*
 * shape.c - concat, slice, permute. Only movement: the gradient of each is the opposite movement of the gradient, and
 * nothing is kept. Contiguous parts and reshapes are sag_tensor_view and cost nothing.
 */
#include "engine/ops/check.h"

/* Elements before and after an axis: x is {outer, dim[axis], inner}. */
static void split(sag_shape s, int axis, int64_t *outer, int64_t *inner)
{
    *outer = *inner = 1;
    for (int i = 0; i < axis; i++) *outer *= s.dim[i];
    for (int i = axis + 1; i < s.rank; i++) *inner *= s.dim[i];
}

/* Copies `length` positions of the axis (each `inner` elements) between two tensors that are `dst_axis`, `src_axis` long. */
static sag_status copy_part(sag_op_call *c, void *dst, int64_t dst_axis, int64_t dst_start, const void *src, int64_t src_axis,
                            int64_t src_start, int64_t outer, int64_t length, int64_t inner, int accumulate)
{
    sag_dtype dtype = c->in_dtype[0];
    int64_t unit = inner * (int64_t)sag_dtype_size(dtype);
    copy_block_args a = {.dst = (char *)dst + dst_start * unit, .src = (const char *)src + src_start * unit, .outer = outer,
                         .inner = length * unit, .dst_stride = dst_axis * unit, .src_stride = src_axis * unit,
                         .accumulate = accumulate, .act = dtype};
    return SAG_RUN(c, copy_block, &a);
}

/* ------------------------------------------------------------------------------------------------ concat */

sag_status sag_op_concat_fwd(sag_op_call *c)
{
    sag_shape a = c->in_shape[0], b = c->in_shape[1], y = a;
    int64_t axis, outer, inner;
    SAG_TRY(want_same_dtype(c, 0, 1));
    SAG_TRY(want_whole(c, 0, 0, a.rank - 1, &axis));
    bool fits = a.rank == b.rank;
    for (int i = 0; fits && i < a.rank; i++) fits = i == axis || a.dim[i] == b.dim[i];
    if (!fits) return sag_op_fail(c, SAG_ERR_SHAPE, "all dimensions but number %lld must be equal", (long long)axis + 1);
    if (__builtin_add_overflow(a.dim[axis], b.dim[axis], &y.dim[axis])) {
        return sag_op_fail(c, SAG_ERR_SHAPE, "the result is too large");
    }
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], y));
    split(y, (int)axis, &outer, &inner);
    int64_t na = a.dim[axis], nb = b.dim[axis];
    SAG_TRY(copy_part(c, sag_data(c->out[0]), na + nb, 0, sag_data(c->in[0]), na, 0, outer, na, inner, 0));
    return copy_part(c, sag_data(c->out[0]), na + nb, na, sag_data(c->in[1]), nb, 0, outer, nb, inner, 0);
}

sag_status sag_op_concat_bwd(sag_op_call *c)
{
    int axis = (int)c->attr[0];
    int64_t outer, inner, total = c->out_shape[0].dim[axis], start = 0;
    split(c->out_shape[0], axis, &outer, &inner);
    for (int i = 0; i < 2; i++) {
        int64_t n = c->in_shape[i].dim[axis];
        sag_grad g;
        SAG_TRY(sag_grad_in(c, i, &g));
        if (g.data) SAG_TRY(copy_part(c, g.data, n, 0, sag_data(c->dout[0]), total, start, outer, n, inner, g.accumulate));
        start += n;
    }
    return SAG_OK;
}

/* ------------------------------------------------------------------------------------------------- slice */

sag_status sag_op_slice_fwd(sag_op_call *c)
{
    sag_shape x = c->in_shape[0], y = x;
    int64_t axis, start, length, outer, inner;
    SAG_TRY(want_whole(c, 0, 0, x.rank - 1, &axis));
    SAG_TRY(want_whole(c, 1, 0, x.dim[axis] - 1, &start));
    SAG_TRY(want_whole(c, 2, 1, x.dim[axis] - start, &length));
    y.dim[axis] = length;
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], y));
    split(x, (int)axis, &outer, &inner);
    return copy_part(c, sag_data(c->out[0]), length, 0, sag_data(c->in[0]), x.dim[axis], start, outer, length, inner, 0);
}

sag_status sag_op_slice_bwd(sag_op_call *c)
{
    sag_shape x = c->in_shape[0];
    int axis = (int)c->attr[0];
    int64_t start = (int64_t)c->attr[1], length = (int64_t)c->attr[2], outer, inner;
    sag_grad g;
    SAG_TRY(sag_grad_in(c, 0, &g));
    if (!g.data) return SAG_OK;
    if (!g.accumulate) { /* what the slice leaves out */
        fill_args zero = {.x = g.data, .n = sag_numel(x), .value = 0, .dtype = c->in_dtype[0]};
        SAG_TRY(SAG_RUN(c, fill, &zero));
    }
    split(x, axis, &outer, &inner);
    return copy_part(c, g.data, x.dim[axis], start, sag_data(c->dout[0]), length, 0, outer, length, inner, g.accumulate);
}

/* ----------------------------------------------------------------------------------------------- permute */

static sag_status permute(sag_op_call *c, const void *x, sag_shape shape, const int d[4], void *y, int accumulate)
{
    permute_args a = {.x = x, .y = y, .accumulate = accumulate, .act = c->in_dtype[0]};
    for (int i = 0; i < 4; i++) {
        a.shape[i] = i < shape.rank ? shape.dim[i] : 1;
        a.d[i] = i < shape.rank ? d[i] : i;
    }
    return SAG_RUN(c, permute, &a);
}

sag_status sag_op_permute_fwd(sag_op_call *c)
{
    sag_shape x = c->in_shape[0], y = x;
    int d[4] = {0, 1, 2, 3};
    unsigned seen = 0;
    for (int i = 0; i < x.rank; i++) {
        int64_t k;
        SAG_TRY(want_whole(c, i, 0, x.rank - 1, &k));
        if (seen >> k & 1u) return sag_op_fail(c, SAG_ERR_ARG, "dimension %lld appears twice", (long long)k + 1);
        seen |= 1u << k;
        d[i] = (int)k;
        y.dim[i] = x.dim[k];
    }
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], y));
    return permute(c, sag_data(c->in[0]), x, d, sag_data(c->out[0]), 0);
}

sag_status sag_op_permute_bwd(sag_op_call *c)
{
    int inverse[4] = {0, 1, 2, 3};
    for (int i = 0; i < c->in_shape[0].rank; i++) inverse[(int)c->attr[i]] = i;
    sag_grad g;
    SAG_TRY(sag_grad_in(c, 0, &g));
    if (!g.data) return SAG_OK;
    return permute(c, sag_data(c->dout[0]), c->out_shape[0], inverse, g.data, g.accumulate);
}
