--- scatter.lua - a score against the time of a training step, one mark an arm: what an arm's score costs.
local html = require "sagan.report.html"
local data_table = require "sagan.report.data_table"
local format = require "sagan.report.format"
local axis = require "sagan.report.axis"
local marks = require "sagan.report.marks"
local statistics = require "sagan.statistics"
local study_table = require "sagan.study_table"

local e = html.element

local scatter = {}

scatter.width, scatter.height = 400, 240
local TOP <const>, RIGHT <const>, BOTTOM <const>, LETTER <const> = 14, 60, 34, 6.3

---@class sagan.report.ScatterPoint
---@field name string
---@field index integer
---@field x number     seconds of a step, mean over seeds
---@field y number     score, mean over seeds
---@field sd number?   of the score

--- Seconds of a training step by arm, means over the seeds that have a log.
---@param group sagan.report.Group
---@return table<string, number>
function scatter.seconds(group)
    local by_arm, lists = {}, {}
    for _, cell in ipairs(group.cells) do
        local run = cell.run
        if run and run.seconds and run.seconds > 0 and run.last > 0 then
            lists[cell.arm] = lists[cell.arm] or {}
            table.insert(lists[cell.arm], run.seconds / run.last)
        end
    end
    for arm, list in pairs(lists) do by_arm[arm] = (statistics.mean_sd(list)) end
    return by_arm
end

--- The points of a row, if two arms at least have a score and a time, and the times differ.
---@param group sagan.report.Group
---@param row sagan.report.Row
---@return sagan.report.ScatterPoint[]?
function scatter.points(group, row)
    local seconds, points, least, most = scatter.seconds(group), {}, math.huge, 0
    for _, arm in ipairs(group.arms) do
        local x, entry = seconds[arm.name], row.arms[arm.name]
        if x and entry.mean then
            points[#points + 1] = { name = arm.name, index = arm.index, x = x, y = entry.mean, sd = entry.sd }
            least, most = math.min(least, x), math.max(most, x)
        end
    end
    return #points > 1 and most >= study_table.SLOWER * least and points or nil
end

local function letters(x, y, anchor, text, class)
    return e("text", { x = ("%.1f"):format(x), y = ("%.1f"):format(y), ["text-anchor"] = anchor, class = class }, text)
end

local function draw(o)
    local values, top = {}, 0
    for i, p in ipairs(o.points) do
        values[i] = p.sd and { p.y - p.sd, p.y, p.y + p.sd } or { p.y }
        top = math.max(top, p.x)
    end
    local _, lo, hi = axis.limits(values, true) -- linear, with 0: distances are what is read here
    if o.share then lo, hi = 0.0, 1.0 end
    local x_axis, y_axis = axis.new("linear", 0, 1.05 * top, 5), axis.new("linear", lo, hi, 5)
    local longest = 1
    for _, t in ipairs(y_axis.ticks) do longest = math.max(longest, utf8.len(t.text) or 1) end
    local box = { left = 12 + LETTER * longest, right = scatter.width - RIGHT, top = TOP, bottom = scatter.height - BOTTOM }
    local function x(v) return axis.position(x_axis, v, box.left, box.right) end
    local function y(v) return axis.position(y_axis, v, box.bottom, box.top) end
    local parts = {}
    for _, t in ipairs(y_axis.ticks) do
        parts[#parts + 1] = e("path", { class = t.at == 0 and "zero" or "grid",
            d = ("M%.1f %.1fH%.1f"):format(box.left, y(t.at), box.right) })
        parts[#parts + 1] = letters(box.left - 6, y(t.at) + 3.8, "end", t.text)
    end
    parts[#parts + 1] = e("path", { class = "axis", d = ("M%.1f %.1fH%.1f"):format(box.left, box.bottom, box.right) })
    for _, t in ipairs(x_axis.ticks) do
        parts[#parts + 1] = e("path", { class = "axis", d = ("M%.1f %.1fv4"):format(x(t.at), box.bottom) })
        parts[#parts + 1] = letters(x(t.at), box.bottom + 16, "middle", t.text)
    end
    parts[#parts + 1] = letters((box.left + box.right) / 2, scatter.height - 4, "middle", "seconds a step")
    for _, p in ipairs(o.points) do
        parts[#parts + 1] = e("g", { class = marks.class(p.index) }, e("title", {}, p.name),
            p.sd and e("path", { class = "bar", d = ("M%.1f %.1fV%.1f"):format(x(p.x), y(p.y - p.sd), y(p.y + p.sd)) }),
            marks.shape(p.index, x(p.x), y(p.y)), letters(x(p.x) + 7, y(p.y) - 5, "start", p.name, "halo name"))
    end
    return parts
end

--- A chart with its caption and its numbers.
---@param o {id: string, title: string, better: string?, share: boolean?, points: sagan.report.ScatterPoint[]}
---@return sagan.report.Node
function scatter.plot(o)
    local rows, words = {}, {}
    for i, p in ipairs(o.points) do
        local text, second = format.mean_sd(p.y, p.sd)
        rows[i] = e("tr", {}, e("th", { scope = "row" }, p.name),
            e("td", { class = "num" }, e("data", { value = ("%.17g"):format(p.x) }, format.number(p.x))),
            e("td", { class = "num" }, e("data", { value = ("%.17g"):format(p.y) }, text, second and " " .. second)))
        words[i] = ("%s: %s s a step, %s"):format(p.name, format.number(p.x), text)
    end
    return e("figure", { class = "chart" },
        e("figcaption", {}, e("b", {}, o.title),
            e("span", { class = "aside" }, o.better and (" (%s is better)"):format(o.better))),
        e("svg", { viewBox = ("0 0 %d %d"):format(scatter.width, scatter.height), role = "img",
            ["aria-labelledby"] = ("%s-t %s-d"):format(o.id, o.id) },
            e("title", { id = o.id .. "-t" }, o.title .. " against time"),
            e("desc", { id = o.id .. "-d" }, table.concat(words, "; ") .. "."), draw(o)),
        e("details", { class = "numbers" }, e("summary", {}, "Numbers"), data_table {
            caption = o.title .. " and seconds of a training step, means over seeds", rows = rows,
            head = { "arm", { "s/step", "num" }, { o.title, "num" } },
        }))
end

return scatter
