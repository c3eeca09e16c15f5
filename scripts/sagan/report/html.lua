--- html.lua - elements as values. Text is escaped where it enters and every tag is closed by construction, so that no name in
--- a study, however hostile, can become markup.
---
---     local e = html.element
---     e("p", { class = "note" }, "a < b, ", e("b", "bold"), { "lists are", " taken apart" }, nil)
---
--- `nil` and `false` are left out; numbers are written as Lua writes them.
local html = {}

local Node <const> = { __name = "sagan.report.node" }
Node.__index = Node

---@class sagan.report.Node
---@field name string
---@field attributes table<string, string|number|boolean>
---@field children any[]

-- HTML elements without an end tag
local VOID <const> = { meta = true, link = true, img = true, br = true, hr = true, col = true, wbr = true }
-- text of these is not markup: it is ours alone and must not hold "</"
local RAW <const> = { style = true }

local ENTITIES <const> = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

-- Bytes that are no UTF-8 become U+FFFD, one for each.
local function as_utf8(text)
    local parts, at = {}, 1
    while true do
        local length, bad = utf8.len(text, at)
        if length then
            parts[#parts + 1] = text:sub(at)
            return table.concat(parts)
        end
        parts[#parts + 1] = text:sub(at, bad - 1) .. "\u{FFFD}"
        at = bad + 1
    end
end

--- Text as it may stand between tags and in quoted attributes.
---@param text string
---@return string
function html.escape(text)
    if not utf8.len(text) then text = as_utf8(text) end
    return (text:gsub("[%z\1-\8\11\12\14-\31\127]", "\u{FFFD}"):gsub("[&<>\"']", ENTITIES))
end

--- An element.
---@param name string
---@param attributes? table<string, string|number|boolean>  true: without a value; false: left out
---@param ... any  children
---@return sagan.report.Node
function html.element(name, attributes, ...)
    if type(attributes) ~= "table" or getmetatable(attributes) == Node or attributes[1] ~= nil then
        return setmetatable({ name = name, attributes = {}, children = table.pack(attributes, ...) }, Node)
    end
    return setmetatable({ name = name, attributes = attributes, children = table.pack(...) }, Node)
end

local render

local function add(out, child, raw)
    local kind = type(child)
    if child == nil or child == false then return end
    if kind == "string" or kind == "number" then
        local text = tostring(child)
        if raw and text:find("</", 1, true) then error("raw text that closes its element", 0) end
        out[#out + 1] = raw and text or html.escape(text)
    elseif getmetatable(child) == Node then
        render(out, child)
    elseif kind == "table" then
        for i = 1, child.n or #child do add(out, child[i], raw) end
    else
        error("an element cannot hold a " .. kind, 0)
    end
end

function render(out, node)
    local keys = {}
    for key, value in pairs(node.attributes) do
        if value then keys[#keys + 1] = key end
    end
    table.sort(keys)
    out[#out + 1] = "<" .. node.name
    for _, key in ipairs(keys) do
        local value = node.attributes[key]
        out[#out + 1] = value == true and " " .. key or (' %s="%s"'):format(key, html.escape(tostring(value)))
    end
    out[#out + 1] = ">"
    if VOID[node.name] then return end
    for i = 1, node.children.n do add(out, node.children[i], RAW[node.name]) end
    out[#out + 1] = "</" .. node.name .. ">"
end

--- A name that may be broken after its underscores and points, for the head of a narrow column.
---@param name string
---@return any[]
function html.breakable(name)
    local parts = {}
    for piece, at in name:gmatch("([^_.]*[_.]?)()") do
        if piece ~= "" then parts[#parts + 1] = piece end
        if piece ~= "" and at <= #name then parts[#parts + 1] = html.element("wbr", {}) end
    end
    return parts
end

--- The text of an element and all in it.
---@param node sagan.report.Node
---@return string
function html.render(node)
    local out = {}
    render(out, node)
    return table.concat(out)
end

--- A whole document.
---@param node sagan.report.Node  html
---@return string
function html.document(node) return "<!doctype html>\n" .. html.render(node) .. "\n" end

return html
