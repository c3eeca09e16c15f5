/*
 * attention.c - scaled dot-product attention over the positions of an image, and ways to look at it.
 *
 *   o_j = sum_i softmax_i(scale q_j . k_i) v_i      (SAGAN eq. 1-2; the paper has scale 1 and no 1/sqrt(d))
 *
 * q {B,Nq,D}, k {B,Nk,D}, v {B,Nk,E} -> o {B,Nq,E}. Saved: q, k, v, o and lse {B,Nq}; the map is recomputed in
 * backward.
 */
#include "engine/internal.h"

static sag_status check_operands(const sag_op_call *c)
{
    const sag_shape q = c->in_shape[0], k = c->in_shape[1];
    if (c->in_dtype[0] != SAG_F32 && c->in_dtype[0] != SAG_BF16)
        return sag_op_fail(c, SAG_ERR_DTYPE, "q must be f32 or bf16");
    if (c->in_dtype[1] != c->in_dtype[0]) return sag_op_fail(c, SAG_ERR_DTYPE, "q and k must have one dtype");
    if (q.rank != 3 || k.rank != 3)
        return sag_op_fail(c, SAG_ERR_SHAPE,
                           "q must be {B,Nq,D} and k {B,Nk,D}; reshape images {B,H,W,C} to {B,H*W,C}");
    if (q.dim[0] != k.dim[0]) return sag_op_fail(c, SAG_ERR_SHAPE, "q and k must have the same batch (dimension 1)");
    if (q.dim[2] != k.dim[2]) return sag_op_fail(c, SAG_ERR_SHAPE, "q and k must have the same depth D (dimension 3)");
    return SAG_OK;
}

sag_status sag_op_attention_fwd(sag_op_call *c)
{
    SAG_TRY(check_operands(c));
    const sag_shape q = c->in_shape[0], k = c->in_shape[1], v = c->in_shape[2];
    if (c->in_dtype[2] != c->in_dtype[0]) return sag_op_fail(c, SAG_ERR_DTYPE, "v must have the dtype of q");
    if (v.rank != 3 || v.dim[0] != k.dim[0] || v.dim[1] != k.dim[1])
        return sag_op_fail(c, SAG_ERR_SHAPE, "v must be {B,Nk,E} with the B and Nk of k");
    SAG_TRY(sag_out(c, 0, c->in_dtype[0], sag_shape3(q.dim[0], q.dim[1], v.dim[2])));
    if (c->recorded) {
        SAG_TRY(sag_save(c, 0, SAG_F32, sag_shape2(q.dim[0], q.dim[1])));
        c->keep_in = 7u;
        c->keep_out = 1u;
    }
    attention_args a = {.q = sag_data(c->in[0]),
                        .k = sag_data(c->in[1]),
                        .v = sag_data(c->in[2]),
                        .o = sag_data(c->out[0]),
                        .lse = sag_data(c->saved[0]),
                        .batch = q.dim[0],
                        .nq = q.dim[1],
                        .nk = k.dim[1],
                        .d = q.dim[2],
                        .e = v.dim[2],
                        .scale = (float)c->attr[0],
                        .act = c->in_dtype[0]};
    return SAG_RUN(c, attention_fwd, &a);
}

sag_status sag_op_attention_bwd(sag_op_call *c)
{
    const sag_shape q = c->in_shape[0], k = c->in_shape[1], v = c->in_shape[2];
    sag_grad dq, dk, dv;
    SAG_TRY(sag_grad_in(c, 0, &dq));
    SAG_TRY(sag_grad_in(c, 1, &dk));
    SAG_TRY(sag_grad_in(c, 2, &dv));
    if (!dq.data && !dk.data && !dv.data) return SAG_OK;
    attention_args a = {.q = sag_data(c->in[0]),
                        .k = sag_data(c->in[1]),
                        .v = sag_data(c->in[2]),
                        .o_saved = sag_data(c->out[0]),
                        .lse = sag_data(c->saved[0]),
                        .do_ = sag_data(c->dout[0]),
                        .dq = dq.data,
                        .dk = dk.data,
                        .dv = dv.data,
                        .accumulate_q = dq.accumulate,
                        .accumulate_k = dk.accumulate,
                        .accumulate_v = dv.accumulate,
                        .batch = q.dim[0],
                        .nq = q.dim[1],
                        .nk = k.dim[1],
                        .d = q.dim[2],
                        .e = v.dim[2],
                        .scale = (float)c->attr[0],
                        .act = c->in_dtype[0]};
    return SAG_RUN(c, attention_bwd, &a);
}

sag_status sag_op_attention_map_fwd(sag_op_call *c)
{
    SAG_TRY(check_operands(c));
    const sag_shape q = c->in_shape[0], k = c->in_shape[1], m = c->in_shape[2];
    if (c->in_dtype[2] != SAG_I32) return sag_op_fail(c, SAG_ERR_DTYPE, "queries must be i32");
    if (m.rank != 1) return sag_op_fail(c, SAG_ERR_SHAPE, "queries must be {M}");
    SAG_TRY(sag_out(c, 0, SAG_F32, sag_shape3(q.dim[0], m.dim[0], k.dim[1])));
    attention_map_args a = {.q = sag_data(c->in[0]),
                            .k = sag_data(c->in[1]),
                            .queries = sag_data(c->in[2]),
                            .p = sag_data(c->out[0]),
                            .batch = q.dim[0],
                            .nq = q.dim[1],
                            .nk = k.dim[1],
                            .d = q.dim[2],
                            .m = m.dim[0],
                            .scale = (float)c->attr[0],
                            .act = c->in_dtype[0]};
    return SAG_RUN(c, attention_map, &a);
}

/* The keys lie on a grid of the same extent: {wk, hk} = {width, height} * r, r = sqrt(nk / nq), all whole numbers. */
static bool key_grid_fits(int64_t nq, int64_t nk, int64_t width)
{
    const int64_t height = nq / width;
    for (int64_t wk = 1; wk <= nk; wk++)
        if (nk % wk == 0 && wk * height == nk / wk * width) return true;
    return false;
}

sag_status sag_op_attention_stats_fwd(sag_op_call *c)
{
    SAG_TRY(check_operands(c));
    const sag_shape q = c->in_shape[0], k = c->in_shape[1];
    const double width = c->attr[0];
    if (!(width >= 1 && width <= (double)q.dim[1]) || q.dim[1] % (int64_t)width != 0)
        return sag_op_fail(c, SAG_ERR_ARG, "width = %g must divide the %lld queries into whole rows", width,
                           (long long)q.dim[1]);
    if (!key_grid_fits(q.dim[1], k.dim[1], (int64_t)width))
        return sag_op_fail(c, SAG_ERR_SHAPE, "%lld keys make no grid of the shape of the queries' grid %lld wide",
                           (long long)k.dim[1], (long long)width);
    SAG_TRY(sag_out(c, 0, SAG_F32, sag_shape1(2)));
    attention_map_args a = {.q = sag_data(c->in[0]),
                            .k = sag_data(c->in[1]),
                            .stats = sag_data(c->out[0]),
                            .batch = q.dim[0],
                            .nq = q.dim[1],
                            .nk = k.dim[1],
                            .d = q.dim[2],
                            .width = (int64_t)width,
                            .scale = (float)c->attr[1],
                            .act = c->in_dtype[0]};
    return SAG_RUN(c, attention_stats, &a);
}
