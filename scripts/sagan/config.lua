--- A configuration: a nested table with a value for every field of fields.lua. Pure data and what can be done with it:
--- read and write fields by key, check, compare, write as Lua and read back, describe.

local core = require "sagan.core"
local fields = require "sagan.fields"
local nearest = require "sagan.nearest"

---@class sagan.Config  a resolved configuration; config_types.lua lists its fields

local config = {}

--- A value as Lua source, short for numbers and one line for lists.
---@param value any
---@return string
function config.literal(value)
    if type(value) == "table" then
        local items = {}
        for i, v in ipairs(value) do items[i] = config.literal(v) end
        return #items == 0 and "{}" or "{ " .. table.concat(items, ", ") .. " }"
    elseif type(value) == "string" then
        return (("%q"):format(value):gsub("\\\n", "\\n"))
    elseif math.type(value) == "float" then
        if value == math.floor(value) and math.abs(value) < 1e6 then return ("%.1f"):format(value) end
        local s = ("%.15g"):format(value)
        if tonumber(s) ~= value then s = ("%.17g"):format(value) end
        return s
    end
    return tostring(value)
end

--- The field or alias of that key; an error that names the nearest one if there is none.
---@param key string
---@param level? integer  as in error; 0: no position
---@return {type: sagan.FieldType, doc: string}
function config.field(key, level)
    local f = fields.by_key[key] or fields.aliases[key]
    if f then return f end
    local names = fields.names()
    for group in pairs(fields.groups) do names[#names + 1] = group end
    local near = nearest(tostring(key), names)
    error(("there is no field '%s'%s"):format(tostring(key), near and ("; did you mean '%s'?"):format(near) or "; --fields after an experiment lists them"),
        level and level > 0 and level + 1 or 0)
end

--- Reads a field.
---@param c sagan.Config
---@param key string  "optimizer.lr_g"
---@return any
function config.get(c, key)
    local value = c
    for part in key:gmatch("[^.]+") do
        if type(value) ~= "table" then return nil end
        value = value[part]
    end
    return value
end

local function put(c, key, value)
    local at = c
    for group in key:gmatch("([^.]+)%.") do
        at[group] = at[group] or {}
        at = at[group]
    end
    at[key:match("[^.]+$")] = value
end

local function copy(value)
    if type(value) ~= "table" then return value end
    local t = {}
    for k, v in pairs(value) do t[k] = copy(v) end
    return t
end

--- A deep copy.
---@param c sagan.Config
---@return sagan.Config
function config.copy(c) return copy(c) end

--- The value in its canonical form; an error that says what is allowed if it does not fit the field.
---@param key string  a field or an alias
---@param value any
---@return any
function config.check(key, value)
    local f = config.field(key)
    local good = f.type.check(value)
    if good == nil then
        local hint = ""
        if type(value) == "string" and f.type.options then
            local words = {}
            for i, o in ipairs(f.type.options) do words[i] = tostring(o) end
            local near = nearest(value, words)
            if near then hint = ("; did you mean %s?"):format(near) end
        end
        error(("%s = %s: it must be %s%s"):format(key, config.literal(value), f.type.text, hint), 0)
    end
    return good
end

--- Sets a field or an alias after checking the value.
---@param c sagan.Config
---@param key string
---@param value any
function config.set(c, key, value)
    local good = config.check(key, value)
    local alias = fields.aliases[key]
    for _, k in ipairs(alias and alias.keys or { key }) do put(c, k, copy(good)) end
end

--- Every field at its default: the paper's choices at the paper's scale.
---@return sagan.Config
function config.defaults()
    local c = {}
    for _, f in ipairs(fields.list) do
        if f.default ~= nil then put(c, f.key, copy(f.default)) end
    end
    return c
end

--- The key-value pairs of a nested table, in the order of the field list, aliases first.
--- Unknown keys, and values where a group of fields belongs, are errors.
---@param t table
---@param reserved? table<string, boolean>  keys of the outermost level to leave out
---@return {key: string, value: any}[]
function config.flatten(t, reserved)
    local found = {}
    local function walk(part, prefix)
        for k, v in pairs(part) do
            if not (prefix == "" and reserved and reserved[k]) then
                local key = prefix .. tostring(k)
                if fields.groups[key] then
                    if type(v) ~= "table" then
                        error(("%s is a group of fields, not a value; give a table"):format(key), 0)
                    end
                    walk(v, key .. ".")
                else
                    config.field(key)
                    found[key] = v
                end
            end
        end
    end
    walk(t, "")
    local pairs_ = {}
    for alias in pairs(fields.aliases) do
        if found[alias] ~= nil then pairs_[#pairs_ + 1] = { key = alias, value = found[alias] } end
    end
    for _, f in ipairs(fields.list) do
        if found[f.key] ~= nil then pairs_[#pairs_ + 1] = { key = f.key, value = found[f.key] } end
    end
    return pairs_
end

local function same(a, b)
    if type(a) ~= "table" or type(b) ~= "table" then return a == b end
    if #a ~= #b then return false end
    for i = 1, #a do
        if not same(a[i], b[i]) then return false end
    end
    return true
end

---@class sagan.Difference
---@field field string  "optimizer.lr_g"
---@field a any
---@field b any
---@field free boolean  does not change what is learned

--- The fields in which two configurations differ.
---@param a sagan.Config
---@param b sagan.Config
---@param options? {identity?: boolean}  identity: leave out what a continued run may change
---@return sagan.Difference[]
function config.diff(a, b, options)
    local out = {}
    for _, f in ipairs(fields.list) do
        local x, y = config.get(a, f.key), config.get(b, f.key)
        if not same(x, y) and not (options and options.identity and f.free) then
            out[#out + 1] = { field = f.key, a = x, b = y, free = f.free }
        end
    end
    return out
end

--- With "data" replaced by what the data set has, ready to build networks from.
---@param c sagan.Config
---@param data {channels: integer, classes: integer}
---@return sagan.Config
function config.with_data(c, data)
    local out = copy(c)
    if out.model.channels == "data" then out.model.channels = data.channels end
    if out.model.classes == "data" then out.model.classes = data.classes end
    return out
end

local function group_of(key) return key:match("^(.*)%.[^.]+$") or "" end

--- The configuration as a Lua file that runs it again.
---@param c sagan.Config
---@return string
function config.serialize(c)
    local lines = { 'return require("sagan").experiment {' }
    local open = {} -- the groups that are open
    local function indent() return ("    "):rep(#open + 1) end
    local function move_to(group)
        while #open > 0 and group ~= open[#open] and group:sub(1, #open[#open] + 1) ~= open[#open] .. "." do
            table.remove(open)
            lines[#lines + 1] = indent() .. "},"
        end
        while group ~= (open[#open] or "") do
            local inside = open[#open] and #open[#open] + 2 or 1
            local part = group:sub(inside):match("^[^.]+")
            lines[#lines + 1] = indent() .. part .. " = {"
            open[#open + 1] = (open[#open] and open[#open] .. "." or "") .. part
        end
    end
    for _, f in ipairs(fields.list) do
        local value = config.get(c, f.key)
        if value ~= nil then
            move_to(group_of(f.key))
            lines[#lines + 1] = ("%s%s = %s,"):format(indent(), f.key:match("[^.]+$"), config.literal(value))
        end
    end
    move_to("")
    lines[#lines + 1] = "}\n"
    return table.concat(lines, "\n")
end

--- Reads what serialize wrote, running nothing but the table in it. Fields that the text lacks get their defaults.
---@param text string
---@param source string  where it comes from, for messages
---@return sagan.Config? c
---@return string? message
function config.parse(text, source)
    local function as_it_is(t) return t end
    local environment = { require = function() return { experiment = as_it_is } end }
    local chunk, syntax = load(text, "=" .. source, "t", environment)
    if not chunk then return nil, syntax end
    local ok, t = pcall(chunk)
    if not ok or type(t) ~= "table" then return nil, source .. ": not a configuration of this program" end
    local c = config.defaults()
    local fits, message = pcall(function()
        for _, pair in ipairs(config.flatten(t)) do config.set(c, pair.key, pair.value) end
    end)
    if not fits then
        return nil, ("%s: %s. Another version may have written it; this is %s"):format(source, message, core.version)
    end
    return c
end

--- All fields with their meaning, allowed values and defaults, as text.
---@return string
function config.describe_fields()
    local lines, group = {}, nil
    local wide = 0
    for _, f in ipairs(fields.list) do wide = math.max(wide, #f.key) end
    for _, f in ipairs(fields.list) do
        local g = group_of(f.key)
        if g ~= group and fields.groups[g] then lines[#lines + 1] = "\n" .. fields.groups[g] end
        group = g
        lines[#lines + 1] = ("  %-" .. wide .. "s  %s"):format(f.key, f.doc)
        lines[#lines + 1] = ("  %s  %s; default %s"):format((" "):rep(wide), f.type.text,
            (f.default == nil or f.default == "") and "none" or config.literal(f.default))
    end
    lines[#lines + 1] = "\nShort names."
    for alias, a in pairs(fields.aliases) do
        lines[#lines + 1] = ("  %-" .. wide .. "s  %s"):format(alias, a.doc)
    end
    return table.concat(lines, "\n")
end

--- LuaCATS classes of an experiment's fields, for editors: the contents of config_types.lua.
---@return string
function config.annotations()
    local function class_name(group)
        if group == "" then return "sagan.Fields" end
        return "sagan.Fields." .. group
    end
    local order, members = { "" }, { [""] = {} }
    local function ensure(group)
        if members[group] then return end
        local parent = group_of(group)
        ensure(parent)
        members[group] = {}
        order[#order + 1] = group
        table.insert(members[parent], ("---@field %s? %s %s"):format(group:match("[^.]+$"), class_name(group),
            fields.groups[group]))
    end
    for _, f in ipairs(fields.list) do
        local group = group_of(f.key)
        ensure(group)
        table.insert(members[group], ("---@field %s? %s %s"):format(f.key:match("[^.]+$"), f.type.annotation, f.doc))
    end
    for alias, a in pairs(fields.aliases) do
        table.insert(members[""], ("---@field %s? %s %s"):format(alias, a.type.annotation, a.doc))
    end
    local lines = { "---@meta", "--- Made from fields.lua; a spec compares them. To make it again:",
        [[---   lua5.4 -e 'io.write(require("sagan.config").annotations())' > scripts/sagan/config_types.lua]], "" }
    for _, group in ipairs(order) do
        lines[#lines + 1] = "---@class " .. class_name(group)
        for _, m in ipairs(members[group]) do lines[#lines + 1] = m end
        lines[#lines + 1] = ""
    end
    return table.concat(lines, "\n")
end

return config
