--- Profiles: the scale of a run, apart from the science of its recipe.

local profiles = {}

local function largest(sizes)
    local most = 0
    for _, s in ipairs(sizes) do most = math.max(most, s) end
    return most
end

---@class sagan.Profile
---@field doc string
---@field values fun(sizes: integer[]): table  fields, given all sizes of attention that the experiment uses

---@type table<string, sagan.Profile>
profiles.list = {
    quick = {
        doc = "minutes on two CPU cores",
        values = function(sizes)
            -- the discriminator of a 64-pixel net starts at 32
            return {
                model = { resolution = largest(sizes) <= 32 and 64 or 128, width = 8 },
                train = { batch = 16, steps = 4000, ema_start = 200 },
                log = { every = 10 },
                sample = { every = 200 },
                checkpoint = { every = 500 },
            }
        end,
    },
    small = {
        doc = "about an hour on one GPU",
        values = function()
            return {
                model = { resolution = 128, width = 32 },
                train = { batch = 64, steps = 50000, ema_start = 1000 },
                log = { every = 50 },
                sample = { every = 1000 },
                checkpoint = { every = 2000 },
            }
        end,
    },
    paper = {
        doc = "128x128, width 64, batch 256, a million steps: days on a large GPU",
        values = function()
            return {
                model = { resolution = 128, width = 64 },
                train = { batch = 256, steps = 1000000, ema_start = 2000 },
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
