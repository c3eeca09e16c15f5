--- json.lua - JSON for log lines, benchmark output and the score ledger. Keys are written in sorted order, so that equal
--- tables give equal bytes; non-finite numbers are written as strings ("nan", "inf"), since JSON has none.
local json = {}

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quote(s)
    return '"' .. s:gsub('[%c"\\]', function(c)
        return escapes[c] or string.format("\\u%04x", c:byte())
    end) .. '"'
end

local function number(x)
    if x ~= x then return '"nan"' end
    if x == math.huge then return '"inf"' end
    if x == -math.huge then return '"-inf"' end
    if math.type(x) == "integer" then return tostring(x) end
    for digits = 6, 17 do
        local s = string.format("%." .. digits .. "g", x)
        if tonumber(s) == x then return s end
    end
end

--- Encodes a value. A table with a first element is an array, any other an object; `json.array{}` marks an empty array.
---@param value any
---@return string
function json.encode(value)
    local kind = type(value)
    if kind == "nil" then return "null" end
    if kind == "boolean" then return tostring(value) end
    if kind == "number" then return number(value) end
    if kind == "string" then return quote(value) end
    if kind ~= "table" then error("json.encode: a " .. kind .. " has no JSON form", 2) end
    local parts = {}
    if value[1] ~= nil or getmetatable(value) == json.array_mark then
        for i, item in ipairs(value) do parts[i] = json.encode(item) end
        return "[" .. table.concat(parts, ",") .. "]"
    end
    local keys = {}
    for key in pairs(value) do keys[#keys + 1] = tostring(key) end
    table.sort(keys)
    for i, key in ipairs(keys) do
        local item = value[key]
        if item == nil then item = value[tonumber(key)] end
        parts[i] = quote(key) .. ":" .. json.encode(item)
    end
    return "{" .. table.concat(parts, ",") .. "}"
end

json.array_mark = {}
function json.array(list)
    return setmetatable(list, json.array_mark)
end

local unescape = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

--- A number as JSON writes it: no hexadecimal, no leading zeros or plus, digits on both sides of the point.
local function json_number(word)
    local whole, fraction, exponent = word:match("^%-?(%d+)(%.?%d*)([eE]?[+-]?%d*)$")
    if not whole or (#whole > 1 and whole:sub(1, 1) == "0") then return nil end
    if fraction == "." or (exponent ~= "" and not exponent:match("^[eE][+-]?%d+$")) then return nil end
    return tonumber(word)
end

--- Decodes one JSON text. null becomes nil: a key that holds it is absent, and later elements of an array move up.
---@param text string
---@return any value, string? message  nil and a message with the position if the text is not JSON
function json.decode(text)
    local at = 1
    local parse
    local function fail(what) error({ json = ("byte %d: %s"):format(at, what) }, 0) end
    local function space() at = text:find("[^ \t\r\n]", at) or #text + 1 end
    local function string_()
        local out = {}
        at = at + 1
        while true do
            local stop = text:find('["\\\0-\31]', at)
            if not stop then fail("unfinished string") end
            if text:byte(stop) < 32 then
                at = stop
                fail("a control character in a string")
            end
            out[#out + 1] = text:sub(at, stop - 1)
            if text:byte(stop) == 34 then
                at = stop + 1
                return table.concat(out)
            end
            local c = text:sub(stop + 1, stop + 1)
            if c == "u" then
                local hex = text:match("^%x%x%x%x", stop + 2)
                if not hex then fail("bad \\u escape") end
                local code = tonumber(hex, 16)
                at = stop + 6
                if code >= 0xD800 and code < 0xE000 then -- half of a pair that makes one character
                    local low = tonumber(text:match("^\\u([dD][c-fC-F]%x%x)", at) or "", 16)
                    if code >= 0xDC00 or not low then fail("half of a surrogate pair") end
                    code = 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00)
                    at = at + 6
                end
                out[#out + 1] = utf8.char(code)
            else
                if not unescape[c] then fail("bad escape") end
                out[#out + 1] = unescape[c]
                at = stop + 2
            end
        end
    end
    local function list(close, item)
        local out = {}
        at = at + 1
        space()
        if text:sub(at, at) == close then
            at = at + 1
            return out
        end
        while true do
            item(out)
            space()
            local c = text:sub(at, at)
            at = at + 1
            if c == close then return out end
            if c ~= "," then fail("expected ',' or '" .. close .. "'") end
        end
    end
    local depth = 0
    function parse()
        space()
        depth = depth + 1
        if depth > 100 then fail("nested too deeply") end
        local c, value = text:sub(at, at), nil
        if c == "{" then
            value = list("}", function(out)
                space()
                if text:sub(at, at) ~= '"' then fail("expected a key") end
                local key = string_()
                space()
                if text:sub(at, at) ~= ":" then fail("expected ':'") end
                at = at + 1
                out[key] = parse()
            end)
        elseif c == "[" then
            value = list("]", function(out) out[#out + 1] = parse() end)
        elseif c == '"' then
            value = string_()
        else
            local word = text:match("^[%w%.+-]+", at) or fail("unexpected character")
            at = at + #word
            if word == "true" then value = true
            elseif word == "false" then value = false
            elseif word ~= "null" then value = json_number(word) or fail("unknown word " .. word) end
        end
        depth = depth - 1
        return value
    end
    local ok, value = pcall(function()
        local v = parse()
        space()
        if at <= #text then fail("text after the value") end
        return v
    end)
    if ok then return value end
    if type(value) == "table" and value.json then return nil, value.json end
    error(value, 0)
end

return json
