--- history.lua - what was typed at the prompt, kept across sessions: $XDG_STATE_HOME/sagan-lua/history, readable by its owner
--- alone. One line an entry; a newline in it is written \n, a backslash \\.
---
--- Each entry is appended at once, so several sessions at a time keep what all of them typed. Nothing is ever rewritten: a
--- file that has grown large becomes history.old in one rename, in place of the one before.

local system = require "sagan.core".system

local history = {}

local MAX_ENTRIES <const> = 2000
local MAX_BYTES <const> = 1 << 18

--- Where the history of this user is; nil if neither XDG_STATE_HOME nor HOME says so.
---@return string?
function history.path()
    local state, home = os.getenv "XDG_STATE_HOME", os.getenv "HOME"
    if state and state ~= "" then return state .. "/sagan-lua/history" end
    return home and home .. "/.local/state/sagan-lua/history"
end

local function encode(text) return (text:gsub("\\", "\\\\"):gsub("\n", "\\n")) end

local function decode(line)
    return (line:gsub("\\(.)", function(c) return c == "n" and "\n" or c end))
end

local function put_aside(path)
    local lock <close> = system.lock(path .. ".lock")
    local stat = lock and system.stat(path) -- again, as another session may have been faster
    if stat and stat.size > MAX_BYTES then system.rename(path, path .. ".old") end
end

--- The entries of a history, oldest first; of equal ones the last.
---@param path string
---@return string[] entries {} if there is no such file
function history.load(path)
    local stat = system.stat(path)
    if stat and stat.size > MAX_BYTES then put_aside(path) end
    local text = (system.read(path .. ".old") or "") .. (system.read(path) or "")
    local lines = {}
    for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
    local newest_first, seen = {}, {}
    for i = #lines, 1, -1 do
        if not seen[lines[i]] and #newest_first < MAX_ENTRIES then
            seen[lines[i]] = true
            newest_first[#newest_first + 1] = decode(lines[i])
        end
    end
    local entries = {}
    for i = #newest_first, 1, -1 do entries[#entries + 1] = newest_first[i] end
    return entries
end

--- Adds an entry, and the folders above the file where they are missing.
---@param path string
---@param text string
---@return boolean? ok
---@return string? message
function history.add(path, text)
    local folder = path:match("^(.*)/[^/]*$")
    if folder and not system.stat(folder) then
        local made, message = system.mkdir(folder)
        if not made then return nil, message end
    end
    return system.append(path, encode(text) .. "\n", true)
end

return history
