--- Reads HTML as strictly as it can be written: every tag closed in order, every attribute quoted, every & an entity. Returns
--- the tree, or raises what is wrong and where. For specs that look at a page.
local html_tree = {}

local VOID = { meta = true, link = true, img = true, br = true, hr = true, col = true, wbr = true }
local ENTITIES = { amp = "&", lt = "<", gt = ">", quot = '"', ["#39"] = "'" }

local function unescape(text)
    local rest = text:gsub("&(#?%w+);", function(name) return assert(ENTITIES[name], "unknown entity &" .. name) and "" end)
    assert(not rest:find("[<>&]"), "a character that must be escaped: " .. rest:sub(1, 60))
    return (text:gsub("&(#?%w+);", ENTITIES))
end

local function attributes_of(text)
    local out, at = {}, 1
    while at <= #text do
        local name, stop = text:match('^%s+([%w-:]+)()', at)
        assert(name, "no attribute: " .. text:sub(at, at + 40))
        assert(not out[name], "attribute twice: " .. name)
        local value, after = text:match('^="([^"]*)"()', stop)
        out[name], at = value and unescape(value) or true, after or stop
    end
    return out
end

--- The tree of a document: { name, attributes, [1...] = elements or texts }; its root holds everything.
function html_tree.parse(text)
    local root = { name = "", attributes = {} }
    local stack, at = { root }, assert(text:match("^<!doctype html>\n()"), "no doctype")
    while at <= #text do
        local top = stack[#stack]
        if top.name == "style" then
            local stop = assert(text:find("</style>", at, true), "style is not closed")
            top[1], at = text:sub(at, stop - 1), stop
        end
        local closing, after = text:match("^</(%w+)>()", at)
        local name = text:match("^<(%a%w*)", at)
        if closing then
            assert(closing == top.name, ("</%s> closes <%s>"):format(closing, top.name))
            table.remove(stack)
            at = after
        elseif name then
            -- up to the first > outside quotes
            local stop, quoted = at, false
            while true do
                stop = assert(text:find('[">]', stop + 1), "tag is not closed")
                if text:sub(stop, stop) == '"' then quoted = not quoted elseif not quoted then break end
            end
            local node = { name = name, attributes = attributes_of(text:sub(at + 1 + #name, stop - 1)), parent = top }
            top[#top + 1] = node
            if not VOID[name] then stack[#stack + 1] = node end
            at = stop + 1
        else
            after = text:find("<", at, true) or #text + 1
            assert(after > at, "a < that begins no tag: " .. text:sub(at, at + 40))
            top[#top + 1] = unescape(text:sub(at, after - 1))
            at = after
        end
    end
    assert(#stack == 1, "not closed: " .. stack[#stack].name)
    return root
end

--- All elements below a node with this name, and this class if it is given, in order.
function html_tree.all(node, name, class)
    local out = {}
    local function walk(n)
        for _, child in ipairs(n) do
            if type(child) == "table" then
                local classes = " " .. (child.attributes.class or "") .. " "
                if (not name or child.name == name) and (not class or classes:find(" " .. class .. " ", 1, true)) then
                    out[#out + 1] = child
                end
                walk(child)
            end
        end
    end
    walk(node)
    return out
end

--- The text in a node.
function html_tree.text(node)
    if type(node) == "string" then return node end
    local parts = {}
    for i, child in ipairs(node) do parts[i] = html_tree.text(child) end
    return table.concat(parts)
end

--- The element with an id.
function html_tree.by_id(node, id)
    for _, child in ipairs(html_tree.all(node)) do
        if child.attributes.id == id then return child end
    end
end

return html_tree
