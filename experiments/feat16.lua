local sagan = require "sagan"

return sagan.experiment {
    name = "feat16",
    question = "Attention at 16x16. (The paper: FID 22.14, IS 45.94.)",
    recipe = "paper",
    attention = 16,
}
