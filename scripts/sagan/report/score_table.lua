--- score_table.lua - a measurement as the slides lay it out: one column an arm, one row a score. Published numbers stand in a
--- table of their own under it, with the same columns: another scale of run, measured otherwise.
local html = require "sagan.report.html"
local data_table = require "sagan.report.data_table"
local format = require "sagan.report.format"
local results = require "sagan.report.results"

local e = html.element

local score_table = {}

--- The first clause of a reason, for a cell of a table; all of it stands where runs that ended early are listed.
---@param reason string
---@return string
function score_table.short(reason)
    local first = reason:gsub("\n.*", ""):gsub(";.*", "")
    if (utf8.len(first) or #first) <= 90 then return first end
    local cut = utf8.offset(first, 88)
    return (cut and first:sub(1, cut - 1) or first:sub(1, 87)) .. "…"
end

-- Reasons of the seeds that lack, each said once: { { text = "seeds 1 and 2: diverged", ... } }.
local function reasons_of(group, m, row, arm)
    local seeds_of, order = {}, {}
    for _, seed in ipairs(group.seeds) do
        local reason = results.missing(group, m, row, arm, seed)
        if reason then
            reason = score_table.short(reason)
            if not seeds_of[reason] then
                seeds_of[reason] = {}
                order[#order + 1] = reason
            end
            table.insert(seeds_of[reason], tostring(seed))
        end
    end
    local out = {}
    for i, reason in ipairs(order) do
        local seeds = seeds_of[reason]
        out[i] = #seeds == #group.seeds and reason
            or ("seed%s %s: %s"):format(#seeds > 1 and "s" or "", format.list(seeds), reason)
    end
    return out
end

-- What some cells lack, under the table: each reason once, with the scores that it is about unless that is all of them.
local function notes_of(group, m, rows)
    local scores_of, order, all = {}, {}, {}
    for _, row in ipairs(rows) do
        if not all[row.score] then
            all[row.score] = true
            all[#all + 1] = row.score
        end
        for _, arm in ipairs(group.arms) do
            for _, reason in ipairs(row.arms[arm.name].n > 0 and reasons_of(group, m, row, arm.name) or {}) do
                local text = ("%s, %s"):format(arm.name, reason)
                if not scores_of[text] then
                    scores_of[text] = {}
                    order[#order + 1] = text
                end
                if not scores_of[text][row.score] then
                    scores_of[text][row.score] = true
                    table.insert(scores_of[text], row.score)
                end
            end
        end
    end
    local items = {}
    for i, text in ipairs(order) do
        items[i] = e("li", {}, "Missing: ", text, #scores_of[text] < #all and (" (%s)"):format(format.list(scores_of[text])))
    end
    return #items > 0 and e("ul", { class = "plain aside" }, items)
end

local function exact(x, ...) return e("data", { value = ("%.17g"):format(x) }, ...) end

local function small(lines)
    local out = {}
    for i, text in ipairs(lines) do out[i] = e("small", {}, text) end
    return out
end

-- With a single seed the interval of the evaluation itself, where the ledger has one.
local function own_interval(group, m, row, arm)
    local found
    for _, seed in ipairs(group.seeds) do
        found = (((m.intervals[arm] or {})[seed] or {})[row.score] or {})[row.step] or found
    end
    return found
end

local function cell_of(group, m, row, arm, best)
    local entry = row.arms[arm]
    if entry.n == 0 then return e("td", { class = "missing" }, "missing", small(reasons_of(group, m, row, arm))) end
    local text, second = format.mean_sd(entry.mean, entry.sd)
    local interval = entry.n == 1 and own_interval(group, m, row, arm)
    if interval then text = format.range(entry.mean, interval[1], interval[2]) end
    return e("td", { class = best and "num best" or "num" }, exact(entry.mean, text), second and e("small", {}, second),
        entry.n < #group.seeds and e("small", {}, ("%d of %s"):format(entry.n, format.count(#group.seeds, "seed"))))
end

local function best_arm(group, row)
    if not row.better then return nil end
    local best, several
    for _, arm in ipairs(group.arms) do
        local mean = row.arms[arm.name].mean
        if mean then
            local before = best and row.arms[best].mean
            several = best ~= nil
            if not best or (row.better == "lower" and mean < before) or (row.better == "higher" and mean > before) then
                best = arm.name
            end
        end
    end
    return several and best or nil
end

local function head_of(group, label)
    local head = { label }
    for i, arm in ipairs(group.arms) do head[i + 1] = { html.breakable(arm.name), "num" } end
    return head
end

-- The same widths for both tables, so that published numbers stand under those of the same arm.
local function columns_of(group)
    local list = {}
    for i = 1, #group.arms do list[i] = e("col", { class = "arm" }) end
    return e("colgroup", {}, e("col", { class = "label" }), list)
end

-- Columns that neither overlap nor lie so far apart that the eye loses the row.
local function width_of(group)
    return ("min-width:%grem;max-width:%grem"):format(7.5 + 6.2 * #group.arms, 7.5 + 12 * #group.arms)
end

--- A table of rows.
---@param group sagan.report.Group
---@param m sagan.report.Measurement
---@param rows sagan.report.Row[]
---@param caption any
---@param step? integer  of all rows, if the caption has it
---@return sagan.report.Node
function score_table.of(group, m, rows, caption, step)
    local body, last = {}, nil
    for i, row in ipairs(rows) do
        local best, cells = best_arm(group, row), {}
        for k, arm in ipairs(group.arms) do cells[k] = cell_of(group, m, row, arm.name, arm.name == best) end
        local asides = {}
        if row.better then asides[1] = row.better .. " is better" end
        if row.step ~= step then asides[#asides + 1] = "step " .. format.number(row.step) end
        body[i] = e("tr", { class = last and last ~= row.score and "first" or false },
            e("th", { scope = "row" }, row.score, e("small", {}, table.concat(asides, ", "))), cells)
        last = row.score
    end
    return e("div", {}, data_table { class = "scores", style = width_of(group), caption = caption, columns = columns_of(group),
        head = head_of(group, "score"), rows = body }, notes_of(group, m, rows))
end

--- What others published for these arms; nil if the study names nothing that has any of them.
---@param group sagan.report.Group
---@return sagan.report.Node?
function score_table.published(group)
    local name = group.study and group.study.published
    if type(name) ~= "string" then return nil end
    local ok, source = pcall(require("sagan.published").get, name)
    if not ok then return nil end
    local shares, list = {}, {}
    for _, entry in ipairs(source.entries) do
        local share = entry.share or 1
        if not shares[share] then
            shares[share] = true
            list[#list + 1] = share
        end
    end
    table.sort(list)
    local body = {}
    for _, score in ipairs(source.scores) do
        for _, share in ipairs(list) do
            local cells, any = {}, false
            for i, arm in ipairs(group.arms) do
                local entry = source:entry(arm.name, share)
                local value = entry and entry[score]
                any = any or value
                cells[i] = value and e("td", { class = "num" }, exact(value, tostring(value)))
                    or e("td", { class = "missing" }, "not published")
            end
            local at = #list > 1 and e("small", {}, ("at %.4g %%"):format(100 * share))
            if any then body[#body + 1] = e("tr", {}, e("th", { scope = "row" }, score, at), cells) end
        end
    end
    if #body == 0 then return nil end
    local caption = { e("b", {}, "Published, another scale of run: "), source.source,
        ". Not measured as the scores above, and no part of any comparison. ", source:fingerprint_text(), "." }
    return data_table { class = "scores published", style = width_of(group), caption = caption, columns = columns_of(group),
        head = head_of(group, "published"), rows = body }
end

return score_table
