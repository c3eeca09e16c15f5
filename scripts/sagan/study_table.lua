--- study_table.lua - what a study has found so far: the numbers (for study.json) and the same as text, laid out like the
--- paper's tables, one column an arm and one row a score.
local statistics = require "sagan.statistics"
local ablation = require "sagan.ablation"
local config = require "sagan.config"
local json = require "sagan.json"
local fingerprint = require "sagan.fingerprint"
local score_table = require "sagan.score_table"

local study_table = {}

---@class sagan.StudyRow
---@field score string
---@field share number       of the steps
---@field better string?     "lower", "higher", or nil
---@field arms table<string, {n: integer, mean: number?, sd: number?, comparison: table?}>

local function rounded(share) return ("%.4g %%"):format(100 * share) end

--- Values by arm and seed, for each score at each share of the steps; those of a cell that was measured otherwise than the
--- first are left out, with the reason.
local function collect(plan, records)
    local values, names, unlike = {}, {}, {}
    local first, first_cell
    for i, cell in ipairs(plan.cells) do
        for _, s in ipairs(records[i].scores) do
            local alike, why = true, nil
            if s.fingerprint then
                if not first then first, first_cell = s.fingerprint, cell end
                alike, why = fingerprint.check(first, s.fingerprint,
                    ("its scores and those of %s, seed %d,"):format(first_cell.arm, first_cell.seed))
            end
            if not alike then
                unlike[#unlike + 1] = { arm = cell.arm, seed = cell.seed,
                    reason = ("at %s: %s; --rescore scores finished runs alike"):format(rounded(s.share), why) }
            end
            for name, value in pairs(alike and s.values or {}) do
                local key = name .. "\0" .. s.share
                if not values[key] then
                    values[key] = { score = name, share = s.share, by_arm = {} }
                    names[#names + 1] = key
                end
                local by_arm = values[key].by_arm
                by_arm[cell.arm] = by_arm[cell.arm] or {}
                by_arm[cell.arm][cell.seed] = value
            end
        end
    end
    local by_name, position = {}, {}
    for _, v in pairs(values) do by_name[v.score] = true end
    for place, name in ipairs(score_table.names(by_name)) do position[name] = place end
    table.sort(names, function(a, b)
        local x, y = values[a], values[b]
        if x.score ~= y.score then return position[x.score] < position[y.score] end
        return x.share < y.share
    end)
    local rows = {}
    for i, key in ipairs(names) do rows[i] = values[key] end
    return rows, unlike, first
end

--- "better", "worse", or for a score without a better direction "lower", "higher"; otherwise what is missing to tell.
---@param c sagan.Comparison
---@param better string?
---@return string
function study_table.verdict(c, better)
    if c.n == 0 then return "no seed in common yet" end
    if c.n == 1 then return "one seed in common: no interval" end
    if c.decided then
        local direction = c.mean < 0 and "lower" or "higher"
        if not better then return direction end
        return direction == better and "better" or "worse"
    end
    if not c.more then return "not distinguishable, no difference in sight" end
    return ("not distinguishable yet, about %d more seed%s"):format(c.more, c.more == 1 and "" or "s")
end

--- Everything that is known: means, deviations, paired comparisons, and the reason of each cell that lacks.
---@param plan sagan.StudyPlan
---@param records sagan.CellRecord[]  of plan.cells
---@return {rows: sagan.StudyRow[], missing: {arm: string, seed: integer, reason: string}[], fingerprint: sagan.Fingerprint?}
function study_table.results(plan, records)
    local study, rows = plan.study, {}
    local collected, missing, measured = collect(plan, records)
    for k, raw in ipairs(collected) do
        local row = { score = raw.score, share = raw.share, better = ablation.direction(study, raw.score), arms = {} }
        for i, arm in ipairs(plan.arms) do
            local by_seed, list = raw.by_arm[arm.name] or {}, {}
            for _, seed in ipairs(plan.seeds) do list[#list + 1] = by_seed[seed] end
            local entry = { n = #list }
            if #list > 0 then entry.mean, entry.sd = statistics.mean_sd(list) end
            if i > 1 then
                local against = plan.arms[study.against == "previous" and i - 1 or 1].name
                entry.comparison = statistics.paired(by_seed, raw.by_arm[against] or {}, plan.seeds)
                entry.comparison.against = against
                entry.comparison.verdict = study_table.verdict(entry.comparison, row.better)
            end
            row.arms[arm.name] = entry
        end
        rows[k] = row
    end
    for i, cell in ipairs(plan.cells) do
        local r = records[i]
        if r.outcome == "diverged" or r.outcome == "failed" then
            missing[#missing + 1] = { arm = cell.arm, seed = cell.seed, reason = r.reason }
        end
        for _, s in ipairs(r.scores) do
            if s.reason then
                local reason = ("at %s: %s"):format(rounded(s.share), s.reason)
                missing[#missing + 1] = { arm = cell.arm, seed = cell.seed, reason = reason }
            end
        end
    end
    return { rows = rows, missing = missing, fingerprint = measured }
end

--- study.json: the plan, every cell's record, and the results.
---@param plan sagan.StudyPlan
---@param records sagan.CellRecord[]
---@return string
function study_table.json(plan, records)
    local study, arms = plan.study, {}
    for i, arm in ipairs(plan.arms) do
        local changes = {}
        for _, d in ipairs(arm.changes) do changes[d.field] = { from = config.literal(d.a), to = config.literal(d.b) } end
        arms[i] = { name = arm.name, changes = changes }
    end
    local c = plan.arms[1].config
    local results = study_table.results(plan, records)
    return json.encode {
        study = study.name, question = study.question or "", against = study.against or "base", seeds = plan.seeds,
        published = study.published, recipe = c.recipe, profile = c.profile, data = c.data, steps = c.train.steps, resolution = c.model.resolution,
        arms = arms, cells = json.array(records), rows = json.array(results.rows), missing = json.array(results.missing),
        fingerprint = results.fingerprint,
    } .. "\n"
end

local function pad(text, width, right)
    local space = (" "):rep(width - utf8.len(text))
    return right and space .. text or text .. space
end

-- Columns of equal width; in several parts if they do not fit beside each other.
local function grid(lines, heads, rows, wide)
    local label, cell = 0, 0
    for _, row in ipairs(rows) do label = math.max(label, utf8.len(row.label)) end
    for i, head in ipairs(heads) do
        cell = math.max(cell, utf8.len(head))
        for _, row in ipairs(rows) do cell = math.max(cell, utf8.len(row[i])) end
    end
    local fit = math.max(1, (wide - label) // (cell + 2))
    for from = 1, #heads, fit do
        local to = math.min(#heads, from + fit - 1)
        local function line(name, cells)
            local parts = { pad(name, label) }
            for i = from, to do parts[#parts + 1] = "  " .. pad(cells[i], cell, true) end
            lines[#lines + 1] = (table.concat(parts):gsub("%s+$", ""))
        end
        line("", heads)
        for _, row in ipairs(rows) do line(row.label, row) end
    end
end

local function which_way(better) return better and (" (%s is better)"):format(better) or "" end

--- Arms whose runs take about as long are no question of time: the slowest must take so many times the fastest's.
study_table.SLOWER = 1.1

-- Minutes of a finished run, training and scoring, means over seeds; nil unless the times differ.
local function time_row(plan, records)
    local row, least, most = { label = "minutes a run" }, math.huge, 0
    for i, arm in ipairs(plan.arms) do
        local list = {}
        for k, cell in ipairs(plan.cells) do
            local r = records[k]
            if cell.arm == arm.name and r.outcome == "done" and math.type(r.seconds) then list[#list + 1] = r.seconds / 60 end
        end
        local mean, sd
        if #list > 0 then
            mean, sd = statistics.mean_sd(list)
            least, most = math.min(least, mean), math.max(most, mean)
        end
        row[i] = not mean and "-" or sd and ("%.3g ± %.2g"):format(mean, sd) or ("%.3g"):format(mean)
    end
    return most >= study_table.SLOWER * least and row or nil
end

local function published_rows(plan)
    local table_ = require("sagan.published").get(plan.study.published)
    local rows, shares = {}, plan.study.at or { 1 }
    for _, score in ipairs(table_.scores) do
        for _, share in ipairs(shares) do
            local row, any = { label = score .. (#shares > 1 and " at " .. rounded(share) or "") }, false
            for i, arm in ipairs(plan.arms) do
                local entry = table_:entry(arm.name, share)
                local value = entry and entry[score]
                any = any or value
                row[i] = value and tostring(value) or "-"
            end
            if any then rows[#rows + 1] = row end
        end
    end
    return rows, table_
end

--- The rows that decide: the Frechet distance where there is one, else all. A table of nine arms and eight scores has more
--- intervals than anyone reads, and more chances to find one by luck; study.json has them all.
---@param rows sagan.StudyRow[]
---@return sagan.StudyRow[]
function study_table.headlines(rows)
    local out = {}
    for _, r in ipairs(rows) do
        if r.score:find("^F[I]?D%f[^%w]") then out[#out + 1] = r end
    end
    return #out > 0 and out or rows
end

--- The text that is printed: the table, each arm against what it is compared with, what is missing and why, and published
--- numbers.
---@param plan sagan.StudyPlan
---@param records sagan.CellRecord[]
---@param wide? integer  columns of the terminal; 120
---@return string[]
function study_table.lines(plan, records, wide)
    local study, lines = plan.study, {}
    local results = study_table.results(plan, records)
    local done = 0
    for _, r in ipairs(records) do done = done + (r.outcome == "done" and 1 or 0) end
    local c = plan.arms[1].config
    lines[1] = ("%s   %d of %d runs done, profile %s, %dx%d, width %d, %d steps; mean ± standard deviation over seeds %s"):format(
        study.name, done, #plan.cells, c.profile, c.model.resolution, c.model.resolution, c.model.width, c.train.steps,
        table.concat(plan.seeds, ", "))
    local heads, rows = {}, {}
    for i, arm in ipairs(plan.arms) do heads[i] = arm.name end
    local several = study.at and #study.at > 1
    for k, r in ipairs(results.rows) do
        local row = { label = r.score .. (several and " at " .. rounded(r.share) or "") }
        for i, arm in ipairs(plan.arms) do
            local e = r.arms[arm.name]
            row[i] = not e.mean and "-" or e.sd and ("%.4g ± %.2g"):format(e.mean, e.sd) or ("%.4g"):format(e.mean)
        end
        rows[k] = row
    end
    if #rows > 0 then rows[#rows + 1] = time_row(plan, records) end
    if #rows > 0 then grid(lines, heads, rows, wide or 120) end
    for _, r in ipairs(study_table.headlines(results.rows)) do
        if #plan.arms > 1 then
            lines[#lines + 1] = ("%s%s%s, difference [95 %% interval] over paired seeds"):format(r.score,
                several and " at " .. rounded(r.share) or "", which_way(r.better))
        end
        for i = 2, #plan.arms do
            local name = plan.arms[i].name
            local x = r.arms[name].comparison
            lines[#lines + 1] = ("  %s - %s: %s%s%s"):format(name, x.against,
                x.mean and ("%+.4g "):format(x.mean) or "", x.low and ("[%+.4g, %+.4g] "):format(x.low, x.high) or "", x.verdict)
        end
    end
    if #results.missing > 0 then lines[#lines + 1] = "missing" end
    for _, m in ipairs(results.missing) do
        lines[#lines + 1] = ("  %s, seed %d: %s"):format(m.arm, m.seed, (tostring(m.reason):gsub("\n.*", "")))
    end
    if study.published then
        local published, source = published_rows(plan)
        if #published > 0 then
            lines[#lines + 1] = ("published, another scale of run: %s"):format(source.source)
            grid(lines, heads, published, wide or 120)
            lines[#lines + 1] = "  " .. source:fingerprint_text()
        end
    end
    if results.fingerprint then lines[#lines + 1] = "measured by " .. fingerprint.text(results.fingerprint) end
    if study.score == ablation.losses then
        lines[#lines + 1] = "these are losses, which say whether a training is alive, not how good it is"
    end
    return lines
end

return study_table
