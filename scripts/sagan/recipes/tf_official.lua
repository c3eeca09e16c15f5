return {
    doc = "brain-research/self-attention-gan, October 2018. It leaves Adam's beta2 at 0.999 and lets the gradient flow "
        .. "through the power iteration; u of the discriminator moves on real images only.",
    values = {
        model = {
            attention = { form = "pooled" },
            spectral_norm = { through = true, update = "real_pass" },
            batch_norm = { momentum = 0.001 },
        },
        optimizer = { beta2 = 0.999, tf_eps = true },
        train = { order = "g_first", d_forward = "separate", ema_decay = 0 },
    },
}
