--- base64.lua - bytes as text (RFC 4648), for pictures inside a page or a message.
local base64 = {}

local ALPHABET <const> = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

-- Two characters for 12 bits: half as many table reads as one for 6.
local PAIRS <const> = {}
for i = 0, 4095 do
    local a, b = i >> 6, i & 63
    PAIRS[i] = ALPHABET:sub(a + 1, a + 1) .. ALPHABET:sub(b + 1, b + 1)
end

--- Encodes bytes.
---@param bytes string
---@return string
function base64.encode(bytes)
    local out, n, pairs_, byte = {}, 0, PAIRS, string.byte
    local whole = #bytes - #bytes % 3
    for i = 1, whole - whole % 12, 12 do -- twelve bytes at a time are one call of string.byte
        local a, b, c, d, e, f, g, h, j, k, l, m = byte(bytes, i, i + 11)
        out[n + 1], out[n + 2] = pairs_[a << 4 | b >> 4], pairs_[(b & 15) << 8 | c]
        out[n + 3], out[n + 4] = pairs_[d << 4 | e >> 4], pairs_[(e & 15) << 8 | f]
        out[n + 5], out[n + 6] = pairs_[g << 4 | h >> 4], pairs_[(h & 15) << 8 | j]
        out[n + 7], out[n + 8] = pairs_[k << 4 | l >> 4], pairs_[(l & 15) << 8 | m]
        n = n + 8
    end
    for i = whole - whole % 12 + 1, whole, 3 do
        local a, b, c = byte(bytes, i, i + 2)
        out[n + 1], out[n + 2] = pairs_[a << 4 | b >> 4], pairs_[(b & 15) << 8 | c]
        n = n + 2
    end
    local a, b = byte(bytes, whole + 1, whole + 2)
    if b then
        out[n + 1] = pairs_[a << 4 | b >> 4] .. pairs_[(b & 15) << 8]:sub(1, 1) .. "="
    elseif a then
        out[n + 1] = pairs_[a << 4] .. "=="
    end
    return table.concat(out)
end

local VALUES <const> = {}
for i = 1, 64 do VALUES[ALPHABET:byte(i)] = i - 1 end

--- Decodes what encode made.
---@param text string
---@return string? bytes  nil for what is no base64
function base64.decode(text)
    local body, padding = text:match("^([%w+/]*)(=*)$")
    if not body or #text % 4 ~= 0 or #padding > 2 then return nil end
    local out, char = {}, string.char
    for i = 1, #body, 4 do
        local a, b, c, d = body:byte(i, i + 3)
        local bits = VALUES[a] << 18 | VALUES[b or 65] << 12 | VALUES[c or 65] << 6 | VALUES[d or 65] -- 65: A, which is 0
        out[#out + 1] = char(bits >> 16, bits >> 8 & 255, bits & 255)
    end
    return (table.concat(out):sub(1, #text // 4 * 3 - #padding))
end

return base64
