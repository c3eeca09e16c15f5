local sagan = require "sagan"

return sagan.experiment {
    name = "acgan",
    question = "An auxiliary classifier in place of the projection. (Miyato and Koyama: IS 28.5, intra-FID 260.)",
    recipe = "acgan",
}
