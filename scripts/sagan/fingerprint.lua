--- fingerprint.lua - how a score was measured, field by field. Two scores may stand side by side only if all fields agree:
--- most of what looks like progress between papers is protocol (FACTS 0.6, 0.7).
local numbers = require "sagan.numbers"

local fingerprint = {}

---@class sagan.Fingerprint
---@field network string      whose features: "cnn", "inception-2015-12-05", "inception-other", "inception-random"
---@field weights string      SHA-256 of its weights, 16 hexadecimal digits
---@field resizer string      how pictures reach the network's size: tf1, torch, clean; none for the classifier
---@field quantised string    u8: generated pictures are rounded once, before any resizing
---@field data string         name of the data set
---@field data_hash string
---@field reference string    train or test: the split that real features come from
---@field resolution integer
---@field n_real integer
---@field n_fake integer
---@field generator string    ema, raw, or real: held-out images in the place of generated ones
---@field batch_norm string   moving, standing, or "batch of 100"
---@field truncation string   none, or the bound of z
---@field labels string       of generated pictures: "balanced" or "none"
---@field z_seed integer
---@field is_splits integer
---@field is_bias boolean     whether the logits of IS have the last layer's bias
---@field kid string          subsets x size
---@field n_neighbours integer  rows of each kind in precision, recall, density, coverage (at most), k = 5
---@field version string      of this protocol

--- The fields, in the order in which they are told.
fingerprint.fields = {
    "network", "weights", "resizer", "quantised", "data", "data_hash", "reference", "resolution", "n_real", "n_fake", "generator",
    "batch_norm", "truncation", "labels", "z_seed", "is_splits", "is_bias", "kid", "n_neighbours", "version",
}

--- Raised when the meaning of a score changes.
fingerprint.version = "1"

--- The first field in which two differ, and both values; nil if they agree.
---@param a table
---@param b table
---@return string? field
---@return any of_a
---@return any of_b
function fingerprint.difference(a, b)
    for _, field in ipairs(fingerprint.fields) do
        if a[field] ~= b[field] then return field, a[field], b[field] end
    end
end

--- Whether scores of two fingerprints may be compared; if not, why.
---@param a table
---@param b table
---@param what? string  what is compared: "runs/a and runs/b"
---@return boolean? ok
---@return string? message
function fingerprint.check(a, b, what)
    local field, x, y = fingerprint.difference(a, b)
    if not field then return true end
    return nil, ("%s cannot be compared: %s is %s for one and %s for the other"):format(what or "these scores", field,
        tostring(x), tostring(y))
end

--- One string for equal fingerprints; "" for none.
---@param f table?
---@return string
function fingerprint.key(f)
    if not f then return "" end
    local parts = {}
    for i, field in ipairs(fingerprint.fields) do parts[i] = tostring(f[field]) end
    return table.concat(parts, "\31")
end

--- "network cnn, weights 1a2b..., resizer none, ...": all of it, or only some fields.
---@param f table
---@param only? string[]
---@return string
function fingerprint.text(f, only)
    local parts = {}
    for _, field in ipairs(only or fingerprint.fields) do
        local value = f[field]
        if field == "weights" or field == "data_hash" then value = value and tostring(value):sub(1, 8) end
        parts[#parts + 1] = ("%s %s"):format(field, value == nil and "unknown" or tostring(value))
    end
    return table.concat(parts, ", ")
end

--- What matters most of it on one line: "cnn 3fa1b2c4, fashion-mnist train at 32, 10,000 real, 10,000 generated, ema, ...".
---@param f table
---@return string
function fingerprint.short(f)
    local parts = {}
    local function add(pattern, ...)
        for i = 1, select("#", ...) do
            if select(i, ...) == nil then return end
        end
        parts[#parts + 1] = pattern:format(...)
    end
    local function number(x) return math.type(x) and numbers.thousands(x) or x and tostring(x) end
    add("%s", f.network)
    add("weights %s", f.weights and tostring(f.weights):sub(1, 8))
    add("resizer %s", f.resizer)
    add("%s", f.data)
    add("%s split", f.reference)
    add("%sx%s", f.resolution, f.resolution)
    add("%s real", number(f.n_real))
    add("%s generated", number(f.n_fake))
    add("%s generator", f.generator)
    add("batch norm %s", f.batch_norm)
    if f.truncation and f.truncation ~= "none" then add("truncation %s", f.truncation) end
    return table.concat(parts, ", ")
end

return fingerprint
