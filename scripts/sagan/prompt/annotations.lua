--- annotations.lua - reads the LuaCATS comments of a source file: the ones that serve editors, for help(x) and completion.
---
---     local file = annotations.file("scripts/sagan/show.lua")
---     file.at[59]             -- the entry of the function that begins in line 59
---     file.classes["sagan.PictureOptions"].fields[1].name

local annotations = {}

---@class sagan.Annotation
---@field doc string            what the comment says besides its tags; "" if nothing
---@field line integer          of what follows the comment
---@field name? string          "core.ops.relu", "Tensor:item", a class's "sagan.Tensor"
---@field arguments string[]    as in the source
---@field params sagan.AnnotatedName[]
---@field returns string[]      "sagan.Tensor y"
---@field fields sagan.AnnotatedName[]  of a class
---@field parent? string        of a class
---@field overload? string      of a class that is called: "fun(options: sagan.nn.ConvOptions): sagan.nn.Conv2d"

---@class sagan.AnnotatedName
---@field name string
---@field optional boolean
---@field type string
---@field text string

---@class sagan.AnnotatedFile
---@field head string           the comment that the file begins with
---@field at table<integer, sagan.Annotation>    by line
---@field functions table<string, sagan.Annotation>
---@field classes table<string, sagan.Annotation>

--- The type that a text begins with, and what follows. Blanks belong to it inside brackets and after , : |.
---@param text string
---@return string kind
---@return string rest
local function take_type(text)
    local depth, at = 0, 1
    while at <= #text do
        local c = text:sub(at, at)
        if c:find("[%(%[{<]") then depth = depth + 1 end
        if c:find("[%)%]}>]") then depth = depth - 1 end
        if c == " " and depth <= 0 and not text:sub(1, at - 1):find("[,:|]%s*$") and not text:find("^%s*|", at) then break end
        at = at + 1
    end
    return text:sub(1, at - 1), (text:sub(at):gsub("^%s*#?%s*", ""))
end

annotations.take_type = take_type

local function named(text)
    local name, mark, rest = text:match("^([%w_%.]+)(%??)%s+(.*)$")
    if not name then return nil end
    local kind, note = take_type(rest)
    -- "T?" is "or nothing", but at the end of fun(): T? it belongs to what the function returns
    local bare = not kind:find("^fun%(") and kind:match("^(.*)%?$")
    return { name = name, optional = mark == "?" or type(bare) == "string", type = bare or kind, text = note }
end

local tags = {}
function tags.param(entry, text) entry.params[#entry.params + 1] = named(text) end
function tags.field(entry, text) entry.fields[#entry.fields + 1] = named(text) end
tags["return"] = function(entry, text) entry.returns[#entry.returns + 1] = text end
function tags.overload(entry, text) entry.overload = text end
function tags.class(entry, text)
    entry.class, entry.parent = text:match("^%(?[%a]-%)?%s*([%w_%.]+)%s*:?%s*([%w_%.]*)")
    if entry.parent == "" then entry.parent = nil end
end

local LISTS <const> = { param = "params", field = "fields" }

--- A line after a tag that is set in belongs to it.
local function continue_tag(entry, tag, text)
    local list = entry[LISTS[tag] or ""]
    if list and #list > 0 then
        list[#list].text = list[#list].text .. " " .. text
    elseif tag == "return" then
        entry.returns[#entry.returns] = entry.returns[#entry.returns] .. " " .. text
    end
end

--- The entries of one comment. A class ends where the next one begins.
local function read_comment(lines)
    local function fresh() return { doc = "", params = {}, returns = {}, fields = {}, arguments = {} } end
    local entries, doc, entry, tag = {}, {}, fresh(), nil
    for _, line in ipairs(lines) do
        local text = line:gsub("^%-+", "")
        local name, rest = line:match("^%-%-%-@(%a+)%s*(.*)$")
        if name then
            if name == "class" and entry.class then
                entries[#entries + 1] = entry
                entry = fresh()
            end
            tag = name
            if tags[name] then tags[name](entry, rest) end
        elseif tag and text:find("^%s%s%s+%S") then
            continue_tag(entry, tag, text:match "^%s*(.*)$")
        else
            tag = nil
            doc[#doc + 1] = text:gsub("^ ", "")
        end
    end
    entry.doc = table.concat(doc, "\n"):gsub("^%s*\n", ""):gsub("%s+$", "")
    entries[#entries + 1] = entry
    return entries
end

--- Name ("" if it has none) and arguments of the function that begins in a line; nil if none does.
local function function_head(line)
    local code = line:gsub("^%s*local%s+", ""):gsub("^%s*return%s+", ""):gsub("^%s+", "")
    local name, arguments = code:match("^function%s*([%w_%.:]*)%s*%(([^)]*)%)")
    if not name then name, arguments = code:match("^([%w_%.]+)%s*=%s*function%s*%(([^)]*)%)") end
    return name, arguments
end

local function read(path)
    local source = io.open(path, "r")
    if not source then return nil end
    local file = { head = "", at = {}, functions = {}, classes = {} }
    local comment, first, number = {}, nil, 0
    for line in source:lines() do
        number = number + 1
        local text = line:match("^%s*(%-%-.*)$")
        if text and (#comment > 0 or text:find("^%-%-%-")) then
            if #comment == 0 then first = number end
            comment[#comment + 1] = text
        else
            local name, arguments = function_head(line)
            if #comment > 0 then
                local entries = read_comment(comment)
                for _, entry in ipairs(entries) do
                    entry.line = number
                    if entry.class then
                        entry.name = entry.class
                        file.classes[entry.class] = entry
                    end
                end
                local last = entries[#entries]
                if arguments then
                    if not last.class then last.name = name ~= "" and name or nil end
                    for word in arguments:gmatch("[%w_%.]+") do last.arguments[#last.arguments + 1] = word end
                    file.at[number] = last
                    if last.name and not last.class then file.functions[last.name] = last end
                elseif first == 1 then
                    file.head = last.doc
                end
            end
            comment = {}
        end
    end
    source:close()
    return file
end

local cache = {}

--- The annotations of a source file; read once.
---@param path string
---@return sagan.AnnotatedFile? file nil if it cannot be read
function annotations.file(path)
    if cache[path] == nil then cache[path] = read(path) or false end
    return cache[path] or nil
end

--- The stubs of the engine (scripts/sagan/meta), which are of the same form.
---@return sagan.AnnotatedFile[]
function annotations.engine()
    local files = {}
    for _, name in ipairs { "core", "tensor_ops", "ops", "parts" } do
        local path = package.searchpath("sagan.meta." .. name, package.path)
        files[#files + 1] = path and annotations.file(path)
    end
    return files
end

--- Of a function that was written in Lua: what stands above it in its file.
---@param f function
---@return sagan.Annotation? annotation nil if there is no comment, or no file
---@return string? path
function annotations.of(f)
    local info = debug.getinfo(f, "S")
    local path = info.source:match("^@(.*)$")
    local file = path and annotations.file(path)
    return file and file.at[info.linedefined], path
end

return annotations
