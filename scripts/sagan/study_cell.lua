--- study_cell.lua - one arm of a study with one seed: trains to each step that is scored, scores there, and keeps what came
--- of it in cell.json beside the run. Calling it again goes on where it stopped; what is finished is not done again.
local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"
local run_folder = require "sagan.run_folder"

local study_cell = {}

---@class sagan.CellRecord  cell.json
---@field arm string
---@field seed integer
---@field outcome "done"|"diverged"|"failed"|"open"  open: not at its end yet
---@field reason string?       why it failed, or how it diverged
---@field steps integer        train.steps when it was made
---@field seconds number       spent on it so far
---@field scores {share: number, step: integer, values: table<string, number>?, fingerprint: sagan.Fingerprint?, reason: string?}[]

local function blank(cell)
    return {
        arm = cell.arm, seed = cell.seed, outcome = "open", steps = cell.config.train.steps, seconds = 0, scores = json.array {},
    }
end

--- What is known of a cell. A record that cannot be read, or is of another number of steps, counts as none.
---@param cell sagan.Cell
---@return sagan.CellRecord
function study_cell.read(cell)
    local text = system.read(cell.path .. "/cell.json")
    local record = text and json.decode(text)
    if type(record) ~= "table" or type(record.scores) ~= "table" or record.steps ~= cell.config.train.steps then
        return blank(cell)
    end
    json.array(record.scores)
    return record
end

local function stage_of(record, stage)
    for _, s in ipairs(record.scores) do
        if s.step == stage.step then return s end
    end
end

--- Whether nothing is left to do in a cell. A divergence is a result; a failure is tried again.
---@param cell sagan.Cell
---@param record sagan.CellRecord
---@return boolean
function study_cell.is_finished(cell, record)
    if record.outcome == "diverged" then return true end
    if record.outcome ~= "done" then return false end
    for _, stage in ipairs(cell.stages) do
        if not stage_of(record, stage) then return false end
    end
    return true
end

local function rows_of_log(path, last)
    local rows = {}
    for line in (system.read(path .. "/log.jsonl") or ""):gmatch("[^\n]+") do
        local row = json.decode(line)
        local measured = type(row) == "table" and math.type(row.step) and not row.event
        if measured and row.step <= last then rows[#rows + 1] = row end
    end
    return rows
end

local function finite(values)
    for name, value in pairs(values) do
        if type(name) ~= "string" or not math.type(value) or value ~= value or math.abs(value) == math.huge then
            return nil, ("score %s = %s is not a finite number"):format(tostring(name), tostring(value))
        end
    end
    return values
end

-- The scores of the state that the run is in now, which must be that of the stage.
local function score(study, cell, stage)
    local newest = run_folder.at(cell.path):checkpoints()[1]
    if not newest or newest.step ~= stage.step then
        return nil, ("the run stands at step %s, past step %d"):format(newest and newest.step or "?", stage.step), nil, true
    end
    local run = {
        path = cell.path, arm = cell.arm, seed = cell.seed, step = stage.step, config = cell.config,
        checkpoint = newest.path, log = rows_of_log(cell.path, stage.step),
    }
    local ok, values, why, fingerprint = xpcall(study.score or require("sagan.evaluation").of_run, require "sagan.traceback", run)
    if not ok then
        if values:find("interrupted", 1, true) then error("interrupted", 0) end
        return nil, "score: " .. values
    end
    if type(values) ~= "table" then return nil, "score: " .. tostring(why or "it returned no table") end
    local good, problem = finite(values)
    return good, problem, fingerprint
end

--- Trains and scores what is left of a cell.
---@param study sagan.Study
---@param cell sagan.Cell
---@param options {root: string, fresh: boolean?, rescore: boolean?, position: string}  rescore: the last stage again
---@return sagan.CellRecord record
---@return boolean interrupted
function study_cell.run(study, cell, options)
    local runner = require "sagan.runner"
    local record = options.fresh and blank(cell) or study_cell.read(cell)
    if options.fresh then system.remove(cell.path .. "/cell.json") end
    if options.rescore and #record.scores == #cell.stages then table.remove(record.scores) end
    record.outcome, record.reason = "open", nil
    local before, started = record.seconds, system.now()
    local function keep(outcome, reason)
        record.outcome, record.reason, record.seconds = outcome, reason, before + system.now() - started
        local ok, message = system.mkdir(cell.path)
        if ok then ok, message = system.write_atomic(cell.path .. "/cell.json", json.encode(record) .. "\n") end
        if not ok then record.outcome, record.reason = "failed", message end
        collectgarbage() -- the networks of this stage
        return record, false
    end
    local fresh = options.fresh
    for i, stage in ipairs(cell.stages) do
        if not stage_of(record, stage) then
            local outcome, why, code = runner.run_one(cell.config, { root = options.root, fresh = fresh, last = stage.step },
                options.position)
            fresh = false
            if code == "locked" then -- the record belongs to the process that is at it
                record.outcome, record.reason = "failed", why
                return record, false
            end
            if outcome == "interrupted" then
                keep("open")
                return record, true
            end
            if outcome == "diverged" then return keep("diverged", why) end
            if not outcome then return keep("failed", why) end
            local values, problem, fingerprint, gone = score(study, cell, stage)
            if not values and not gone then return keep("failed", problem) end
            table.insert(record.scores, { share = stage.share, step = stage.step, values = values, fingerprint = fingerprint,
                reason = problem })
            keep(i == #cell.stages and "done" or "open")
        end
    end
    return keep("done")
end

return study_cell
