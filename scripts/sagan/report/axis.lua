--- axis.lua - from data to positions: limits that a few wild values cannot take over, round ticks, linear and logarithmic
--- scales.
local format = require "sagan.report.format"

local axis = {}

---@class sagan.report.Axis
---@field kind "linear"|"log"
---@field lo number
---@field hi number
---@field ticks {at: number, text: string}[]

local function nice_step(span, count)
    local raw = span / count
    local base = 10.0 ^ math.floor(math.log(raw, 10))
    for _, factor in ipairs { 1, 2, 5, 10 } do
        if factor * base >= raw * (1 - 1e-9) then return factor * base end
    end
end

local function linear_ticks(lo, hi, count)
    local step, ticks = nice_step(hi - lo, count), {}
    local top = math.max(math.abs(lo), math.abs(hi))
    for i = math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9) do
        ticks[#ticks + 1] = { at = i * step, text = format.tick(i * step, step, top) }
    end
    return ticks
end

local function log_ticks(lo, hi, count)
    local first, last = math.floor(math.log(lo, 10) + 1e-9), math.ceil(math.log(hi, 10) - 1e-9)
    local factors = last - first <= 1 and { 1, 2, 3, 5 } or last - first <= 2 and { 1, 2, 5 } or { 1 }
    local every = math.max(1, math.ceil((last - first + 1) / count))
    local ticks = {}
    for exponent = first, last, every do
        for _, factor in ipairs(factors) do
            local at = factor * 10.0 ^ exponent
            if at >= lo * (1 - 1e-9) and at <= hi * (1 + 1e-9) then
                -- an axis of several units needs a word for each tick by itself
                ticks[#ticks + 1] = { at = at, text = format.tick(at, at, at) }
            end
        end
    end
    return ticks
end

--- An axis from lo to hi.
---@param kind "linear"|"log"
---@param lo number
---@param hi number
---@param count? integer  about so many ticks; 5
---@return sagan.report.Axis
function axis.new(kind, lo, hi, count)
    local ticks = kind == "log" and log_ticks(lo, hi, count or 5) or linear_ticks(lo, hi, count or 5)
    if kind == "log" and #ticks < 2 then ticks = linear_ticks(lo, hi, count or 5) end
    return { kind = kind, lo = lo, hi = hi, ticks = ticks }
end

--- Where a value stands when lo is at `from` and hi at `to`.
---@param a sagan.report.Axis
---@param value number
---@param from number
---@param to number
---@return number
function axis.position(a, value, from, to)
    local share
    if a.kind == "log" then
        if value <= 0 then value = a.lo * 1e-3 end
        share = math.log(value / a.lo) / math.log(a.hi / a.lo)
    else
        share = (value - a.lo) / (a.hi - a.lo)
    end
    return from + share * (to - from)
end

local function quantile(sorted, q)
    local place = 1 + q * (#sorted - 1)
    local low = math.floor(place)
    local high = math.min(#sorted, low + 1)
    return sorted[low] + (place - low) * (sorted[high] - sorted[low])
end

-- How far a series reaches: usually, which is without its wildest tenth, and in all.
local function reach(values)
    local sorted = table.move(values, 1, #values, 1, {})
    table.sort(sorted)
    local cut = #sorted >= 20 and 0.05 or 0
    return { lo = quantile(sorted, cut), hi = quantile(sorted, 1 - cut), least = sorted[1], most = sorted[#sorted] }
end

local ROOM <const> = 8 -- values of a series may need so many times the room of its usual ones
local WILD <const> = 20 -- times as large as the largest of all others: it exploded

-- Marks the series that are so much larger than the others that these would be flat lines beside them; most must be left.
local function mark_wild(reaches)
    local order = {}
    for i, r in ipairs(reaches) do order[i] = { r = r, size = math.max(math.abs(r.lo), math.abs(r.hi)) } end
    table.sort(order, function(a, b) return a.size > b.size end)
    for i = 1, (#order - 1) // 2 do
        if order[i + 1].size == 0 or order[i].size <= WILD * order[i + 1].size then
            -- two that exploded alike are wild beside a third that is smaller than both
            local beyond = order[i + 2] and i + 1 <= (#order - 1) // 2 and order[i + 2].size > 0
                and order[i + 1].size > WILD * order[i + 2].size
            if not beyond then return end
        end
        order[i].r.wild = true
    end
end

--- Limits for several series, each a list of finite numbers. What explodes is left out, so that it does not flatten the
--- others: it leaves the frame. Logarithmic where the rest is positive and reaches over more than a factor of 50.
---@param lists number[][]
---@param zero? boolean  the axis must hold 0
---@return "linear"|"log" kind
---@return number lo
---@return number hi
---@return table<integer, boolean> wild  places of the series that are left out
function axis.limits(lists, zero)
    local reaches, wild = {}, {}
    for i, values in ipairs(lists) do
        if #values > 0 then
            local r = reach(values)
            r.place = i
            reaches[#reaches + 1] = r
        end
    end
    if #reaches == 0 then return "linear", 0.0, 1.0, wild end
    mark_wild(reaches)
    local lo, hi, least, most = math.huge, -math.huge, math.huge, -math.huge
    for _, r in ipairs(reaches) do
        if r.wild then
            wild[r.place] = true
        else
            least, most = math.min(least, r.least), math.max(most, r.most)
            -- the wildest values too, unless they need far more room
            local room = ROOM * (r.hi - r.lo)
            lo = math.min(lo, r.lo - r.least <= room and r.least or r.lo)
            hi = math.max(hi, r.most - r.hi <= room and r.most or r.hi)
        end
    end
    if least > 0 and not zero and most / least >= 50 then return "log", least / 1.1, most * 1.1, wild end
    if zero or lo > 0 and lo < 0.3 * hi then lo = math.min(lo, 0) end
    if zero or hi < 0 and hi > 0.3 * lo then hi = math.max(hi, 0) end
    if lo == hi then
        local half = lo == 0 and 1 or 0.1 * math.abs(lo)
        return "linear", lo - half, hi + half, wild
    end
    local pad = 0.05 * (hi - lo)
    return "linear", lo == 0 and 0.0 or lo - pad, hi == 0 and 0.0 or hi + pad, wild
end

return axis
