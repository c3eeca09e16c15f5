-- G is updated inside the first of five iterations, before D. The rates fall over the last 50 thousand of 450 thousand steps.
return {
    doc = "pfnet-research/sngan_projection: spectral norm in the discriminator only, thin blocks, no attention, 2e-4 for "
        .. "both, five discriminator steps, generator batch doubled, dequantisation noise.",
    values = {
        attention = "none",
        model = {
            d_hidden = "thin",
            spectral_norm = { generator = false },
            batch_norm = { eps = 2e-5 },
            init = { gain = 2 ^ 0.5 },
        },
        optimizer = { lr_g = 2e-4, lr_d = 2e-4 },
        train = {
            steps = 450000, batch = 64, d_steps = 5, g_batch = 2, order = "g_first", d_forward = "separate",
            dequantize = 1 / 128, ema_decay = 0, lr_decay = 1 / 9,
        },
    },
}
