--- fingerprint.lua - how scores were measured, as the ledger says: equal or unlike, and in words.
local json = require "sagan.json"
local format = require "sagan.report.format"

local fingerprint = {}

-- told in this order; fields that are not named here follow by name
local ORDER <const> = {
    "network", "weights", "resizer", "quantised", "data", "data_hash", "reference", "resolution", "n_real", "n_fake", "generator",
    "batch_norm", "truncation", "labels", "is_splits",
}

--- The same text for equal fingerprints only; "" for none.
---@param f table?
---@return string
function fingerprint.key(f) return f and json.encode(f) or "" end

--- "network cnn, weights 3fa1b2c4d5e6f708, resizer none, ...", every field.
---@param f table
---@return string
function fingerprint.text(f)
    local parts, told, rest = {}, {}, {}
    local function tell(field)
        local value = f[field]
        told[field] = true
        if type(value) == "table" then value = json.encode(value) end
        if value ~= nil then parts[#parts + 1] = ("%s %s"):format(field, tostring(value)) end
    end
    for _, field in ipairs(ORDER) do tell(field) end
    for field in pairs(f) do
        if not told[field] then rest[#rest + 1] = tostring(field) end
    end
    table.sort(rest)
    for _, field in ipairs(rest) do tell(field) end
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
    local function number(x) return math.type(x) and format.number(x) or x and tostring(x) end
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
