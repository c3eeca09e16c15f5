--- forest.lua - paired differences of arms with their 95 % intervals, one line an arm, around the line of no difference.
local html = require "sagan.report.html"
local data_table = require "sagan.report.data_table"
local format = require "sagan.report.format"
local axis = require "sagan.report.axis"
local marks = require "sagan.report.marks"

local e = html.element

local forest = {}

forest.width = 400
local LINE <const>, SIDE <const>, LETTER <const> = 40, 10, 6.3

---@class sagan.report.ForestLine
---@field name string
---@field index integer
---@field against string
---@field comparison sagan.Comparison
---@field verdict string

---@class sagan.report.Forest
---@field id string
---@field title string
---@field better? "lower"|"higher"
---@field lines sagan.report.ForestLine[]

local LACKS <const> = "no seed in common"

local function limits(lines)
    local lists = {}
    for _, l in ipairs(lines) do
        local c = l.comparison
        if c.mean then lists[#lists + 1] = c.low and { c.low, c.mean, c.high } or { c.mean } end
    end
    lists[#lists + 1] = { 0.0 }
    local _, lo, hi = axis.limits(lists, true)
    return lo, hi
end

local function arrow(edge, way, y, size)
    return e("path", { class = "arrow", d = ("M%.1f %.1fl%d %dv%dZ"):format(edge - 2 * way, y, 9 * way, -size, 2 * size) })
end

-- An interval with its point; an arrowhead where it leaves the frame, and nothing else if all of it lies outside.
local function interval(l, x, y, left, right)
    local c = l.comparison
    local low, high = x(c.low or c.mean), x(c.high or c.mean)
    if low > right + 0.5 then return arrow(right, -1, y, 5) end
    if high < left - 0.5 then return arrow(left, 1, y, 5) end
    local parts = { e("path", { class = "bar", d = ("M%.1f %.1fH%.1f"):format(math.max(left, low), y, math.min(right, high)) }) }
    for _, side in ipairs { { low, left, 1 }, { high, right, -1 } } do
        local at, edge, way = table.unpack(side)
        if (at - edge) * way < -0.05 then
            parts[#parts + 1] = arrow(edge, way, y, 4)
        elseif c.low then
            parts[#parts + 1] = e("path", { class = "bar", d = ("M%.1f %.1fv8"):format(at, y - 4) })
        end
    end
    local at = x(c.mean)
    if at >= left - 0.5 and at <= right + 0.5 then
        parts[#parts + 1] = marks.shape(l.index, at, y, { class = c.decided and "mark decided" or "mark open" })
    end
    return parts
end

local function draw(o)
    local lo, hi = limits(o.lines)
    local a = axis.new("linear", lo, hi, 5)
    local left, right, top = SIDE, forest.width - SIDE, 6
    local bottom = top + LINE * #o.lines + 2
    local function x(v) return axis.position(a, v, left, right) end
    local parts = {}
    for _, t in ipairs(a.ticks) do
        local at, wide = x(t.at), LETTER * (utf8.len(t.text) or 1) / 2
        parts[#parts + 1] = e("path", { class = t.at == 0 and "zero" or "grid", d = ("M%.1f %dV%d"):format(at, top, bottom) })
        local anchor = "middle"
        if at - wide < 0 then at, anchor = 0, "start" elseif at + wide > forest.width then at, anchor = forest.width, "end" end
        parts[#parts + 1] = e("text", { x = ("%.1f"):format(at), y = bottom + 15, ["text-anchor"] = anchor }, t.text)
    end
    parts[#parts + 1] = e("path", { class = "axis", d = ("M%d %dH%d"):format(left, bottom, right) })
    for i, l in ipairs(o.lines) do
        local y = top + LINE * (i - 1)
        local c, words = l.comparison, LACKS
        if c.mean then words = format.difference(c.mean, c.low, c.high) end
        parts[#parts + 1] = e("g", { class = marks.class(l.index) },
            e("title", {}, ("%s − %s: %s, %s"):format(l.name, l.against, words, l.verdict)),
            e("text", { class = "halo name", x = left, y = y + 15 }, l.name),
            e("text", { class = "halo", x = right, y = y + 15, ["text-anchor"] = "end" }, words),
            c.mean and interval(l, x, y + 27, left, right))
    end
    local zero, foot = x(0), bottom + 31
    if o.better then
        local words = o.better == "lower" and { "← better", "worse →" } or { "← worse", "better →" }
        if zero - left > 60 then parts[#parts + 1] = e("text", { class = "label", x = left, y = foot }, words[1]) end
        if right - zero > 60 then
            parts[#parts + 1] = e("text", { class = "label", x = right, y = foot, ["text-anchor"] = "end" }, words[2])
        end
    end
    return parts, (o.better and foot or bottom + 15) + 5
end

--- A forest plot with its caption and its numbers.
---@param o sagan.report.Forest
---@return sagan.report.Node
function forest.plot(o)
    local parts, height = draw(o)
    local rows, words = {}, {}
    for i, l in ipairs(o.lines) do
        local c = l.comparison
        local difference = c.mean and format.difference(c.mean, c.low, c.high) or LACKS
        rows[i] = e("tr", {}, e("th", { scope = "row" }, ("%s − %s"):format(l.name, l.against)),
            e("td", { class = "num" }, e("data", { value = c.mean and ("%.17g"):format(c.mean) or "" }, difference)),
            e("td", { class = "num" }, c.n), e("td", {}, l.verdict))
        words[i] = ("%s minus %s: %s, %s"):format(l.name, l.against, difference, l.verdict)
    end
    local way = o.better and (" (%s is better)"):format(o.better) or ""
    return e("figure", { class = "chart" },
        e("figcaption", {}, e("b", {}, o.title), e("span", { class = "aside" }, way)),
        e("svg", { viewBox = ("0 0 %d %d"):format(forest.width, height), role = "img",
            ["aria-labelledby"] = ("%s-t %s-d"):format(o.id, o.id) },
            e("title", { id = o.id .. "-t" }, "Differences of " .. o.title),
            e("desc", { id = o.id .. "-d" }, table.concat(words, "; ") .. "."), parts),
        e("details", { class = "numbers" }, e("summary", {}, "Numbers"), data_table {
            caption = o.title .. ": difference [95 % interval] over paired seeds", rows = rows,
            head = { "arms", { "difference", "num" }, { "seeds", "num" }, "verdict" },
        }))
end

return forest
