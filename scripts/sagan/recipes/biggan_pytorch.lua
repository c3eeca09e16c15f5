return {
    doc = "ajbrock/BigGAN-PyTorch, launch_SAGAN_bs128x2_ema: gains stored as differences from 1 and initialised like "
        .. "weights, moving average 0.9999 from step 2000, beta2 0.999.",
    values = {
        attention = 64,
        model = {
            attention = { form = "pooled" },
            spectral_norm = { eps = 1e-8, eps_form = "max" },
            batch_norm = { gain_offset = 1, init = "weights" },
            init = { bias = "fan_uniform" },
        },
        optimizer = { beta2 = 0.999 },
        train = { steps = 500000, accumulate = 2, ema_decay = 0.9999, ema_start = 2000 },
    },
}
