--- The one table of named arguments that a function takes: what is not known in it is refused, with the nearest name.

local nearest = require "sagan.nearest"

--- arguments(what, o, known[, level]) -> o, or {} for nil. known: the names, in the order of the message; with the field
-- positional = n, o may have n entries without names too. level is error's: whose line the message carries; 3 is the caller
-- of the function that checks.
return function(what, o, known, level)
    level = level or 3
    if o == nil then return {} end
    if type(o) ~= "table" then error(("%s takes one table, not %s"):format(what, tostring(o)), level) end
    local allowed = {}
    for _, name in ipairs(known) do allowed[name] = true end
    for i = 1, known.positional or 0 do allowed[i] = true end
    for key in pairs(o) do
        if not allowed[key] then
            local near = type(key) == "string" and nearest(key, known)
            error(("%s: no option '%s'%s"):format(what, tostring(key),
                near and ("; did you mean '%s'?"):format(near) or " (" .. table.concat(known, ", ") .. ")"), level)
        end
    end
    return o
end
