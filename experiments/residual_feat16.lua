local sagan = require "sagan"

return sagan.experiment {
    name = "residual_feat16",
    question = "A residual block of as many parameters in attention's place at 16x16: is it attention, or only depth?",
    recipe = "paper",
    attention = 16,
    model = { attention = { form = "residual" } },
}
