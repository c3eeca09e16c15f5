--- ablation.lua - a study as one object: arms that differ in a few fields, the same seeds for all, scores, and paired
--- statistics of every arm against the base.
---
---     return sagan.ablation {
---         name = "rates",
---         question = "Do two time scales help?",
---         base = { name = "equal", recipe = "paper", optimizer = { lr_g = 1e-4, lr_d = 1e-4 } },
---         arms = { { name = "ttur", optimizer = { lr_d = 4e-4 } } },
---         seeds = 3,                                            -- or a list; 3 if absent
---         score = function(run) return { FID = ... } end,       -- if absent, what the fields score.* say
---     }
---
--- A run of one arm with one seed is a cell. Cells are ordinary runs in runs/<study>/<arm>/seed-<n>/; what came of one is its
--- cell.json, and all together are runs/<study>/study.json. Arms with the same seed see the same z, labels and order of
--- images, whatever their architecture: random numbers are functions of (seed, stream, clock, index). So differences are
--- taken seed by seed, which removes what the seeds have in common. (A batch of another size or another number of D steps
--- gives other batches, of course.)

local config = require "sagan.config"
local experiment = require "sagan.experiment"
local nearest = require "sagan.nearest"

local ablation = {}

---@class sagan.Run  what a score function is given
---@field path string         folder of the run
---@field arm string
---@field seed integer
---@field step integer        G steps done
---@field config sagan.Config
---@field checkpoint string   file of that step
---@field log table[]         rows of log.jsonl up to that step

---@class sagan.Study
---@field name string
---@field question? string
---@field base sagan.Fields        what all arms share; an arm of its own, named base.name ("base")
---@field arms sagan.Arm[]         what each changes
---@field seeds? integer|integer[] how many, or which; 3
---@field score? fun(run: sagan.Run): table<string, number>?, string?  may return nil, message; evaluation.of_run if absent
---@field better? table<string, "lower"|"higher">  by score; FID, FD, KID and intra-FID are better lower, others higher
---@field at? number[]             shares of the steps at which to score; {1}
---@field against? "base"|"previous"  what an arm is compared with; base
---@field published? string        table of published.lua to show beside the results

local Study <const> = { __name = "sagan.ablation" }
Study.__tostring = function(s) return ("study %s: %s"):format(s.name or "?", s.question or "") end

local KEYS <const> = { "name", "question", "base", "arms", "seeds", "score", "better", "at", "against", "published" }

--- True for what ablation{...} returned.
---@param value any
---@return boolean
function ablation.is(value) return getmetatable(value) == Study end

local function check_seeds(seeds)
    if math.type(seeds) then
        if math.type(seeds) ~= "integer" or seeds < 1 then error("seeds: a whole number from 1, or a list of seeds", 0) end
        return
    end
    if type(seeds) ~= "table" or #seeds == 0 then error("seeds: a whole number from 1, or a list of seeds", 0) end
    for _, s in ipairs(seeds) do config.check("seed", s) end
end

local function check(t)
    local known = {}
    for _, key in ipairs(KEYS) do known[key] = true end
    for key in pairs(t) do
        if not known[key] then
            local near = nearest(tostring(key), KEYS)
            error(("a study has no '%s'%s"):format(tostring(key), near and ("; did you mean '%s'?"):format(near)
                or "; fields of runs belong into base or arms"), 0)
        end
    end
    config.check("name", t.name)
    if type(t.base) ~= "table" then error("base: a table of fields is needed", 0) end
    if type(t.arms) ~= "table" then error("arms: a list of named tables of fields is needed", 0) end
    check_seeds(t.seeds or 3)
    for i, share in ipairs(t.at or {}) do
        if not math.type(share) or share <= 0 or share > 1 or i > 1 and share <= t.at[i - 1] then
            error("at: growing shares of the steps, above 0 and to 1", 0)
        end
    end
    if t.score ~= nil and type(t.score) ~= "function" then error("score: a function of a run", 0) end
    if t.against ~= nil and t.against ~= "base" and t.against ~= "previous" then error("against: base or previous", 0) end
    for name, direction in pairs(t.better or {}) do
        if direction ~= "lower" and direction ~= "higher" then
            error(("better.%s: lower or higher, not '%s'"):format(name, tostring(direction)), 0)
        end
    end
    if t.published then require("sagan.published").get(t.published) end
    local base = {}
    for key, value in pairs(t.base) do
        if key ~= "name" then base[key] = value end
    end
    base.arms = { { name = t.base.name or "base" } }
    for i, arm in ipairs(t.arms) do base.arms[i + 1] = arm end
    experiment.new(base)
    return base
end

local function mark(t)
    if type(t) ~= "table" then error("ablation needs a table", 3) end
    local ok, message = pcall(check, t)
    if not ok then error(message, 3) end
    return setmetatable(t, Study)
end

--- Which direction of a score is better: "lower", "higher", or nil for one that says nothing of quality.
---@param study sagan.Study
---@param score string
---@return string?
function ablation.direction(study, score)
    if study.better and study.better[score] then return study.better[score] end
    if score:find("^loss/") or score:find("^logit/") then return nil end
    return (score:find("^intra%-F") or score:find("^F%a*D%f[%W]") or score:find("^KID")) and "lower" or "higher"
end

--- A score that costs nothing: the losses over the last tenth of the log. They say whether a training is alive, not how
--- good its pictures are, so no direction of them is better. `--score losses` on the command line.
---@param run sagan.Run
---@return table<string, number>? scores
---@return string? message
function ablation.losses(run)
    local rows = run.log
    local first = #rows - math.max(1, #rows // 10) + 1
    if #rows == 0 then return nil, "nothing was logged" end
    local out = { ["loss/d"] = 0, ["loss/g"] = 0, ["logit/gap"] = 0 }
    for i = first, #rows do
        out["loss/d"] = out["loss/d"] + rows[i]["loss/d"]
        out["loss/g"] = out["loss/g"] + rows[i]["loss/g"]
        out["logit/gap"] = out["logit/gap"] + rows[i]["logit/real"] - rows[i]["logit/fake"]
    end
    for name, sum in pairs(out) do out[name] = sum / (#rows - first + 1) end
    return out
end

---@class sagan.Cell
---@field arm string
---@field seed integer
---@field path string          folder of the run
---@field config sagan.Config
---@field stages {share: number, step: integer}[]  when to score

---@class sagan.StudyArm
---@field name string
---@field config sagan.Config  of the first seed
---@field changes sagan.Difference[]  from what it is compared with; {} for the first

---@class sagan.StudyPlan
---@field study sagan.Study
---@field arms sagan.StudyArm[]  the base first
---@field seeds integer[]
---@field cells sagan.Cell[]   seed by seed, all arms of each
---@field path string          runs/<study>

local function stages(study, steps)
    local out, taken = {}, {}
    for _, share in ipairs(study.at or { 1 }) do
        local step = math.max(1, math.floor(share * steps + 0.5))
        if taken[step] then
            error(("%g %% and %g %% of %d steps are the same step"):format(100 * taken[step], 100 * share, steps), 0)
        end
        taken[step] = share
        out[#out + 1] = { share = share, step = step }
    end
    return out
end

local function make_plan(study, overrides, root, machine)
    local e = check(study)
    e.name = study.name
    e.question = e.question or study.question
    local seeds = study.seeds or 3
    if math.type(seeds) then
        local list = {}
        for i = 1, seeds do list[i] = i end
        seeds = list
    end
    e.seed = #seeds > 1 and seeds or seeds[1]
    for _, text in ipairs(overrides or {}) do
        local key, value = experiment.parse(text)
        if key == "name" then error("name: arms have their own; --runs DIR keeps two studies apart", 0) end
        if key == "seed" then seeds = type(value) == "table" and value or { value } end
    end
    local configs, message = experiment.resolve(experiment.new(e), overrides, machine)
    if not configs then error(message, 0) end

    local plan = { study = study, arms = {}, seeds = {}, cells = {}, path = root .. "/" .. study.name }
    if #configs ~= #seeds * #e.arms then
        error("a study takes a list for seed only; what is to vary belongs into arms", 0)
    end
    for i, arm in ipairs(e.arms) do
        for k in ipairs(seeds) do
            local c = configs[(i - 1) * #seeds + k]
            c.name = arm.name
            plan.seeds[k] = c.seed
            plan.cells[(k - 1) * #e.arms + i] = {
                arm = arm.name, seed = c.seed, config = c, stages = stages(study, c.train.steps),
                path = ("%s/%s/seed-%d"):format(plan.path, arm.name, c.seed),
            }
        end
        local first = configs[(i - 1) * #seeds + 1]
        local reference = i > 1 and plan.arms[study.against == "previous" and i - 1 or 1]
        local changes = {}
        for _, d in ipairs(reference and config.diff(reference.config, first) or {}) do
            if not d.free then changes[#changes + 1] = d end
        end
        plan.arms[i] = { name = arm.name, config = first, changes = changes }
    end
    return plan
end

--- The cells that a study stands for. What is wrong with overrides is returned, not raised.
---@param study sagan.Study
---@param overrides? string[]         "key=value", for all arms; seed=1,2 chooses the seeds
---@param root? string                where studies live; runs
---@param machine? {cuda: boolean}    what profile=auto decides by
---@return sagan.StudyPlan? plan
---@return string? message
function ablation.plan(study, overrides, root, machine)
    local ok, result = pcall(make_plan, study, overrides, root or "runs", machine)
    if not ok then return nil, result end
    return result
end

--- The same study with another score.
---@param study sagan.Study
---@param score fun(run: sagan.Run): table<string, number>?, string?
---@return sagan.Study
function ablation.with_score(study, score)
    local copy = {}
    for key, value in pairs(study) do copy[key] = value end
    copy.score = score
    return setmetatable(copy, Study)
end

--- Runs a study from the words of a command line.
---@param study sagan.Study
---@param args string[]
---@param command? string[]  the words that begin the same command again; `sagan-lua SCRIPT` if absent
---@return integer exit code
function ablation.run(study, args, command)
    return require("sagan.study").run(study, args, command)
end

return setmetatable(ablation, {
    __call = function(_, t)
        local study = mark(t)
        return study
    end,
})
