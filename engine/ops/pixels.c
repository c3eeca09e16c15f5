/* pixels.c - stored pictures to activations and back, and casts. The random parts are keyed as in random.c. */
#include "engine/ops/check.h"

static void set_sizes(pixels_args *a, sag_shape s)
{
    a->n = s.dim[0];
    a->h = s.rank > 1 ? s.dim[1] : 1;
    a->w_in = s.rank > 2 ? s.dim[2] : 1;
    a->c = s.rank > 3 ? s.dim[3] : 1;
}

sag_status sag_op_pixels_to_float_fwd(sag_op_call *c)
{
    int64_t seed, stream, whole = (int64_t)1 << 53;
    SAG_TRY(want_dtype(c, 0, SAG_U8));
    SAG_TRY(want_clock(c, 1));
    SAG_TRY(want_whole(c, 0, -whole, whole, &seed));
    SAG_TRY(want_whole(c, 1, 0, (int64_t)UINT32_MAX - 1, &stream)); /* the noise takes stream + 1 */
    if (c->in_shape[0].rank != 4) return sag_op_fail(c, SAG_ERR_SHAPE, "'x' must be {N, H, W, C}");
    if (!(c->attr[3] >= 0)) return sag_op_fail(c, SAG_ERR_ARG, "dequantize = %g must be at least 0", c->attr[3]);
    SAG_TRY(sag_out(c, 0, SAG_F32, c->in_shape[0]));
    pixels_args a = {.x = sag_data(c->in[0]), .y = sag_data(c->out[0]), .clock = sag_data(c->in[1]), .seed = (uint64_t)seed,
                     .stream = (uint32_t)stream, .flip = c->attr[2] != 0, .dequantize = (float)c->attr[3]};
    set_sizes(&a, c->in_shape[0]);
    return SAG_RUN(c, pixels_to_float, &a);
}

sag_status sag_op_float_to_pixels_fwd(sag_op_call *c)
{
    SAG_TRY(want_dtype(c, 0, SAG_F32));
    SAG_TRY(sag_out(c, 0, SAG_U8, c->in_shape[0]));
    pixels_args a = {.x = sag_data(c->in[0]), .y = sag_data(c->out[0])};
    set_sizes(&a, c->in_shape[0]);
    return SAG_RUN(c, float_to_pixels, &a);
}

static bool is_float(sag_dtype dtype)
{
    return dtype == SAG_F32 || dtype == SAG_BF16;
}

sag_status sag_op_cast_fwd(sag_op_call *c)
{
    int64_t to;
    SAG_TRY(want_whole(c, 0, 0, SAG_DTYPE_COUNT - 1, &to));
    SAG_TRY(sag_out(c, 0, (sag_dtype)to, c->in_shape[0]));
    if (!is_float((sag_dtype)to) || !is_float(c->in_dtype[0])) c->recorded = false; /* a constant: nothing to record */
    cast_args a = {.x = sag_data(c->in[0]), .y = sag_data(c->out[0]), .n = c->in[0]->numel, .from = c->in_dtype[0],
                   .to = (sag_dtype)to};
    return SAG_RUN(c, cast, &a);
}
/* dx = dy, rounded to x's dtype */
sag_status sag_op_cast_bwd(sag_op_call *c)
{
    sag_grad dx;
    sag_dtype from = c->dout[0]->dtype, to = c->in_dtype[0];
    if (from == to) return sag_grad_pass(c, 0, 0);
    SAG_TRY(sag_grad_in(c, 0, &dx));
    if (!dx.data) return SAG_OK;
    cast_args a = {.x = sag_data(c->dout[0]), .y = dx.data, .n = c->dout[0]->numel, .from = from, .to = to};
    if (!dx.accumulate) return SAG_RUN(c, cast, &a);
    a.y = c->ctx->env.scratch(&c->ctx->env, (size_t)a.n * sag_dtype_size(to));
    if (!a.y) return sag_scratch_fail(c);
    SAG_TRY(SAG_RUN(c, cast, &a));
    axpy_args add = {.y = dx.data, .x = a.y, .n = a.n, .a = 1, .act = to};
    return SAG_RUN(c, axpy, &add);
}
