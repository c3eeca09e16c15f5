--- verdict.lua - what a study has found, in words.
local html = require "sagan.report.html"
local format = require "sagan.report.format"

local e = html.element

local verdict = {}

--- What is to be said first of a row: who is better, who is worse, who cannot be told apart.
---@param group sagan.report.Group
---@param row sagan.report.Row
---@return string
function verdict.sentence(group, row)
    local better, worse, other, none = {}, {}, {}, {}
    local against
    for i = 2, #group.arms do
        local name = group.arms[i].name
        local c = row.arms[name].comparison
        local list = other
        if c.n < 2 then
            list = none
        elseif c.decided then
            list = (c.verdict == "better" or c.verdict == "higher") and better or worse
        end
        against = c.against
        list[#list + 1] = name
    end
    local previous = group.study.against == "previous"
    local to = previous and "the arm before it" or against
    local parts = {}
    if #better > 0 then
        parts[#parts + 1] = ("%s %s %s than %s"):format(format.list(better), #better == 1 and "is" or "are",
            row.better and "better" or "higher", to)
    end
    if #worse > 0 then
        parts[#parts + 1] = ("%s %s %s than %s"):format(format.list(worse), #worse == 1 and "is" or "are",
            row.better and "worse" or "lower", to)
    end
    if #other > 0 then
        parts[#parts + 1] = ("%s cannot be told from %s with these seeds"):format(format.list(other), to)
    end
    if #none > 0 then
        parts[#parts + 1] = ("for %s there are too few pairs of seeds to say"):format(format.list(none))
    end
    return ("By %s at step %s: %s."):format(row.score, format.number(row.step), table.concat(parts, "; "))
end

local function line(name, c)
    local difference = c.mean and format.difference(c.mean, c.low, c.high)
    local class = c.verdict == "better" and "good" or c.verdict == "worse" and "bad" or "open"
    return e("li", {}, e("b", {}, name), " − " .. c.against .. ": ", difference and { difference, ", " },
        e("span", { class = "verdict " .. class }, c.verdict), c.n > 0 and (" (%s)"):format(format.count(c.n, "pair")))
end

--- Each arm of a row against what it is compared with.
---@param group sagan.report.Group
---@param row sagan.report.Row
---@return sagan.report.Node
function verdict.list(group, row)
    local lines = {}
    for i = 2, #group.arms do
        local name = group.arms[i].name
        lines[#lines + 1] = line(name, row.arms[name].comparison)
    end
    local way = ("%s, step %s"):format(row.better and (" (%s is better)"):format(row.better) or "", format.number(row.step))
    return e("div", {}, e("h4", {}, row.score, e("span", { class = "aside" }, way)), e("ul", { class = "plain" }, lines))
end

return verdict
