local sagan = require "sagan"

return sagan.experiment {
    name = "sngan_projection",
    question = "The best before attention: SNGAN with projection. (IS 36.8, intra-FID 92.4, FID 27.62.)",
    recipe = "sngan_projection",
}
