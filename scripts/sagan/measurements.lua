--- measurements.lua - [5] of an iteration: what a trainer's rings and networks say of the last steps, and whether all of it is
--- still a finite number.
local core = require "sagan.core"
local attention_statistics = require "sagan.attention_statistics"

local measurements = {}

--- What the rings hold, column by column: D's and G's losses of the last steps, read every log.every steps. The last of each
--- is the part of the loss that is about classes, where D has a class head.
local D_COLUMNS <const> = { "loss/d", "logit/real", "logit/fake", "grad/d", "loss/d_class" }
local G_COLUMNS <const> = { "loss/g", "grad/g", "loss/g_class" }

--- The two rings, which the steps write and `of` reads.
---@param config sagan.Config
---@param has_class_head boolean
---@return sagan.Tensor d {log.every * d_steps, columns}
---@return sagan.Tensor g {log.every, columns}
function measurements.rings(config, has_class_head)
    local without = has_class_head and 0 or 1
    return core.zeros { config.log.every * config.train.d_steps, #D_COLUMNS - without },
        core.zeros { config.log.every, #G_COLUMNS - without }
end

local function column_mean(ring, rows, column)
    local sum = 0
    for i = 1, rows do sum = sum + ring[i][column] end
    return sum / rows
end

--- Means over the last iterations, gamma and statistics of every attention, largest singular values.
---@param trainer sagan.Trainer
---@param steps integer at most log.every
---@return table<string, number> row
---@return string? bad name of a value that is not finite
function measurements.of(trainer, steps)
    local row, bad = {}, nil
    local rings = {
        { trainer.d_ring:totable(), D_COLUMNS, steps * trainer.config.train.d_steps, trainer.d_steps_done },
        { trainer.g_ring:totable(), G_COLUMNS, steps, trainer.step },
    }
    for _, r in ipairs(rings) do
        local ring, names, rows, done = table.unpack(r)
        local recent = {}
        for i = 1, math.min(rows, done, #ring) do recent[i] = ring[(done - i) % #ring + 1] end
        for column = 1, #ring[1] do
            local name, value = names[column], column_mean(recent, #recent, column)
            row[name] = value
            if value ~= value or math.abs(value) == math.huge then bad = bad or name end
        end
    end
    for letter, net in pairs { G = trainer.G, D = trainer.D } do
        for size, attention in pairs(net.attention) do
            row[("gamma/%s.feat%d"):format(letter, size)] = attention.gamma:item()
        end
        local largest = 0
        for _, sigma in pairs(net:singular_values()) do largest = math.max(largest, sigma) end
        if largest > 0 then row["sigma/" .. letter] = largest end
    end
    if trainer.config.log.attention then
        for name, value in pairs(attention_statistics.measure(trainer.G, trainer.D, trainer.config)) do row[name] = value end
    end
    return row, bad
end

--- The name of a part of the state that holds a number that is not finite: losses may still be finite when weights are not.
---@param trainer sagan.Trainer
---@return string?
function measurements.not_finite(trainer)
    local average = trainer.average and trainer.average.net
    local parts = {
        { "a weight of G", trainer.G.slab }, { "a weight of D", trainer.D.slab },
        { "a statistic of G", trainer.G.buffer_slab }, { "a statistic of D", trainer.D.buffer_slab },
        { "Adam's state of G", trainer.adam_g.v, "sum" }, { "Adam's state of D", trainer.adam_d.v, "sum" }, -- squares already
        { "the average of G", average and average.slab },
    }
    for _, part in ipairs(parts) do
        local tensor, op = part[2], part[3] or "norm"
        local size = tensor and tensor:numel() > 0 and core.no_grad(function() return tensor[op](tensor):item() end) or 0
        if size ~= size or size == math.huge then return part[1] end
    end
end

return measurements
