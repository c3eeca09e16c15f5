--- run_folder.lua - where a run lives: runs/<name>/seed-<n>/ with config.lua, log.jsonl, events, samples/, attention/,
--- checkpoints/. Decides whether a run begins, continues or is refused; holds the lock while a process trains in it.
local system = require("sagan.core").system
local config_module = require "sagan.config"
local json = require "sagan.json"
local live = require "sagan.live"

local run_folder = {}

---@class sagan.RunFolder
---@field path string
---@field lock any? closes with the process, however that ends
local RunFolder = {}
RunFolder.__index = RunFolder

--- The first field that forbids going on from one configuration with the other. What is free to change says how long and
--- how loudly a run goes on, not what a step computes; the number of steps does enter the rates if they decay.
local function forbidden_change(old, new)
    for _, change in ipairs(config_module.diff(old, new)) do
        if not change.free or (change.field == "train.steps" and new.train.lr_decay > 0) then return change end
    end
end

--- The root of all runs: the argument, else $SAGAN_RUNS, else ./runs.
---@param root string?
---@return string
function run_folder.root(root)
    return root or system.env("SAGAN_RUNS") or "runs"
end

--- Opens an existing folder for reading: runs/feat32 (its only or first seed) or runs/feat32/seed-1 itself.
---@param path string
---@return sagan.RunFolder? folder, string? message
function run_folder.open(path)
    path = path:gsub("/+$", "")
    local function has_config(p) return system.stat(p .. "/config.lua") ~= nil end
    if not has_config(path) then
        local seeds = {}
        for _, name in ipairs(system.list(path) or {}) do
            if name:match("^seed%-") and has_config(path .. "/" .. name) then seeds[#seeds + 1] = name end
        end
        table.sort(seeds)
        if #seeds == 0 then
            if not system.stat(path) then return nil, path .. ": no such run folder" end
            return nil, path .. ": not a run folder (no config.lua in it)"
        end
        path = path .. "/" .. seeds[1]
    end
    return setmetatable({ path = path }, RunFolder)
end

--- The configuration that the folder was made with.
---@return table? config, string? message
function RunFolder:config()
    local text, message = system.read(self.path .. "/config.lua")
    if not text then return nil, message end
    local config, why = config_module.parse(text, self.path .. "/config.lua")
    if not config then return nil, why end
    return config
end

--- Where the run of the folder comes from, if it is a fork (sagan/fork.lua).
---@return {at: integer, from: string}?
function RunFolder:origin()
    local text = system.read(self.path .. "/fork.json")
    local origin = text and json.decode(text)
    return type(origin) == "table" and math.type(origin.at) and origin or nil
end

--- Why a run with this configuration cannot go on in the folder; nil if it can, or if nothing is there yet.
---@param config table resolved
---@return string? message
function RunFolder:conflict(config)
    if not system.stat(self.path .. "/config.lua") then return nil end
    local old, broken = self:config()
    if not old then return ("%s; --fresh starts over"):format(broken) end
    -- what the data set decides may not be known yet; the folder has it
    local change = forbidden_change(old, config_module.with_data(config, old.model))
    if not change then return nil end
    return ("%s holds another experiment: %s was %s, now %s; use another name=..., or --fresh to start over")
        :format(self.path, change.field, config_module.literal(change.a), config_module.literal(change.b))
end

--- The folder at a path, which need not exist.
---@param path string
---@return sagan.RunFolder
function run_folder.at(path) return setmetatable({ path = path }, RunFolder) end

--- Prepares the folder of a configuration: makes it, locks it, and checks that it belongs to the same experiment.
---@param config table resolved
---@param options {root: string?, fresh: boolean?}
---@return sagan.RunFolder? folder, string? message, string? code  "locked": another process is at it
function run_folder.create(config, options)
    local path = ("%s/%s/seed-%d"):format(run_folder.root(options.root), config.name, config.seed)
    local self = setmetatable({ path = path }, RunFolder)
    local ok, message = system.mkdir(path)
    if not ok then return nil, message end
    local lock, why, code = system.lock(path .. "/lock")
    if not lock then
        if code ~= "state" then return nil, why end
        return nil, path .. ": another process is training in this folder; wait until it ends, talk to it (sagan-lua attach), "
            .. "or choose another name=...", "locked"
    end
    self.lock = lock
    self:remove_leftovers()
    if options.fresh then
        ok, message = self:clear()
        if not ok then return nil, message end
    end
    local conflict = self:conflict(config)
    if conflict then return nil, conflict end
    self.resumed = system.stat(path .. "/config.lua") ~= nil
    for _, sub in ipairs { "samples", "attention", "checkpoints" } do
        ok, message = system.mkdir(path .. "/" .. sub)
        if not ok then return nil, message end
    end
    ok, message = system.write_atomic(path .. "/config.lua", config_module.serialize(config))
    if not ok then return nil, message end
    return self
end

--- Removes what writers left unfinished when they were killed. Only for the holder of the lock: nobody else writes here.
function RunFolder:remove_leftovers()
    for _, sub in ipairs { "", "/samples", "/attention", "/checkpoints" } do
        for _, name in ipairs(system.list(self.path .. sub) or {}) do
            if name:match("^%..+%.tmp%-%d+%-%d+$") then system.remove(self.path .. sub .. "/" .. name) end
        end
    end
end

--- Removes what a run wrote, and nothing else.
function RunFolder:clear()
    for _, sub in ipairs { "samples", "attention", "checkpoints", "events" } do
        for _, name in ipairs(system.list(self.path .. "/" .. sub) or {}) do
            local ok, message = system.remove(self.path .. "/" .. sub .. "/" .. name)
            if not ok then return nil, message end
        end
    end
    for _, name in ipairs(system.list(self.path) or {}) do
        if name:match("^alarm%-%d+%.jsonl$") then
            local ok, message = system.remove(self.path .. "/" .. name)
            if not ok then return nil, message end
        end
    end
    for _, name in ipairs { "config.lua", "fork.json", "log.jsonl", "machine.jsonl", "scores.jsonl", "report.html" } do
        if system.stat(self.path .. "/" .. name) then
            local ok, message = system.remove(self.path .. "/" .. name)
            if not ok then return nil, message end
        end
    end
    return true
end

--- Checkpoints, newest first: { step =, path = }.
---@return {step: integer, path: string}[]
function RunFolder:checkpoints()
    local found = {}
    for _, name in ipairs(system.list(self.path .. "/checkpoints") or {}) do
        local step = name:match("^step%-(%d+)%.safetensors$")
        if step then found[#found + 1] = { step = tonumber(step), path = self.path .. "/checkpoints/" .. name } end
    end
    table.sort(found, function(a, b) return a.step > b.step end)
    return found
end

--- Drops log lines after `step`: what a killed run had logged beyond its last checkpoint is computed, and logged, again. The
--- changes of fields in it become those that the checkpoint knows of: a change just after it was lost with the process.
---@param step integer
---@param changes sagan.Change[]
---@return boolean? ok, string? message
function RunFolder:trim_log(step, changes)
    local path = self.path .. "/log.jsonl"
    local text = system.read(path)
    if not text then return true end
    local known, kept, dropped = {}, {}, false
    for _, change in ipairs(changes) do known[json.encode(live.row(change)) .. "\n"] = true end
    for line in text:gmatch("[^\n]*\n?") do
        if line ~= "" then
            local row = line:sub(-1) == "\n" and json.decode(line)
            local in_time = type(row) == "table" and (math.tointeger(row.step) or step + 1) <= step
            if in_time and (row.event ~= "set" or known[line]) then
                kept[#kept + 1] = line
                known[line] = nil
            else
                dropped = true
            end
        end
    end
    for _, change in ipairs(changes) do
        local line = json.encode(live.row(change)) .. "\n"
        if known[line] then
            kept[#kept + 1] = line
            dropped = true
        end
    end
    if not dropped then return true end
    return system.write_atomic(path, table.concat(kept))
end

return run_folder
