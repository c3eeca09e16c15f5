--- help.lua - help(x) at the prompt: what x is and does, from the annotations that serve editors. For functions of the
--- engine these are the stubs in scripts/sagan/meta, for functions and classes of the library the comments in their files.
---
---     help()               a page about the prompt
---     help(sagan.image.grid), help(nn.Conv2d), help(x)
---     help "conv2d"        an op, a method of tensors, a path like "nn.Conv2d", or a field of a configuration
---     help "attention"     any other word is looked for in the names and in the text

local core = require "sagan.core"
local annotations = require "sagan.prompt.annotations"
local describe = require "sagan.prompt.describe"
local nearest = require "sagan.nearest"

local help = {}

local MOST_FOUND <const> = 20 -- lines of a search

local page = [[
sagan                 the engine and the library: sagan.tensor{{1, 2}, {3, 4}}, sagan.zeros(2, 3), sagan.nn, sagan.models, ...
sagan.ops             the ops, which are also methods of tensors: x:relu(), x:conv2d(w, b, {stride = 2})
show(x)               a picture: u8, or f32 in [-1, 1]; a batch, a map {h, w}, the name of a file
help(x)               what a function, class, module or value is; help "relu", help "nn.Conv2d", help "optimizer.lr_d"
help "ops"            all ops; any other word is searched for
_                     the last value
Tab                   completes names, fields, methods, file names; after ( it shows the arguments
x = 1                 stays; `local x = 1` ends with its line
Ctrl-C, Ctrl-D        stops what runs or clears the line; leaves. :help lists the commands of the prompt]]

local function ops_list()
    local lines = {}
    for i, op in ipairs(core.op_names()) do lines[i] = describe.op(op) end
    return table.concat(lines, "\n")
end

------------------------------------------------------------------------------------------------------------ words

local function config_field(key)
    local fields = require "sagan.fields"
    local field = fields.by_key[key]
    if not field then return nil end
    local default = field.default
    return ("%s: %s%s\n  %s"):format(key, field.type.text,
        default ~= nil and type(default) ~= "table" and (", default %s"):format(default) or "", field.doc)
end

--- What a path like "nn.Conv2d" leads to, from sagan or from the globals.
local function follow(path)
    for _, start in ipairs { require "sagan", _G } do
        local value = start
        for name in path:gmatch("[^%.:]+") do
            local ok, field = pcall(function() return value[name] end)
            value = ok and field or nil
            if value == nil then break end
        end
        if value ~= nil then return value end
    end
end

local function search(word)
    local list, wanted = {}, word:lower()
    local function look(name, doc)
        if name:lower():find(wanted, 1, true) or doc:lower():find(wanted, 1, true) then
            list[#list + 1] = { name, "", describe.first_sentence(doc) }
        end
    end
    for _, file in ipairs(annotations.engine()) do
        for name, entry in pairs(file.functions) do
            -- an op that is also a method is one thing
            if not (name:find("^Tensor:") and rawget(core.ops, name:match(":(.*)"))) then look(describe.name(name), entry.doc) end
        end
    end
    local fields = require "sagan.fields"
    for _, field in ipairs(fields.list) do look(field.key, field.doc) end
    table.sort(list, function(a, b) return a[1] < b[1] end)
    if #list == 0 then
        local names = core.op_names()
        for _, field in ipairs(fields.list) do names[#names + 1] = field.key end
        local near = nearest(word, names)
        return ("nothing is known about '%s'%s"):format(word, near and (" (did you mean '%s'?)"):format(near) or "")
    end
    local found = #list
    if found > MOST_FOUND then
        for i = #list, MOST_FOUND + 1, -1 do list[i] = nil end
        list[#list + 1] = { ("... (%d in all)"):format(found), "" }
    end
    return describe.rows(list)
end

local function word_help(word)
    if word == "ops" then return ops_list() end
    local name = word:match("^tensor:(.*)$") or word
    local known = rawget(core.ops, name) or rawget(core.tensor_methods, name)
    if known then return describe.value(known) end
    local field = config_field(word)
    if field then return field end
    local value = follow((word:gsub("^sagan%.", "")))
    if value ~= nil and type(value) ~= "string" and type(value) ~= "number" then return describe.value(value) end
    return search(word)
end

----------------------------------------------------------------------------------------------------------- public

--- What help(x) prints.
---@param x any a value, or a word
---@return string
function help.text(x)
    if type(x) == "string" then return word_help(x) end
    if x == nil then return 'nil; a name that holds nothing? help "word" searches' end
    return describe.value(x)
end

return setmetatable(help, {
    __call = function(_, ...) print(select("#", ...) == 0 and page or help.text((...))) end,
    __tostring = function() return page end,
})
