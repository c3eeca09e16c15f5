--- A trainer on noise, for specs that compare how it trains: what a batch holds depends on its step alone.
local core = require "sagan.core"
local ops = core.ops

local CLASSES <const>, BATCH <const> = 3, 2

--- A small configuration of the paper's recipe at 32x32 that logs all its steps.
---@param steps integer
---@param changes? table  fields on top
---@return sagan.Config
local function configuration(steps, changes)
    local given = {
        recipe = "paper", profile = "quick", data = "quadrupeds", seed = 7, attention = 8,
        model = { resolution = 32, width = 2, z_dim = 8 }, train = { batch = BATCH, steps = steps, ema_start = 3 }, log = { every = steps },
    }
    for key, value in pairs(changes or {}) do given[key] = value end
    local config = assert(require("sagan.experiment").resolve(given))[1]
    config.model.channels, config.model.classes = 3, CLASSES
    return config
end

--- On the current device.
---@param config sagan.Config
---@return sagan.Trainer
local function new(config)
    local trainer = require "sagan.trainer".new(config, { classes = CLASSES, hash = "noise", class_names = {} })
    local r, clock = config.model.resolution, core.zeros({ 2 }, { dtype = "i32" }):keep()
    trainer.loader = { fill = function(_, step, images, labels)
        core.scope(function()
            local noise = core.zeros { BATCH, r, r, 3 }
            ops.uniform(noise, clock, 3, step, -1, 1)
            images:copy_(ops.float_to_pixels(noise))
            ops.randint(labels, clock, 4, step, 0, CLASSES)
        end)
    end }
    return trainer
end

return { configuration = configuration, new = new }
