--- feature_set.lua - what is kept of the features of many pictures: moments of all and of each class, the first rows for what
--- needs pairs (KID, precision, recall, density, coverage), all logits. Moments are streamed in f64, so memory does not grow
--- with the pictures.
local core = require "sagan.core"
local metrics = require "sagan.metrics"

local feature_set = {}

--- Rows that are kept: pairs of 10,000 and 10,000 take seconds, those of 50,000 minutes.
feature_set.KEEP = 10000

--- Moments of each class are kept while all of them together stay below this many bytes.
local MOST_BYTES <const> = 2 ^ 30

---@class sagan.FeatureSet
---@field count integer          pictures so far
---@field moments sagan.Moments
---@field by_class? table<integer, sagan.Moments>  by class from 1
---@field class_problem? string  why there are none
---@field rows sagan.Tensor      f32 {kept, width}
---@field logits? sagan.Tensor   f32 {capacity, n}
local FeatureSet = {}
FeatureSet.__index = FeatureSet

--- An empty set.
---@param o {capacity: integer, width: integer, logits: integer?, classes: integer?}
---@return sagan.FeatureSet
function feature_set.new(o)
    local self = setmetatable({ count = 0, capacity = o.capacity, width = o.width, classes = o.classes or 1 }, FeatureSet)
    self.moments = metrics.moments()
    self.rows = core.zeros { math.min(o.capacity, feature_set.KEEP), o.width }
    if o.logits then self.logits = core.zeros { o.capacity, o.logits } end
    local bytes = self.classes * o.width ^ 2 * 8
    if self.classes < 2 then
        self.class_problem = "there are no classes"
    elseif bytes > MOST_BYTES then
        self.class_problem = ("moments of %d classes of %d features would take %.0f GiB"):format(self.classes, o.width, bytes / 2 ^ 30)
    else
        self.by_class = {}
    end
    return self
end

--- Adds a batch. Features that are not finite are refused.
---@param features sagan.Tensor  f32 {n, width}
---@param logits sagan.Tensor?   f32 {n, classes of the network}
---@param labels integer[]       from 0
---@return true? ok
---@return string? message
function FeatureSet:add(features, logits, labels)
    local n = features:size(1)
    local ok, message = self.moments:add(features)
    if not ok then return nil, message end
    core.no_grad(function()
        local keep = math.min(n, self.rows:size(1) - self.count)
        if keep > 0 then self.rows:rows(self.count + 1, keep):copy_(features:rows(1, keep)) end
        if self.logits then self.logits:rows(self.count + 1, n):copy_(logits) end
    end)
    self.count = self.count + n
    if not self.by_class then return true end
    local of_class = {}
    for i, label in ipairs(labels) do
        of_class[label] = of_class[label] or {}
        table.insert(of_class[label], i - 1)
    end
    for label, list in pairs(of_class) do
        self.by_class[label + 1] = self.by_class[label + 1] or metrics.moments()
        local good, why = core.scope(core.no_grad, function()
            return self.by_class[label + 1]:add(core.ops.embedding(features, core.tensor(list, { dtype = "i32" })))
        end)
        if not good then return nil, why end
    end
    return true
end

--- Rows that were filled.
---@return sagan.Tensor f32
function FeatureSet:kept()
    local n = math.min(self.count, self.rows:size(1))
    return n == self.rows:size(1) and self.rows or self.rows:rows(1, n)
end

--- Gives memory back.
function FeatureSet:close()
    self.moments:close()
    for _, m in pairs(self.by_class or {}) do m:close() end
    self.rows:release()
    if self.logits then self.logits:release() end
end

---------------------------------------------------------------------------------------------------------- as a file

local FORMAT <const> = "sagan.features.1"

--- Writes the set without its logits.
---@param path string
---@return true? ok
---@return string? message
function FeatureSet:save(path)
    local tensors, metadata = { rows = self.rows }, {
        format = FORMAT, count = tostring(self.count), classes = tostring(self.classes), width = tostring(self.width),
    }
    local made = {}
    local function put(name, moments)
        local mean, scatter = moments:export()
        tensors[name .. "mean"], tensors[name .. "scatter"] = mean, scatter
        metadata[name .. "count"] = tostring(moments:count())
        made[#made + 1], made[#made + 2] = mean, scatter
    end
    put("all.", self.moments)
    for class, moments in pairs(self.by_class or {}) do put(("class%d."):format(class), moments) end
    local ok, message = core.safetensors.save(path, tensors, metadata)
    for _, tensor in ipairs(made) do tensor:release() end
    return ok, message
end

--- A set from a file that save wrote.
---@param path string
---@return sagan.FeatureSet? set
---@return string? message
function feature_set.load(path)
    local tensors, metadata = core.safetensors.load(path)
    if not tensors then return nil, metadata end
    local self = setmetatable({
        count = math.tointeger(tonumber(metadata.count)), classes = math.tointeger(tonumber(metadata.classes)),
        width = math.tointeger(tonumber(metadata.width)), rows = tensors.rows,
    }, FeatureSet)
    local function moments(name)
        local n, mean, scatter = math.tointeger(tonumber(metadata[name .. "count"])), tensors[name .. "mean"], tensors[name .. "scatter"]
        return n and mean and scatter and core.metrics.import(n, mean, scatter) or nil
    end
    local good = metadata.format == FORMAT and self.count and self.classes and self.width and self.rows
        and self.rows.rank == 2 and self.rows:size(2) == self.width
    self.moments = good and moments("all.") or nil
    for i = 1, self.moments and self.classes > 1 and self.classes or 0 do
        local m = moments(("class%d."):format(i))
        if m then
            self.by_class = self.by_class or {}
            self.by_class[i] = m
        end
    end
    for name, tensor in pairs(tensors) do
        if name ~= "rows" or not self.moments then tensor:release() end
    end
    if not self.moments then return nil, path .. ": is no file of features" end
    if not self.by_class then self.class_problem = "the reference has no moments of classes" end
    return self
end

return feature_set
