local sagan = require "sagan"

return sagan.experiment {
    name = "ttur",
    question = "Spectral norm on both networks and two time scales, 1e-4 and 4e-4: does it improve to the end?",
    recipe = "paper",
    attention = "none",
    optimizer = { lr_g = 1e-4, lr_d = 4e-4 },
}
