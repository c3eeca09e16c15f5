--- attention_statistics.lua - what the attention of both networks does while they learn, in three numbers for each module:
---
---   attention/G.feat32.entropy    nats, mean over positions; a map that looks everywhere alike has ln of their number
---   attention/G.feat32.distance   mean attended distance in pixels of the image
---   attention/G.feat32.share      |gamma| |o| / |x|: how much of what leaves the module the attention is
---
--- Measured on four images of fixed z, classes spread over them, and for D on these fakes. One pass without gradient in
--- evaluation mode, after which both networks are to the bit what they were: a run does not depend on being measured.
local core = require "sagan.core"
local pictures = require "sagan.pictures"

local attention_statistics = {}

local IMAGES <const> = 4

--- Runs a network and writes what its attention modules did into row.
local function pass(net, letter, resolution, row, ...)
    net:capture_attention()
    local out = net(...)
    for size, module in pairs(net.attention) do
        local stats = module:stats()
        local name = ("attention/%s.feat%d."):format(letter, size)
        row[name .. "entropy"] = stats.entropy
        row[name .. "distance"] = stats.distance * resolution / size
        row[name .. "share"] = stats.gate
    end
    net:capture_attention(false)
    return out
end

--- The numbers of both networks under the names of the log; {} if neither has attention.
---@param G sagan.models.Generator
---@param D sagan.models.Discriminator
---@param config sagan.Config
---@return table<string, number> row
function attention_statistics.measure(G, D, config)
    local row, model = {}, config.model
    if not next(G.attention) and not next(D.attention) then return row end
    local look_g <close> = G:observe() -- luacheck: ignore look_g
    local look_d <close> = D:observe() -- luacheck: ignore look_d
    core.scope(core.no_grad, function()
        local labels = {}
        for i = 1, IMAGES do labels[i] = (i - 1) * model.classes // IMAGES end
        local y = core.tensor(labels, { dtype = "i32" })
        local fakes = pass(G, "G", model.resolution, row, pictures.noise(IMAGES, model.z_dim, config.seed), y)
        if next(D.attention) then pass(D, "D", model.resolution, row, fakes, y) end
    end)
    return row
end

return attention_statistics
