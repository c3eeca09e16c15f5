--- logger.lua - what a run writes about itself: log.jsonl (one object a line, the record that resume and reports read) and
--- a TensorBoard event file of the same values and of the sample pictures. A line of log.jsonl with the key `event` says what
--- happened ("set": a field was changed; "score"; "alarm"; "diverged"); every other one holds what was measured.
local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"
local alarm = require "sagan.alarm"

local logger = {}

---@class sagan.Logger
local Logger = {}
Logger.__index = Logger

--- Opens the log of a run folder for appending.
---@param folder sagan.RunFolder
---@param options {tensorboard: boolean, alarm: boolean?}  tensorboard: write an event file too; alarm: watch the rows
---@return sagan.Logger? log, string? message
function logger.open(folder, options)
    local path = folder.path .. "/log.jsonl"
    local watch = options.alarm and alarm.new(folder.path) or nil
    if not options.tensorboard then return setmetatable({ path = path, alarm = watch }, Logger) end
    local ok, message = system.mkdir(folder.path .. "/events")
    if not ok then return nil, message end
    local events, why = core.events.open(folder.path .. "/events", true)
    if not events then return nil, why end
    return setmetatable({ path = path, events = events, alarm = watch }, Logger)
end

--- Appends one row; numbers also go to TensorBoard under their names ("loss/d").
---@param step integer
---@param row table<string, any>
---@return boolean? ok, string? message
function Logger:row(step, row)
    row.step = step
    local ok, message = system.append(self.path, json.encode(row) .. "\n")
    if ok and self.alarm and not row.event then
        local event
        ok, event = self.alarm:row(row)
        if ok and event then
            ok, message = self:event(step, event)
        elseif not ok then
            message = event
        end
    end
    if not ok then return nil, message end
    if not self.events then return true end
    local now = system.time()
    for name, value in pairs(row) do
        if type(value) == "number" and name ~= "step" then
            ok, message = self.events:scalar(name, value, step, now)
            if not ok then return nil, message end
        end
    end
    return self.events:flush()
end

--- Appends a row that says what happened.
---@param step integer
---@param row {event: string, [string]: any}
---@return boolean? ok, string? message
function Logger:event(step, row)
    row.step = step
    return system.append(self.path, json.encode(row) .. "\n")
end

--- Adds a picture to the event file.
---@param tag string
---@param picture sagan.Tensor u8 {H,W,C}
---@param step integer
---@return boolean? ok, string? message
function Logger:picture(tag, picture, step)
    if not self.events then return true end
    local shape = picture.shape
    return self.events:image(tag, core.image.encode_png(picture), shape[1], shape[2], shape[3], step)
end

function Logger:close()
    if self.events then self.events:close() end
end

return logger
