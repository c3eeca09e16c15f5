local sagan = require "sagan"

return sagan.experiment {
    name = "residual_feat64",
    question = "A residual block of as many parameters in attention's place at 64x64: is it attention, or only depth?",
    recipe = "paper",
    attention = 64,
    model = { attention = { form = "residual" } },
}
