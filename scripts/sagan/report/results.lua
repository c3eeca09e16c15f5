--- results.lua - the scores of a group, sorted into measurements: all that was measured in one and the same way. Only inside a
--- measurement do scores stand beside each other, have means and are compared; the statistics are those of study_table.lua.
local ablation = require "sagan.ablation"
local study_table = require "sagan.study_table"
local fingerprint = require "sagan.fingerprint"
local score_table = require "sagan.score_table"
local format = require "sagan.report.format"

local results = {}

---@class sagan.report.Measurement
---@field kind "scores"|"unknown"|"losses"  unknown: a study's own score function, which leaves no fingerprint
---@field fingerprint table?
---@field rows sagan.report.Row[]
---@field names string[]           scores, the decisive ones first
---@field values table<string, table<integer, table<string, table<integer, number>>>>  [arm][seed][score][step]
---@field intervals table<string, table<integer, table<string, table<integer, number[]>>>>  the same of the ledger's intervals
---@field per_class table<string, table<integer, table<string, table<integer, number[]>>>>  the same of scores by class
---@field class_names string[]
---@field notes string[]

---@class sagan.report.Row: sagan.StudyRow
---@field step integer
---@field final boolean   the last at which this score was to be measured

local function put(t, value, ...)
    local keys = table.pack(...)
    for i = 1, keys.n - 1 do
        t[keys[i]] = t[keys[i]] or {}
        t = t[keys[i]]
    end
    t[keys[keys.n]] = value
end

local function is_loss(name) return name:find("^loss/") ~= nil or name:find("^logit/") ~= nil end

-- The ledger's entry from which a study's score comes, for records that do not say.
local function origin(run, step, name, value)
    for i = #run.ledger, 1, -1 do
        local entry = run.ledger[i]
        if entry.step == step and entry.scores[name] == value then return entry.fingerprint end
    end
end

local function measurement(all, kind, f)
    local key = kind == "scores" and fingerprint.key(f) or kind
    if not all[key] then
        all[key] = { kind = kind, fingerprint = f, values = {}, intervals = {}, per_class = {}, class_names = {}, missing = {}, notes = {},
            names = {}, count = 0 }
        table.insert(all, all[key])
    end
    return all[key]
end

local function add(m, cell, name, step, value)
    put(m.values, value, cell.arm, cell.seed, name, step)
    m.count = m.count + 1
    if not m.names[name] then
        m.names[name] = true
        table.insert(m.names, name)
    end
end

local function add_ledger(all, cell)
    for _, entry in ipairs(cell.run and cell.run.ledger or {}) do
        local m = measurement(all, "scores", entry.fingerprint)
        local step = math.tointeger(entry.step)
        for name, value in pairs(entry.scores) do
            if type(name) == "string" and format.is_finite(value) then
                add(m, cell, name, step, value)
                local interval = type(entry.intervals) == "table" and entry.intervals[name]
                if type(interval) == "table" and format.is_finite(interval[1]) and format.is_finite(interval[2]) then
                    put(m.intervals, interval, cell.arm, cell.seed, name, step)
                end
            else
                put(m.missing, "it is " .. tostring(value), cell.arm, cell.seed, name, step)
            end
        end
        for name, list in pairs(type(entry.per_class) == "table" and entry.per_class or {}) do
            if type(list) == "table" then put(m.per_class, list, cell.arm, cell.seed, name, step) end
        end
        for i, name in ipairs(type(entry.class_names) == "table" and entry.class_names or {}) do
            m.class_names[i] = tostring(name)
        end
        for name, reason in pairs(type(entry.missing) == "table" and entry.missing or {}) do
            put(m.missing, tostring(reason), cell.arm, cell.seed, name, step)
        end
        for _, note in ipairs(type(entry.notes) == "table" and entry.notes or {}) do
            if type(note) == "string" and not m.notes[note] then
                m.notes[note] = true
                table.insert(m.notes, note)
            end
        end
    end
end

local function add_record(all, cell)
    for _, s in ipairs(cell.record and cell.record.scores or {}) do
        for name, value in pairs(type(s.values) == "table" and s.values or {}) do
            if format.is_finite(value) then
                local f = type(s.fingerprint) == "table" and s.fingerprint or cell.run and origin(cell.run, s.step, name, value)
                local kind = f and "scores" or is_loss(name) and "losses" or "unknown"
                add(measurement(all, kind, f), cell, name, s.step, value)
            end
        end
    end
end

-- {share, step} at which scores were to be measured, growing.
local function stages(group, m)
    local steps, list = {}, {}
    if group.kind == "study" then
        steps[group.study.steps] = 1
        for _, cell in ipairs(group.cells) do
            for _, s in ipairs(cell.record.scores) do
                if math.type(s.step) == "integer" and math.type(s.share) then steps[s.step] = s.share end
            end
        end
    else -- the step that most runs were scored at, the latest of those
        local counts = {}
        for _, seeds in pairs(m.values) do
            for _, names in pairs(seeds) do
                local seen = {}
                for _, by_step in pairs(names) do
                    for step in pairs(by_step) do seen[step] = true end
                end
                for step in pairs(seen) do counts[step] = (counts[step] or 0) + 1 end
            end
        end
        local best
        for step, n in pairs(counts) do
            if not best or n > counts[best] or n == counts[best] and step > best then best = step end
        end
        if best then steps[best] = 1 end
    end
    for step, share in pairs(steps) do list[#list + 1] = { step = step, share = share } end
    table.sort(list, function(a, b) return a.step < b.step end)
    return list
end

-- A row for a score that was to be measured at a step and that no run has: all its cells are missing.
local function empty_row(group, plan, score, stage)
    local row = { score = score, share = stage.share, better = ablation.direction(plan.study, score), arms = {} }
    for i, arm in ipairs(group.arms) do
        local comparison = { n = 0, decided = false }
        comparison.against = group.arms[plan.study.against == "previous" and i - 1 or 1]
        comparison.against = comparison.against and comparison.against.name
        comparison.verdict = study_table.verdict(comparison)
        row.arms[arm.name] = { n = 0, comparison = i > 1 and comparison or nil }
    end
    return row
end

-- Scores that the ledger names as missing at a step, and that have no row there.
local function add_missing_rows(group, m, plan, list, rows)
    local has = {}
    for _, row in ipairs(rows) do has[row.score .. "\0" .. row.share] = true end
    for _, seeds in pairs(m.missing) do
        for _, names in pairs(seeds) do
            for name, by_step in pairs(names) do
                for _, stage in ipairs(list) do
                    local key = name .. "\0" .. stage.share
                    if by_step[stage.step] and not has[key] then
                        has[key] = true
                        table.insert(rows, empty_row(group, plan, name, stage))
                    end
                end
            end
        end
    end
end

-- Rows as study_table computes them, from the values of this measurement alone.
local function compute(group, m)
    local list = stages(group, m)
    local better, plan, records = {}, { arms = group.arms, seeds = group.seeds, cells = {}, study = { name = group.name } }, {}
    for _, row in ipairs(group.study and group.study.rows or {}) do
        if type(row) == "table" and type(row.score) == "string" then better[row.score] = row.better end
    end
    plan.study.against = group.study and group.study.against
    for _, name in ipairs(m.names) do better[name] = better[name] or ablation.direction({}, name) end
    plan.study.better = better
    for i, cell in ipairs(group.cells) do
        plan.cells[i] = cell
        records[i] = { outcome = cell.outcome, reason = cell.reason, scores = {} }
        for _, stage in ipairs(list) do
            local values = {}
            for _, name in ipairs(m.names) do
                local by_step = ((m.values[cell.arm] or {})[cell.seed] or {})[name] or {}
                values[name] = by_step[stage.step]
            end
            table.insert(records[i].scores, { share = stage.share, step = stage.step, values = values })
        end
    end
    local rows, step_of = study_table.results(plan, records).rows, {}
    for _, stage in ipairs(list) do step_of[stage.share] = stage.step end
    add_missing_rows(group, m, plan, list, rows)
    local last = {}
    for _, row in ipairs(rows) do
        row.step = step_of[row.share]
        last[row.score] = math.max(last[row.score] or 0, row.step)
    end
    for _, row in ipairs(rows) do row.final = row.step == last[row.score] end
    table.sort(rows, function(a, b)
        if a.score ~= b.score then return score_table.before(a.score, b.score) end
        return a.step < b.step
    end)
    m.rows = rows
end

--- The measurements of a group, the decisive ones first.
---@param group sagan.report.Group
---@return sagan.report.Measurement[]
function results.of(group)
    local all = {}
    for _, cell in ipairs(group.cells) do
        add_record(all, cell)
        add_ledger(all, cell)
    end
    for _, m in ipairs(all) do
        table.sort(m.names, score_table.before)
        compute(group, m)
    end
    local kinds <const> = { scores = 1, unknown = 2, losses = 3 }
    table.sort(all, function(a, b)
        if a.kind ~= b.kind then return kinds[a.kind] < kinds[b.kind] end
        local x, y = score_table.rank(a.names[1] or ""), score_table.rank(b.names[1] or "")
        if x ~= y then return x < y end
        if a.count ~= b.count then return a.count > b.count end
        return fingerprint.key(a.fingerprint) < fingerprint.key(b.fingerprint)
    end)
    return all
end

--- Why a cell has no value in a row; nil if it has one.
---@param group sagan.report.Group
---@param m sagan.report.Measurement
---@param row sagan.report.Row
---@param arm string
---@param seed integer
---@return string?
function results.missing(group, m, row, arm, seed)
    local function at(t) return (((t[arm] or {})[seed] or {})[row.score] or {})[row.step] end
    if at(m.values) then return nil end
    if at(m.missing) then return at(m.missing) end
    local cell = (group.by[arm] or {})[seed]
    if not cell then return "there is no run of this arm with this seed" end
    for _, s in ipairs(cell.record and cell.record.scores or {}) do
        if s.step == row.step and s.reason then return tostring(s.reason) end
    end
    if cell.outcome ~= "done" then return cell.reason end
    local others = {}
    for step in pairs(((m.values[arm] or {})[seed] or {})[row.score] or {}) do others[#others + 1] = step end
    table.sort(others)
    if #others > 0 then
        return ("not scored at step %s; newest at step %s"):format(format.number(row.step), format.number(others[#others]))
    end
    return ("not measured in this way at step %s"):format(format.number(row.step))
end

return results
