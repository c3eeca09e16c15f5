--- describe.lua - what help(x) says about a value: a function, a class, a module, an object of the engine. All of it is read
--- from annotations (annotations.lua); nothing is written down here a second time.

local core = require "sagan.core"
local annotations = require "sagan.prompt.annotations"

local describe = {}

local MANUAL <const> = "https://www.lua.org/manual/5.4/manual.html#pdf-"

------------------------------------------------------------------------------------------------------ looking up

--- From the engine's functions to their names in the stubs.
local engine_names
local function engine_name(f)
    if not engine_names then
        engine_names = {}
        local function add(prefix, from)
            for name, value in pairs(from) do
                if type(value) == "function" then engine_names[value] = prefix .. name end
            end
        end
        add("Tensor:", core.tensor_methods)
        add("core.", core)
        for name, part in pairs(core) do
            if type(part) == "table" and name ~= "tensor_methods" then add("core." .. name .. ".", part) end
        end
        for name in pairs(core.ops) do engine_names[core.ops[name]] = "core.ops." .. name end
    end
    return engine_names[f]
end

local function engine_function(name)
    for _, file in ipairs(annotations.engine()) do
        if file.functions[name] then return file.functions[name] end
    end
end

--- A class by its name, letter case aside; the stubs speak of some in several places.
local function engine_class(name)
    for _, file in ipairs(annotations.engine()) do
        for known, entry in pairs(file.classes) do
            if known:lower() == name:lower() and (entry.doc ~= "" or #entry.fields > 0) then return entry end
        end
    end
end

--- The methods that the stubs give a class: "Tensor:item".
local function engine_methods(class)
    local found, names = {}, {}
    for _, file in ipairs(annotations.engine()) do
        for name, entry in pairs(file.functions) do
            if name:match("^" .. class .. ":") then
                found[name] = entry
                names[#names + 1] = name
            end
        end
    end
    table.sort(names)
    return names, found
end

--------------------------------------------------------------------------------------------------------- writing

--- A name of the stubs as users write it.
---@param name string
---@return string
function describe.name(name)
    return (name:gsub("^core%.ops%.", "sagan.ops."):gsub("^core%.", "sagan."):gsub("^sagan%.metrics%.", "sagan.core.metrics.")
        :gsub("^Tensor:", "tensor:"))
end

---@param doc string
---@return string
function describe.first_sentence(doc)
    local line = doc:gsub("%s*\n%s*", " ")
    return line:match("^(.-[%.!?])%s") or line
end

local function indented(text) return (("\n" .. text):gsub("\n([^\n])", "\n  %1"):sub(2)) end

--- Names in columns, notes behind them.
---@param list string[][] {name, type, note}
---@return string
function describe.rows(list)
    local first, second = 0, 0
    for _, row in ipairs(list) do
        first, second = math.max(first, #row[1] + 2), math.max(second, math.min(#row[2] + 2, 34))
    end
    if second == 2 then second = 0 end
    local lines = {}
    for i, row in ipairs(list) do
        local gap = second > 0 and (" "):rep(math.max(2, second - #row[2])) or ""
        local line = "  " .. row[1] .. (" "):rep(first - #row[1]) .. row[2] .. gap .. (row[3] or "")
        lines[i] = line:gsub("%s+$", "")
    end
    return table.concat(lines, "\n")
end

local function named_rows(list)
    local out = {}
    for i, item in ipairs(list) do out[i] = { item.name .. (item.optional and "?" or ""), item.type, item.text } end
    return describe.rows(out)
end

local function signature(entry, name)
    local by_name, words = {}, {}
    for _, param in ipairs(entry.params) do by_name[param.name] = param end
    for i, argument in ipairs(entry.arguments) do
        local param = by_name[argument]
        local default = param and param.text:match("^default (%S+)")
        words[i] = argument .. (default and "=" .. default or param and param.optional and "?" or "")
    end
    local results = {}
    for i, result in ipairs(entry.returns) do
        local kind, note = annotations.take_type(result)
        results[i] = note:match("^[%a_]%w*$") or kind
    end
    return ("%s(%s)%s"):format(name, table.concat(words, ", "), #results > 0 and " -> " .. table.concat(results, ", ") or "")
end

local function function_text(entry, name, more)
    local parts = { signature(entry, name) }
    if entry.doc ~= "" then parts[#parts + 1] = indented(entry.doc) end
    local details = {}
    if #entry.params > 0 then details[#details + 1] = named_rows(entry.params) end
    for _, result in ipairs(entry.returns) do details[#details + 1] = "  -> " .. result end
    if #details > 0 then parts[#parts + 1] = table.concat(details, "\n") end
    parts[#parts + 1] = more
    return table.concat(parts, "\n")
end

local function library_path(path)
    return path:match("/(sagan/[^\n]*)$") or path
end

--------------------------------------------------------------------------------------------------------- values

--- Name, entry and a last line for a function, wherever it comes from; nil if it has no annotation.
local function find(f)
    local name = engine_name(f)
    if name then
        local entry = engine_function(name)
        local op = name:match("^core%.ops%.(.*)$")
        local more
        if op and rawget(core.tensor_methods, op) then
            local attribute = core.op_info(op).attributes[1]
            more = ("  also a method: x:%s(...)%s"):format(op, attribute and
                ("; options may be named: {%s = ...}"):format(attribute.name) or "")
        end
        return describe.name(name), entry, more
    end
    local entry, path = annotations.of(f)
    if not entry then return nil end
    return entry.name or "function", entry, ("  %s:%d"):format(library_path(path), entry.line)
end

local function standard_name(f)
    for module, functions in pairs(package.loaded) do
        for name, value in pairs(type(functions) == "table" and functions or {}) do
            if value == f and (module == "_G" or _G[module] == functions) then
                return module == "_G" and name or module .. "." .. name
            end
        end
    end
end

local function function_help(f)
    local name, entry, more = find(f)
    if entry then return function_text(entry, name, more) end
    local info = debug.getinfo(f, "S")
    if info.what == "C" then
        name = standard_name(f)
        return name and ("%s: a function of Lua 5.4; %s%s"):format(name, MANUAL, name) or "a function without a description"
    end
    local parameters = {}
    for i = 1, debug.getinfo(f, "u").nparams do parameters[i] = debug.getlocal(f, i) end
    return ("function(%s)\n  %s:%d; there is no comment above it"):format(table.concat(parameters, ", "), info.short_src,
        info.linedefined)
end

--- A field that a table with an __index of its own may refuse.
local function field(value, name)
    local ok, found = pcall(function() return value[name] end)
    return ok and found or nil
end

local function is_class(value)
    return type(field(value, "type")) == "string" and type(field(value, "forward") or field(value, "init")) == "function"
end

--- The head of the file of a module that was required, and its name; or the description of a part of the engine.
local function module_of(value)
    for name, loaded in pairs(package.loaded) do
        if loaded == value and name ~= "_G" then
            local path = package.searchpath(name, package.path)
            local file = path and annotations.file(path)
            if file then return name, (file.head:gsub("^[%w_]+%.lua %- ", "")) end
        end
    end
    for name, part in pairs(core) do
        local entry = part == value and engine_class("sagan.core." .. name)
        if entry then return describe.name("core." .. name), entry.doc end
    end
end

local NOT_LISTED <const> = { init = true, describe = true } -- of a class

--- Functions of a table with the first sentence of what they do; of anything but a class also the tables in it.
local function member_rows(members, of_class)
    local names, list = {}, {}
    for name in next, members do
        if type(name) == "string" and not name:find("^__") and not (of_class and NOT_LISTED[name]) then
            names[#names + 1] = name
        end
    end
    table.sort(names)
    for _, name in ipairs(names) do
        local value = rawget(members, name)
        if type(value) == "function" then
            local _, entry = find(value)
            list[#list + 1] = { (of_class and ":" or "") .. name, "", entry and describe.first_sentence(entry.doc) or "" }
        elseif type(value) == "table" and not of_class then
            local _, doc = module_of(value)
            list[#list + 1] = { name, "", is_class(value) and "a class" or doc and describe.first_sentence(doc) or "" }
        end
    end
    return #list > 0 and describe.rows(list) or nil
end

--- What the class of a module says of itself: its own comment, or else the head of its file; the options it takes.
local function class_help(class)
    local class_type = class.type
    local path = debug.getinfo(class.init or class.forward, "S").source:match("^@(.*)$")
    local file = path and annotations.file(path)
    local entry
    for name, candidate in pairs(file and file.classes or {}) do
        if name:match("[%w_]*$") == class_type then entry = candidate end
    end
    if not entry then return nil end
    local takes = entry.overload and entry.overload:match("^fun(%b())") or "(options)"
    local parts = { entry.name .. takes, indented(entry.doc ~= "" and entry.doc or file.head) }
    local options = file.classes[takes:match(":%s*([%w_%.]+)") or ""]
    if options then parts[#parts + 1] = "options\n" .. named_rows(options.fields) end
    if #entry.fields > 0 then parts[#parts + 1] = "fields\n" .. named_rows(entry.fields) end
    local owner = rawget(class, "init") and class or getmetatable(class)
    local methods = type(owner) == "table" and member_rows(owner, true)
    if methods then parts[#parts + 1] = "methods, besides those of sagan.nn.Module\n" .. methods end
    parts[#parts + 1] = ("  %s:%d"):format(library_path(path), entry.line)
    return table.concat(parts, "\n")
end

--- An object of a class in Lua: what the class says of itself, its fields and its methods. The class is the one that the
--- file of the methods calls so: "Attention:map" is of sagan.Attention.
local function instance_help(value)
    local meta = getmetatable(value)
    local methods = type(meta) == "table" and (rawget(meta, "__methods") or rawget(meta, "__index"))
    if type(methods) ~= "table" then return nil end
    for _, method in next, methods do
        local entry, path
        if type(method) == "function" then entry, path = annotations.of(method) end
        local class_name = entry and entry.name and entry.name:match("^([%w_]+):")
        for name, class in pairs(class_name and annotations.file(path).classes or {}) do
            if name:match("[%w_]*$") == class_name then
                local parts = { name, class.doc ~= "" and indented(class.doc) or nil }
                if #class.fields > 0 then parts[#parts + 1] = "fields\n" .. named_rows(class.fields) end
                parts[#parts + 1] = "methods\n" .. member_rows(methods, true)
                parts[#parts + 1] = ("  %s:%d"):format(library_path(path), class.line)
                return table.concat(parts, "\n")
            end
        end
    end
end

local function module_help(value)
    local name, doc = module_of(value)
    return name and table.concat({ name, indented(doc), member_rows(value) }, "\n")
end

--- An object of the engine, by the name of its metatable: "sagan.dataset" is the class sagan.Dataset.
local function object_help(value)
    local meta = debug.getmetatable(value)
    local name = core.is_tensor(value) and "sagan.Tensor" or type(meta) == "table" and rawget(meta, "__name")
    local entry = type(name) == "string" and engine_class(name)
    if not entry then return nil end
    local parts = { entry.name, entry.doc ~= "" and indented(entry.doc) or nil }
    if #entry.fields > 0 then parts[#parts + 1] = "fields\n" .. named_rows(entry.fields) end
    local names, found = engine_methods(entry.name:match("[%w_]*$"))
    local list = {}
    for i, method in ipairs(names) do list[i] = { method:match(":.*"), "", describe.first_sentence(found[method].doc) } end
    if #list > 0 then parts[#parts + 1] = "methods\n" .. describe.rows(list) end
    return table.concat(parts, "\n")
end

--- The first line of help(f): name, arguments, results.
---@param f function
---@return string? signature nil if it has no annotation
function describe.signature(f)
    local name, entry = find(f)
    return entry and signature(entry, name)
end

--- The same for an op: "relu(x) -> y".
---@param op string
---@return string
function describe.op(op) return signature(engine_function("core.ops." .. op), op) end

--- What there is to say about a value.
---@param x any
---@return string
function describe.value(x)
    local kind = type(x)
    if kind == "function" then return function_help(x) end
    if kind == "table" then
        local text = is_class(x) and class_help(x) or module_help(x) or instance_help(x)
        if text then return text end
        local meta = getmetatable(x)
        if type(meta) == "table" and meta.__call then return function_help(meta.__call) end
        local members = member_rows(x)
        return "a table" .. (members and "\n" .. members or "")
    end
    return object_help(x) or ("%s: %s"):format(kind, tostring(x))
end

return describe
