return {
    doc = "kwotsin/mimicry: thin discriminator blocks, shortcuts that see relu(x), 2e-4 for both, five discriminator "
        .. "steps, rates that fall to 0. (Its bilinear upsampling is not offered.)",
    values = {
        model = { d_hidden = "thin", inplace_shortcut = true, attention = { form = "pooled" } },
        optimizer = { lr_g = 2e-4, lr_d = 2e-4 },
        train = { d_steps = 5, d_forward = "separate", ema_decay = 0 },
    },
}
