--- Standing statistics: the running statistics of a generator replaced by plain means over forward passes with the present
--- weights (FACTS 6.6), for scoring and drawing where the exponentially decayed ones are too noisy.

local core = require "sagan.core"
local streams = require "sagan.streams"

local statistics = {}

---@class sagan.nn.StandingOptions
---@field passes? integer  forward passes, 16
---@field batch? integer   images in each, 64
---@field seed? integer    of z and labels, 0

--- Measures the batch statistics of `passes` batches and makes their mean the running statistics: after pass k the
--- running value moves by 1/k towards the batch's. Spectral norm's u and v do not change. The network's mode is kept.
---@param G sagan.models.Generator built
---@param options? sagan.nn.StandingOptions
---@return sagan.models.Generator
function statistics.standing(G, options)
    local o = options or {}
    local passes, batch, seed = o.passes or 16, o.batch or 64, o.seed or 0
    local norms, was_training = {}, G.training
    for _, m in G:modules() do
        if m.reset_statistics then
            norms[#norms + 1] = { module = m, momentum = m.momentum }
            m:reset_statistics()
        end
    end
    local i32 = { dtype = "i32" }
    local z, labels, clock = core.empty { batch, G.z_dim }, core.zeros({ batch }, i32), core.zeros({ 2 }, i32)
    local update = G.update_spectral
    G.update_spectral = false
    G:train()
    for k = 1, passes do
        for _, n in ipairs(norms) do n.module.momentum = 1 / k end
        core.ops.normal(z, clock, seed, streams.standing_noise)
        core.ops.randint(labels, clock, seed, streams.standing_labels, 0, G.classes or 1)
        core.scope(core.no_grad, function() G(z, labels) end)
        core.ops.tick(clock)
    end
    for _, n in ipairs(norms) do n.module.momentum = n.momentum end
    G.update_spectral = update
    G:train(was_training)
    return G
end

return statistics
