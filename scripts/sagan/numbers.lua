--- numbers.lua - numbers as text.
local numbers = {}

--- 42078852 -> "42,078,852"
---@param n integer
---@return string
function numbers.thousands(n)
    local s = tostring(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
    return (s:gsub("^,", ""))
end

return numbers
