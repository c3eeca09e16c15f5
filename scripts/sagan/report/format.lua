--- format.lua - numbers as a reader wants them: as many digits as they carry, a true minus sign, powers of ten written out.
local format = {}

local SUPERSCRIPTS <const> = {
    ["0"] = "⁰", ["1"] = "¹", ["2"] = "²", ["3"] = "³", ["4"] = "⁴", ["5"] = "⁵", ["6"] = "⁶", ["7"] = "⁷", ["8"] = "⁸",
    ["9"] = "⁹", ["-"] = "⁻",
}

--- True for numbers that can be shown and drawn.
---@param x any
---@return boolean
function format.is_finite(x) return math.type(x) ~= nil and x == x and math.abs(x) < math.huge end

-- Position of the first digit: 0 for 1 to 9.99, -1 for 0.1, ...
local function order(x) return x == 0 and 0 or math.floor(math.log(math.abs(x), 10) + 1e-12) end

local function grouped(whole)
    if #whole < 5 then return whole end
    return (whole:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

local function plain(x, decimals, signed)
    local text = ("%." .. decimals .. "f"):format(math.abs(x))
    local zero = not text:find("[1-9]")
    local whole, rest = text:match("^(%d+)(.*)$")
    local sign = not zero and x < 0 and "−" or not zero and signed and "+" or ""
    return sign .. grouped(whole) .. rest
end

---@class sagan.report.Style
---@field exponent integer  power of ten taken out of all
---@field decimals integer

--- How numbers of this size are written, so that those which belong together get the same decimals: two digits of what they
--- are uncertain by, four of the number where nothing is known of that.
---@param size number      the largest of them
---@param spread? number   standard deviation, half of an interval
---@return sagan.report.Style
function format.style(size, spread)
    size = math.max(math.abs(size), spread or 0)
    local exponent = (size >= 1e6 or size > 0 and size < 1e-4) and order(size) or 0
    local last
    if spread and spread > 0 then
        last = order(spread) - 1
        if spread / 10.0 ^ last >= 99.5 then last = last + 1 end -- 0.0996 has the two digits of 0.10
    else
        last = order(size) - 3
    end
    return { exponent = exponent, decimals = math.min(9, math.max(0, exponent - last)) }
end

local function power(exponent)
    return exponent == 0 and "" or " × 10" .. tostring(exponent):gsub(".", SUPERSCRIPTS)
end

--- A number in a style, without the power of ten.
---@param x number
---@param style sagan.report.Style
---@param signed? boolean  a plus sign too
---@return string
function format.digits(x, style, signed) return plain(x / 10.0 ^ style.exponent, style.decimals, signed) end

--- "18.28", "1.32 × 10⁸"; four digits.
---@param x number
---@param signed? boolean
---@return string
function format.number(x, signed)
    if math.type(x) == "integer" then return plain(x, 0, signed) end
    local style = format.style(x)
    return format.digits(x, style, signed) .. power(style.exponent)
end

--- "18.28" and "± 0.36", for two lines; the mean alone without a deviation.
---@param mean number
---@param sd? number
---@return string
---@return string?
function format.mean_sd(mean, sd)
    if not sd then return format.number(mean + 0.0) end
    local style = format.style(mean, sd)
    local tail = power(style.exponent)
    return format.digits(mean, style) .. tail, "± " .. format.digits(sd, style) .. tail
end

--- "−3.2 [−5.1, −1.3]": a difference and its interval; the difference alone without one.
---@param mean number
---@param low? number
---@param high? number
---@return string
function format.difference(mean, low, high)
    if not low then return format.number(mean + 0.0, true) end
    local style = format.style(math.max(math.abs(low), math.abs(high)), (high - low) / 2)
    local text = ("%s [%s, %s]"):format(format.digits(mean, style, true), format.digits(low, style, true),
        format.digits(high, style, true))
    return style.exponent == 0 and text or "(" .. text .. ")" .. power(style.exponent)
end

--- "22.9 [20.1, 25.7]": a value and its interval, without plus signs; the value alone without one.
---@param value number
---@param low? number
---@param high? number
---@return string
function format.range(value, low, high)
    if not low or low == high then return format.number(value + 0.0) end
    local style = format.style(math.max(math.abs(low), math.abs(high)), (high - low) / 2)
    local text = ("%s [%s, %s]"):format(format.digits(value, style), format.digits(low, style), format.digits(high, style))
    return style.exponent == 0 and text or "(" .. text .. ")" .. power(style.exponent)
end

--- Short, for the ticks of an axis, all of which get the same unit: 1500000 of 2000000 -> "1.5M", 1e-7 -> "10⁻⁷".
---@param x number
---@param step number  distance of ticks
---@param top number   largest magnitude on the axis
---@return string
function format.tick(x, step, top)
    if x == 0 then return "0" end
    if top >= 1e9 or top < 1e-3 then
        local exponent = order(x)
        local front = plain(x / 10.0 ^ exponent, math.min(3, math.max(0, exponent - order(step))))
        if front == "1" then return "10" .. tostring(exponent):gsub(".", SUPERSCRIPTS) end
        return front .. "×10" .. tostring(exponent):gsub(".", SUPERSCRIPTS)
    end
    local unit, letter = 1, ""
    if top >= 1e6 then unit, letter = 1e6, "M" elseif top >= 1e4 then unit, letter = 1e3, "k" end
    return plain(x / unit, math.min(6, math.max(0, -order(step / unit)))) .. letter
end

--- Seconds as "1:02:05" or "5.3 s".
---@param seconds number
---@return string
function format.duration(seconds)
    if seconds < 60 then return ("%.1f s"):format(seconds) end
    return require("sagan.progress").duration(seconds)
end

--- "a", "a and b", "a, b and c".
---@param words string[]
---@return string
function format.list(words)
    if #words < 2 then return words[1] or "" end
    return table.concat(words, ", ", 1, #words - 1) .. " and " .. words[#words]
end

--- "1 seed", "3 seeds".
---@param n integer
---@param word string
---@return string
function format.count(n, word) return ("%s %s%s"):format(plain(n, 0), word, n == 1 and "" or "s") end

return format
