--- Experiments: a recipe plus the few fields it changes and one line that says what it asks.
---
---     return sagan.experiment {
---         name = "feat32",
---         question = "Attention at 32x32 in both networks: the paper's best FID.",
---         recipe = "paper",
---         attention = 32,
---     }
---
--- Values come from, later ones winning: field defaults, recipe, profile, the experiment, an arm of it, overrides.
--- A list where a single value belongs is a sweep: one run for each value, all combinations of several lists.
--- For a field that is a list itself (sizes of attention) a sweep is a list of lists. `arms` lists named variants that
--- change several fields together:
---
---     arms = { { name = "ttur", optimizer = { lr_g = 1e-4, lr_d = 4e-4 } }, { name = "equal", ... } }

local config = require "sagan.config"
local fields = require "sagan.fields"
local profiles = require "sagan.profiles"
local recipes = require "sagan.recipes"
local plan = require "sagan.models.plan"

local experiment = {}

---@class sagan.Experiment: sagan.Fields
---@field arms? sagan.Arm[]

---@class sagan.Arm: sagan.Fields
---@field name string

local RESERVED <const> = { arms = true }
local Experiment <const> = { __name = "sagan.experiment" }
Experiment.__tostring = function(e) return ("experiment %s: %s"):format(e.name or "?", e.question or "") end

--- True if the value of a key stands for several runs.
local function is_sweep(key, value)
    if type(value) ~= "table" then return false end
    if not config.field(key).type.list then return true end
    for _, v in ipairs(value) do
        if type(v) == "table" or v == "none" then return true end
    end
    return false
end

local function check_value(key, value)
    if not is_sweep(key, value) then
        config.check(key, value)
        return
    end
    if #value == 0 then error(("%s = {}: a list to sweep over needs at least one value"):format(key), 0) end
    if key == "profile" then error("profile: all runs of an experiment have the same", 0) end
    for k, v in pairs(value) do
        if math.type(k) ~= "integer" then
            error(("%s has no field '%s'; it must be %s"):format(key, tostring(k), config.field(key).type.text), 0)
        end
        config.check(key, v)
    end
end

local function check_recipes(value)
    for _, name in ipairs(type(value) == "table" and value or { value }) do recipes.get(name) end
end

local function check_all(t)
    for _, pair in ipairs(config.flatten(t, RESERVED)) do
        check_value(pair.key, pair.value)
        if pair.key == "recipe" then check_recipes(pair.value) end
    end
    if t.arms ~= nil and type(t.arms) ~= "table" then error("arms must be a list of tables", 0) end
    local names = {}
    for i, arm in ipairs(t.arms or {}) do
        if type(arm) ~= "table" or type(arm.name) ~= "string" then
            error(("arms[%d] needs a name"):format(i), 0)
        end
        if names[arm.name] then error(("two arms have the name '%s'"):format(arm.name), 0) end
        names[arm.name] = true
        for _, pair in ipairs(config.flatten(arm, { name = true })) do
            if is_sweep(pair.key, pair.value) then
                error(("arm '%s': %s is a list; an arm is one run"):format(arm.name, pair.key), 0)
            end
            check_value(pair.key, pair.value)
        end
        config.check("name", arm.name)
    end
end

local function mark(t)
    if type(t) ~= "table" then error("experiment needs a table of fields", 3) end
    local ok, message = pcall(check_all, t)
    if not ok then error(message, 3) end
    return setmetatable(t, Experiment)
end

--- Marks a table as an experiment and checks its keys and values; the module itself can be called instead.
---@param t sagan.Experiment
---@return sagan.Experiment
function experiment.new(t)
    local e = mark(t) -- no tail call: it would take away the frame that errors point to
    return e
end

--- True for what experiment{...} returned.
---@param value any
---@return boolean
function experiment.is(value) return getmetatable(value) == Experiment end

-- -------------------------------------------------------------------------------------------------------- overrides

--- Splits at commas outside of braces and quotes.
local function split(text)
    local parts, depth, quote, from = {}, 0, nil, 1
    for i = 1, #text do
        local ch = text:sub(i, i)
        if quote then
            if ch == quote then quote = nil end
        elseif ch == '"' or ch == "'" then
            quote = ch
        elseif ch == "{" then
            depth = depth + 1
        elseif ch == "}" then
            depth = depth - 1
        elseif ch == "," and depth == 0 then
            parts[#parts + 1] = text:sub(from, i - 1)
            from = i + 1
        end
    end
    parts[#parts + 1] = text:sub(from)
    return parts
end

local words <const> = setmetatable({}, { __index = function(_, word) return word end })

--- A Lua literal, in which a bare word is itself; anything else is text.
local function parse_one(text)
    local trimmed = text:match("^%s*(.-)%s*$")
    local chunk = load("return " .. trimmed, "=value", "t", words)
    if chunk then
        local ok, value = pcall(chunk)
        if ok and value ~= nil and type(value) ~= "function" then return value end
    end
    return trimmed
end

--- "key=value" from a command line: a Lua literal, a bare word, or a comma list of them.
---@param text string
---@return string key
---@return any value
function experiment.parse(text)
    local key, value = text:match("^%s*([^=%s]+)%s*=(.*)$")
    if not key then error(("'%s' is not key=value"):format(text), 0) end
    local group = fields.groups[key]
    if group then error(("%s is a group of fields, not one: %s"):format(key, group), 0) end
    local kind = config.field(key).type
    if kind.raw and not value:match("^%s*[{\"']") then return key, value end
    local parts = split(value)
    if #parts == 1 then return key, parse_one(value) end
    local list = {}
    for i, part in ipairs(parts) do list[i] = parse_one(part) end
    return key, list
end

-- ------------------------------------------------------------------------------------------------------- resolution

-- appends an assignment; it replaces earlier ones of the same fields
local function assign(list, key, value)
    local covers = { [key] = true }
    for _, k in ipairs(fields.aliases[key] and fields.aliases[key].keys or {}) do covers[k] = true end
    for i = #list, 1, -1 do
        if covers[list[i].key] then table.remove(list, i) end
    end
    list[#list + 1] = { key = key, value = value }
end

local function value_name(value)
    if type(value) == "table" then
        if #value == 0 then return "none" end
        local parts = {}
        for i, v in ipairs(value) do parts[i] = value_name(v) end
        return table.concat(parts, "+")
    end
    if math.type(value) then
        local s = ("%.6g"):format(value):gsub("e([+-])0+", "e%1"):gsub("e%+", "e")
        -- 0.0004 reads better as 4e-4
        local e = ("%.5e"):format(value):gsub("%.?0*e", "e"):gsub("e([+-])0+(%d)", "e%1%2"):gsub("e%+", "e")
        return #e < #s and e or s
    end
    return (tostring(value):gsub("[^%w._+=-]+", "_"):gsub("^%.+", ""))
end

-- the product of all sweeps: a list of { name suffix, assignments }
local function expand(assignments)
    local last = {} -- how many swept fields share a last component
    for _, a in ipairs(assignments) do
        if is_sweep(a.key, a.value) then
            local short = a.key:match("[^.]+$")
            last[short] = (last[short] or 0) + 1
        end
    end
    local runs = { { suffix = {}, values = {} } }
    for _, a in ipairs(assignments) do
        local values, label = { a.value }, nil
        if is_sweep(a.key, a.value) then
            values = a.value
            local short = a.key:match("[^.]+$")
            label = last[short] > 1 and a.key or short
            -- runs of one experiment with several seeds are told apart by their folder
            if a.key == "seed" or a.key == "name" then label = nil end
        end
        local next_runs = {}
        for _, run in ipairs(runs) do
            for _, v in ipairs(values) do
                local r = { suffix = { table.unpack(run.suffix) }, values = { table.unpack(run.values) } }
                r.values[#r.values + 1] = { key = a.key, value = v }
                if label then r.suffix[#r.suffix + 1] = label .. "=" .. value_name(config.check(a.key, v)) end
                next_runs[#next_runs + 1] = r
            end
        end
        runs = next_runs
    end
    return runs
end

local function this_machine()
    local ok, core = pcall(require, "sagan.core")
    local found = false
    if ok and core.devices then
        for _, d in ipairs(core.devices()) do
            found = found or (type(d) == "table" and d.name or d) == "cuda"
        end
    end
    return { cuda = found }
end

local function apply(c, t)
    for _, pair in ipairs(config.flatten(t)) do config.set(c, pair.key, pair.value) end
end

--- Rules that no single field can state.
local function check_whole(c)
    for _, net in ipairs { "generator", "discriminator" } do
        local problem = plan.attention_problem(net, c.model.resolution, c.model.attention[net])
        if problem then error(("model.attention.%s: %s"):format(net, problem), 0) end
    end
    if c.train.batch % c.train.accumulate ~= 0 then
        error(("train.accumulate = %d does not divide train.batch = %d"):format(c.train.accumulate, c.train.batch), 0)
    end
    if c.model.d_head == "auxiliary" and not c.model.conditional then
        error("model.d_head=auxiliary names classes, so model.conditional must be true", 0)
    end
end

local function resolve(e, overrides, machine)
    local assignments = {}
    for _, pair in ipairs(config.flatten(e, RESERVED)) do assign(assignments, pair.key, pair.value) end
    check_all(e)
    local forced = {}
    for _, text in ipairs(overrides or {}) do
        local key, value = experiment.parse(text)
        check_value(key, value)
        if key == "recipe" then check_recipes(value) end
        assign(assignments, key, value)
        assign(forced, key, value)
    end

    -- one list of plain runs: arms times sweeps
    local runs = {}
    for _, arm in ipairs(e.arms or { {} }) do
        local list = { table.unpack(assignments) }
        for _, pair in ipairs(config.flatten(arm, { name = true })) do
            assign(list, pair.key, pair.value)
        end
        -- overrides hold in every arm
        for _, a in ipairs(forced) do assign(list, a.key, a.value) end
        for _, run in ipairs(expand(list)) do
            if arm.name then table.insert(run.suffix, 1, arm.name) end
            runs[#runs + 1] = run
        end
    end

    -- the scale is decided for all runs together, so that their results can be compared
    local sizes, wanted = {}, nil
    for _, run in ipairs(runs) do
        local c = config.defaults()
        local recipe = "paper"
        for _, a in ipairs(run.values) do
            if a.key == "recipe" then recipe = a.value end
        end
        apply(c, recipes.get(recipe).values)
        for _, a in ipairs(run.values) do config.set(c, a.key, a.value) end
        for _, net in ipairs { "generator", "discriminator" } do
            for _, s in ipairs(c.model.attention[net]) do sizes[#sizes + 1] = s end
        end
        run.recipe = recipe
        wanted = wanted or c
    end
    local profile, reason = wanted.profile, wanted.profile_reason
    if profile == "auto" then
        profile, reason = profiles.choose(machine or this_machine(), wanted.device, wanted.data)
    end

    local out, taken = {}, {}
    for i, run in ipairs(runs) do
        local c = config.defaults()
        apply(c, recipes.get(run.recipe).values)
        apply(c, profiles.list[profile].values(sizes, c))
        for _, a in ipairs(run.values) do config.set(c, a.key, a.value) end
        c.profile, c.profile_reason = profile, reason
        if #run.suffix > 0 then c.name = c.name .. "-" .. table.concat(run.suffix, "-") end
        check_whole(c)
        local id = c.name .. "/" .. c.seed
        if taken[id] then
            error(("two runs of this experiment would both be %s with seed %d"):format(c.name, c.seed), 0)
        end
        taken[id] = true
        out[i] = c
    end
    return out
end

--- The runs that an experiment stands for, each a complete configuration. Overrides come from a user, so what is wrong
--- with them is returned, not raised.
---@param e sagan.Experiment         or a plain table of fields
---@param overrides? string[]        "key=value", in order
---@param machine? {cuda: boolean}   what profile=auto decides by; this machine if absent
---@return sagan.Config[]? configs
---@return string? message
function experiment.resolve(e, overrides, machine)
    local ok, result = pcall(resolve, e, overrides, machine)
    if not ok then return nil, result end
    return result
end

--- Combinations of choices that are known to fail or to compare badly, as sentences.
---@param c sagan.Config
---@return string[]
function experiment.warnings(c)
    local out = {}
    local sn = c.model.spectral_norm
    if c.loss == "wasserstein" and not sn.discriminator then
        out[#out + 1] = "loss=wasserstein without spectral norm in the discriminator: nothing bounds its slope"
    end
    if c.train.d_steps == 1 and sn.discriminator and not sn.generator then
        out[#out + 1] = "one discriminator step and no spectral norm in the generator: the paper saw this collapse"
    end
    if not c.model.conditional and c.train.d_steps == 1 then
        out[#out + 1] = "unconditional with one discriminator step: reported to collapse; train.d_steps=5 held"
    end
    if sn.cbn and sn.generator then
        out[#out + 1] = "spectral norm on the conditional batch-norm tables bounds every class's gains"
    end
    if c.optimizer.lr_d < c.optimizer.lr_g then
        out[#out + 1] = "the discriminator's rate is below the generator's: the reverse of the paper's two time scales"
    end
    return out
end

return setmetatable(experiment, {
    __call = function(_, t)
        local e = mark(t)
        return e
    end,
})
