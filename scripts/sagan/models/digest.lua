--- digest.lua - one SHA-256 over all tensors of a network, whatever file they came in: name, shape and contents in the
--- order of names.
local core = require "sagan.core"

---@param tensors table<string, sagan.Tensor>
---@return string  64 hexadecimal digits
return function(tensors)
    local names, parts = {}, {}
    for name in pairs(tensors) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do
        parts[i] = ("%s {%s} %s\n"):format(name, table.concat(tensors[name].shape, ", "), core.sha256.text(tensors[name]:bytes()))
    end
    return core.sha256.text(table.concat(parts))
end
