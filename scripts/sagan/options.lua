--- options.lua - the words after a command, parsed by one table of options for all commands.
---
---     local o, message = options.parse(args, {
---         ["--steps"] = { "steps", "count" }, ["--raw"] = { "raw" }, ["-o"] = { "out", "text" },
---     })
---
--- Kinds: none (a flag), "text", "texts" (a list: the option may be repeated), "count" (a whole number from 1), "whole"
--- (from 0), "positive" (a number above 0); a third item is the largest number allowed.
--- `--name value` and `--name=value` are the same; `-h` and `--help` set o.help. What is no option is collected in o[1], o[2], ...

local nearest = require "sagan.nearest"

local options = {}

local kinds = {
    text = { "a value", function(text) return text end },
    texts = { "a value", function(text, before)
        before = before or {}
        before[#before + 1] = text
        return before
    end },
    count = { "a whole number from 1", function(text)
        local n = math.tointeger(tonumber(text))
        return n and n >= 1 and n or nil
    end },
    whole = { "a whole number from 0", function(text)
        local n = math.tointeger(tonumber(text))
        return n and n >= 0 and n or nil
    end },
    positive = { "a number above 0", function(text)
        local x = tonumber(text)
        return x and x > 0 and x < math.huge and x or nil
    end },
}

--- Parses the words of a command.
---@param args string[]
---@param known table<string, {[1]: string, [2]: string?, [3]: number?}> option -> field of the result, kind, most
---@return table? parsed, string? message
function options.parse(args, known)
    local out, i = {}, 1
    while i <= #args do
        local word, value = args[i]:match("^(%-%-[%w-]+)=(.*)$")
        word = word or args[i]
        local option = known[word]
        if word == "-h" or word == "--help" then
            out.help = true
        elseif option then
            local field, kind = option[1], kinds[option[2]]
            if not kind then
                if value then return nil, word .. " takes no value" end
                out[field] = true
            else
                if not value then
                    i = i + 1
                    value = args[i]
                end
                if not value then return nil, word .. " needs a value" end
                local most = option[3]
                out[field] = kind[2](value, out[field])
                if out[field] == nil or most and out[field] > most then
                    return nil, ("%s needs %s%s, not '%s'"):format(word, kind[1], most and " to " .. most or "", value)
                end
            end
        elseif word:match("^%-.") then
            local names = { "--help" }
            for name in pairs(known) do names[#names + 1] = name end
            local near = nearest(word, names)
            return nil, ("unknown option '%s'%s"):format(word, near and "; did you mean " .. near .. "?" or " (--help lists them)")
        else
            out[#out + 1] = args[i]
        end
        i = i + 1
    end
    return out
end

return options
