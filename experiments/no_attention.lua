local sagan = require "sagan"

return sagan.experiment {
    name = "no_attention",
    question = "The same networks without attention: what is it worth? (The paper: FID 22.96, IS 42.87.)",
    recipe = "paper",
    attention = "none",
}
