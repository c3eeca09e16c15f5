--- alarm.lua - notices when a loss, a gradient norm, the largest singular value or a gamma leaves its usual range, and keeps
--- what the log said around that moment in alarm-<step>.jsonl: first what is out of range, then the rows before it, the row
--- itself, and the next few as they come. One line goes to the terminal, and one to log.jsonl:
---
---     {"event":"alarm","high":3.1,"low":0.9,"name":"grad/d","step":1250,"value":81.3}
---
--- The usual range is the median of the last rows +- FACTOR spreads; the spread is their median absolute deviation, as of a
--- normal distribution, or a share of the median where they hardly move. Training is neither read nor touched.
local core = require "sagan.core"
local json = require "sagan.json"
local system = core.system

local alarm = {}

local ROWS <const> = 50     -- that the usual range is of, and that are written down
local WARM_UP <const> = 20  -- rows before anything is unusual but what is not finite
local FACTOR <const> = 10   -- a steady trend stays within 2 spreads of the median of its last rows, a noisy loss within 5
local AFTER <const> = 5     -- rows that are written after the alarm
local QUIET <const> = 25    -- rows from one alarm to the next
local MOST <const> = 20     -- files that a run folder gets
local NORMAL <const> = 1.4826 -- standard deviations in one median absolute deviation
local SHARE <const> = 0.02

--- What is watched, and the least spread of it: losses and gamma may be 0, where a share of the median is nothing.
local WATCHED <const> = { loss = 0.01, gamma = 0.01, grad = 0, sigma = 0 }

local function least_spread(name) return WATCHED[name:match("^(%a+)/")] end

local function median(sorted)
    local n = #sorted
    return n % 2 == 1 and sorted[(n + 1) // 2] or (sorted[n // 2] + sorted[n // 2 + 1]) / 2
end

--- The usual range of numbers.
---@param values number[]  at least one, finite
---@param least number     the least spread
---@return number low
---@return number high
function alarm.range(values, least)
    local sorted = table.move(values, 1, #values, 1, {})
    table.sort(sorted)
    local middle, far = median(sorted), {}
    for i, v in ipairs(sorted) do far[i] = math.abs(v - middle) end
    table.sort(far)
    local spread = math.max(NORMAL * median(far), SHARE * math.abs(middle), least)
    return middle - FACTOR * spread, middle + FACTOR * spread
end

---@class sagan.Alarm
local Alarm = {}
Alarm.__index = Alarm

--- Watches the log of a run folder.
---@param path string  the folder; the rows that its log ends with are known already
---@return sagan.Alarm
function alarm.new(path)
    local self = setmetatable({ path = path, ring = {}, since = QUIET, after = 0 }, Alarm)
    for line in (system.read(path .. "/log.jsonl") or ""):gmatch("[^\n]+") do
        local row = json.decode(line)
        if type(row) == "table" and not row.event then self:remember(row) end
    end
    return self
end

function Alarm:remember(row)
    local kept = {}
    for name, value in pairs(row) do kept[name] = value end
    table.insert(self.ring, kept)
    if #self.ring > ROWS then table.remove(self.ring, 1) end
end

local function is_finite(v) return math.type(v) and v == v and math.abs(v) < math.huge end

--- What is out of range in a row: names, values and ranges; no range where the value is not finite.
function Alarm:unusual(row)
    local found = {}
    for name, value in pairs(row) do
        local least = least_spread(name)
        if least and not is_finite(value) then
            found[#found + 1] = { name = name, value = value }
        elseif least then
            local values = {}
            for _, old in ipairs(self.ring) do
                if is_finite(old[name]) then values[#values + 1] = old[name] end
            end
            if #values >= WARM_UP then
                local low, high = alarm.range(values, least)
                if value < low or value > high then
                    found[#found + 1] = { name = name, value = value, low = low, high = high }
                end
            end
        end
    end
    table.sort(found, function(a, b) return a.name < b.name end)
    return found
end

local function lines_of(rows)
    local lines = {}
    for i, row in ipairs(rows) do lines[i] = json.encode(row) .. "\n" end
    return table.concat(lines)
end

local function tell(path, step, found)
    local first = found[1]
    local range = first.low and ("%.4g, usually %.4g to %.4g"):format(first.value, first.low, first.high) or "not finite"
    local others = #found > 1 and (", and %d more"):format(#found - 1) or ""
    io.stderr:write(system.isatty(2) and "\r\27[K" or "", ("warning  step %d: %s is %s%s; alarm-%08d.jsonl has the rows before, ")
        :format(step, first.name, range, others, step), ("sagan.open %q:replay(%d) the step\n"):format(path, step))
    io.stderr:flush()
end

local function dumps(path)
    local n = 0
    for _, name in ipairs(system.list(path) or {}) do
        if name:match("^alarm%-%d+%.jsonl$") then n = n + 1 end
    end
    return n
end

--- Takes a row of measurements that was just logged. Returns the row of an alarm for the log, if there is one.
---@param row table<string, any>  with its step
---@return true|nil ok
---@return table|string|nil event_or_message
function Alarm:row(row)
    local found = self:unusual(row)
    self:remember(row)
    if self.after > 0 then
        self.after = self.after - 1
        local ok, message = system.append(self.file, json.encode(row) .. "\n")
        if not ok then return nil, message end
    end
    self.since = self.since + 1
    if #found == 0 or self.since <= QUIET or dumps(self.path) >= MOST then return true end
    self.since, self.after = 0, AFTER
    self.file = ("%s/alarm-%08d.jsonl"):format(self.path, row.step)
    local head = { event = "alarm", step = row.step, unusual = json.array(found) }
    local ok, message = system.write_atomic(self.file, json.encode(head) .. "\n" .. lines_of(self.ring))
    if not ok then return nil, message end
    tell(self.path, row.step, found)
    local first = found[1]
    return true, { event = "alarm", step = row.step, name = first.name, value = first.value, low = first.low, high = first.high }
end

return alarm
