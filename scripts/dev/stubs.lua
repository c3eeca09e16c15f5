-- luacheck: no max line length (tables of one line an entry)
--- Writes scripts/sagan/meta/*.lua, the LuaCATS stubs by which an editor knows sagan.core: completion, hover text, types.
--
--     sagan-lua scripts/dev/stubs.lua
--
-- Ops come from core.op_info, that is from ops.def; the other functions from the tables below. tests/spec/stubs_spec.lua
-- fails when a stub is out of date or a function has none.
local core = require "sagan.core"

-- The folder of this file; dofile and the program give its path.
local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local parts = dofile(folder .. "stub_parts.lua")

local stubs = { parts = parts }

-- { name, "parameter:type?  ...", "returns", "what it does" }; a parameter that ends in ? may be left out.
local constructors = {
    { "tensor", "values:number|table options:sagan.Options?", "sagan.Tensor", "A tensor from a number or nested tables: tensor{{1, 2}, {3, 4}}." },
    { "zeros", "shape:sagan.Shape options:sagan.Options?", "sagan.Tensor", "Zeros. The shape may also be plain numbers: zeros(2, 3)." },
    { "ones", "shape:sagan.Shape options:sagan.Options?", "sagan.Tensor", "Ones; shape as in zeros." },
    { "full", "shape:integer[] value:number options:sagan.Options?", "sagan.Tensor", "Every element = value." },
    { "empty", "shape:sagan.Shape options:sagan.Options?", "sagan.Tensor", "Contents undefined; shape as in zeros." },
    { "arange", "n:integer options:sagan.Options?", "sagan.Tensor", "0, 1, ... n-1." },
    { "is_tensor", "value:any", "boolean", "Whether value is a tensor (released or not)." },
}

local control = {
    { "no_grad", "f:function ...:any", "any ...", "f(...) without recording gradients; back to what was before at its end, also after an error." },
    { "scope", "f:function ...:any", "any ...", "f(...); tensors made meanwhile are released at its end, but for those that it returns (also in tables) or that had keep() called." },
    { "recompute", "f:function ...:any", "any ...", "f(...), of which the tape keeps no activation but what f reads from outside: backward computes them again, with the same bits. Best around scope, so that f's own hold on them ends: recompute(scope, f, ...). State that ops write (running statistics, u and v) moves once." },
    { "capture", "f:function", "sagan.Capture", "A callable that runs f: once to warm up, once recording (in a scope of its own: what f makes and does not return goes), then by replaying the recording (CUDA); on the CPU by calling f." },
    { "watch", "check:function f:function ...:any", "any ...", "f(...), meanwhile calling check() every few thousand instructions of Lua: what check raises ends f. Code that catches it is ended at every instruction." },
    { "is_recording", "", "boolean", "false inside no_grad." },
    { "retain_grads", "on:boolean", "", "Whether gradients of intermediate tensors outlive backward, until the tape is cleared." },
    { "clear_tape", "", "", "Forgets what was recorded, for a forward pass that no backward will follow." },
}

local device = {
    { "device", "name:sagan.Device?", "sagan.Device", "The device of new tensors; with a name, sets it." },
    { "devices", "", "sagan.Device[]", "The devices that this machine offers." },
    { "isa", "", "string", "The SIMD level of the CPU kernels." },
    { "threads", "n:integer?", "integer", "CPU threads in use; with n, sets them (0: all cores). Results do not depend on it." },
    { "winograd", "on:boolean?", "boolean", "Whether 3x3 convolutions on the CPU may use Winograd's algorithm; with on, sets it. It changes the roundings." },
    { "tf32", "on:boolean?", "boolean", "Whether products of f32 on CUDA may round their factors to tf32 (10 bits after the point); with on, sets it." },
    { "synchronize", "", "", "Waits for the device." },
    { "set_path", "path:string?", "string?", "The module path that error messages carry; returns the one before." },
    { "path", "", "string?", "The module path in use." },
    { "memory", "", "sagan.Memory", "Device memory of the current device." },
    { "reset_peak", "", "", "bytes_peak starts again from what is in use." },
    { "trim", "", "", "Gives cached device memory back." },
    { "live", "", "{tensors: integer, storages: integer, host_blocks: integer, tape: integer}", "What is alive, over all devices; for tests." },
    { "fail_allocation", "n:integer", "", "The n-th allocation from now fails, once; 0: none. For tests." },
    { "profile", "on:boolean", "", "Starts (from zero) or stops timing kernels." },
    { "profile_rows", "", "sagan.ProfileRow[]", "Calls, seconds, arithmetic and traffic of each kernel that ran." },
    { "op_names", "", "string[]", "Names of all ops, in the order of ops.def." },
    { "op_info", "name:string", "table", "Signature and description of an op." },
}

local methods = {
    { "numel", "", "integer", "Number of elements." },
    { "size", "dimension:integer", "integer", "One dimension, counted from 1." },
    { "item", "", "number", "The value of a tensor with one element." },
    { "get", "i:integer ...:integer", "number", "One element; indices count from 1." },
    { "totable", "", "table", "The values as nested tables." },
    { "bytes", "", "string", "The raw contents." },
    { "set_bytes", "bytes:string", "sagan.Tensor", "Replaces the contents." },
    { "reshape", "shape:sagan.Shape", "sagan.Tensor", "A view of another shape; one dimension may be -1." },
    { "part", "start:integer shape:sagan.Shape", "sagan.Tensor", "A view of the elements from `start` on (counted from 1)." },
    { "rows", "first:integer count:integer?", "sagan.Tensor", "A view of count entries of the leading dimension." },
    { "detach", "", "sagan.Tensor", "The same data outside the tape." },
    { "clone", "", "sagan.Tensor", "A copy, outside the tape." },
    { "to", "target:sagan.Dtype|sagan.Device", "sagan.Tensor", "Another dtype or device (a copy outside the tape), or itself." },
    { "copy_", "source:sagan.Tensor|table|number", "sagan.Tensor", "Copies the values in." },
    { "fill_", "value:number", "sagan.Tensor", "Every element = value." },
    { "zero_", "", "sagan.Tensor", "Every element = 0." },
    { "requires_grad_", "", "sagan.Tensor", "Makes it a leaf that collects gradients in .grad." },
    { "freeze", "on:boolean?", "sagan.Tensor", "No gradient is recorded for it and its views until freeze(false)." },
    { "zero_grad", "", "sagan.Tensor", "The next gradient overwrites." },
    { "release_grad", "", "sagan.Tensor", "Gives the memory of a leaf's gradient back; .grad is 0 from then on, and takes memory again when it is read or added to." },
    { "backward", "dy:(sagan.Tensor|number)?", "", "Gradients of everything recorded; without dy from a tensor with one element." },
    { "release", "", "", "Drops the data now; the tensor cannot be used any more." },
    { "keep", "", "sagan.Tensor", "No scope releases it." },
}

stubs.documented = {}
for _, group in ipairs { constructors, control, device } do
    for _, entry in ipairs(group) do stubs.documented[entry[1]] = true end
end
stubs.documented_methods = {}
for _, entry in ipairs(methods) do stubs.documented_methods[entry[1]] = true end

local types = [[
---@alias sagan.Dtype "f32"|"bf16"|"u8"|"i32"
---@alias sagan.Device "cpu"|"cuda"
---@alias sagan.Shape integer[]|integer

---@class sagan.Options
---@field dtype? sagan.Dtype
---@field device? sagan.Device

---@class sagan.Memory
---@field live_tensors integer
---@field live_storages integer
---@field bytes_in_use integer
---@field bytes_peak integer
---@field bytes_cached integer
---@field device_allocs integer

---@class sagan.ProfileRow
---@field kernel string
---@field calls integer
---@field seconds number
---@field flops number of the direct method
---@field done number really done: fewer where a kernel saves multiplies
---@field bytes number

--- A captured function; call it without arguments.
---@class sagan.Capture
---@overload fun(): ...
---@field reset fun(self: sagan.Capture) warms up and records again
---@field mode fun(self: sagan.Capture): "eager"|"warming"|"recording"|"replaying"|"closed"
---@field close fun(self: sagan.Capture)

--- Contiguous numbers on a device. Every op whose first input is a tensor is a method too.
---@class sagan.Tensor
---@field shape integer[] a fresh table
---@field dtype sagan.Dtype
---@field device sagan.Device
---@field rank integer
---@field grad sagan.Tensor?
---@field requires_grad boolean
---@operator add(sagan.Tensor|number): sagan.Tensor
---@operator sub(sagan.Tensor|number): sagan.Tensor
---@operator mul(sagan.Tensor|number): sagan.Tensor
---@operator div(sagan.Tensor|number): sagan.Tensor
---@operator unm: sagan.Tensor
---@operator len: integer
local Tensor = {}
]]

local lua_types = { tensor = "sagan.Tensor", boolean = "boolean", integer = "integer", position = "integer", number = "number" }

local function add_function(out, prefix, entry)
    local name, parameters, returns, doc = table.unpack(entry)
    out[#out + 1] = "--- " .. doc
    local names = {}
    for parameter, kind in parameters:gmatch("(%S-):(%S+)") do
        local optional = kind:sub(-1) == "?"
        if optional then kind = kind:sub(1, -2) end
        out[#out + 1] = ("---@param %s%s %s"):format(parameter, optional and "?" or "", kind)
        names[#names + 1] = parameter
    end
    for result in returns:gmatch("[^;]+") do out[#out + 1] = "---@return " .. result end
    out[#out + 1] = ("function %s%s(%s) end\n"):format(prefix, name, table.concat(names, ", "))
end

local function add_op(out, prefix, info, method)
    out[#out + 1] = "--- " .. info.doc
    local names = {}
    for i, input in ipairs(info.inputs) do
        if not (method and i == 1) then
            out[#out + 1] = ("---@param %s%s sagan.Tensor%s"):format(input.name, input.optional and "?" or "",
                input.mutated and " written in place" or "")
            names[#names + 1] = input.name
        end
    end
    for _, attribute in ipairs(info.attributes) do
        local kind = attribute.name == "dtype" and "sagan.Dtype" or lua_types[attribute.type]
        local note = attribute.type == "position" and " counted from 1" or ""
        if attribute.default ~= nil then note = note .. (" default %s"):format(attribute.default) end
        out[#out + 1] = ("---@param %s%s %s%s"):format(attribute.name, attribute.optional and "?" or "", kind, note)
        names[#names + 1] = attribute.name
    end
    if #info.outputs == 0 then out[#out + 1] = "---@return sagan.Tensor # its first argument" end
    for _, output in ipairs(info.outputs) do out[#out + 1] = "---@return sagan.Tensor " .. output end
    out[#out + 1] = ("function %s%s(%s) end\n"):format(prefix, info.name, table.concat(names, ", "))
end

--- One part of core with the classes of what it returns.
local function add_part(out, name, part)
    for _, class in ipairs(part.classes or {}) do
        out[#out + 1] = "---@class sagan." .. class[1]
        for _, field in ipairs(class.fields or {}) do out[#out + 1] = ("---@field %s %s"):format(field[1], field[2]) end
        out[#out + 1] = ("local %s = {}\n"):format(class[1])
        for _, entry in ipairs(class.methods) do add_function(out, class[1] .. ":", entry) end
    end
    out[#out + 1] = ("--- %s\n---@class sagan.core.%s\ncore.%s = {}\n"):format(part.doc, name, name)
    for _, entry in ipairs(part.functions) do add_function(out, ("core.%s."):format(name), entry) end
end

--- A file that adds to what the others say of the same classes; `module` is what require finds, if it is one.
local function file_of(module, text) return { "---@meta " .. (module or "_"), "-- Made by scripts/dev/stubs.lua; do not edit.\n", text } end

local CORE <const> = "---@class sagan.core\nlocal core = {}\n"

--- The text of each stub file, by name.
function stubs.generate()
    local main, tensor, ops = file_of("sagan.core", types), file_of(nil, "---@class sagan.Tensor\nlocal Tensor = {}\n"),
        file_of(nil, CORE .. "\n---@class sagan.ops\ncore.ops = {}\n")
    local rest = file_of(nil, CORE .. parts.types)
    for _, entry in ipairs(methods) do add_function(main, "Tensor:", entry) end
    main[#main + 1] = "---@class sagan.core\n---@field version string\n---@field tensor_methods table\nlocal core = {}\n"
    for _, group in ipairs { constructors, control, device } do
        for _, entry in ipairs(group) do add_function(main, "core.", entry) end
    end
    main[#main + 1] = "return core\n"
    for _, name in ipairs(core.op_names()) do
        if not stubs.documented_methods[name] then add_op(tensor, "Tensor:", core.op_info(name), true) end
        add_op(ops, "core.ops.", core.op_info(name), false)
    end
    for _, name in ipairs(parts.order) do add_part(rest, name, parts[name]) end
    local texts = {}
    for name, out in pairs { core = main, tensor_ops = tensor, ops = ops, parts = rest } do
        texts[name .. ".lua"] = table.concat(out, "\n")
    end
    return texts
end

--- Writes the files into a folder.
function stubs.write(target)
    for name, text in pairs(stubs.generate()) do
        local file = assert(io.open(target .. "/" .. name, "w"))
        assert(file:write(text))
        assert(file:close())
    end
end

if arg and arg[0] and arg[0]:find("stubs%.lua$") then stubs.write(folder .. "../sagan/meta") end
return stubs
