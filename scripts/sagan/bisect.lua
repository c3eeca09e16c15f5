--- bisect.lua - the way from one recipe to another as a study: its first arm is recipe A, each further arm takes one field
--- (or group of fields that make no sense apart) more from B, and the last is B. Each arm is compared with the one before
--- it, so each comparison is what that change does where it is made; a field may act otherwise beside other values.
local ablation = require "sagan.ablation"
local config = require "sagan.config"
local experiment = require "sagan.experiment"
local fields = require "sagan.fields"

local bisect = {}

--- Fields that are changed together: one without the others describes nobody's network. The order of steps is that of the
--- field list, a group at the place of its first field.
bisect.groups = {
    attention = { "model.attention.generator", "model.attention.discriminator", "model.attention.kernel" },
    conditional_tables = { "model.batch_norm.gain_offset", "model.batch_norm.init" },
    running_statistics = { "model.batch_norm.momentum", "model.batch_norm.last_momentum" },
    initial_weights = {
        "model.init.weights", "model.init.gain", "model.init.shortcut_gain", "model.init.std", "model.init.bias",
    },
    class_head = { "model.d_head", "auxiliary.d_weight", "auxiliary.g_weight", "auxiliary.d_on_fake" },
    rates = { "optimizer.lr_g", "optimizer.lr_d", "optimizer.rate_factor", "train.lr_decay" },
    betas = { "optimizer.beta1", "optimizer.beta2" },
    adam_eps = { "optimizer.eps", "optimizer.tf_eps" },
    average = { "train.ema_decay", "train.ema_start" },
}

local group_of = {}
for name, keys in pairs(bisect.groups) do
    for _, key in ipairs(keys) do group_of[key] = name end
end

-- Not part of a recipe: what a run is called, on what and where it runs.
local AROUND <const> = { seed = true, data = true, precision = true, winograd = true, ["train.recompute"] = true }

--- True for a field that a recipe may decide; its steps, too.
---@param f sagan.Field
---@return boolean
function bisect.is_science(f) return f.key == "train.steps" or not f.free and not AROUND[f.key] end

--- The fields of recipes in which two configurations differ.
---@param a sagan.Config
---@param b sagan.Config
---@return sagan.Difference[]
function bisect.differences(a, b)
    local out = {}
    for _, d in ipairs(config.diff(a, b)) do
        if bisect.is_science(fields.by_key[d.field]) then out[#out + 1] = d end
    end
    return out
end

--- Recipes as complete configurations at one scale.
---@param names string[]
---@param overrides? string[]  "key=value"
---@param profile string       unless an override has another
---@return sagan.Config[]? configs  in order
---@return string? message
function bisect.resolve(names, overrides, profile)
    local arms, kept = {}, {}
    for i, name in ipairs(names) do arms[i] = { name = tostring(i), recipe = name } end
    for _, override in ipairs(overrides or {}) do
        if override:find("^recipe=") then return nil, "the recipes are those that are named" end
        if not override:find("^seed=") then kept[#kept + 1] = override end
    end
    local configs, message = experiment.resolve({ profile = profile, arms = arms }, kept)
    if not configs then return nil, message end
    if #configs ~= #names then return nil, "only seed may be a list" end
    return configs
end

---@class sagan.BisectStep
---@field name string                      the arm
---@field fields sagan.Difference[]        what changes

--- The steps from A to B in their order.
---@param a sagan.Config
---@param b sagan.Config
---@return sagan.BisectStep[]
function bisect.steps(a, b)
    local steps, by_group = {}, {}
    for _, d in ipairs(bisect.differences(a, b)) do
        local group = group_of[d.field]
        local step = group and by_group[group]
        if not step then
            step = { fields = {} }
            steps[#steps + 1] = step
            if group then by_group[group] = step end
            step.name = ("%02d-%s"):format(#steps, group or d.field:gsub("^model%.", ""):gsub("^train%.", ""))
        end
        table.insert(step.fields, d)
    end
    return steps
end

local function as_fields(c)
    local t = config.copy(c)
    t.name, t.question, t.profile_reason, t.seed = nil, nil, nil, nil
    return t
end

--- The study of the way from A to B.
---@param a string  recipe
---@param b string  recipe
---@param options {overrides: string[]?, profile: string?, seeds: integer?}
---@return sagan.Study? study
---@return string? message
function bisect.study(a, b, options)
    local configs, message = bisect.resolve({ a, b }, options.overrides, options.profile or "quick")
    if not configs then return nil, message end
    local steps = bisect.steps(configs[1], configs[2])
    if #steps == 0 then return nil, ("%s and %s are the same at this scale"):format(a, b) end
    local base = as_fields(configs[1])
    base.name = "00-" .. a
    local arms, now = {}, config.copy(configs[1])
    for i, step in ipairs(steps) do
        for _, d in ipairs(step.fields) do config.set(now, d.field, d.b) end
        arms[i] = as_fields(now)
        arms[i].name = step.name
    end
    return ablation {
        name = ("bisect-%s-%s"):format(a, b),
        question = ("Which of the differences between %s and %s moves the score?"):format(a, b),
        base = base, arms = arms, seeds = options.seeds or 3, against = "previous",
    }
end

--- The plan as text.
---@param study sagan.Study
---@return string[]
function bisect.plan_lines(study)
    local plan = assert(ablation.plan(study))
    local lines = { ("way      %d steps; each arm keeps what the ones before it took"):format(#plan.arms - 1) }
    for i = 2, #plan.arms do
        for k, d in ipairs(plan.arms[i].changes) do
            lines[#lines + 1] = ("  %-28s %s: %s -> %s"):format(k == 1 and plan.arms[i].name or "", d.field,
                config.literal(d.a), config.literal(d.b))
        end
    end
    return lines
end

--- Which steps moved which score, as far as the records of the cells say.
---@param plan sagan.StudyPlan
---@return string[]
function bisect.verdict_lines(plan)
    local study_cell, study_table = require "sagan.study_cell", require "sagan.study_table"
    local records, lines = {}, {}
    for i, cell in ipairs(plan.cells) do records[i] = study_cell.read(cell) end
    for _, row in ipairs(study_table.results(plan, records).rows) do
        local moved, open = {}, 0
        for i = 2, #plan.arms do
            local c = row.arms[plan.arms[i].name].comparison
            if c.decided then
                local names = {}
                for k, d in ipairs(plan.arms[i].changes) do names[k] = d.field end
                local text = ("%s %+.4g (%s)"):format(table.concat(names, ", "), c.mean, c.verdict)
                moved[#moved + 1] = { text = text, size = math.abs(c.mean) }
            else
                open = open + 1
            end
        end
        table.sort(moved, function(x, y) return x.size > y.size end)
        for i, m in ipairs(moved) do moved[i] = m.text end
        local told = #moved > 0 and table.concat(moved, "; ") or "no step that these seeds can tell"
        lines[#lines + 1] = ("moved    %s: %s%s"):format(row.score, told,
            open > 0 and (" [%d of %d steps not distinguishable]"):format(open, #plan.arms - 1) or "")
    end
    if #lines > 0 then
        local count = #plan.arms - 1
        lines[#lines + 1] = ("         each interval is at 95 %%: of %d steps without any effect, %.2g would be named by chance")
            :format(count, 0.05 * count)
    end
    return lines
end

return bisect
