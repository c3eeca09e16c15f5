--- ledger.lua - scores.jsonl of a run: every score that was ever measured of it, one JSON object a line, each with the
--- fingerprint of how. Nothing in it is changed later; a newer line with the same step and fingerprint replaces an older one
--- where scores are shown.
local system = require("sagan.core").system
local json = require "sagan.json"
local fingerprint = require "sagan.fingerprint"

local ledger = {}

---@class sagan.Scored  a line of scores.jsonl
---@field time string          when, UTC
---@field step integer
---@field checkpoint string    relative to the run folder
---@field seconds number       that scoring took
---@field fingerprint sagan.Fingerprint
---@field scores table<string, number>
---@field intervals? table<string, number[]>  95 % of the score's own sampling, low and high
---@field deviations? table<string, number>   over splits (IS) or subsets (KID)
---@field per_class? table<string, number[]>
---@field class_names? string[]  of per_class
---@field notes? string[]      what is to be known of the numbers

local function path_of(folder) return folder .. "/scores.jsonl" end

--- Adds an entry and syncs it.
---@param folder string  of a run
---@param entry sagan.Scored
---@return true? ok
---@return string? message
function ledger.append(folder, entry)
    local path = path_of(folder)
    local text = system.read(path) or ""
    if text ~= "" and text:sub(-1) ~= "\n" then text = text .. "\n" end -- a line that a full disk cut off
    return system.write_atomic(path, text .. json.encode(entry) .. "\n")
end

--- The entries, oldest first. Lines that cannot be read are left out and counted.
---@param folder string
---@return sagan.Scored[] entries
---@return integer broken
function ledger.read(folder)
    local entries, broken = {}, 0
    for line in (system.read(path_of(folder)) or ""):gmatch("[^\n]+") do
        local entry = json.decode(line)
        if type(entry) == "table" and type(entry.fingerprint) == "table" and type(entry.scores) == "table"
            and math.type(entry.step) then
            entries[#entries + 1] = entry
        else
            broken = broken + 1
        end
    end
    return entries, broken
end

--- The newest entry of a step with a fingerprint that agrees in all fields given.
---@param folder string
---@param step? integer
---@param wanted? table<string, any>  some fields of a fingerprint
---@return sagan.Scored?
function ledger.find(folder, step, wanted)
    local found
    for _, entry in ipairs(ledger.read(folder)) do
        local fits = not step or entry.step == step
        for field, value in pairs(wanted or {}) do fits = fits and entry.fingerprint[field] == value end
        if fits then found = entry end
    end
    return found
end

--- Entries of several runs, sorted into groups of equal fingerprints, in which alone scores may be compared.
---@param runs {name: string, folder: string}[]
---@return {fingerprint: sagan.Fingerprint, entries: {name: string, entry: sagan.Scored}[]}[]
function ledger.groups(runs)
    local groups, by_key = {}, {}
    for _, run in ipairs(runs) do
        local newest, order = {}, {}
        for _, entry in ipairs(ledger.read(run.folder)) do
            local key = fingerprint.key(entry.fingerprint) .. "\31" .. entry.step
            if not newest[key] then order[#order + 1] = key end
            newest[key] = entry
        end
        for _, key in ipairs(order) do
            local entry = newest[key]
            local group_key = fingerprint.key(entry.fingerprint)
            local group = by_key[group_key]
            if not group then
                group = { fingerprint = entry.fingerprint, entries = {} }
                by_key[group_key] = group
                groups[#groups + 1] = group
            end
            table.insert(group.entries, { name = run.name, entry = entry })
        end
    end
    return groups
end

return ledger
