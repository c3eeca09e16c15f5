local sagan = require "sagan"

return sagan.experiment {
    name = "sn_gd",
    question = "Spectral norm on both networks, equal rates: does it hold? (The paper: FID 33.39 at step 160 000, then 72.41.)",
    recipe = "paper",
    attention = "none",
    optimizer = { lr_g = 1e-4, lr_d = 1e-4 },
}
