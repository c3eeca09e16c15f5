local sagan = require "sagan"

return sagan.experiment {
    name = "feat64",
    question = "Attention at 64x64: the paper's best IS, 52.52 (FID 18.65).",
    recipe = "paper",
    attention = 64,
}
