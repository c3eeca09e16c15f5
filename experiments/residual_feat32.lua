local sagan = require "sagan"

return sagan.experiment {
    name = "residual_feat32",
    question = "A residual block of as many parameters in attention's place at 32x32: is it attention, or only depth?",
    recipe = "paper",
    attention = 32,
    model = { attention = { form = "residual" } },
}
