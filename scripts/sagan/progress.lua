--- progress.lua - one line that tells how long work takes: rewritten in place on a terminal, printed now and then elsewhere.
local system = require("sagan.core").system

local progress = {}

--- 3725 -> "1:02:05", 75 -> "1:15"
---@param seconds number
---@return string
function progress.duration(seconds)
    local s = math.max(0, math.floor(seconds + 0.5))
    if s >= 3600 then return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60) end
    return ("%d:%02d"):format(s // 60, s % 60)
end

---@class sagan.Progress
local Progress = {}
Progress.__index = Progress

--- A progress line on standard error.
---@param options {total: integer, start: integer?, every_seconds: number?} total units of work; every_seconds: pause between plain lines when not on a terminal
---@return sagan.Progress
function progress.new(options)
    return setmetatable({
        total = options.total,
        first = options.start or 0,
        terminal = system.isatty(2),
        started = system.now(),
        shown = -math.huge,
        pause = system.isatty(2) and 0.1 or options.every_seconds or 10,
    }, Progress)
end

--- True when it is time to show something again, so that callers make no text in vain.
function Progress:due()
    return system.now() - self.shown >= self.pause
end

--- Seconds left at the speed so far.
---@param done integer
function Progress:left(done)
    local spent = system.now() - self.started
    return done > self.first and spent / (done - self.first) * (self.total - done) or 0
end

---@param done integer
---@param text string
---@param final boolean?
function Progress:show(done, text, final)
    if not final and not self:due() then return end
    self.shown = system.now()
    local percent = self.total > 0 and math.floor(100 * done / self.total) or 100
    local line = ("%d/%d %3d%%  %s%s"):format(done, self.total, percent, text,
        done < self.total and "  left " .. progress.duration(self:left(done)) or "")
    if self.terminal then
        local width = system.terminal_width() or 80
        io.stderr:write("\r\27[K", line:sub(1, width - 1), final and "\n" or "")
    else
        io.stderr:write(line, "\n")
    end
    io.stderr:flush()
    self.open = self.terminal and not final
end

--- Ends the line, so that other text can follow.
function Progress:finish()
    if self.open then io.stderr:write("\n") end
    self.open = false
end

return progress
