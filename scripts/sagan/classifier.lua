--- classifier.lua - the feature network for machines without Inception's weights: a small classifier that the engine trains
--- on the data set itself, once, and keeps. What is computed from its features and logits is called FD-cnn, IS-cnn, KID-cnn,
--- never FID.
---
---     local classifier = require "sagan.classifier"
---     local net = assert(classifier.get { data = "fashion-mnist", resolution = 32, channels = 1 })
---     local features, logits = net:features(images)   -- {N, 128}, {N, 10} of u8 {N, 32, 32, 1}
---
--- Equal data give equal bits, with any number of threads; the first steps print where they are, the last line how many of
--- the held-out images were named rightly: a score is worth no more than its classifier.
local core = require "sagan.core"
local system = core.system
local Model = require "sagan.models.classifier"
local digest = require "sagan.models.digest"
local classifier_data = require "sagan.classifier_data"
local optimizer = require "sagan.optimizer"
local progress = require "sagan.progress"
local streams = require "sagan.streams"

local classifier = {}

--- Changes whenever the same data would give other weights, so that old files are not taken for new ones.
local PROTOCOL <const> = 1
local FORMAT <const> = "sagan-lua classifier 1"
local BATCH <const>, SEED <const> = 128, 0
local MOST_STEPS <const>, LEAST_STEPS <const>, EPOCHS <const> = 1200, 60, 20 -- few images are not seen hundreds of times
local RATE <const>, WARM_UP <const> = 1e-2, 0.1

---@class sagan.Classifier
---@field name string           "cnn"
---@field hash string           SHA-256 of the weights, 64 hexadecimal digits
---@field accuracy number       share of the held-out images that are named rightly
---@field tested integer        how many those are
---@field feature_count integer
---@field resolution integer
---@field channels integer
---@field classes integer
---@field path? string          the file it is kept in; nil if it could not be written
---@field model sagan.models.Classifier
local Classifier = {}
Classifier.__index = Classifier

--- Where classifiers are kept: $SAGAN_CACHE, else $XDG_CACHE_HOME/sagan-lua, else ~/.cache/sagan-lua.
---@return string
function classifier.cache_folder()
    local function set(name)
        local value = system.env(name)
        return value ~= "" and value or nil
    end
    return set "SAGAN_CACHE" or (set "XDG_CACHE_HOME" or (set "HOME" or ".") .. "/.cache") .. "/sagan-lua"
end

--- Pictures to [-1, 1], as training sees them.
local function to_floats(images)
    local clock = core.zeros({ 2 }, { dtype = "i32", device = images.device })
    return core.ops.pixels_to_float(images, clock, SEED, streams.pixels, false, 0)
end

--- Calls f with Winograd's algorithm on or off, whatever a run has chosen. Training is twice as fast with it. Whether it
--- serves depends on how many pictures a batch has, and the features of a picture must not: they are computed without.
local function with_winograd(on, f, ...)
    local before = core.winograd()
    local restore <close> = setmetatable({}, { __close = function() core.winograd(before) end })
    core.winograd(on)
    return f(...)
end

------------------------------------------------------------------------------------------------------------- features

local OPTIONS <const> = { batch = true, progress = true }

--- Features and logits of pictures. Generated ones are rounded to u8 once, before: core.ops.float_to_pixels.
---@param images sagan.Tensor  u8 {N, R, R, C}, of the classifier's resolution and channels
---@param options? {batch?: integer, progress?: fun(done: integer, total: integer): boolean?}  batch: pictures at a time, 100;
--- progress: false stops
---@return sagan.Tensor? features       {N, 128}; nil if progress stopped it
---@return sagan.Tensor|string logits   {N, classes}, or a message
function Classifier:features(images, options)
    options = options or {}
    for key in pairs(options) do
        if not OPTIONS[key] then error(("classifier:features has no option '%s' (batch, progress)"):format(tostring(key)), 2) end
    end
    local r, c = self.resolution, self.channels
    if not core.is_tensor(images) or images.dtype ~= "u8" or images.rank ~= 4 or images:size(2) ~= r or images:size(3) ~= r
        or images:size(4) ~= c then
        error(("classifier:features takes pictures u8 {N, %d, %d, %d}, got %s; round generated ones once with float_to_pixels")
            :format(r, r, c, core.is_tensor(images)
                and ("%s {%s}"):format(images.dtype, table.concat(images.shape, ", ")) or type(images)), 2)
    end
    local batch, n = options.batch or 100, images:size(1)
    if math.type(batch) ~= "integer" or batch < 1 then error("classifier:features: batch is a whole number from 1", 2) end
    return with_winograd(false, core.no_grad, function()
        local on = { device = images.device }
        local features, logits = core.empty({ n, self.feature_count }, on), core.empty({ n, self.classes }, on)
        for first = 1, n, batch do
            local count = math.min(batch, n - first + 1)
            core.scope(function()
                local l, f = self.model(to_floats(images:rows(first, count)))
                features:rows(first, count):copy_(f)
                logits:rows(first, count):copy_(l)
            end)
            if options.progress and options.progress(first + count - 1, n) == false then
                features:release()
                logits:release()
                return nil, "stopped on request"
            end
        end
        return features, logits
    end)
end

function Classifier:__tostring()
    return ("classifier %s %dx%d: held-out accuracy %.1f %% (%d images)"):format(self.data, self.resolution,
        self.resolution, 100 * self.accuracy, self.tested)
end

------------------------------------------------------------------------------------------------------------- training

local function new_model(o, build)
    return Model { resolution = o.resolution, channels = o.channels, classes = o.classes }:build(build)
end

--- The rate at a step, from 0: up over the first tenth, then down to 0 at the end.
local function rate_at(step, steps)
    local warm = math.max(1, math.floor(WARM_UP * steps))
    if step < warm then return RATE * (step + 1) / warm end
    return RATE * (steps - step) / (steps - warm)
end

--- Weights after so many steps of Adam on the cross-entropy.
local function train(self, data, steps)
    local net = new_model(self, { seed = SEED, path = "classifier" })
    local adam = optimizer.adam(net, { lr = RATE, beta1 = 0.9, beta2 = 0.999, eps = 1e-8 })
    local images = core.zeros({ BATCH, self.resolution, self.resolution, self.channels }, { dtype = "u8" })
    local labels = core.zeros({ BATCH }, { dtype = "i32" })
    local batches <close> = setmetatable(data:batches(BATCH), { __close = function(b) b.close() end })
    local bar <close> = setmetatable({ line = progress.new { total = steps } }, { __close = function(b) b.line:finish() end })
    for step = 0, steps - 1 do
        adam:set_rate(rate_at(step, steps))
        batches.fill(step, images, labels)
        core.scope(function()
            net:zero_grad()
            local loss = core.ops.cross_entropy(net(to_floats(images)), labels)
            loss:backward()
            adam:step()
            if bar.line:due() then bar.line:show(step + 1, ("training a classifier for scores  loss %.3f"):format(loss:item())) end
        end)
    end
    net:release_grad()
    return net:eval()
end

---------------------------------------------------------------------------------------------------------------- cache

local function usual_steps(count)
    return math.max(LEAST_STEPS, math.min(MOST_STEPS, math.ceil(EPOCHS * count / BATCH)))
end

local function file_path(self, folder, steps, count)
    local name = self.data:gsub("[^%w._-]+", "_"):sub(1, 40)
    return ("%s/classifier-%s-%dx%dx%d-%s-p%d%s.safetensors"):format(folder, name, self.resolution, self.resolution,
        self.channels, self.data_hash:sub(1, 16), PROTOCOL, steps == usual_steps(count) and "" or "-steps" .. steps)
end

--- What the file says of itself; strings, and the same for the same classifier.
local function metadata_of(self, steps)
    return {
        format = FORMAT, protocol = tostring(PROTOCOL), steps = tostring(steps), data = self.data, data_hash = self.data_hash,
        resolution = tostring(self.resolution), channels = tostring(self.channels), classes = tostring(self.classes),
        accuracy = ("%.17g"):format(self.accuracy), tested = tostring(self.tested), hash = self.hash,
    }
end

--- Takes weights and accuracy from a file that holds exactly this classifier. False and why if it does not.
local function load(self, path, steps)
    self.model = new_model(self, { grad = false, path = "classifier" }):eval()
    local state = self.model:state_dict()
    local ok, metadata = core.safetensors.load_into(path, state)
    if not ok then return false, metadata end
    self.hash = digest(state)
    self.accuracy, self.tested = tonumber(metadata.accuracy), math.tointeger(tonumber(metadata.tested))
    if not self.accuracy or not self.tested or not (self.accuracy >= 0 and self.accuracy <= 1) then
        return false, path .. ": does not say how accurate it is"
    end
    for key, value in pairs(metadata_of(self, steps)) do
        if metadata[key] ~= value then
            return false, key == "hash" and path .. ": damaged: its numbers are not those that were written"
                or ("%s: its %s is %s, %s is needed"):format(path, key, tostring(metadata[key]), value)
        end
    end
    return true
end

--- Writes the classifier, whole or not at all; two that train at the same time write the same bytes.
local function save(self, path, steps)
    local ok, message = system.mkdir((path:gsub("/[^/]*$", "")))
    if ok then ok, message = core.safetensors.save(path, self.model:state_dict(), metadata_of(self, steps)) end
    return ok, message
end

------------------------------------------------------------------------------------------------------------------ get

local FIELDS <const> = { "data", "resolution", "channels", "say", "fresh", "cache", "steps" }

local function check(o)
    local known = {}
    for _, name in ipairs(FIELDS) do known[name] = true end
    for key in pairs(o) do
        if not known[key] then
            local near = require "sagan.nearest"(tostring(key), FIELDS)
            error(("classifier.get has no field '%s'%s"):format(tostring(key), near and (" (did you mean '%s'?)"):format(near) or ""), 3)
        end
    end
    if math.type(o.resolution) ~= "integer" or o.resolution < 1 then
        error("classifier.get: resolution is a whole number from 1", 3)
    end
    if o.channels ~= 1 and o.channels ~= 3 then error("classifier.get: channels is 1 or 3", 3) end
    if o.steps and (math.type(o.steps) ~= "integer" or o.steps < 1) then
        error("classifier.get: steps is a whole number from 1", 3)
    end
end

--- Why no classifier can be made of a data set; nil if one can.
local function impossible(set)
    local filled = 0
    for _, count in ipairs(set:histogram()) do filled = filled + (count > 0 and 1 or 0) end
    if filled < 2 then
        return ("%s: all images are of one class, and a classifier needs two: there are no -cnn scores for this data set. "
            .. "Give it class sub-folders, or score with Inception's weights"):format(set.name)
    end
    return set:check()
end

--- Trains, tests and keeps.
local function make(self, set, path, steps, say)
    local started = system.now()
    local data, message = classifier_data.divide(set)
    if not data then return nil, message end
    local close <close> = setmetatable({}, { __close = function() data:close() end })
    self.model = with_winograd(true, train, self, data, steps)
    self.tested = #data.test_list
    self.accuracy = data:accuracy(function(images) return select(2, self:features(images)) end)
    self.hash = digest(self.model:state_dict())
    local seconds = system.now() - started
    local ok, why = save(self, path, steps)
    if ok then self.path = path end
    say(("%s, %.0f s, %s"):format(tostring(self), seconds, ok and "cached in " .. path or "not cached: " .. why))
    return self
end

--- The classifier of a data set: from the cache, or trained now and put there.
---@param o {data: string|sagan.Dataset, resolution: integer, channels: 1|3, say: fun(text: string)?, fresh: boolean?, cache: string?, steps: integer?}
--- data: a spec, or its split "train", open at this resolution; say: takes the lines that are printed, print if absent; fresh:
--- trains even if the cache has it; cache: the folder, cache_folder() if absent; steps: of training, 1200 if absent
---@return sagan.Classifier? net
---@return string? message
function classifier.get(o)
    check(o)
    local say = o.say or print
    local set, message = o.data, nil
    if type(o.data) == "string" then
        set, message = core.dataset.open(o.data, { resolution = o.resolution, channels = o.channels, split = "train" })
        if not set then return nil, message end
    elseif set.width ~= o.resolution or set.height ~= o.resolution or set.channels ~= o.channels then
        error(("classifier.get: the data set that is given is open at %dx%dx%d"):format(set.height, set.width, set.channels), 2)
    end
    local close <close> = setmetatable({}, { __close = function()
        if set ~= o.data then set:close() end
    end })
    message = impossible(set)
    if message then return nil, message end
    local self = setmetatable({ name = "cnn", data = set.name, data_hash = set:hash(), resolution = o.resolution,
        channels = o.channels, classes = set.classes, feature_count = Model.FEATURES }, Classifier)
    local steps = o.steps or usual_steps(set.count)
    local path = file_path(self, o.cache or classifier.cache_folder(), steps, set.count)
    if not o.fresh and system.stat(path) then
        local ok, why = load(self, path, steps)
        if ok then
            self.path = path
            say(("%s, from %s"):format(tostring(self), path))
            return self
        end
        say(("%s; a new one is trained"):format(why))
    end
    return make(self, set, path, steps, say)
end

return classifier
