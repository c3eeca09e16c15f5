--- run.lua - all that one run folder tells: configuration, log, ledger of scores, machines, newest pictures. What is missing
--- or damaged becomes a sentence in `problems`; nothing is made up for it.
local system = require("sagan.core").system
local json = require "sagan.json"
local run_folder = require "sagan.run_folder"
local format = require "sagan.report.format"

local run = {}

---@class sagan.report.Run
---@field path string
---@field config sagan.Config?
---@field rows table[]          of log.jsonl, steps growing
---@field last integer          step of the last row; 0
---@field seconds number?       of training, as the log has it
---@field speed number?         images a second, median
---@field ledger table[]        entries of scores.jsonl
---@field machines sagan.Machine[]
---@field pictures {path: string, kind: string, step: integer}[]  in samples/, kinds raw and ema, newest first
---@field attention {path: string, step: integer}?  newest sheet
---@field data_picture string?  path
---@field problems string[]

-- Objects of a file with one a line; those that cannot be read are counted.
local function lines_of(path, good)
    local rows, bad = {}, 0
    for line in (system.read(path) or ""):gmatch("[^\n]+") do
        local row = json.decode(line)
        if type(row) == "table" and good(row) then rows[#rows + 1] = row else bad = bad + 1 end
    end
    return rows, bad
end

local function is_step(value) return math.tointeger(value) ~= nil and value >= 0 end

local function read_pictures(self)
    for _, name in ipairs(system.list(self.path .. "/samples") or {}) do
        local kind, step = name:match("^(%a+)%-(%d+)%.png$")
        if kind == "raw" or kind == "ema" then
            table.insert(self.pictures, { path = self.path .. "/samples/" .. name, kind = kind,
                step = math.tointeger(tonumber(step)) })
        elseif name == "data.png" then
            self.data_picture = self.path .. "/samples/data.png"
        end
    end
    table.sort(self.pictures, function(a, b)
        if a.step ~= b.step then return a.step > b.step end
        return a.kind < b.kind
    end)
    for _, name in ipairs(system.list(self.path .. "/attention") or {}) do
        local step = math.tointeger(tonumber(name:match("^G%-(%d+)%.png$")))
        if step and (not self.attention or step > self.attention.step) then
            self.attention = { path = self.path .. "/attention/" .. name, step = step }
        end
    end
end

-- What a row's speed was over: the steps since the row before.
local function read_times(self)
    local batch = self.config and self.config.train.batch
    local speeds, seconds, before = {}, 0, 0
    for _, row in ipairs(self.rows) do
        local speed = row["images_per_second"]
        if format.is_finite(speed) and speed > 0 then
            speeds[#speeds + 1] = speed
            if batch then seconds = seconds + (row.step - before) * batch / speed end
        end
        before = row.step
    end
    if #speeds == 0 then return end
    table.sort(speeds)
    self.speed = (speeds[(#speeds + 1) // 2] + speeds[#speeds // 2 + 1]) / 2
    self.seconds = batch and seconds or nil
end

--- Reads a run folder.
---@param path string
---@return sagan.report.Run
function run.read(path)
    local self = { path = path, pictures = {}, problems = {} }
    local function trouble(...) self.problems[#self.problems + 1] = string.format(...) end
    local config, message = run_folder.at(path):config()
    if config then
        self.config = config
    elseif system.stat(path .. "/config.lua") then
        trouble("config.lua cannot be read: %s", message)
    end
    local bad
    self.rows, bad = lines_of(path .. "/log.jsonl", function(row) return is_step(row.step) end)
    if bad > 0 then trouble("%s of log.jsonl cannot be read", format.count(bad, "line")) end
    self.ledger, bad = lines_of(path .. "/scores.jsonl", function(row)
        return is_step(row.step) and type(row.fingerprint) == "table" and type(row.scores) == "table"
    end)
    if bad > 0 then trouble("%s of scores.jsonl cannot be read", format.count(bad, "line")) end
    self.machines = lines_of(path .. "/machine.jsonl", function(row) return type(row.version) == "string" end)
    table.sort(self.rows, function(a, b) return a.step < b.step end)
    self.last = #self.rows > 0 and math.tointeger(self.rows[#self.rows].step) or 0
    read_times(self)
    read_pictures(self)
    return self
end

--- The names of values in the last row that are no finite numbers, sorted: how a run that has no record of its own ended.
---@param self sagan.report.Run
---@return string[]
function run.not_finite(self)
    local names = {}
    for name, value in pairs(self.rows[#self.rows] or {}) do
        if value == "nan" or value == "inf" or value == "-inf" then names[#names + 1] = ("%s is %s"):format(name, value) end
    end
    table.sort(names)
    return names
end

return run
