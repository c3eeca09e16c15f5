-- 64 images on each of four towers: batch statistics are those of 64, which is what train.accumulate = 4 gives.
return {
    doc = "brain-research/self-attention-gan, October 2018. It leaves Adam's beta2 at 0.999 and lets the gradient flow "
        .. "through the power iteration; u of the discriminator moves on real images only.",
    values = {
        model = {
            attention = { form = "pooled" },
            spectral_norm = { u_init = "truncated", through = true, update = "real_pass" },
            batch_norm = { momentum = 0.001, last_momentum = 0.0001 },
        },
        optimizer = { beta2 = 0.999, tf_eps = true },
        train = { steps = 2000000, accumulate = 4, order = "g_first", d_forward = "separate", ema_decay = 0 },
        score = { splits = 1 },
    },
}
