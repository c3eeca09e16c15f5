--- losses.lua - what the two networks minimise: an adversarial loss over logits {N,1} by name (hinge is the paper's, eq. 4),
--- and the cross-entropy of classes that an auxiliary head adds (Odena et al. 2017).
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

--- What the class head adds to each network's loss:
---   D   d_weight (CE(real) + CE(fake)), without the second if not d_on_fake
---   G   g_weight CE(fake)
---@class sagan.ClassLoss
---@field discriminator fun(real, real_labels, fake, fake_labels): sagan.Tensor  class logits {N, classes}, labels {N}
---@field generator fun(fake, labels): sagan.Tensor

--- The class loss with the weights of a configuration.
---@param config {d_weight: number, g_weight: number, d_on_fake: boolean}  its group `auxiliary`
---@return sagan.ClassLoss
function losses.auxiliary(config)
    return {
        discriminator = function(real, real_labels, fake, fake_labels)
            local loss = ops.cross_entropy(real, real_labels)
            if config.d_on_fake then loss = loss + ops.cross_entropy(fake, fake_labels) end
            return loss:scale(config.d_weight)
        end,
        generator = function(fake, labels) return ops.cross_entropy(fake, labels):scale(config.g_weight) end,
    }
end

return losses
