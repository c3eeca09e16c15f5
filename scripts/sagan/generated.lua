--- generated.lua - the pictures that are scored: z and labels are functions of (seed, number of the picture), the same for
--- every network, so that two networks are asked the same questions; each picture is rounded to u8 once.
local core = require "sagan.core"
local ops = core.ops
local streams = require "sagan.streams"

local generated = {}

--- Pictures in one pass. Part of the protocol: with the batch's own statistics a picture depends on the others.
generated.BATCH = 100

--- How the generator normalises: "moving" averages of training, "standing" statistics measured now (16 passes of 64), or
--- those of the "batch" itself.
generated.modes = { "moving", "batch", "standing" }

--- What the mode is called in a fingerprint.
---@param mode string
---@return string
function generated.mode_name(mode)
    return mode == "batch" and ("batch of %d"):format(generated.BATCH) or mode
end

-- Puts a network into a mode; the function returned takes it out again.
local function enter(G, mode)
    local buffers, training = core.no_grad(G.buffer_slab.clone, G.buffer_slab), G.training
    local statistics, spectral = G.update_statistics, G.update_spectral
    if mode == "batch" then
        G:train()
        G.update_statistics, G.update_spectral = false, false
    else
        if mode == "standing" then require "sagan.nn".standing_statistics(G) end
        G:eval()
    end
    return function()
        G.update_statistics, G.update_spectral = statistics, spectral
        G:train(training)
        core.no_grad(function() G.buffer_slab:copy_(buffers) end)
        buffers:release()
    end
end

---@class sagan.GeneratedOptions
---@field count integer
---@field batch_norm? "moving"|"batch"|"standing"
---@field seed? integer        of z, 0
---@field truncation? number   z is drawn from a normal cut off there

--- Calls fn(pictures u8 {n, R, R, C}, labels) batch by batch, labels being integers from 0, every class as often as another.
--- What fn returns besides true ends it. The network is afterwards as it was before.
---@param G sagan.models.Generator
---@param o sagan.GeneratedOptions
---@param fn fun(images: sagan.Tensor, labels: integer[]): true?, string?
---@return true? ok
---@return string? message
function generated.each(G, o, fn)
    local classes, batch <const> = G.classes or 1, generated.BATCH
    local leave = enter(G, o.batch_norm or "moving")
    local guard <close> = setmetatable({}, { __close = leave }) -- luacheck: ignore guard
    local z, clock = core.empty { batch, G.z_dim }, core.zeros({ 2 }, { dtype = "i32" })
    local done = 0
    while done < o.count do
        local n, labels = math.min(batch, o.count - done), {}
        for i = 1, n do labels[i] = (done + i - 1) % classes end
        -- The last batch is generated whole and cut: with the batch's own statistics it would be another one.
        local all = table.move(labels, 1, n, 1, {})
        for i = n + 1, batch do all[i] = (done + i - 1) % classes end
        ops.normal(z, clock, o.seed or 0, streams.score_noise, 0, 1, o.truncation or 0)
        ops.tick(clock)
        local ok, message = core.scope(core.no_grad, function()
            local values = G(z, core.tensor(all, { dtype = "i32" }))
            -- rounding makes a pixel of anything, and scores would be made of those
            local size = values:norm():item()
            if size ~= size or size == math.huge then
                return nil, ("the generator draws NaN or infinity, first in pictures %d to %d: its training diverged; an earlier "
                    .. "checkpoint may be sound (--step)"):format(done + 1, done + n)
            end
            local images = ops.float_to_pixels(values)
            return fn(n < batch and images:rows(1, n) or images, labels)
        end)
        if not ok then return nil, message end
        done = done + n
    end
    z:release()
    clock:release()
    return true
end

return generated
