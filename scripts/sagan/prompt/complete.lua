--- complete.lua - what Tab offers at the prompt, from the text in front of the cursor: names, fields, methods, keywords,
--- file names inside quotes, topics after help, commands after a colon; after "(" the arguments.
---
--- A path like `net.stages[1].conv:` is followed without running anything of the user's: through the tables themselves, the
--- tables they inherit from, and, where __index is a function, what the metatable says there is: fields that can be read
--- (__names, of a value) and methods (__methods).

local core = require "sagan.core"
local system = core.system

local complete = {}

local KEYWORDS <const> = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
    "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }
local TENSOR_FIELDS <const> = { "shape", "dtype", "device", "rank", "grad", "requires_grad" }
local MAX_PARENTS <const> = 10 -- tables that a table inherits from

------------------------------------------------------------------------------------------------- what a name leads to

--- The next thing to look in when a name is not in a value itself: the __index of its metatable.
local function index_of(value)
    local meta = debug.getmetatable(value)
    return type(meta) == "table" and rawget(meta, "__index") or nil, meta
end

local function lists(names, wanted)
    for _, name in ipairs(names) do
        if name == wanted then return true end
    end
    return false
end

--- value[key] as far as no function of the user's has to run for it; nil otherwise.
local function step(value, key)
    local start = value
    for _ = 1, MAX_PARENTS do
        if type(value) == "table" then
            local found = rawget(value, key)
            if found ~= nil then return found end
        end
        local index, meta = index_of(value)
        if type(index) == "function" then
            local methods = rawget(meta, "__methods")
            if methods and methods[key] ~= nil then return methods[key] end
            local safe = core.is_tensor(value) or (meta.__names and lists(meta.__names(value), key))
            if not safe then return nil end
            local ok, found = pcall(function() return start[key] end)
            return ok and found or nil
        end
        if index == nil then return nil end
        value = index
    end
end

--- Names that can follow a value. methods: only those of functions, for after a colon.
local function names_of(value, methods)
    local names, seen = {}, {}
    local function add(name, found)
        if type(name) ~= "string" or seen[name] or not name:find("^[%a_][%w_]*$") or name:find("^__") then return end
        if methods and type(found) ~= "function" then return end
        seen[name] = true
        names[#names + 1] = name
    end
    for _ = 1, MAX_PARENTS do
        if type(value) == "table" then
            for name, found in next, value do add(name, found) end
        end
        if core.is_tensor(value) then
            for name, found in pairs(core.tensor_methods) do add(name, found) end
            for _, name in ipairs(TENSOR_FIELDS) do add(name) end
        end
        local index, meta = index_of(value)
        if type(meta) == "table" and meta.__names and not methods then
            for _, name in ipairs(meta.__names(value)) do add(name) end
        end
        if type(index) == "function" then index = rawget(meta, "__methods") end
        if type(index) ~= "table" then break end
        value = index
    end
    return names
end

--- Takes the last part off a path: "a.b[1].c" -> "a.b[1]", "c"; "a.b[1]" -> "a.b", 1. nil if it ends in none.
local function take_last(path)
    local before, name = path:match("^(.*)[%.:]%s*([%a_][%w_]*)%s*$")
    if before then return before, name end
    local number
    before, number = path:match("^(.*)%[%s*(%-?%d+)%s*%]%s*$")
    if before then return before, math.tointeger(number) end
    before, name = path:match("^(.*)%[%s*[\"']([^\"'%]]*)[\"']%s*%]%s*$")
    return before, name
end

--- The value of a path of names and constant indices; nil if it is anything else, or holds nothing.
local function resolve(path, globals)
    local keys, rest = {}, path
    while not rest:find("^[%a_][%w_]*$") do
        local before, key = take_last(rest)
        if not before then return nil end
        table.insert(keys, 1, key)
        rest = before
    end
    local value = step(globals, rest)
    for _, key in ipairs(keys) do
        if value == nil then return nil end
        value = step(value, key)
    end
    return value
end

--- The longest path that a text ends with.
local function path_at_end(text)
    local at = #text
    while at > 0 do
        local c = text:sub(at, at)
        if c == "]" then
            local open = text:sub(1, at):match(".*()%[")
            if not open then break end
            at = open - 1
        elseif c:find("[%w_%.:]") then
            at = at - 1
        else
            break
        end
    end
    return text:sub(at + 1)
end

------------------------------------------------------------------------------------------------------- inside quotes

--- What stands after the quote in which a text ends, and what stands before it; nil outside of strings and in comments.
local function open_string(text)
    local at = 1
    while at <= #text do
        local c = text:sub(at, at)
        local level = text:match("^%[(=*)%[", at)
        if text:find("^%-%-", at) then
            local stop = text:find("\n", at, true)
            if not stop then return nil, nil, true end
            at = stop + 1
        elseif level then
            local _, stop = text:find("]" .. level .. "]", at, true)
            if not stop then return nil, nil, true end
            at = stop + 1
        elseif c == '"' or c == "'" then
            local stop = at + 1
            while stop <= #text and text:sub(stop, stop) ~= c do
                stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
            end
            if stop > #text then return text:sub(at + 1), text:sub(1, at - 1), false, c end
            at = stop + 1
        else
            at = at + 1
        end
    end
end

local function file_names(start)
    local folder = start:match("^(.*/)") or ""
    local names = {}
    for _, name in ipairs(system.list(folder == "" and "." or folder) or {}) do
        local stat = name:sub(1, 1) ~= "." and system.stat(folder .. name)
        if stat then names[#names + 1] = folder .. name .. (stat.type == "folder" and "/" or "") end
    end
    return names
end

local function topics()
    local names = { "ops" }
    for _, name in ipairs(core.op_names()) do names[#names + 1] = name end
    for name in pairs(core.tensor_methods) do names[#names + 1] = name end
    for _, field in ipairs(require "sagan.fields".list) do names[#names + 1] = field.key end
    return names
end

--------------------------------------------------------------------------------------------------------------- offers

--- Those of the names that begin with a word, sorted, each once.
local function beginning_with(names, word)
    local matches, seen = {}, {}
    for _, name in ipairs(names) do
        if name:sub(1, #word) == word and not seen[name] then
            seen[name] = true
            matches[#matches + 1] = name
        end
    end
    table.sort(matches)
    return matches
end

local function in_columns(names)
    local width = 0
    for _, name in ipairs(names) do width = math.max(width, #name + 2) end
    local columns = math.max(1, ((system.terminal_width() or 100) - 1) // width)
    local rows, lines = (#names + columns - 1) // columns, {}
    for i, name in ipairs(names) do
        local line = (i - 1) % rows + 1
        lines[line] = (lines[line] or "") .. name .. (" "):rep(width - #name)
    end
    for i, line in ipairs(lines) do lines[i] = line:gsub("%s+$", "") end
    return table.concat(lines, "\n")
end

--- What to insert, or else what to list. closing: what follows a single match that is no folder.
local function offer(names, word, closing)
    local matches = beginning_with(names, word)
    if #matches == 0 then return nil end
    local common = matches[1]
    for _, name in ipairs(matches) do
        while name:sub(1, #common) ~= common do common = common:sub(1, -2) end
    end
    local insert = common:sub(#word + 1)
    if #matches == 1 then return insert .. (closing and common:sub(-1) ~= "/" and closing or "") end
    if insert ~= "" then return insert end
    for i, name in ipairs(matches) do matches[i] = name:match("([^/]+/?)$") end
    return nil, in_columns(matches)
end

--- complete(text) for the prompt.
---@param text string everything up to the cursor
---@param globals table? where names are looked for; _G if absent
---@param commands string[]? names of the prompt's own commands
---@return string? insert
---@return string? list what to show when there is more than one way to go on
function complete.text(text, globals, commands)
    globals = globals or _G
    local command = text:match("^%s*:(%a*)$")
    if command and commands then return offer(commands, command, " ") end
    local inside, before, unknown, quote = open_string(text)
    if inside then
        local is_topic = before:find("help%s*%(?%s*$")
        return offer(is_topic and topics() or file_names(inside), inside, quote)
    end
    if unknown then return nil end
    if text:find("^%s*$") or text:find("\n%s*$") then return "    " end

    local called = text:match("^(.*[%w_%]])%s*%(%s*$")
    if called then
        local value = resolve(path_at_end(called), globals)
        return nil, type(value) == "function" and require "sagan.prompt.describe".signature(value) or nil
    end
    local path, mark, word = path_at_end(text):match("^(.-)([%.:]?)%s*([%a_]?[%w_]*)$")
    if mark == "" then
        if word == "" then return nil end
        local names = names_of(globals)
        table.move(KEYWORDS, 1, #KEYWORDS, #names + 1, names)
        return offer(names, word)
    end
    local value = resolve(path, globals)
    if value == nil then return nil end
    return offer(names_of(value, mark == ":"), word)
end

return complete
