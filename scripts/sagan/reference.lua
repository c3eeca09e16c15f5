--- reference.lua - the real side of a score: features of real pictures, computed once for a data set and a feature network
--- and kept in the cache folder, so that all runs and arms are measured against the same numbers.
local core = require "sagan.core"
local system = core.system
local feature_set = require "sagan.feature_set"
local fingerprint = require "sagan.fingerprint"
local progress = require "sagan.progress"

local reference = {}

---@class sagan.ReferenceOptions
---@field data string        spec of the data set
---@field resolution integer
---@field channels? integer  1 or 3; what the data have
---@field split? "train"|"test"
---@field count? integer     pictures, in an order that is shuffled by seed 0; 0 or none: all
---@field resizer? string
---@field say? fun(text: string)

--- Opens the pictures of a reference.
---@param o sagan.ReferenceOptions
---@return sagan.Dataset? data
---@return string? message
function reference.open(o)
    local data, message = core.dataset.open(o.data, { resolution = o.resolution, channels = o.channels, split = o.split or "train" })
    if not data then return nil, message end
    local problem = data:check()
    if problem then
        data:close()
        return nil, problem
    end
    return data
end

--- How many pictures a reference of so many asked for has.
---@param data sagan.Dataset
---@param count? integer
---@return integer
function reference.count(data, count)
    return count and count > 0 and math.min(count, data.count) or data.count
end

local function compute(network, data, o, count, resizer)
    local set = feature_set.new { capacity = count, width = network.width, classes = data.classes }
    local batch <const> = 50
    local loader = data:loader { batch = batch, seed = 0 }
    local guard <close> = setmetatable({}, { __close = function() loader:close() end }) -- luacheck: ignore guard
    local images = core.zeros({ batch, o.resolution, o.resolution, data.channels }, { dtype = "u8" })
    local labels = core.zeros({ batch }, { dtype = "i32" })
    local bar = progress.new { total = count }
    local first = 0
    while first < count do
        local n = math.min(batch, count - first)
        loader:fill(first // batch, images, labels)
        local ok, message = core.scope(core.no_grad, function()
            local features, why = network:features(n < batch and images:rows(1, n) or images, resizer, false)
            if not features then return nil, why end
            return set:add(features, nil, table.move(labels:totable(), 1, n, 1, {}))
        end)
        if not ok then
            bar:finish()
            set:close()
            return nil, "the features of the real pictures: " .. message
        end
        first = first + n
        bar:show(first, "features of real pictures", first == count)
        if system.interrupted() then
            bar:finish()
            error("interrupted", 0)
        end
    end
    images:release()
    labels:release()
    return set
end

--- The features of real pictures, from the cache or computed now.
---@param network sagan.FeatureNetwork
---@param data sagan.Dataset   from reference.open
---@param o sagan.ReferenceOptions
---@return sagan.FeatureSet? set
---@return string? message
function reference.get(network, data, o)
    local count, resizer = reference.count(data, o.count), o.resizer or network.resizers[1]
    local key = core.sha256.text(table.concat({ fingerprint.version, network.name, network.hash, resizer, data:hash(),
        o.resolution, data.channels, o.split or "train", count, feature_set.KEEP }, "|"))
    local folder = require "sagan.classifier".cache_folder()
    local path = ("%s/features-%s.safetensors"):format(folder, key:sub(1, 24))
    if system.stat(path) then
        local set, message = feature_set.load(path)
        if set and set.count == count and set.width == network.width then return set end
        if o.say then o.say(("%s; computed again"):format(message or path .. ": of another size")) end
    end
    local set, message = compute(network, data, o, count, resizer)
    if not set then return nil, message end
    local ok, why = system.mkdir(folder)
    if ok then ok, why = set:save(path) end
    if not ok and o.say then o.say("the features of the real pictures are not kept: " .. why) end
    return set
end

return reference
