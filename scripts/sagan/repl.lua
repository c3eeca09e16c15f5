--- The plain prompt: reads lines, prints the values of expressions, goes on after errors. On a terminal with line editing,
-- completion by Tab and a history that outlives the session.
local program = package.preload["sagan.program"] and require "sagan.program" -- a stock lua5.4 has none: then there is no run
local traceback = require "sagan.traceback"

local repl = {}

local MAX_SHOWN = 20 -- fields of a printed table
local KEY_ORDER = { number = 1, string = 2 }

----------------------------------------------------------------------------------------------------- values

local function key_text(key)
    if type(key) == "string" and key:find("^[%a_][%w_]*$") then return key end
    return ("[%s]"):format(type(key) == "string" and ("%q"):format(key) or tostring(key))
end

local function brief(value)
    if type(value) == "string" then return ("%q"):format(#value > 60 and value:sub(1, 57) .. "..." or value) end
    local text = tostring(value)
    return text:match("^[^\n]*")
end

--- A table without a __tostring of its own is shown one level deep.
function repl.show(value)
    local meta = getmetatable(value)
    if type(value) ~= "table" or (type(meta) == "table" and rawget(meta, "__tostring")) then return tostring(value) end
    local keys = {}
    for key in pairs(value) do keys[#keys + 1] = key end
    if #keys == 0 then return "{}" end
    local length_of_list = #value
    table.sort(keys, function(a, b)
        if math.type(a) and math.type(b) then return a < b end
        local p, q = KEY_ORDER[type(a)] or 3, KEY_ORDER[type(b)] or 3
        if p ~= q then return p < q end
        return tostring(a) < tostring(b)
    end)
    local parts, length = {}, 0
    for i, key in ipairs(keys) do
        if i > MAX_SHOWN then
            parts[i] = ("... (%d in all)"):format(#keys)
            break
        end
        local listed = math.type(key) == "integer" and key >= 1 and key <= length_of_list
        parts[i] = listed and brief(value[key]) or ("%s = %s"):format(key_text(key), brief(value[key]))
        length = length + #parts[i] + 2
    end
    if length <= 96 then return "{" .. table.concat(parts, ", ") .. "}" end
    return "{\n  " .. table.concat(parts, ",\n  ") .. "\n}"
end

------------------------------------------------------------------------------------------------- completion

local keywords = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }

--- Names that can follow a value: fields of a table and of the tables it inherits from, methods of a tensor.
local function fields_of(value)
    local names, seen = {}, {}
    local function add(source)
        for name in pairs(source) do
            if type(name) == "string" and not seen[name] and name:find("^[%a_][%w_]*$") then
                seen[name] = true
                names[#names + 1] = name
            end
        end
    end
    for _ = 1, 10 do
        if type(value) == "table" then add(value) end
        local core = package.loaded["sagan.core"]
        if core and core.is_tensor(value) then
            add(core.tensor_methods)
            add { shape = 1, dtype = 1, device = 1, rank = 1, grad = 1, requires_grad = 1 }
        end
        local meta = debug.getmetatable(value)
        value = type(meta) == "table" and rawget(meta, "__index")
        if type(value) ~= "table" then break end
    end
    return names
end

--- complete(text up to the cursor, globals) -> what to insert, what to list
function repl.complete(text, globals)
    globals = globals or _G
    local path, word = text:match("([%a_][%w_%.]*[%.:])([%w_]*)$")
    if not path then word = text:match("([%a_][%w_]*)$") end
    if not word then return text:find("^%s*$") and "    " or nil end
    local names
    if path then
        local value = globals
        for name in path:gmatch("([%w_]+)[%.:]") do
            local ok, field = pcall(function() return value[name] end)
            if not ok or field == nil then return nil end
            value = field
        end
        names = fields_of(value)
    else
        names = fields_of(globals)
        table.move(keywords, 1, #keywords, #names + 1, names)
        if not rawget(_G, "sagan") then names[#names + 1] = "sagan" end
    end
    local matches = {}
    for _, name in ipairs(names) do
        if name:sub(1, #word) == word then matches[#matches + 1] = name end
    end
    if #matches == 0 then return nil end
    table.sort(matches)
    local common = matches[1]
    for _, name in ipairs(matches) do
        while name:sub(1, #common) ~= common do common = common:sub(1, -2) end
    end
    local insert = common:sub(#word + 1)
    if #matches == 1 or insert ~= "" then return insert end
    local width = 0
    for _, name in ipairs(matches) do width = math.max(width, #name + 2) end
    local columns, lines = math.max(1, 100 // width), {}
    for i, name in ipairs(matches) do
        local line = (i - 1) // columns + 1
        lines[line] = (lines[line] or "") .. name .. (" "):rep(width - #name)
    end
    return nil, table.concat(lines, "\n")
end

---------------------------------------------------------------------------------------------------- reading

--- The chunk for what has been typed: as an expression if it is one. nil, message, incomplete.
function repl.compile(text, globals)
    globals = globals or _G
    local function unfinished(message) return message:find("<eof>'?$") ~= nil end
    local expression, complaint = load("return " .. text:gsub("^%s*=", ""), "=prompt", "t", globals)
    if expression then return expression end
    local statement, message = load(text, "=prompt", "t", globals)
    if statement then return statement end
    return nil, message, unfinished(message) or unfinished(complaint)
end

--- Reads lines until they make a chunk: source and chunk; nil at the end of input; false for nothing to run.
local function read_chunk()
    local text = program.read_line("> ")
    if not text then return text end
    while true do
        if text:find("^%s*$") then return false end
        local chunk, message, incomplete = repl.compile(text)
        if chunk then return text, chunk end
        local more
        if incomplete then more = program.read_line(">> ") end
        if more == false then return false end
        if not more then
            program.add_history(text)
            io.stderr:write(message, "\n")
            return false
        end
        text = text .. "\n" .. more
    end
end

local function history_path()
    local state = os.getenv("XDG_STATE_HOME")
    local home = os.getenv("HOME")
    if state and state ~= "" then return state .. "/sagan-lua/history" end
    return home and home .. "/.local/state/sagan-lua/history"
end

--- The values of expressions as one line of text; nil for none.
---@param results table  packed
---@return string?
function repl.render(results)
    if results.n == 0 then return nil end
    local shown = {}
    for i = 1, results.n do
        local ok, rendered = pcall(repl.show, results[i])
        shown[i] = ok and rendered or "(cannot be shown: " .. tostring(rendered) .. ")"
    end
    return table.concat(shown, "\t")
end

--- Runs a chunk in this program.
local function evaluate_here(_, chunk)
    local results = table.pack(program.call(traceback, chunk))
    if not results[1] then
        io.stdout:flush()
        io.stderr:write(program.interrupted() and "interrupted" or tostring(results[2]), "\n")
        return true
    end
    if results.n > 1 then _G._ = results[2] end
    local text = repl.render(table.pack(table.unpack(results, 2, results.n)))
    if text then print(text) end
    return true
end

---@class sagan.Session  what a prompt talks to; this program where a field is absent
---@field evaluate? fun(text: string, chunk: function): boolean?  prints; false leaves
---@field complete? fun(text: string): string?, string?

---@param session? sagan.Session
function repl.run(session)
    session = session or {}
    local evaluate = session.evaluate or evaluate_here
    local path = history_path()
    if path then program.load_history(path) end
    program.set_completer(session.complete or repl.complete)
    if rawget(_G, "help") == nil then _G.help = require "sagan.help" end
    if program.isatty(0) then print("help() explains, Ctrl-D leaves") end
    while true do
        local text, chunk = read_chunk()
        if text == nil then break end
        if text then
            program.add_history((text:gsub("\n%s*", " ")))
            if not evaluate(text, chunk) then break end
        end
    end
    local core = require "sagan.core"
    if path and core.system then
        core.system.mkdir((path:gsub("/[^/]*$", "")))
        program.save_history(path)
    end
end

return repl
