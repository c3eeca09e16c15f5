/* embedding.c - rows of a table {V,D} chosen by index {N} i32 -> {N,D}. The gradient reaches the table only. */
#include "engine/internal.h"

sag_status sag_op_embedding_fwd(sag_op_call *c)
{
    const sag_shape table = c->in_shape[0], index = c->in_shape[1];
    if (c->in_dtype[0] != SAG_F32) return sag_op_fail(c, SAG_ERR_DTYPE, "table must be f32");
    if (c->in_dtype[1] != SAG_I32) return sag_op_fail(c, SAG_ERR_DTYPE, "index must be i32");
    if (table.rank != 2) return sag_op_fail(c, SAG_ERR_SHAPE, "table must be {V,D}");
    if (index.rank != 1) return sag_op_fail(c, SAG_ERR_SHAPE, "index must be {N}");
    SAG_TRY(sag_out(c, 0, SAG_F32, sag_shape2(index.dim[0], table.dim[1])));
    embedding_args a = {.table = sag_data(c->in[0]),
                        .index = sag_data(c->in[1]),
                        .y = sag_data(c->out[0]),
                        .v = table.dim[0],
                        .d = table.dim[1],
                        .n = index.dim[0],
                        .act = SAG_F32};
    c->keep_in = 1u << 1;
    return SAG_RUN(c, embedding_fwd, &a);
}

sag_status sag_op_embedding_bwd(sag_op_call *c)
{
    const sag_shape table = c->in_shape[0];
    sag_grad dtable;
    SAG_TRY(sag_grad_in(c, 0, &dtable));
    if (!dtable.data) return SAG_OK;
    embedding_args a = {.index = sag_data(c->in[1]),
                        .dy = sag_data(c->dout[0]),
                        .dtable = dtable.data,
                        .v = table.dim[0],
                        .d = table.dim[1],
                        .n = c->in_shape[1].dim[0],
                        .accumulate = dtable.accumulate,
                        .act = SAG_F32};
    return SAG_RUN(c, embedding_bwd, &a);
}
