local sagan = require "sagan"

-- Where the story begins: no spectral norm, no attention, the first GAN's loss in its non-saturating form, equal rates.
return sagan.experiment {
    name = "gan",
    question = "The plain GAN in the paper's networks: how far does it get before it collapses?",
    recipe = "gan",
}
