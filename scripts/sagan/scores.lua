--- scores.lua - from two feature sets, of real and of generated pictures, to named scores (FACTS 6.4 to 6.6), their own
--- sampling errors, and what is to be known of them.
local core = require "sagan.core"
local metrics = require "sagan.metrics"
local streams = require "sagan.streams"

local scores = {}

scores.KID_SUBSETS, scores.KID_SIZE, scores.NEIGHBOURS = 100, 1000, 5

---@class sagan.ScoreOptions
---@field splits? integer      of IS, 10
---@field bootstrap? integer   resamplings of the generated pictures for the interval of FD; 0: none
---@field only? table<string, boolean>  FD, IS, KID, neighbours, intra; all if absent
---@field class_names? string[]

---@class sagan.ScoreResult
---@field scores table<string, number>
---@field deviations table<string, number>
---@field intervals table<string, number[]>
---@field per_class table<string, number[]>
---@field notes string[]
---@field missing table<string, string>  score -> why there is none

--- Subsets and their size that KID uses for so many pictures.
---@param n_real integer
---@param n_fake integer
---@return integer subsets
---@return integer size
function scores.kid_subsets(n_real, n_fake)
    return scores.KID_SUBSETS, math.min(scores.KID_SIZE, n_real, n_fake)
end

-- The standard error of FD over resamplings of the generated rows, as an interval of +-1.96 of them around the value itself:
-- the mean of resamplings lies above it, since repeated rows make a covariance look poorer. The reference stays fixed.
local function bootstrap(real, fake, value, times)
    local rows = fake:kept()
    local n = rows:size(1)
    local index, clock = core.zeros({ n }, { dtype = "i32" }), core.zeros({ 2 }, { dtype = "i32" })
    local sum, squares = 0, 0
    for _ = 1, times do
        core.ops.randint(index, clock, 0, streams.bootstrap, 0, n)
        core.ops.tick(clock)
        local distance, message = core.scope(core.no_grad, function()
            local m <close> = metrics.moments()
            local ok, why = m:add(core.ops.embedding(rows, index))
            if not ok then return nil, why end
            return metrics.frechet(real.moments, m)
        end)
        if not distance then return nil, message end
        sum, squares = sum + distance, squares + distance ^ 2
    end
    index:release()
    clock:release()
    local mean = sum / times
    local error_ = math.sqrt(math.max(0, squares / times - mean ^ 2) * times / (times - 1))
    return { value - 1.96 * error_, value + 1.96 * error_ }
end

--- All scores of a pair of sets. A score that cannot be computed is absent and says why in `missing`.
---@param network sagan.FeatureNetwork
---@param real sagan.FeatureSet
---@param fake sagan.FeatureSet
---@param o? sagan.ScoreOptions
---@return sagan.ScoreResult
function scores.of(network, real, fake, o)
    o = o or {}
    local out = { scores = {}, deviations = {}, intervals = {}, per_class = {}, notes = {}, missing = {} }
    local function wanted(name) return not o.only or o.only[name] end
    local function note(text)
        if text then out.notes[#out.notes + 1] = text end
    end
    local function put(name, value, message)
        name = network:score_name(name)
        if value then out.scores[name] = value else out.missing[name] = message or "unknown" end
        return value, name
    end
    if wanted "FD" then
        local value, message = metrics.frechet(real.moments, fake.moments)
        local name
        value, name = put("FD", value, message)
        if value then
            note(message)
            if (o.bootstrap or 0) > 1 then out.intervals[name] = bootstrap(real, fake, value, o.bootstrap) end
        end
    end
    if wanted "IS" and fake.logits then
        local value, deviation = metrics.inception_score(fake.logits, { splits = o.splits or 10 })
        local _, name = put("IS", value, deviation)
        if value then out.deviations[name] = deviation end
    end
    local real_rows, fake_rows = real:kept(), fake:kept()
    if wanted "KID" then
        local subsets, size = scores.kid_subsets(real_rows:size(1), fake_rows:size(1))
        local value, deviation = metrics.kid(real_rows, fake_rows, { subsets = subsets, size = size })
        local _, name = put("KID", value, deviation)
        if value then out.deviations[name] = deviation end
    end
    if wanted "neighbours" then
        local result, message = metrics.prdc(real_rows, fake_rows, { k = scores.NEIGHBOURS })
        for _, name in ipairs { "precision", "recall", "density", "coverage" } do
            put(name, result and result[name], message)
        end
        note(result and message)
    end
    if wanted "intra" then
        local problem = real.class_problem or fake.class_problem
        local value, distances, warning
        if problem then
            distances = problem
        else
            value, distances, warning = metrics.intra_frechet(real.by_class, fake.by_class,
                { classes = real.classes, names = o.class_names })
        end
        local _, name = put("intra-FD", value, distances)
        if value then
            out.per_class[name] = distances
            note(warning)
        end
    end
    return out
end

return scores
