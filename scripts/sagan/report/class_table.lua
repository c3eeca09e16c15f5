--- class_table.lua - scores class by class, one column an arm, for those that the ledger has by class (intra-FD, legs).
local html = require "sagan.report.html"
local data_table = require "sagan.report.data_table"
local format = require "sagan.report.format"
local statistics = require "sagan.statistics"

local e = html.element

local class_table = {}

-- Values of an arm's seeds in a class, as far as they are known.
local function values_of(group, m, row, arm, class)
    local list = {}
    for _, seed in ipairs(group.seeds) do
        local by_step = ((m.per_class[arm] or {})[seed] or {})[row.score] or {}
        local value = by_step[row.step] and by_step[row.step][class]
        if format.is_finite(value) then list[#list + 1] = value end
    end
    return list
end

-- How many classes any cell of a row has.
local function classes_of(group, m, row)
    local most = 0
    for _, cell in ipairs(group.cells) do
        local by_step = ((m.per_class[cell.arm] or {})[cell.seed] or {})[row.score] or {}
        most = math.max(most, #(by_step[row.step] or {}))
    end
    return most
end

-- A bar as long as the value's share of the largest in the table, which is 100 wide.
local function bar(value, largest)
    local long = largest > 0 and math.max(0, 100 * value / largest) or 0
    return e("svg", { class = "length", width = "100", height = "4", viewBox = "0 0 100 4", ["aria-hidden"] = "true" },
        e("path", { d = ("M0 0H%.1fV4H0Z"):format(long) }))
end

--- The table of a row; nil if nothing is known by class.
---@param group sagan.report.Group
---@param m sagan.report.Measurement
---@param row sagan.report.Row
---@return sagan.report.Node?
function class_table.of(group, m, row)
    local count = classes_of(group, m, row)
    if count == 0 then return nil end
    local head, body, largest, means = { "class" }, {}, 0, {}
    for k, arm in ipairs(group.arms) do
        head[k + 1], means[k] = { html.breakable(arm.name), "num" }, {}
        for class = 1, count do
            local list = values_of(group, m, row, arm.name, class)
            local mean, sd
            if #list > 0 then mean, sd = statistics.mean_sd(list) end
            means[k][class] = mean and { mean = mean, sd = sd } or false
            largest = math.max(largest, mean or 0)
        end
    end
    for class = 1, count do
        local cells = {}
        for k in ipairs(group.arms) do
            local v = means[k][class]
            local text, second
            if v then text, second = format.mean_sd(v.mean, v.sd) end
            cells[k] = v and e("td", { class = "num" }, e("data", { value = ("%.17g"):format(v.mean) }, text),
                second and e("small", {}, second), bar(v.mean, largest)) or e("td", { class = "missing" }, "missing")
        end
        body[class] = e("tr", {}, e("th", { scope = "row" }, m.class_names[class] or ("class %d"):format(class)), cells)
    end
    return data_table { class = "by-class", head = head, rows = body,
        caption = { e("b", {}, row.score .. " by class"), (", step %s%s; bars: share of the largest"):format(
            format.number(row.step), row.better and ("; %s is better"):format(row.better) or "") } }
end

return class_table
