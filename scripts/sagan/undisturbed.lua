--- undisturbed.lua - uses live networks and puts everything back that using them changes, so that a run does not depend on
--- how often somebody looks: buffers (spectral norm's u, v and sigma, running statistics), modes and every other plain
--- field of their modules, whether they are frozen, and the engine's device and way of convolving. What writes into weights
--- or other tensors on purpose is not undone.
---
---     local sheet = undisturbed({ G }, function() return pictures.class_grid(G:eval(), config, names) end)
local core = require "sagan.core"

local PLAIN <const> = { boolean = true, number = true, string = true }

--- The plain fields of every module in a network.
local function plain_fields(net)
    local kept = {}
    for _, module in net:modules() do
        local fields = {}
        for name, value in next, module do
            if PLAIN[type(value)] then fields[name] = value end
        end
        kept[module] = fields
    end
    return kept
end

local function restore_fields(kept)
    for module, fields in pairs(kept) do
        for name, value in next, module do
            if PLAIN[type(value)] and fields[name] == nil then module[name] = nil end
        end
        for name, value in pairs(fields) do module[name] = value end
        if next(module.divisors) then module.divisors = {} end -- of a pass that was broken off
    end
end

---@generic T
---@param nets sagan.nn.Module[]  built networks, between two passes
---@param f fun(...): T
---@param ... any
---@return T ...  what f returns; its errors go on, after everything was put back
return function(nets, f, ...)
    local kept = {}
    for i, net in ipairs(nets) do
        kept[i] = { net = net, fields = plain_fields(net), buffers = net.buffer_slab:clone(), learns = net.slab.requires_grad }
    end
    local device, winograd, tf32 = core.device(), core.winograd(), core.tf32()
    local _ <close> = setmetatable({}, { __close = function()
        core.device(device)
        core.winograd(winograd)
        core.tf32(tf32)
        for _, k in ipairs(kept) do
            restore_fields(k.fields)
            k.net.buffer_slab:copy_(k.buffers)
            k.buffers:release()
            k.net.slab:freeze(not k.learns)
        end
    end })
    return f(...)
end
