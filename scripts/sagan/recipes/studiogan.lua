return {
    doc = "POSTECH-CVLab/PyTorch-StudioGAN, ImageNet SAGAN: spectral norm on the conditional tables too, orthogonal "
        .. "start, shortcuts that see relu(x), flips.",
    values = {
        attention = 64,
        model = {
            inplace_shortcut = true,
            attention = { form = "pooled" },
            spectral_norm = { cbn = true, eps = 1e-6 },
            batch_norm = { eps = 1e-4, gain_offset = 1, init = "weights", update = "own_step" },
            init = { weights = "orthogonal" },
        },
        optimizer = { beta2 = 0.999, eps = 1e-6 },
        train = { d_forward = "separate", flip = true, ema_decay = 0 },
        score = { batch_norm = "standing", splits = 1, bias = true },
    },
}
