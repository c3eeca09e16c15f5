local sagan = require "sagan"

local function block(size) return { name = "kernel" .. size, model = { attention = { form = "residual", kernel = size } } } end

-- A kernel in a residual block at attention's place, since the blocks' own convolutions are 3x3 for good: two k x k
-- convolutions as narrow as attention's number of parameters demands, so what changes is reach and not size. A map of fewer
-- than 1.6 k^2 channels has no room for one such kernel: profile=quick is too narrow for a fair comparison, and says so.
return sagan.ablation {
    name = "large_kernels",
    question = "5x5 and 7x7 convolutions in attention's place at 32x32: is a longer reach enough, and what does it cost?",
    base = { name = "attention", recipe = "paper", attention = 32 },
    arms = { block(5), block(7) },
}
