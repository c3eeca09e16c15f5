local sagan = require "sagan"

return sagan.experiment {
    name = "residual_feat8",
    question = "A residual block of as many parameters in attention's place at 8x8: is it attention, or only depth?",
    recipe = "paper",
    attention = 8,
    model = { attention = { form = "residual" } },
}
