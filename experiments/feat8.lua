local sagan = require "sagan"

return sagan.experiment {
    name = "feat8",
    question = "Attention at 8x8: too coarse to help? (The paper: FID 22.98, IS 43.15.)",
    recipe = "paper",
    attention = 8,
}
