--- evaluation.lua - scores a checkpoint: one sampling pass for each generator and normalisation, whose pictures go through
--- every resizer asked for; each score with its fingerprint into the run's ledger.
---
---     evaluation.score { folder = "runs/feat32/seed-1" } -> list of sagan.Scored
---
--- Also [8] of the order of an iteration (trainer.lua), and what a study scores with if it names no score of its own.
local core = require "sagan.core"
local system = core.system
local checkpoint = require "sagan.checkpoint"
local run_folder = require "sagan.run_folder"
local feature_network = require "sagan.feature_network"
local feature_set = require "sagan.feature_set"
local reference = require "sagan.reference"
local generated = require "sagan.generated"
local fingerprint = require "sagan.fingerprint"
local progress = require "sagan.progress"
local json = require "sagan.json"
local ledger = require "sagan.ledger"
local metrics = require "sagan.metrics"
local scores = require "sagan.scores"

local evaluation = {}

---@class sagan.EvaluationOptions
---@field checkpoint string       file
---@field folder? string          of the run, whose ledger gets the scores; none: they are only returned
---@field data? string            what to compare with, if not the data of the run
---@field protocol? table         the fields score.*; those of the run's configuration
---@field network? string         "auto", "cnn" or a file; score.network of the run
---@field generators? string[]    of "ema", "raw"; score.generator
---@field batch_norm? string[]    of generated.modes; score.batch_norm
---@field resizers? string[]      score.resizer
---@field n_fake? integer         score.n_fake
---@field n_real? integer         score.n_real, 0 for all
---@field reference? string       score.reference, train or test
---@field splits? integer         score.splits
---@field bias? boolean           score.bias
---@field truncation? number
---@field bootstrap? integer      100 for the classifier, 0 for Inception, where each takes seconds
---@field only? table<string, boolean>  see scores.of
---@field real? boolean           score held-out real pictures (the other split) in place of generated ones: how good can it be
---@field say? fun(text: string)

-- Everything left open is what the run's configuration says.
local function with_defaults(o, config)
    local s, out = o.protocol or config.score, {}
    for key, value in pairs(o) do out[key] = value end
    out.network, out.n_fake = o.network or s.network, o.n_fake or s.n_fake
    out.n_real, out.reference = o.n_real or s.n_real, o.reference or s.reference
    out.splits = o.splits or s.splits
    if out.bias == nil then out.bias = s.bias end
    out.generators, out.batch_norm = o.generators or { s.generator }, o.batch_norm or { s.batch_norm }
    out.resizers = o.resizers or { s.resizer }
    return out
end

-- Counts figures and those with the right number of legs, by class from 1; but classes of which there is no real figure.
local function count_legs(tally, legs_of_class, images, labels)
    local expected = {}
    for i, label in ipairs(labels) do expected[i] = legs_of_class[label + 1] or 0 end
    for i, legs in ipairs(metrics.legs(images, expected)) do
        local class = labels[i] + 1
        if legs_of_class[class] then
            tally.of[class] = (tally.of[class] or 0) + 1
            tally.right[class] = (tally.right[class] or 0) + (legs == expected[i] and 1 or 0)
        end
    end
end

-- The share of all, and the shares by class if there are figures of each.
local function shares_of(tally, classes)
    local right, of, by_class = 0, 0, {}
    for class, n in pairs(tally.of) do
        right, of = right + tally.right[class], of + n
        by_class[class] = tally.right[class] / n
    end
    return right / of, #by_class == classes and classes > 1 and by_class or nil
end

-- One sampling pass: the feature sets by resizer, and the figures' legs where the data know them.
local function collect(s, variant, o)
    local tally = s.legs and (not o.only or o.only.legs) and { right = {}, of = {} } or nil
    local sets = {}
    for _, resizer in ipairs(s.resizers) do
        sets[resizer] = feature_set.new { capacity = o.n_fake, width = s.network.width, classes = s.data.classes,
            logits = s.network.logit_count }
    end
    local bar, done = progress.new { total = o.n_fake }, 0
    local ok, message = variant.each(function(images, labels)
        for _, resizer in ipairs(s.resizers) do
            local features, logits = s.network:features(images, resizer, o.bias)
            if not features then return nil, logits end
            local good, why = sets[resizer]:add(features, logits, labels)
            if not good then return nil, why end
        end
        if tally then count_legs(tally, s.legs, images, labels) end
        done = done + #labels
        bar:show(done, variant.text, done == o.n_fake)
        if system.interrupted() then error("interrupted", 0) end
        return true
    end)
    bar:finish()
    if ok then return sets, tally end
    for _, set in pairs(sets) do set:close() end
    return nil, message
end

-- Real pictures in the place of generated ones.
local function held_out(data)
    return function(fn)
        local batch <const> = 50
        for first = 1, data.count, batch do
            local list = {}
            for i = first, math.min(first + batch - 1, data.count) do list[#list + 1] = i end
            local ok, message = core.scope(core.no_grad, function()
                local images, labels = data:batch(list)
                return fn(images, labels:totable())
            end)
            if not ok then return nil, message end
        end
        return true
    end
end

-- What all variants share: the real pictures, the network, and the features of the reference by resizer.
local Session = {}
Session.__index = Session

function Session:close()
    for _, set in pairs(self.references) do set:close() end
    self.data:close()
end

Session.__close = Session.close

-- How many legs each class has, from 1; nil where the data do not know.
local function legs_of_classes(data)
    if not data:legs(1) then return nil end
    local legs, found = {}, 0
    for i = 1, data.count do
        local class = data:label(i) + 1
        if not legs[class] then legs[class], found = data:legs(i), found + 1 end
        if found == data.classes then break end
    end
    return legs
end

local function session(o, config)
    local what = { data = o.data or config.data, resolution = config.model.resolution, channels = config.model.channels,
        split = o.reference, count = o.n_real, say = o.say }
    local data, message = reference.open(what)
    if not data then return nil, message end
    local self = setmetatable({ data = data, config = config, spec = what.data, references = {} }, Session)
    local function fail(why)
        self:close()
        return nil, why
    end
    if data.channels ~= config.model.channels or data.classes ~= config.model.classes then
        return fail(("%s has %d classes and %d channels, the run %d and %d: they cannot be compared"):format(data.name, data.classes,
            data.channels, config.model.classes, config.model.channels))
    end
    self.legs = legs_of_classes(data)
    self.network, message = feature_network.open(o.network, what)
    if not self.network then return fail(message) end
    -- those of the run's configuration mean nothing to a network that takes pictures as they are
    self.resizers = self.network.resizers[1] == "none" and { "none" } or o.resizers
    for _, resizer in ipairs(self.resizers) do
        what.resizer = resizer
        self.references[resizer], message = reference.get(self.network, data, what)
        if not self.references[resizer] then return fail(message) end
    end
    return self
end

-- A generator in one mode, as something to be scored.
local function variant_of(G, name, mode, o)
    return {
        name = name:lower(), mode = generated.mode_name(mode), labels = G.classes and "balanced" or "none",
        text = ("%s generator, %s statistics"):format(name, mode),
        each = function(fn)
            return generated.each(G, { count = o.n_fake, batch_norm = mode, truncation = o.truncation }, fn)
        end,
    }
end

-- What is to be scored: each has a name, a mode of normalisation, and a function that gives its pictures.
local function variants(o, s)
    local out = {}
    if o.real then
        local other, message = reference.open { data = s.spec, resolution = s.config.model.resolution,
            channels = s.config.model.channels, split = o.reference == "test" and "train" or "test" }
        if not other then return nil, message end
        o.n_fake = other.count
        return { { name = "real", mode = "none", labels = "data", each = held_out(other), text = "held-out pictures" } }
    end
    for _, generator in ipairs(o.generators) do
        local G, info = checkpoint.generator(o.checkpoint, { raw = generator == "raw" })
        if not G then return nil, info end
        for _, mode in ipairs(o.batch_norm) do out[#out + 1] = variant_of(G, info.weights, mode, o) end
    end
    return out
end

local function fingerprint_of(o, s, variant, resizer, real, fake)
    local subsets, size = scores.kid_subsets(real:kept():size(1), fake:kept():size(1))
    return {
        network = s.network.name, weights = s.network.hash, resizer = resizer, quantised = "u8", data = s.data.name,
        data_hash = s.data:hash(), reference = o.reference, resolution = s.config.model.resolution, n_real = real.count,
        n_fake = fake.count, generator = variant.name, batch_norm = variant.mode,
        truncation = o.truncation and tostring(o.truncation) or "none", labels = variant.labels, z_seed = 0,
        is_splits = o.splits, is_bias = o.bias, kid = ("%dx%d"):format(subsets, size),
        n_neighbours = math.max(real:kept():size(1), fake:kept():size(1)), version = fingerprint.version,
    }
end

-- The entries of one variant, one for each resizer.
local function measure(o, s, variant, info)
    local started, entries = system.now(), {}
    local sets, tally = collect(s, variant, o)
    if not sets then return nil, tally end
    for _, resizer in ipairs(s.resizers) do
        local real, fake = s.references[resizer], sets[resizer]
        local result = scores.of(s.network, real, fake, {
            splits = o.splits, only = o.only, class_names = s.data.class_names,
            bootstrap = o.bootstrap or (s.network.name == "cnn" and 100 or 0),
        })
        if tally then result.scores.legs, result.per_class.legs = shares_of(tally, s.data.classes) end
        entries[#entries + 1] = {
            time = os.date("!%Y-%m-%dT%H:%M:%SZ"), step = info.step,
            checkpoint = o.checkpoint and (o.checkpoint:match("checkpoints/[^/]+$") or o.checkpoint),
            fingerprint = fingerprint_of(o, s, variant, resizer, real, fake), scores = result.scores,
            deviations = result.deviations, intervals = result.intervals, notes = json.array(result.notes),
            per_class = next(result.per_class) and result.per_class or nil,
            class_names = next(result.per_class) and s.data.class_names or nil,
            missing = next(result.missing) and result.missing or nil,
        }
        fake:close()
    end
    for _, entry in ipairs(entries) do entry.seconds = math.floor((system.now() - started) * 10 + 0.5) / 10 end
    return entries
end

--- Scores a checkpoint in every combination that is asked for.
---@param options sagan.EvaluationOptions
---@return sagan.Scored[]? entries
---@return string? message
function evaluation.score(options)
    local info, message = checkpoint.info(options.checkpoint)
    if not info then return nil, message end
    local o = with_defaults(options, info.config)
    local s
    s, message = session(o, info.config)
    if not s then return nil, message end
    local guard <close> = setmetatable({}, { __close = function() s:close() end }) -- luacheck: ignore guard
    local todo
    todo, message = variants(o, s)
    if not todo then return nil, message end
    local all = {}
    for _, variant in ipairs(todo) do
        local entries, why = measure(o, s, variant, info)
        if not entries then return nil, ("%s: %s"):format(options.checkpoint, why) end
        for _, entry in ipairs(entries) do
            all[#all + 1] = entry
            if o.folder then
                local ok, problem = ledger.append(o.folder, entry)
                if not ok then return nil, problem end
            end
        end
    end
    return all
end

--- A function that scores generators as they are in memory, whatever was done to them; for knock-outs. By class it gives the
--- Frechet distance, and the share with the right legs where the data know them. What scores are computed from is opened
--- here: a classifier may have to be trained first, for which gradients have to be recorded.
---@param config sagan.Config  of the run: data, resolution, protocol
---@param options? sagan.EvaluationOptions  n_fake: 2000
---@return fun(G: sagan.models.Generator): table<string, number>, table<string, table<string, number>>?
---@return any session  to be closed
function evaluation.scorer(config, options)
    local o = with_defaults(options or {}, config)
    o.n_fake, o.bootstrap = options and options.n_fake or 2000, 0
    local s, message = session(o, config)
    if not s then error(message, 0) end
    return function(G)
        local entries, why = measure(o, s, variant_of(G, "given", o.batch_norm[1], o), { step = 0 })
        if not entries then error(why, 0) end
        local entry, by_class = entries[1], nil
        for name, values in pairs(entry.per_class or {}) do
            by_class = by_class or {}
            for i, value in ipairs(values) do
                local class = s.data.class_names[i]
                by_class[class] = by_class[class] or {}
                by_class[class][name:gsub("^intra%-", "")] = value
            end
        end
        return entry.scores, by_class
    end, s
end

--- What a study scores a run with: the protocol that the run's configuration names.
---@param run sagan.Run
---@return table<string, number>? scores
---@return string? message
---@return sagan.Fingerprint?
function evaluation.of_run(run)
    local entries, message = evaluation.score { checkpoint = run.checkpoint, folder = run.path, protocol = run.config.score,
        say = print }
    if not entries then return nil, message end
    return entries[1].scores, nil, entries[1].fingerprint
end

return evaluation
