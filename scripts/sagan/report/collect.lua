--- collect.lua - finds what a report is about: studies (study.json), runs of experiments (seed-*/config.lua) and single runs,
--- in any mixture of folders. A study is a group of its own; other runs are one group for each folder that holds them.
local system = require("sagan.core").system
local json = require "sagan.json"
local study_cell = require "sagan.study_cell"
local run_reader = require "sagan.report.run"
local format = require "sagan.report.format"

local collect = {}

---@class sagan.report.Cell  one arm with one seed
---@field arm string
---@field seed integer
---@field run sagan.report.Run?      nil: no such folder
---@field record sagan.CellRecord?   only in studies
---@field outcome "done"|"diverged"|"failed"|"open"|"none"
---@field reason string?             for all but "done"

---@class sagan.report.Group
---@field kind "study"|"runs"
---@field name string
---@field question string
---@field path string
---@field arms {name: string, index: integer, question: string?}[]  index: colour and shape
---@field seeds integer[]
---@field cells sagan.report.Cell[]                                 arm by arm
---@field by table<string, table<integer, sagan.report.Cell>>
---@field study table?            study.json
---@field problems string[]

local function base_name(path)
    local resolved = path:match("([^/]+)/*$")
    return (not resolved or resolved == "." or resolved == "..") and "runs" or resolved
end

local function is_folder(path)
    local stat = system.stat(path)
    return stat and stat.type == "folder"
end

-- seed-<n> folders with a configuration, by seed.
local function seeds_in(path)
    local found = {}
    for _, name in ipairs(system.list(path) or {}) do
        local seed = math.tointeger(tonumber(name:match("^seed%-(%d+)$")))
        if seed and system.stat(("%s/%s/config.lua"):format(path, name)) then
            found[#found + 1] = { seed = seed, path = path .. "/" .. name }
        end
    end
    table.sort(found, function(a, b) return a.seed < b.seed end)
    return found
end

-- How far a run has come, and what is to be said if that is not to its end.
local function judge(cell)
    local record, run = cell.record, cell.run
    if record and (record.outcome == "diverged" or record.outcome == "failed") then
        return record.outcome, tostring(record.reason or record.outcome)
    end
    if not run then return "none", "there is no run of this arm with this seed" end
    local wild = run_reader.not_finite(run)
    if #wild > 0 then return "diverged", ("step %d: %s; the run stopped there"):format(run.last, format.list(wild)) end
    if record and record.outcome == "done" then return "done" end
    local steps = run.config and run.config.train.steps or record and record.steps
    if not steps then return "open", "its configuration cannot be read, so nobody knows how long it was to be" end
    if run.last < steps then
        return "open", ("stands at step %s of %s: it is still training, or was stopped"):format(format.number(run.last),
            format.number(steps))
    end
    if record then return "open", "trained to its end, but not yet scored" end
    return "done"
end

local function finish(group)
    group.by = {}
    for _, cell in ipairs(group.cells) do
        cell.outcome, cell.reason = judge(cell)
        group.by[cell.arm] = group.by[cell.arm] or {}
        group.by[cell.arm][cell.seed] = cell
        for _, problem in ipairs(cell.run and cell.run.problems or {}) do
            group.problems[#group.problems + 1] = ("%s, seed %d: %s"):format(cell.arm, cell.seed, problem)
        end
    end
    return group
end

------------------------------------------------------------------------------------------------------ studies

-- A study.json that has all that is used of it; else nil and what it lacks.
local function read_study(path)
    local text, message = system.read(path .. "/study.json")
    if not text then return nil, message end
    local s, why = json.decode(text)
    if type(s) ~= "table" then return nil, ("%s/study.json is damaged: %s"):format(path, why or "no object") end
    local function lacks(what) return nil, ("%s/study.json is damaged: no %s"):format(path, what) end
    if type(s.study) ~= "string" then return lacks "name" end
    if type(s.arms) ~= "table" or #s.arms == 0 then return lacks "arms" end
    for _, arm in ipairs(s.arms) do
        if type(arm) ~= "table" or type(arm.name) ~= "string" then return lacks "names of arms" end
    end
    if type(s.seeds) ~= "table" or #s.seeds == 0 then return lacks "seeds" end
    for _, seed in ipairs(s.seeds) do
        if math.type(seed) ~= "integer" then return lacks "seeds" end
    end
    if type(s.rows) ~= "table" or type(s.cells) ~= "table" then return lacks "results" end
    if math.type(s.steps) ~= "integer" then return lacks "steps" end
    return s
end

local function study_group(path)
    local s, message = read_study(path)
    if not s then return nil, message end
    local group = {
        kind = "study", name = s.study, question = type(s.question) == "string" and s.question or "", path = path, study = s,
        arms = {}, seeds = s.seeds, cells = {}, problems = {},
    }
    local recorded = {}
    for _, r in ipairs(s.cells) do
        if type(r) == "table" and r.arm and r.seed then recorded[("%s\0%s"):format(r.arm, r.seed)] = r end
    end
    for i, arm in ipairs(s.arms) do
        group.arms[i] = { name = arm.name, index = i - 1 }
        for _, seed in ipairs(s.seeds) do
            local folder = ("%s/%s/seed-%d"):format(path, arm.name, seed)
            -- cell.json is written before study.json, and by other processes too
            local config = { train = { steps = s.steps } }
            local record = study_cell.read { arm = arm.name, seed = seed, path = folder, config = config }
            local old = recorded[("%s\0%s"):format(arm.name, seed)]
            if #record.scores == 0 and record.outcome == "open" and type(old) == "table" and type(old.scores) == "table" then
                record = old
            end
            local cell = { arm = arm.name, seed = seed, record = record }
            if not arm.name:find("/", 1, true) and is_folder(folder) then cell.run = run_reader.read(folder) end
            table.insert(group.cells, cell)
        end
    end
    return finish(group)
end

--------------------------------------------------------------------------------------------------- other runs

-- One group of the runs {arm, seed, path} that were found beside each other.
local function runs_group(name, path, found)
    local group = { kind = "runs", name = name, question = "", path = path, arms = {}, seeds = {}, cells = {}, problems = {} }
    local known, seeds, questions = {}, {}, {}
    for _, f in ipairs(found) do
        if not known[f.arm] then
            known[f.arm] = {}
            table.insert(group.arms, { name = f.arm })
        end
        known[f.arm][f.seed] = run_reader.read(f.path)
        local config = known[f.arm][f.seed].config
        if config and config.question ~= "" then questions[f.arm] = config.question end
        if not seeds[f.seed] then
            seeds[f.seed] = true
            table.insert(group.seeds, f.seed)
        end
    end
    table.sort(group.seeds)
    for i, arm in ipairs(group.arms) do
        arm.index, arm.question = i, questions[arm.name] -- none of them is the one that the others are compared with
        for _, seed in ipairs(group.seeds) do
            if known[arm.name][seed] then
                table.insert(group.cells, { arm = arm.name, seed = seed, run = known[arm.name][seed] })
            end
        end
    end
    if #group.arms == 1 then group.question = group.arms[1].question or "" end
    return finish(group)
end

local DEEPEST <const> = 3 -- runs/<study>/<arm>

-- Adds what is at a path: studies to groups, runs to loose.
local function search(path, depth, groups, loose)
    if system.stat(path .. "/study.json") then
        local group, message = study_group(path)
        if group then
            groups[#groups + 1] = group
            return
        end
        groups.problems[#groups.problems + 1] = message -- its runs are shown all the same
    end
    if system.stat(path .. "/config.lua") then
        local arm, seed = path:match("([^/]+)/seed%-(%d+)$")
        loose[#loose + 1] = { arm = arm or base_name(path), seed = math.tointeger(tonumber(seed)) or 0, path = path }
        return
    end
    local seeds = seeds_in(path)
    for _, s in ipairs(seeds) do loose[#loose + 1] = { arm = base_name(path), seed = s.seed, path = s.path } end
    if #seeds > 0 or depth == 0 then return end
    local inside = {}
    for _, name in ipairs(system.list(path) or {}) do
        if is_folder(path .. "/" .. name) then search(path .. "/" .. name, depth - 1, groups, inside) end
    end
    if #inside > 0 then groups[#groups + 1] = runs_group(base_name(path), path, inside) end
end

--- All groups of the folders named.
---@param paths string[]
---@return sagan.report.Group[]? groups
---@return string? message
function collect.groups(paths)
    local groups, loose = { problems = {} }, {}
    for _, path in ipairs(paths) do
        path = #path > 1 and path:gsub("/+$", "") or path
        if not is_folder(path) then return nil, path .. ": no such folder" end
        local before = #groups + #loose
        search(path, DEEPEST, groups, loose)
        if #groups + #loose == before and #groups.problems == 0 then
            return nil, ("%s: nothing to report: there is no run (config.lua) and no study (study.json) in it"):format(path)
        end
    end
    if #loose > 0 then
        local same = true
        for _, f in ipairs(loose) do same = same and f.arm == loose[1].arm end
        groups[#groups + 1] = runs_group(same and loose[1].arm or "runs", paths[1], loose)
    end
    if #groups == 0 then return nil, groups.problems[1] end
    table.sort(groups, function(a, b)
        if a.kind ~= b.kind then return a.kind == "study" end
        return a.name < b.name
    end)
    groups[1].problems = table.move(groups.problems, 1, #groups.problems, #groups[1].problems + 1, groups[1].problems)
    return groups
end

return collect
