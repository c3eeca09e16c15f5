/*
 * loss.c - the adversarial losses and cross entropy; every loss is {1}, a mean over all elements.
 *
 * The discriminator's forms take the logits of real and fake images, the generator's those of fake ones. Saved: the
 * logits.
 */
#include "engine/internal.h"

static sag_status check_logits(const sag_op_call *c, int n)
{
    for (int i = 0; i < n; i++) {
        if (c->in_dtype[i] != SAG_F32 && c->in_dtype[i] != SAG_BF16)
            return sag_op_fail(c, SAG_ERR_DTYPE, "logits must be f32 or bf16");
        if (c->in_dtype[i] != c->in_dtype[0]) return sag_op_fail(c, SAG_ERR_DTYPE, "real and fake must have one dtype");
    }
    return SAG_OK;
}

static sag_status forward_d(sag_op_call *c, sag_gan_loss kind)
{
    SAG_TRY(check_logits(c, 2));
    SAG_TRY(sag_out(c, 0, SAG_F32, sag_shape1(1)));
    gan_loss_args a = {.kind = kind,
                       .real = sag_data(c->in[0]),
                       .fake = sag_data(c->in[1]),
                       .y = sag_data(c->out[0]),
                       .n_real = sag_numel(c->in_shape[0]),
                       .n_fake = sag_numel(c->in_shape[1]),
                       .act = c->in_dtype[0]};
    c->keep_in = 3u;
    return SAG_RUN(c, gan_loss_fwd, &a);
}

static sag_status backward_d(sag_op_call *c, sag_gan_loss kind)
{
    sag_grad dreal, dfake;
    SAG_TRY(sag_grad_in(c, 0, &dreal));
    SAG_TRY(sag_grad_in(c, 1, &dfake));
    if (!dreal.data && !dfake.data) return SAG_OK;
    gan_loss_args a = {.kind = kind,
                       .real = sag_data(c->in[0]),
                       .fake = sag_data(c->in[1]),
                       .dy = sag_data(c->dout[0]),
                       .dreal = dreal.data,
                       .dfake = dfake.data,
                       .n_real = sag_numel(c->in_shape[0]),
                       .n_fake = sag_numel(c->in_shape[1]),
                       .accumulate_real = dreal.accumulate,
                       .accumulate_fake = dfake.accumulate,
                       .act = c->in_dtype[0]};
    return SAG_RUN(c, gan_loss_bwd, &a);
}

static sag_status forward_g(sag_op_call *c, sag_gan_loss kind)
{
    SAG_TRY(check_logits(c, 1));
    SAG_TRY(sag_out(c, 0, SAG_F32, sag_shape1(1)));
    gan_loss_args a = {.kind = kind,
                       .fake = sag_data(c->in[0]),
                       .y = sag_data(c->out[0]),
                       .n_fake = sag_numel(c->in_shape[0]),
                       .act = c->in_dtype[0]};
    c->keep_in = 1u;
    return SAG_RUN(c, gan_loss_fwd, &a);
}

static sag_status backward_g(sag_op_call *c, sag_gan_loss kind)
{
    sag_grad dfake;
    SAG_TRY(sag_grad_in(c, 0, &dfake));
    if (!dfake.data) return SAG_OK;
    gan_loss_args a = {.kind = kind,
                       .fake = sag_data(c->in[0]),
                       .dy = sag_data(c->dout[0]),
                       .dfake = dfake.data,
                       .n_fake = sag_numel(c->in_shape[0]),
                       .accumulate_fake = dfake.accumulate,
                       .act = c->in_dtype[0]};
    return SAG_RUN(c, gan_loss_bwd, &a);
}

#define GAN_LOSS(name, kind)                                                                                           \
    sag_status sag_op_##name##_d_fwd(sag_op_call *c)                                                                   \
    {                                                                                                                  \
        return forward_d(c, kind);                                                                                     \
    }                                                                                                                  \
    sag_status sag_op_##name##_d_bwd(sag_op_call *c)                                                                   \
    {                                                                                                                  \
        return backward_d(c, kind);                                                                                    \
    }                                                                                                                  \
    sag_status sag_op_##name##_g_fwd(sag_op_call *c)                                                                   \
    {                                                                                                                  \
        return forward_g(c, kind);                                                                                     \
    }                                                                                                                  \
    sag_status sag_op_##name##_g_bwd(sag_op_call *c)                                                                   \
    {                                                                                                                  \
        return backward_g(c, kind);                                                                                    \
    }
GAN_LOSS(hinge, SAG_LOSS_HINGE)
GAN_LOSS(bce, SAG_LOSS_BCE)
GAN_LOSS(wasserstein, SAG_LOSS_WASSERSTEIN)

sag_status sag_op_cross_entropy_fwd(sag_op_call *c)
{
    const sag_shape logits = c->in_shape[0], labels = c->in_shape[1];
    SAG_TRY(check_logits(c, 1));
    if (c->in_dtype[1] != SAG_I32) return sag_op_fail(c, SAG_ERR_DTYPE, "labels must be i32");
    if (logits.rank != 2) return sag_op_fail(c, SAG_ERR_SHAPE, "logits must be {N,K}");
    if (labels.rank != 1 || labels.dim[0] != logits.dim[0])
        return sag_op_fail(c, SAG_ERR_SHAPE, "labels must be {N}, one for each row of the logits");
    SAG_TRY(sag_out(c, 0, SAG_F32, sag_shape1(1)));
    cross_entropy_args a = {.logits = sag_data(c->in[0]),
                            .labels = sag_data(c->in[1]),
                            .y = sag_data(c->out[0]),
                            .n = logits.dim[0],
                            .k = logits.dim[1],
                            .act = c->in_dtype[0]};
    c->keep_in = 3u;
    return SAG_RUN(c, cross_entropy_fwd, &a);
}

sag_status sag_op_cross_entropy_bwd(sag_op_call *c)
{
    sag_grad dlogits;
    SAG_TRY(sag_grad_in(c, 0, &dlogits));
    if (!dlogits.data) return SAG_OK;
    cross_entropy_args a = {.logits = sag_data(c->in[0]),
                            .labels = sag_data(c->in[1]),
                            .dy = sag_data(c->dout[0]),
                            .dlogits = dlogits.data,
                            .n = c->in_shape[0].dim[0],
                            .k = c->in_shape[0].dim[1],
                            .accumulate = dlogits.accumulate,
                            .act = c->in_dtype[0]};
    return SAG_RUN(c, cross_entropy_bwd, &a);
}
