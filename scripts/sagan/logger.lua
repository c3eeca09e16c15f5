--- logger.lua - what a run writes about itself: log.jsonl (one object a line, the record that resume and reports read) and
--- a TensorBoard event file of the same values and of the sample pictures.
local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"

local logger = {}

---@class sagan.Logger
local Logger = {}
Logger.__index = Logger

--- Opens the log of a run folder for appending.
---@param folder sagan.RunFolder
---@return sagan.Logger? log, string? message
function logger.open(folder)
    local ok, message = system.mkdir(folder.path .. "/events")
    if not ok then return nil, message end
    local events, why = core.events.open(folder.path .. "/events", true)
    if not events then return nil, why end
    return setmetatable({ path = folder.path .. "/log.jsonl", events = events }, Logger)
end

--- Appends one row; numbers also go to TensorBoard under their names ("loss/d").
---@param step integer
---@param row table<string, any>
---@return boolean? ok, string? message
function Logger:row(step, row)
    row.step = step
    local ok, message = system.append(self.path, json.encode(row) .. "\n")
    if not ok then return nil, message end
    local now = system.time()
    for name, value in pairs(row) do
        if type(value) == "number" and name ~= "step" then self.events:scalar(name, value, step, now) end
    end
    return self.events:flush()
end

--- Adds a picture to the event file.
---@param tag string
---@param picture sagan.Tensor u8 {H,W,C}
---@param step integer
function Logger:picture(tag, picture, step)
    local shape = picture.shape
    return self.events:image(tag, core.image.encode_png(picture), shape[1], shape[2], shape[3], step)
end

function Logger:close()
    self.events:close()
end

return logger
