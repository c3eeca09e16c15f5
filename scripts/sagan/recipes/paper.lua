return {
    doc = "arXiv 1805.08318, first version, and the slides: attention with C/8, C/8, C channels and no pooling, spectral "
        .. "norm in both networks, hinge loss, Adam (0, 0.9), 1e-4 and 4e-4, one discriminator step.",
    values = {}, -- the defaults; the paper has no moving average, and training does not depend on the one that is kept here
}
