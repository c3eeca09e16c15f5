return {
    doc = "The plain GAN in the paper's networks: non-saturating loss, no spectral norm, no attention, one rate for both.",
    values = {
        attention = "none",
        loss = "bce",
        model = { spectral_norm = { generator = false, discriminator = false } },
        optimizer = { lr_g = 1e-4, lr_d = 1e-4 },
    },
}
