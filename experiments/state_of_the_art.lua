local sagan = require "sagan"

-- The paper's comparison with earlier methods. Each arm is a whole recipe; attention at 64 gave the paper's best IS.
return sagan.ablation {
    name = "state_of_the_art",
    question = "What does SAGAN add to AC-GAN and to SNGAN with projection?",
    base = { name = "sagan", recipe = "paper", attention = 64 },
    arms = {
        { name = "sngan_projection", recipe = "sngan_projection", attention = "none" },
        { name = "acgan", recipe = "acgan", attention = "none" },
    },
    published = "paper.state_of_the_art",
}
