local sagan = require "sagan"

return sagan.experiment {
    name = "feat32",
    question = "Attention at 32x32: the paper's best FID, 18.28 (IS 51.43).",
    recipe = "paper",
    attention = 32,
}
