--- Profiles: the scale of a run, apart from the science of its recipe.

local profiles = {}

local function largest(sizes)
    local most = 0
    for _, s in ipairs(sizes) do most = math.max(most, s) end
    return most
end

---@class sagan.Profile
---@field doc string
---@field values fun(sizes: integer[], recipe: sagan.Config): table  fields, given all sizes of attention that the experiment
---                                                                 uses and what its recipe says

---@type table<string, sagan.Profile>
profiles.list = {
    quick = {
        doc = "minutes on two CPU cores",
        values = function(sizes, recipe)
            -- The discriminator of a 64-pixel net starts at 32. At 128 pixels with attention at 64 a step takes five times
            -- as long: a third of the steps of half the batch keep the run in minutes.
            local small = largest(sizes) <= 32
            return {
                model = { resolution = small and 64 or 128, width = 8 },
                -- A few thousand steps in place of a million: a weight can move by its rate in a step, and class tables
                -- start equal. The average is one over hundreds of steps.
                optimizer = { rate_factor = 3 },
                train = {
                    batch = small and 16 or 8, steps = small and 3750 or 1000, ema_start = 200, accumulate = 1,
                    ema_decay = recipe.train.ema_decay > 0 and 0.995 or 0,
                },
                log = { every = 10 },
                sample = { every = 250 },
                checkpoint = { every = 250 },
                score = { n_fake = 10000, n_real = 10000 },
            }
        end,
    },
    small = {
        doc = "about an hour on one GPU",
        values = function()
            return {
                model = { resolution = 128, width = 32 },
                train = { batch = 64, steps = 50000, ema_start = 1000, accumulate = 1 },
                log = { every = 50 },
                sample = { every = 1000 },
                checkpoint = { every = 2000 },
                score = { n_fake = 10000 },
            }
        end,
    },
    paper = {
        doc = "the recipe's own scale (the paper's: 128x128, width 64, batch 256, a million steps): days on a large GPU",
        values = function()
            return {
                model = { resolution = 128, width = 64 },
                log = { every = 100 },
                sample = { every = 5000 },
                checkpoint = { every = 5000 },
            }
        end,
    },
}

--- What profile=auto means on this machine.
---@param machine {cuda: boolean}
---@param device "auto"|"cpu"|"cuda"  the configuration's
---@param data string                 the configuration's data set
---@return string profile
---@return string reason
function profiles.choose(machine, device, data)
    if device ~= "cpu" and machine.cuda then
        return "small", ("a CUDA device is there; data %s; profile=paper takes days and must be asked for"):format(data)
    end
    if device == "cpu" and machine.cuda then
        return "quick", ("device=cpu was asked for; data %s"):format(data)
    end
    return "quick", ("no CUDA device; data %s; profile=small or paper can be asked for"):format(data)
end

return profiles
