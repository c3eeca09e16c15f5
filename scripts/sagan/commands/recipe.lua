--- sagan-lua recipe - lists, shows and compares recipes; finds which of their differences moves a score.
local ablation = require "sagan.ablation"
local config = require "sagan.config"
local experiment = require "sagan.experiment"
local fields = require "sagan.fields"
local options = require "sagan.options"
local recipes = require "sagan.recipes"
local bisect = require "sagan.bisect"

local HELP = [[
sagan-lua recipe list
sagan-lua recipe show A [field=value ...]
sagan-lua recipe diff A B [field=value ...]
sagan-lua recipe bisect A B [field=value ...] [options]

list     every recipe and what it is
show     every field of A; a star marks what differs from the paper's
diff     the fields in which A and B differ, with both values
bisect   trains the way from A to B, one field (or one group of fields that belong together) more from B at each step, all
         with the same seeds, and names the steps that moved the score

field=value holds for A and B, as in profile=small or model.resolution=32. list, show and diff take the recipes at their
authors' own scale (profile=paper), bisect at a small one (profile=quick), where the profile, not the recipe, decides the
batch, the steps and the size of the networks.

Options of bisect
  --score FILE      a Lua file that returns function(run) -> { name = value } (default: the losses, which say little about
                    pictures)
  --seeds N         seeds 1 to N (default 3; seed=4,5,6 chooses others)
  --dry-run         print the plan, and stop
  and --jobs N, --print-commands, --only STEP, --table, --rescore, --fresh, --runs DIR: as for studies
  (sagan-lua STUDY.lua --help, which says what a run is)

The same command again continues an interrupted bisect. It is a study: runs/bisect-A-B/study.json has every number.

Examples
  sagan-lua recipe diff studiogan biggan_pytorch
  sagan-lua recipe diff paper tf_official profile=quick
  sagan-lua recipe bisect studiogan biggan_pytorch --dry-run
  sagan-lua recipe bisect studiogan biggan_pytorch attention=16 model.resolution=32 data=cifar10:PATH --score fid.lua --jobs 4]]

local recipe = {}

local function fail(...)
    io.stderr:write("sagan-lua recipe: ", string.format(...), "\n")
    return 1
end

-- Words of the form key=value, apart from the others.
local function split(words)
    local rest, overrides = {}, {}
    for _, word in ipairs(words) do
        local list = word:match("^[%w_.]+=") and overrides or rest
        list[#list + 1] = word
    end
    return rest, overrides
end

-- Complete configurations of these recipes, at one scale for all.
local function resolve(names, overrides, profile)
    for _, name in ipairs(names) do
        local ok, message = pcall(recipes.get, name)
        if not ok then return nil, message end
    end
    return bisect.resolve(names, overrides, profile)
end

local function list()
    for _, name in ipairs(recipes.names) do
        local text, width = recipes.get(name).doc, 100
        local line, first = "", true
        local function flush()
            print(("%-18s %s"):format(first and name or "", line))
            line, first = "", false
        end
        for word in text:gmatch("%S+") do
            if #line + #word >= width then flush() end
            line = line == "" and word or line .. " " .. word
        end
        flush()
    end
    return 0
end

local function literal(value) return value == nil and "none" or config.literal(value) end

local function wide(list_of_keys)
    local n = 0
    for _, key in ipairs(list_of_keys) do n = math.max(n, #key) end
    return n
end

local function show(name, overrides)
    local c, message = resolve({ name }, overrides, "paper")
    if not c then return fail("%s", message) end
    local paper = assert(experiment.resolve({ recipe = "paper", profile = "paper" }))[1]
    local keys = {}
    for _, f in ipairs(fields.list) do
        if bisect.is_science(f) then keys[#keys + 1] = f.key end
    end
    local width = wide(keys)
    print(("%s: %s"):format(name, recipes.get(name).doc))
    for _, key in ipairs(keys) do
        local value, papers = literal(config.get(c[1], key)), literal(config.get(paper, key))
        print(("%s %-" .. width .. "s  %-14s %s"):format(value ~= papers and "*" or " ", key, value, fields.by_key[key].doc))
    end
    return 0
end

local function diff(a, b, overrides)
    local c, message = resolve({ a, b }, overrides, "paper")
    if not c then return fail("%s", message) end
    local rows = { { "", a, b } }
    for _, d in ipairs(bisect.differences(c[1], c[2])) do rows[#rows + 1] = { d.field, literal(d.a), literal(d.b) } end
    if #rows == 1 then
        print(("%s and %s are the same at this scale"):format(a, b))
        return 0
    end
    local w1, w2 = 0, 0
    for _, row in ipairs(rows) do w1, w2 = math.max(w1, #row[1]), math.max(w2, #row[2]) end
    for _, row in ipairs(rows) do print(("%-" .. w1 .. "s  %-" .. w2 .. "s  %s"):format(table.unpack(row))) end
    return 0
end

local BISECT_OPTIONS <const> = {
    ["--score"] = { "score", "text" }, ["--seeds"] = { "seeds", "count", 1000 }, ["--dry-run"] = { "dry_run" },
    ["--jobs"] = { "jobs", "count", 1024 }, ["--print-commands"] = { "print_commands" }, ["--only"] = { "only", "text" },
    ["--table"] = { "table" }, ["--rescore"] = { "rescore" }, ["--fresh"] = { "fresh" }, ["--runs"] = { "runs", "text" },
}
-- in the form that a study takes
local PASSED_ON <const> = { "dry_run", "jobs", "print_commands", "only", "table", "score", "rescore", "fresh", "runs" }

local function run_bisect(a, b, overrides, o)
    if o.score then -- before anything is printed
        local score, message = require("sagan.study").load_score(o.score)
        if not score then return fail("%s", message) end
    end
    local ok, message = resolve({ a, b }, overrides, "quick")
    if not ok then return fail("%s", message) end
    local study, why = bisect.study(a, b, { overrides = overrides, seeds = o.seeds })
    if not study then return fail("%s", why) end
    if not (o.only or o.print_commands or o.table) then
        for _, line in ipairs(bisect.plan_lines(study)) do print(line) end
    end
    -- the fields are in the arms already; what is left for the study are the seeds and how it is run
    local seed_words, command = {}, { "recipe", "bisect", a, b }
    for _, override in ipairs(overrides) do
        local to = override:find("^seed=") and seed_words or command
        to[#to + 1] = override
    end
    local words = table.move(seed_words, 1, #seed_words, 1, {})
    if o.seeds then command[#command + 1] = "--seeds=" .. o.seeds end
    for _, key in ipairs(PASSED_ON) do
        if o[key] then words[#words + 1] = "--" .. key:gsub("_", "-") .. (o[key] ~= true and "=" .. o[key] or "") end
    end
    local code = ablation.run(study, words, command)
    if not (o.dry_run or o.only or o.print_commands) then
        local _, seeds = require("sagan.runner").parse(seed_words)
        local plan = assert(ablation.plan(study, seeds, require("sagan.run_folder").root(o.runs)))
        for _, line in ipairs(bisect.verdict_lines(plan)) do print(line) end
    end
    return code
end

---@param args string[]
---@return integer exit code
function recipe.main(args)
    local rest, overrides = split(args)
    local o, message = options.parse(rest, BISECT_OPTIONS)
    if not o then return fail("%s", message) end
    local what, a, b = o[1], o[2], o[3]
    if o.help or not what then
        print(HELP)
        return o.help and 0 or 1
    end
    local wanted = ({ list = 1, show = 2, diff = 3, bisect = 3 })[what]
    if not wanted then
        local near = require "sagan.nearest"(what, { "list", "show", "diff", "bisect" })
        return fail("there is no 'recipe %s'%s (--help)", what, near and ("; did you mean '%s'?"):format(near) or "")
    end
    if #o ~= wanted then
        return fail("recipe %s takes %s", what, ({ "no recipe", "one recipe", "two recipes" })[wanted])
    end
    if what == "list" then return list() end
    if what == "show" then return show(a, overrides) end
    if what == "diff" then return diff(a, b, overrides) end
    return run_bisect(a, b, overrides, o)
end

recipe.summary = "list, show, compare and bisect recipes"
recipe.help = HELP

return recipe
