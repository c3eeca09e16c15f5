--- curves.lua - which charts a group gets: scores over steps, and everything that its logs hold.
local chart = require "sagan.report.chart"
local series = require "sagan.report.series"
local score_table = require "sagan.report.score_table"
local is_share = require("sagan.score_table").is_share

local curves = {}

-- Sections of the log, in order; what no section names comes last. A key without its ".feat<n>".
local SECTIONS <const> = {
    { "Losses and logits", { "loss/d", "Loss of D" }, { "loss/g", "Loss of G" }, { "logit/real", "Logit of real images" },
        { "logit/fake", "Logit of generated images" } },
    { "Gradients", { "grad/d", "Norm of D's gradient" }, { "grad/g", "Norm of G's gradient" } },
    { "Attention",
        { "gamma/G", "Gamma of attention in G", zero = true }, { "gamma/D", "Gamma of attention in D", zero = true },
        { "attention/G.share", "Share of attention in G's features", zero = true },
        { "attention/D.share", "Share of attention in D's features", zero = true },
        { "attention/G.entropy", "Entropy of attention in G, nats" },
        { "attention/D.entropy", "Entropy of attention in D, nats" },
        { "attention/G.distance", "Attended distance in G, pixels" },
        { "attention/D.distance", "Attended distance in D, pixels" } },
    { "Singular values", { "sigma/G", "Largest singular value in G" }, { "sigma/D", "Largest singular value in D" } },
    { "Speed", { "images_per_second", "Images a second", zero = true } },
}

-- "gamma/G.feat16" -> "gamma/G", 16
local function split(key)
    local front, size, back = key:match("^(.*)%.feat(%d+)(.*)$")
    if not front then return key, nil end
    return front .. back, math.tointeger(tonumber(size))
end

-- The curve of an arm from { steps, values } of its seeds, with a mark where a run ended early.
local function curve_of(group, arm, last, band, read)
    local runs, cells, marks = {}, {}, {}
    for _, seed in ipairs(group.seeds) do
        local cell = (group.by[arm.name] or {})[seed]
        local steps, values = read(cell, seed)
        if #steps > 0 then
            runs[#runs + 1] = { steps = steps, values = values }
            cells[#runs] = cell
        end
    end
    local points, ends = series.of(runs, last, band)
    for k, cell in pairs(cells) do
        if cell and cell.outcome ~= "done" and ends[k] then
            table.insert(marks, { x = ends[k].x, y = ends[k].y,
                text = ("seed %d: %s"):format(cell.seed, score_table.short(cell.reason)) })
        end
    end
    return { name = arm.name, index = arm.index, points = points, ends = marks }
end

-- What the logs hold: keys by name, and their sizes of attention by arm.
local function keys_of(group)
    local found = {}
    for _, cell in ipairs(group.cells) do
        for _, row in ipairs(cell.run and cell.run.rows or {}) do
            for key, value in pairs(row) do
                if key ~= "step" and (math.type(value) or value == "nan" or value == "inf" or value == "-inf") then
                    local name, size = split(key)
                    found[name] = found[name] or {}
                    found[name][cell.arm] = found[name][cell.arm] or {}
                    found[name][cell.arm][key] = size or 0
                end
            end
        end
    end
    return found
end

local function log_curve(group, arm, key, last, band)
    return curve_of(group, arm, last, band, function(cell)
        local steps, values = {}, {}
        for i, row in ipairs(cell and cell.run and cell.run.rows or {}) do
            steps[i], values[i] = row.step, row[key] == nil and false or row[key]
        end
        return steps, values
    end)
end

local function has_points(curve)
    for _, p in ipairs(curve.points) do
        if p.mean then return true end
    end
    return false
end

-- The charts of one key; several if an arm has attention at several sizes.
local function log_charts(group, name, title, by_arm, o)
    local sizes, several = {}, false
    for _, keys in pairs(by_arm) do
        local n = 0
        for _, size in pairs(keys) do
            sizes[size] = true
            n = n + 1
        end
        several = several or n > 1
    end
    local order, charts = {}, {}
    for size in pairs(sizes) do order[#order + 1] = size end
    table.sort(order)
    if not several then order = { false } end
    for _, wanted in ipairs(order) do
        local list = {}
        for _, arm in ipairs(group.arms) do
            for key, size in pairs(by_arm[arm.name] or {}) do
                if not wanted or size == wanted then
                    local curve = log_curve(group, arm, key, o.last, o.band)
                    if has_points(curve) then list[#list + 1] = curve end
                end
            end
        end
        if #list > 0 then
            charts[#charts + 1] = chart.line {
                id = o.next_id(), title = wanted and wanted > 0 and ("%s at %dx%d"):format(title, wanted, wanted) or title,
                key = name, x_label = "step", last = o.last, curves = list, zero = o.zero,
            }
        end
    end
    return charts
end

--- The last step of any run of a group.
---@param group sagan.report.Group
---@return integer
function curves.last(group)
    local last = 0
    for _, cell in ipairs(group.cells) do last = math.max(last, cell.run and cell.run.last or 0) end
    return last
end

--- Charts of all that was logged, by section.
---@param group sagan.report.Group
---@param o {next_id: fun(): string, band: "range"|"sd"|"interval"}
---@return {title: string, charts: sagan.report.Node[]}[]
function curves.of_logs(group, o)
    local found, out = keys_of(group), {}
    local last = curves.last(group)
    local function add(section, name, title, zero)
        local by_arm = found[name]
        found[name] = nil
        if not by_arm then return end
        local charts = log_charts(group, name, title, by_arm, { next_id = o.next_id, band = o.band, last = last, zero = zero })
        table.move(charts, 1, #charts, #section.charts + 1, section.charts)
    end
    for _, s in ipairs(SECTIONS) do
        local section = { title = s[1], charts = {} }
        for i = 2, #s do add(section, s[i][1], s[i][2], s[i].zero) end
        if #section.charts > 0 then out[#out + 1] = section end
    end
    local rest = { title = "Other values", charts = {} }
    local names = {}
    for name in pairs(found) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do add(rest, name, name) end
    if #rest.charts > 0 then out[#out + 1] = rest end
    return out
end

local function score_curve(group, m, arm, name, band)
    return curve_of(group, arm, 1, band, function(_, seed)
        local by_step = ((m.values[arm.name] or {})[seed] or {})[name] or {}
        local steps, values = {}, {}
        for step in pairs(by_step) do steps[#steps + 1] = step end
        table.sort(steps)
        for i, step in ipairs(steps) do values[i] = by_step[step] end
        return steps, values
    end)
end

--- Charts of the scores of a measurement over steps, for those scored at two steps at least.
---@param group sagan.report.Group
---@param m sagan.report.Measurement
---@param o {next_id: fun(): string, band: "range"|"sd"|"interval"}
---@return sagan.report.Node[]
function curves.of_scores(group, m, o)
    local charts = {}
    local directions = {}
    for _, row in ipairs(m.rows) do directions[row.score] = row.better end
    for _, name in ipairs(m.names) do
        local list, steps, distinct, last = {}, {}, 0, curves.last(group)
        for _, arm in ipairs(group.arms) do
            local curve = score_curve(group, m, arm, name, o.band)
            if has_points(curve) then list[#list + 1] = curve end
            for _, p in ipairs(curve.points) do
                if not steps[p.x] then steps[p.x], distinct = true, distinct + 1 end
                last = math.max(last, p.x)
            end
        end
        if distinct > 1 then
            charts[#charts + 1] = chart.line {
                id = o.next_id(), title = name, x_label = "step", last = last, curves = list, marked = true, share = is_share(name),
                note = directions[name] and ("%s is better."):format(directions[name]:gsub("^%l", string.upper)),
            }
        end
    end
    return charts
end

return curves
