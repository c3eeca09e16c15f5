local sagan = require "sagan"

return sagan.experiment {
    name = "base",
    question = "The paper's network: attention at 32x32 in both networks, everything else as published.",
    recipe = "paper",
    attention = 32,
}
