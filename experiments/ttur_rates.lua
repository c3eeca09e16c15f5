local sagan = require "sagan"

-- 4e-5 makes D the slower network, the reverse of what two time scales are for: most likely a slip of one digit.
return sagan.experiment {
    name = "ttur_rates",
    question = "Which D rate beside G's 1e-4: the 4e-5 that some slides print, or the paper's 4e-4?",
    recipe = "paper",
    optimizer = { lr_g = 1e-4, lr_d = { 4e-5, 4e-4 } },
}
