--- losses.lua - the adversarial losses by name, over logits {N,1}. FACTS: hinge is the paper's (eq. 4).
local core = require "sagan.core"
local ops = core.ops

local losses = {}

---@class sagan.Loss
---@field discriminator fun(real: sagan.Tensor, fake: sagan.Tensor): sagan.Tensor loss of D, {1}
---@field generator fun(fake: sagan.Tensor): sagan.Tensor loss of G, {1}

local by_name = {
    hinge = { discriminator = ops.hinge_d, generator = ops.hinge_g },
    bce = { discriminator = ops.bce_d, generator = ops.bce_g },
    wasserstein = { discriminator = ops.wasserstein_d, generator = ops.wasserstein_g },
}

--- The pair of losses with this name.
---@param name "hinge"|"bce"|"wasserstein"
---@return sagan.Loss
function losses.get(name)
    return by_name[name] or error("unknown loss '" .. tostring(name) .. "'; there are hinge, bce and wasserstein", 2)
end

return losses
