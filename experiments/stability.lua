local sagan = require "sagan"

-- The paper's figure on stabilisation. Its last value is that of the network without attention, so the arms have none. A run
-- that diverges is a result: its cell says when.
return sagan.ablation {
    name = "stability",
    question = "What keeps training stable: spectral norm on G as well, two time scales, or both?",
    base = { name = "sn_d", recipe = "paper", attention = "none",
        model = { spectral_norm = { generator = false } }, optimizer = { lr_g = 1e-4, lr_d = 1e-4 } },
    arms = {
        { name = "sn_gd", model = { spectral_norm = { generator = true } } },
        { name = "ttur", model = { spectral_norm = { generator = true } }, optimizer = { lr_d = 4e-4 } },
    },
    at = { 0.01, 0.16, 0.26, 1 }, -- 10, 160 and 260 thousand and all of a million steps
    published = "paper.stability",
}
