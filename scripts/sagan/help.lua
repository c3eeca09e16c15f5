--- help(): a page about the prompt. help "conv2d": what an op does and takes.
local core = require "sagan.core"

local page = [[
sagan          the engine and the library: sagan.tensor{{1, 2}, {3, 4}}, sagan.zeros(2, 3), sagan.nn, sagan.models, ...
sagan.ops      the ops, which are also methods of tensors: x:relu(), x:conv2d(w, b, {stride = 2})
help "relu"    one op; help "ops" lists them
_              the last value
Tab            completes names]]

local function signature(info)
    local parts = {}
    for _, input in ipairs(info.inputs) do parts[#parts + 1] = input.name .. (input.optional and "?" or "") end
    for _, attribute in ipairs(info.attributes) do
        local default = attribute.default
        parts[#parts + 1] = default ~= nil and ("%s=%s"):format(attribute.name, default)
            or attribute.name .. (attribute.optional and "?" or "")
    end
    local results = table.concat(info.outputs, ", ")
    return ("%s(%s)%s"):format(info.name, table.concat(parts, ", "), results ~= "" and " -> " .. results or "")
end

return function(name)
    if name == nil then
        print(page)
    elseif name == "ops" then
        for _, op in ipairs(core.op_names()) do print(signature(core.op_info(op))) end
    else
        local info = core.op_info(name)
        print(signature(info))
        print(info.doc)
    end
end
