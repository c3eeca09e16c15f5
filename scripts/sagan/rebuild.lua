--- rebuild.lua - the state of a run after any of its steps, in memory: the nearest checkpoint before it, or the seed, and
--- from there the very steps that the run did, with the fields that were changed while it ran. The folder is only read and
--- no lock is taken, so a run that trains goes on.
local core = require "sagan.core"
local checkpoint = require "sagan.checkpoint"
local fields = require "sagan.fields"
local json = require "sagan.json"
local live = require "sagan.live"
local progress = require "sagan.progress"
local run_folder = require "sagan.run_folder"
local run_setup = require "sagan.run_setup"

local rebuild = {}

local PATIENCE <const> = 2 -- seconds before a line says how far it is

---@class sagan.Rebuilt
---@field path string           the run folder
---@field trainer sagan.Trainer at some step; it has no folder and no log
---@field data sagan.TrainingData
---@field from integer          the step that it was read at; 0: it was made from the seed
---@field changes sagan.Change[]  all that the run is known to have seen
---@field device string
local Rebuilt = {}
Rebuilt.__index = Rebuilt

--- The changes of fields in a run, in their order: the log has them; so do the checkpoints, if the log is gone.
local function changes_of(folder, infos)
    local found, known = {}, {}
    local function add(change)
        local key = json.encode(live.row(change))
        if known[key] or not live.fields[change.field] then return end
        known[key] = true
        found[#found + 1] = { step = change.step, field = change.field, old = change.old, new = change.new, place = #found }
    end
    for line in (core.system.read(folder.path .. "/log.jsonl") or ""):gmatch("[^\n]+") do
        local row = line:find('"set"', 1, true) and json.decode(line)
        if type(row) == "table" and row.event == "set" and math.type(row.step) then add(row) end
    end
    for _, info in ipairs(infos) do
        for _, change in ipairs(info.changes) do add(change) end
    end
    table.sort(found, function(a, b)
        if a.step ~= b.step then return a.step < b.step end
        return a.place < b.place
    end)
    for _, change in ipairs(found) do change.place = nil end
    return found
end

--- Calls f as the run computes: on its device, with its way of convolving.
function Rebuilt:as_the_run(f, ...)
    local device = core.device()
    core.device(self.device)
    local winograd, tf32 = core.winograd(), core.tf32()
    local _ <close> = setmetatable({}, { __close = function()
        core.winograd(winograd)
        core.tf32(tf32)
        core.device(device)
    end })
    core.winograd(self.config.winograd)
    run_setup.precision(self.config.precision)
    return f(...)
end

--- A trainer at the newest usable checkpoint of at most this step.
local function start(self, folder, step)
    local Trainer = require "sagan.trainer"
    local damaged, infos, chosen = {}, {}, nil
    for _, candidate in ipairs(folder:checkpoints()) do
        local info, message = checkpoint.info(candidate.path)
        if info then infos[#infos + 1] = info end
        if candidate.step <= step and not chosen then
            if info and info.data_hash ~= self.data.hash then
                return nil, ("%s was trained on other data than %s is now"):format(candidate.path, self.data.name)
            end
            if info then
                self.trainer = Trainer.new(info.config, self.data)
                local done, why = checkpoint.load(self.trainer, candidate.path)
                if done then chosen = info end
                message = why
            end
            if not chosen then damaged[#damaged + 1] = tostring(message) end
        end
    end
    self.changes = changes_of(folder, infos)
    if chosen then
        local known = {}
        for _, change in ipairs(chosen.changes) do known[json.encode(live.row(change))] = true end
        self.ahead = {}
        for _, change in ipairs(self.changes) do
            if not known[json.encode(live.row(change))] then self.ahead[#self.ahead + 1] = change end
        end
        self.trainer.changes = table.move(chosen.changes, 1, #chosen.changes, 1, {})
        self.trainer.step, self.trainer.d_steps_done = chosen.step, self.trainer.d_clock:totable()[1]
        self.from = chosen.step
        return true
    end
    local origin = folder:origin()
    if origin then
        local words = "%s is a fork at step %d of %s, and has no usable checkpoint up to step %d (checkpoint.keep)%s"
        return nil, words:format(self.path, origin.at, origin.from, step, damaged[1] and ": " .. damaged[1] or "")
    end
    self.trainer, self.from = Trainer.new(self.config, self.data), 0
    self.ahead = table.move(self.changes, 1, #self.changes, 1, {})
    return true
end

--- Does the steps up to this one.
---@param step integer  at least the trainer's
function Rebuilt:advance(step)
    local trainer, bar = self.trainer, nil
    local started = core.system.now()
    self:as_the_run(function()
        while trainer.step < step do
            self:apply_changes()
            trainer:iterate()
            if not bar and core.system.now() - started > PATIENCE then
                bar = progress.new { total = step, start = trainer.step }
            end
            if bar then bar:show(trainer.step, "steps again") end
        end
        self:apply_changes()
    end)
    if bar then bar:finish() end
end

--- What was changed when the run was at this step. Fields that say how long and how loudly a run goes on change no bit.
function Rebuilt:apply_changes()
    local trainer = self.trainer
    while self.ahead[1] and self.ahead[1].step <= trainer.step do
        local change = table.remove(self.ahead, 1)
        if not fields.by_key[change.field].free then live.put(trainer, change.field, change.new) end
        table.insert(trainer.changes, change)
    end
end

--- Ends the loader's thread and closes the data set.
function Rebuilt:close()
    if self.trainer and self.trainer.loader then self.trainer.loader:close() end
    if self.data then self.data.set:close() end
    self.trainer, self.data = nil, nil
end
Rebuilt.__close = Rebuilt.close

--- The state after a step.
---@param path string   a run folder
---@param step integer  from 0
---@return sagan.Rebuilt? rebuilt  to be closed
---@return string? message
function rebuild.at(path, step)
    local folder, message = run_folder.open(path)
    if not folder then return nil, message end
    local config
    config, message = folder:config()
    if not config then return nil, message end
    local self = setmetatable({ path = folder.path, config = config }, Rebuilt)
    self.device, message = run_setup.device(config)
    if not self.device then return nil, message end
    self.data, message = run_setup.data(config)
    if not self.data then return nil, message end
    local ok, good, why = pcall(self.as_the_run, self, start, self, folder, step)
    if not ok or not good then
        self:close()
        if not ok then error(good, 0) end
        return nil, why
    end
    self.config = self.trainer.config
    self.trainer.loader = self.data.set:loader { batch = self.config.train.batch, seed = self.config.seed }
    self:advance(step)
    return self
end

return rebuild
