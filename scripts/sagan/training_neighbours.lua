--- training_neighbours.lua - which training images a sample is like: nearest in the features of the classifier that the
--- scores use (sagan/classifier.lua). A generator that copies its data shows itself here. The features of the training set
--- are computed once and kept beside the classifier.
---
---     local near = assert(run.G:neighbours { class = "Bag", seed = 3, count = 4, file = "near.png" })
---     near[1][1].index, near[1][1].distance, near[1][1].class     -- of the first sample the nearest image
local core = require "sagan.core"
local arguments = require "sagan.arguments"
local classifier = require "sagan.classifier"
local input = require "sagan.microscope_input"
local pictures = require "sagan.pictures"
local progress = require "sagan.progress"
local run_setup = require "sagan.run_setup"
local ops, system = core.ops, core.system

local training_neighbours = {}

local BATCH <const> = 100

local function compute(net, set)
    local parts = {}
    local bar = progress.new { total = set.count }
    for first = 1, set.count, BATCH do
        local list = {}
        for i = first, math.min(first + BATCH - 1, set.count) do list[#list + 1] = i end
        parts[#parts + 1] = core.scope(function()
            local images, _ = set:batch(list), nil
            return (net:features(images)):to("cpu")
        end)
        bar:show(list[#list], "features of the training set", list[#list] == set.count)
    end
    return pictures.join(parts)
end

--- Features of all training images {N, 128}, from the cache or computed now.
local function reference(net, set, say)
    local key = core.sha256.text(("%s|%s|%d"):format(net.hash, set:hash(), set.count))
    local path = ("%s/training-%s.safetensors"):format(classifier.cache_folder(), key:sub(1, 24))
    if system.stat(path) then
        local tensors = core.safetensors.load(path)
        local kept = tensors and tensors.features
        if kept and kept:size(1) == set.count and kept:size(2) == net.feature_count then return kept end
    end
    local features = compute(net, set)
    local ok, message = system.mkdir(classifier.cache_folder())
    if ok then ok, message = core.safetensors.save(path, { features = features }) end
    if not ok then say("the features of the training set are not kept: " .. message) end
    return features
end

--- Squared distances of every row of `all` to every row of `some`, {N, n}.
local function distances(all, some)
    return core.no_grad(function()
        local function squares(x) return ops.sum(ops.square(x), 2) end
        local products, own = ops.linear(all, some), squares(all):totable()
        local of_sample = squares(some):totable()
        local rows = products:totable()
        for i, row in ipairs(rows) do
            for k = 1, #row do row[k] = math.max(0, own[i] + of_sample[k] - 2 * row[k]) end
        end
        return rows
    end)
end

--- The rows with the smallest numbers in a column, the smallest first.
local function smallest(rows, column, count)
    local best = {}
    for i, row in ipairs(rows) do
        local value = row[column]
        if #best < count or value < best[#best].value then
            local at = #best + 1
            while at > 1 and value < best[at - 1].value do at = at - 1 end
            table.insert(best, at, { index = i, value = value })
            best[count + 1] = nil
        end
    end
    return best
end

local KNOWN <const> = { "class", "seed", "z", "images", "count", "samples", "file", "say" }

---@class sagan.NeighbourOptions
---@field class? string|integer|(string|integer)[]  of the samples, as of G:attention
---@field seed? integer
---@field z? sagan.Tensor
---@field samples? integer        how many z are drawn, 1
---@field images? sagan.Tensor    u8 {n,R,R,C} to look up instead of samples
---@field count? integer          neighbours of each, 5
---@field file? string
---@field say? fun(text: string)  takes the lines about the classifier, print if absent

---@class sagan.Neighbour
---@field index integer     of the training image, from 1
---@field distance number   between the features
---@field class string

---@class sagan.TrainingNeighbours  for each sample its neighbours, the nearest first
---@field images sagan.Tensor       the samples, u8 {n, R, R, C}
---@field picture sagan.Tensor      u8 {H,W,3}: a row a sample, itself first

--- The training images that are nearest to samples of G, or to other pictures.
---@param view sagan.RunNet
---@param options? sagan.NeighbourOptions
---@return sagan.TrainingNeighbours? near
---@return string? message  data or files are at fault
function training_neighbours.of(view, options)
    local o = arguments("G:neighbours", options, KNOWN)
    if view.letter ~= "G" then error("neighbours is G's", 2) end
    local count, model, say = o.count or 5, view.config.model, o.say or print
    if math.type(count) ~= "integer" or count < 1 then error("G:neighbours: count is a whole number from 1", 2) end
    local images, names = o.images, {}
    if not images then
        local z, labels
        z, labels, names = input.read(view, { class = o.class, seed = o.seed, z = o.z, count = o.samples })
        images = pictures.generate(view.net, z, labels)
    end
    local data, message = run_setup.data(view.config)
    if not data then return nil, message end
    local _ <close> = setmetatable({}, { __close = function() data.set:close() end })
    local net
    net, message = classifier.get { data = data.set, resolution = model.resolution, channels = model.channels, say = say }
    if not net then return nil, message end
    local all, features = reference(net, data.set, say), net:features(images)
    local rows, near, parts = distances(all, features:to("cpu")), {}, {}
    for i = 1, images:size(1) do
        near[i] = smallest(rows, i, math.min(count, data.set.count))
        local list = {}
        for k, n in ipairs(near[i]) do
            list[k] = n.index
            n.distance, n.value = math.sqrt(n.value), nil
            n.class = data.class_names[data.set:label(n.index) + 1] or ""
        end
        parts[#parts + 1] = images:rows(i, 1):to("cpu")
        parts[#parts + 1] = (data.set:batch(list)):to("cpu")
    end
    near.images, near.picture = images, pictures.sheet(pictures.join(parts), #near[1] + 1, names)
    if o.file then
        local ok, why = core.image.write(o.file, near.picture)
        if not ok then return nil, why end
    end
    return near
end

return training_neighbours
