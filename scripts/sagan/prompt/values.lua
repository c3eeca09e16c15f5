--- values.lua - how the prompt writes values: nested tables with sorted keys, within limits, cycles named; tensors and
--- networks as they print themselves.
local core = require "sagan.core"

local values = {}

local MAX_DEPTH <const> = 4   -- tables in tables; fewer where more than MAX_LINES would come of it
local MAX_LINES <const> = 30
local MAX_SHOWN <const> = 20  -- entries of one table
local MAX_TABLES <const> = 200
local MAX_STRING <const> = 60 -- bytes of a string in a table
local KEY_ORDER <const> = { number = 1, string = 2 }

local function quoted(text)
    if #text > MAX_STRING then
        local cut = utf8.len(text) and utf8.offset(text, 0, MAX_STRING - 3) or MAX_STRING - 3 -- no half of a character
        text = text:sub(1, cut - 1) .. "..."
    end
    return (("%q"):format(text):gsub("\\\n", "\\n"))
end

local function parameters(f)
    local info = debug.getinfo(f, "Su")
    if info.what == "C" then return "function" end
    local names = {}
    for i = 1, info.nparams do names[i] = debug.getlocal(f, i) end
    if info.isvararg then names[#names + 1] = "..." end
    return ("function(%s)"):format(table.concat(names, ", "))
end

local function key_text(key)
    if type(key) == "string" and key:find("^[%a_][%w_]*$") then return key end
    return ("[%s]"):format(type(key) == "string" and quoted(key) or tostring(key))
end

local function sorted_keys(t)
    local keys = {}
    for key in next, t do keys[#keys + 1] = key end
    table.sort(keys, function(a, b)
        if math.type(a) and math.type(b) then return a < b end
        local p, q = KEY_ORDER[type(a)] or 3, KEY_ORDER[type(b)] or 3
        if p ~= q then return p < q end
        return tostring(a) < tostring(b)
    end)
    return keys
end

local function speaks_for_itself(value)
    local meta = debug.getmetatable(value)
    return type(value) ~= "table" or (type(meta) == "table" and rawget(meta, "__tostring") ~= nil)
end

--- Entries in lines: one after another in a list of plain values, else each on its own.
local function lines_of(entries, flowing, indent, width)
    local lines = {}
    for i, entry in ipairs(entries) do
        local text = entry .. (i < #entries and "," or "")
        local last = lines[#lines]
        if flowing and last and #last + 1 + #text + #indent <= width then
            lines[#lines] = last .. " " .. text
        else
            lines[#lines + 1] = text
        end
    end
    return lines
end

local brief

local function table_text(value, state, depth)
    if state.above[value] then return "(a table above)" end
    if next(value) == nil then return "{}" end
    state.tables = state.tables + 1
    if depth > state.depth or state.tables > MAX_TABLES then return "{...}" end
    state.above[value] = true
    local keys, length, entries, flowing = sorted_keys(value), rawlen(value), {}, true
    for i, key in ipairs(keys) do
        if i > MAX_SHOWN then
            entries[i] = ("... (%d in all)"):format(#keys)
            break
        end
        local listed = math.type(key) == "integer" and key >= 1 and key <= length
        local item = rawget(value, key)
        local text = brief(item, state, depth + 1)
        flowing = flowing and listed and type(item) ~= "table"
        entries[i] = listed and text or ("%s = %s"):format(key_text(key), text)
    end
    state.above[value] = nil
    local indent = ("  "):rep(depth)
    local line = "{" .. table.concat(entries, ", ") .. "}"
    if #indent + #line <= state.width and not line:find("\n", 1, true) then return line end
    local inner = indent .. "  "
    return ("{\n%s%s\n%s}"):format(inner, table.concat(lines_of(entries, flowing, inner, state.width), "\n" .. inner), indent)
end

--- A value inside a table.
function brief(value, state, depth)
    if type(value) == "string" then return quoted(value) end
    if type(value) == "function" then return parameters(value) end
    if speaks_for_itself(value) then return tostring(value):match("^[^\n]*") end
    return table_text(value, state, depth)
end

--- The text of a value; may have several lines.
---@param value any
---@return string
function values.text(value)
    if type(value) == "function" then return require "sagan.prompt.describe".signature(value) or parameters(value) end
    if speaks_for_itself(value) then return tostring(value) end
    local width = core.system.terminal_width() or 100
    for depth = MAX_DEPTH, 0, -1 do
        local text = table_text(value, { above = {}, tables = 0, depth = depth, width = width }, 0)
        local _, newlines = text:gsub("\n", "")
        if newlines < MAX_LINES or depth == 0 then return text end
    end
end

return values
