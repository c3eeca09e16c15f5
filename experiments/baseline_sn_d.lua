local sagan = require "sagan"

-- Both rates are G's: the paper does not say what the arms without TTUR had, and so each step from here to ttur.lua
-- changes one thing.
return sagan.experiment {
    name = "baseline_sn_d",
    question = "Spectral norm on the discriminator only, one step each: does it collapse? (The paper: at 10 thousand steps.)",
    recipe = "paper",
    attention = "none",
    model = { spectral_norm = { generator = false } },
    optimizer = { lr_g = 1e-4, lr_d = 1e-4 },
}
