/*
 * spectral_norm.c - the largest singular values of all weights of a network, in one call over the slab.
 *
 * w {n}, u {Nu}, v {Nv}, sigma {L}, layers {L,5} i32 (offset, rows, columns, offset in u, offset in v) -> divisor {L}.
 * The convolutions divide by it as they read w (their input `sigma`), other layers with the op div: w / sigma is never
 * stored for a whole network. Saved: the u, v, sigma that forward ended with (u, v and sigma themselves move on before
 * backward runs); for `through` also w and the u that forward started from. Miyato et al. 2018; the two gradients are
 * derived in the kernel.
 */
#include "engine/internal.h"

/* Says which row of the table the kernel refused; the CPU's memory can be read here. */
static sag_status explain_layers(const sag_op_call *c)
{
    const int32_t *t = sag_data(c->in[4]);
    const int64_t n = c->in_shape[0].dim[0], n_u = c->in_shape[1].dim[0], n_v = c->in_shape[2].dim[0];
    for (int64_t i = 0; i < c->in_shape[4].dim[0]; i++, t += 5) {
        const long long row = (long long)i + 1;
        if (t[1] < 1 || t[2] < 1)
            return sag_op_fail(c, SAG_ERR_ARG, "row %lld of layers: a matrix of %d x %d", row, t[1], t[2]);
        if (t[0] < 0 || (int64_t)t[1] * t[2] > n - t[0])
            return sag_op_fail(c, SAG_ERR_ARG, "row %lld of layers: %d x %d from element %d does not fit in w", row,
                               t[1], t[2], t[0]);
        if (t[3] < 0 || t[1] > n_u - t[3])
            return sag_op_fail(c, SAG_ERR_ARG, "row %lld of layers: %d rows from %d do not fit in u", row, t[1], t[3]);
        if (t[4] < 0 || t[2] > n_v - t[4])
            return sag_op_fail(c, SAG_ERR_ARG, "row %lld of layers: %d columns from %d do not fit in v", row, t[2],
                               t[4]);
    }
    return sag_op_fail(c, SAG_ERR_ARG, "two rows of layers share elements of w");
}

sag_status sag_op_spectral_norm_fwd(sag_op_call *c)
{
    for (int i = 0; i < 4; i++) {
        if (c->in_dtype[i] != SAG_F32) return sag_op_fail(c, SAG_ERR_DTYPE, "w, u, v and sigma must be f32");
        if (c->in_shape[i].rank != 1) return sag_op_fail(c, SAG_ERR_SHAPE, "w, u, v and sigma must be of rank 1");
    }
    if (c->in_dtype[4] != SAG_I32) return sag_op_fail(c, SAG_ERR_DTYPE, "layers must be i32");
    const sag_shape layers = c->in_shape[4];
    if (layers.rank != 2 || layers.dim[1] != 5)
        return sag_op_fail(c, SAG_ERR_SHAPE, "layers must be {L,5}: offset, rows, columns, offset in u, offset in v");
    if (c->in_shape[3].dim[0] != layers.dim[0])
        return sag_op_fail(c, SAG_ERR_SHAPE, "sigma must have one element for each row of layers");
    const double iterations = c->attr[0], eps = c->attr[1];
    if (!(iterations >= 0 && iterations <= 1000))
        return sag_op_fail(c, SAG_ERR_ARG, "iterations = %g must lie in 0..1000", iterations);
    if (!(eps >= 0)) return sag_op_fail(c, SAG_ERR_ARG, "eps = %g must not be negative", eps);
    const int64_t n_u = c->in_shape[1].dim[0], n_v = c->in_shape[2].dim[0];
    const bool through = c->attr[3] != 0;
    SAG_TRY(sag_out(c, 0, SAG_F32, c->in_shape[3]));
    if (c->recorded) {
        SAG_TRY(sag_save(c, 0, SAG_F32, sag_shape1(n_u)));
        SAG_TRY(sag_save(c, 1, SAG_F32, sag_shape1(n_v)));
        SAG_TRY(sag_save(c, 2, SAG_F32, sag_shape1(layers.dim[0])));
        if (through) SAG_TRY(sag_save(c, 3, SAG_F32, sag_shape1(n_u)));
        c->keep_in = (through ? 1u : 0u) | 1u << 4;
    }
    spectral_norm_args a = {.w = sag_data(c->in[0]),
                            .divisor = sag_data(c->out[0]),
                            .u = sag_data(c->in[1]),
                            .v = sag_data(c->in[2]),
                            .sigma = sag_data(c->in[3]),
                            .layers = sag_data(c->in[4]),
                            .u_used = sag_data(c->saved[0]),
                            .v_used = sag_data(c->saved[1]),
                            .sigma_used = sag_data(c->saved[2]),
                            .u_start = sag_data(c->saved[3]),
                            .n = c->in_shape[0].dim[0],
                            .n_layers = layers.dim[0],
                            .n_u = n_u,
                            .n_v = n_v,
                            .iterations = (int)iterations,
                            .update = c->attr[2] != 0,
                            .through = through,
                            .eps_max = c->attr[4] != 0,
                            .eps = (float)eps};
    const sag_status s = SAG_RUN(c, spectral_norm_fwd, &a);
    return s == SAG_ERR_ARG && c->ctx->device == SAG_CPU ? explain_layers(c) : s;
}

sag_status sag_op_spectral_norm_bwd(sag_op_call *c)
{
    sag_grad dw;
    SAG_TRY(sag_grad_in(c, 0, &dw));
    if (!dw.data) return SAG_OK;
    if (!dw.accumulate) { /* only where nobody divides by it: otherwise dw holds what the layers left there */
        fill_args zero = {.x = dw.data, .n = sag_numel(c->in_shape[0]), .dtype = SAG_F32};
        SAG_TRY(SAG_RUN(c, fill, &zero));
    }
    spectral_norm_args a = {.w = sag_data(c->in[0]),
                            .ddivisor = sag_data(c->dout[0]),
                            .dw = dw.data,
                            .u_used = sag_data(c->saved[0]),
                            .v_used = sag_data(c->saved[1]),
                            .sigma_used = sag_data(c->saved[2]),
                            .u_start = sag_data(c->saved[3]),
                            .layers = sag_data(c->in[4]),
                            .n = c->in_shape[0].dim[0],
                            .n_layers = c->in_shape[4].dim[0],
                            .n_u = c->in_shape[1].dim[0],
                            .n_v = c->in_shape[2].dim[0],
                            .iterations = (int)c->attr[0],
                            .through = c->attr[3] != 0,
                            .eps_max = c->attr[4] != 0,
                            .eps = (float)c->attr[1]};
    return SAG_RUN(c, spectral_norm_bwd, &a);
}
