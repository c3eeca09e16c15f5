---@meta sagan.core
-- Made by scripts/dev/stubs.lua; do not edit.

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

--- Number of elements.
---@return integer
function Tensor:numel() end

--- One dimension, counted from 1.
---@param dimension integer
---@return integer
function Tensor:size(dimension) end

--- The value of a tensor with one element.
---@return number
function Tensor:item() end

--- One element; indices count from 1.
---@param i integer
---@param ... integer
---@return number
function Tensor:get(i, ...) end

--- The values as nested tables.
---@return table
function Tensor:totable() end

--- The raw contents.
---@return string
function Tensor:bytes() end

--- Replaces the contents.
---@param bytes string
---@return sagan.Tensor
function Tensor:set_bytes(bytes) end

--- A view of another shape; one dimension may be -1.
---@param shape sagan.Shape
---@return sagan.Tensor
function Tensor:reshape(shape) end

--- A view of the elements from `start` on (counted from 1).
---@param start integer
---@param shape sagan.Shape
---@return sagan.Tensor
function Tensor:part(start, shape) end

--- A view of count entries of the leading dimension.
---@param first integer
---@param count? integer
---@return sagan.Tensor
function Tensor:rows(first, count) end

--- The same data outside the tape.
---@return sagan.Tensor
function Tensor:detach() end

--- A copy, outside the tape.
---@return sagan.Tensor
function Tensor:clone() end

--- Another dtype or device (a copy outside the tape), or itself.
---@param target sagan.Dtype|sagan.Device
---@return sagan.Tensor
function Tensor:to(target) end

--- Copies the values in.
---@param source sagan.Tensor|table|number
---@return sagan.Tensor
function Tensor:copy_(source) end

--- Every element = value.
---@param value number
---@return sagan.Tensor
function Tensor:fill_(value) end

--- Every element = 0.
---@return sagan.Tensor
function Tensor:zero_() end

--- Makes it a leaf that collects gradients in .grad.
---@return sagan.Tensor
function Tensor:requires_grad_() end

--- No gradient is recorded for it and its views until freeze(false).
---@param on? boolean
---@return sagan.Tensor
function Tensor:freeze(on) end

--- The next gradient overwrites.
---@return sagan.Tensor
function Tensor:zero_grad() end

--- Gives the memory of a leaf's gradient back; .grad is 0 from then on, and takes memory again when it is read or added to.
---@return sagan.Tensor
function Tensor:release_grad() end

--- Gradients of everything recorded; without dy from a tensor with one element.
---@param dy? (sagan.Tensor|number)
function Tensor:backward(dy) end

--- Drops the data now; the tensor cannot be used any more.
function Tensor:release() end

--- No scope releases it.
---@return sagan.Tensor
function Tensor:keep() end

---@class sagan.core
---@field version string
---@field tensor_methods table
local core = {}

--- A tensor from a number or nested tables: tensor{{1, 2}, {3, 4}}.
---@param values number|table
---@param options? sagan.Options
---@return sagan.Tensor
function core.tensor(values, options) end

--- Zeros. The shape may also be plain numbers: zeros(2, 3).
---@param shape sagan.Shape
---@param options? sagan.Options
---@return sagan.Tensor
function core.zeros(shape, options) end

--- Ones; shape as in zeros.
---@param shape sagan.Shape
---@param options? sagan.Options
---@return sagan.Tensor
function core.ones(shape, options) end

--- Every element = value.
---@param shape integer[]
---@param value number
---@param options? sagan.Options
---@return sagan.Tensor
function core.full(shape, value, options) end

--- Contents undefined; shape as in zeros.
---@param shape sagan.Shape
---@param options? sagan.Options
---@return sagan.Tensor
function core.empty(shape, options) end

--- 0, 1, ... n-1.
---@param n integer
---@param options? sagan.Options
---@return sagan.Tensor
function core.arange(n, options) end

--- Whether value is a tensor (released or not).
---@param value any
---@return boolean
function core.is_tensor(value) end

--- f(...) without recording gradients; back to what was before at its end, also after an error.
---@param f function
---@param ... any
---@return any ...
function core.no_grad(f, ...) end

--- f(...); tensors made meanwhile are released at its end, but for those that it returns (also in tables) or that had keep() called.
---@param f function
---@param ... any
---@return any ...
function core.scope(f, ...) end

--- f(...), of which the tape keeps no activation but what f reads from outside: backward computes them again, with the same bits. Best around scope, so that f's own hold on them ends: recompute(scope, f, ...). State that ops write (running statistics, u and v) moves once.
---@param f function
---@param ... any
---@return any ...
function core.recompute(f, ...) end

--- A callable that runs f: once to warm up, once recording (in a scope of its own: what f makes and does not return goes), then by replaying the recording (CUDA); on the CPU by calling f.
---@param f function
---@return sagan.Capture
function core.capture(f) end

--- f(...), meanwhile calling check() every few thousand instructions of Lua: what check raises ends f. Code that catches it is ended at every instruction.
---@param check function
---@param f function
---@param ... any
---@return any ...
function core.watch(check, f, ...) end

--- false inside no_grad.
---@return boolean
function core.is_recording() end

--- Whether gradients of intermediate tensors outlive backward, until the tape is cleared.
---@param on boolean
function core.retain_grads(on) end

--- Forgets what was recorded, for a forward pass that no backward will follow.
function core.clear_tape() end

--- The device of new tensors; with a name, sets it.
---@param name? sagan.Device
---@return sagan.Device
function core.device(name) end

--- The devices that this machine offers.
---@return sagan.Device[]
function core.devices() end

--- The SIMD level of the CPU kernels.
---@return string
function core.isa() end

--- CPU threads in use; with n, sets them (0: all cores). Results do not depend on it.
---@param n? integer
---@return integer
function core.threads(n) end

--- Whether 3x3 convolutions on the CPU may use Winograd's algorithm; with on, sets it. It changes the roundings.
---@param on? boolean
---@return boolean
function core.winograd(on) end

--- Whether products of f32 on CUDA may round their factors to tf32 (10 bits after the point); with on, sets it.
---@param on? boolean
---@return boolean
function core.tf32(on) end

--- Waits for the device.
function core.synchronize() end

--- The module path that error messages carry; returns the one before.
---@param path? string
---@return string?
function core.set_path(path) end

--- The module path in use.
---@return string?
function core.path() end

--- Device memory of the current device.
---@return sagan.Memory
function core.memory() end

--- bytes_peak starts again from what is in use.
function core.reset_peak() end

--- Gives cached device memory back.
function core.trim() end

--- What is alive, over all devices; for tests.
---@return {tensors: integer, storages: integer, host_blocks: integer, tape: integer}
function core.live() end

--- The n-th allocation from now fails, once; 0: none. For tests.
---@param n integer
function core.fail_allocation(n) end

--- Starts (from zero) or stops timing kernels.
---@param on boolean
function core.profile(on) end

--- Calls, seconds, arithmetic and traffic of each kernel that ran.
---@return sagan.ProfileRow[]
function core.profile_rows() end

--- Names of all ops, in the order of ops.def.
---@return string[]
function core.op_names() end

--- Signature and description of an op.
---@param name string
---@return table
function core.op_info(name) end

return core
