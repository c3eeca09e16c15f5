-- Its discriminator has ndf = 128 with widths ndf / 16 and up: an eighth of the others'.
return {
    doc = "kwotsin/mimicry: a discriminator of an eighth of the width with thin blocks, bilinear upsampling, shortcuts that "
        .. "see relu(x), 2e-4 for both, five discriminator steps, rates that fall to 0.",
    values = {
        model = {
            d_hidden = "thin", d_width = 1 / 8, upsample = "bilinear", inplace_shortcut = true,
            attention = { form = "pooled" },
        },
        optimizer = { lr_g = 2e-4, lr_d = 2e-4 },
        train = { steps = 100000, batch = 64, d_steps = 5, d_forward = "separate", ema_decay = 0, lr_decay = 1 },
    },
}
