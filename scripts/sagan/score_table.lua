--- score_table.lua - scores as text: one entry of a ledger line by line, and the ledgers of several runs side by side as far
--- as their fingerprints allow.
local ledger = require "sagan.ledger"
local fingerprint = require "sagan.fingerprint"

local score_table = {}

--- The usual order; others follow by name.
local ORDER <const> = { "FD", "IS", "KID", "precision", "recall", "density", "coverage", "intra-FD", "legs" }

--- Where a score stands in the usual order.
---@param name string
---@return integer
function score_table.rank(name)
    for i, prefix in ipairs(ORDER) do
        local base = name:gsub("FID", "FD")
        if base == prefix or base:find(prefix .. "-", 1, true) == 1 then return i end
    end
    return #ORDER + 1
end

local SHARES <const> = { precision = true, recall = true, coverage = true, legs = true }

--- Whether a score is a share, from 0 to 1, which density is not.
---@param name string
---@return boolean
function score_table.is_share(name) return SHARES[name:match("^%a+")] == true end

--- Whether one score comes before another.
---@param a string
---@param b string
---@return boolean
function score_table.before(a, b)
    local x, y = score_table.rank(a), score_table.rank(b)
    if x ~= y then return x < y end
    return a < b
end

--- Names of scores in the usual order.
---@param scores table<string, any>
---@return string[]
function score_table.names(scores)
    local names = {}
    for name in pairs(scores) do names[#names + 1] = name end
    table.sort(names, score_table.before)
    return names
end

--- An entry, one score a line with what is known of its error, what is missing and why, and notes.
---@param entry sagan.Scored
---@return string[]
function score_table.entry_lines(entry)
    local lines = {}
    for _, name in ipairs(score_table.names(entry.scores)) do
        local interval, deviation = (entry.intervals or {})[name], (entry.deviations or {})[name]
        local extra = ""
        if interval then extra = ("   [%.4g, %.4g] by resampling"):format(interval[1], interval[2]) end
        if deviation then
            extra = ("   +- %.2g over %s"):format(deviation, name:find("^KID") and "subsets" or "splits")
        end
        lines[#lines + 1] = ("%-14s %10.4g%s"):format(name, entry.scores[name], extra)
    end
    for _, name in ipairs(score_table.names(entry.missing or {})) do
        lines[#lines + 1] = ("%-14s %10s   %s"):format(name, "missing", entry.missing[name])
    end
    for _, note in ipairs(entry.notes or {}) do lines[#lines + 1] = "note: " .. note end
    return lines
end

--- The ledgers of several runs: a table for each fingerprint, and between two tables the field in which they differ.
---@param runs {name: string, folder: string}[]
---@return string[]
function score_table.comparison_lines(runs)
    local lines, groups = {}, ledger.groups(runs)
    if #groups == 0 then return { "nothing was scored yet: sagan-lua eval RUN" } end
    for i, group in ipairs(groups) do
        if i > 1 then
            local _, why = fingerprint.check(groups[1].fingerprint, group.fingerprint, "the next scores and the first")
            lines[#lines + 1] = ""
            lines[#lines + 1] = why
        end
        lines[#lines + 1] = fingerprint.text(group.fingerprint)
        local all, wide = {}, 4
        for _, e in ipairs(group.entries) do
            for name in pairs(e.entry.scores) do all[name] = true end
            wide = math.max(wide, utf8.len(e.name) or #e.name)
        end
        local names = score_table.names(all)
        local head = { ("%-" .. wide .. "s"):format("run"), ("%9s"):format("step") }
        for _, name in ipairs(names) do head[#head + 1] = ("%" .. math.max(9, #name) .. "s"):format(name) end
        lines[#lines + 1] = table.concat(head, "  ")
        for _, e in ipairs(group.entries) do
            local row = { e.name .. (" "):rep(wide - (utf8.len(e.name) or #e.name)), ("%9d"):format(e.entry.step) }
            for _, name in ipairs(names) do
                local value = e.entry.scores[name]
                row[#row + 1] = ("%" .. math.max(9, #name) .. "s"):format(value and ("%.4g"):format(value) or "-")
            end
            lines[#lines + 1] = table.concat(row, "  ")
        end
    end
    return lines
end

return score_table
