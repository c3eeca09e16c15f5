--- Module: the base of everything that has parameters. A tree of named children; each module declares its
--- parameters and buffers by shape, and nothing is allocated until the root of the tree is built (nn/network.lua).
--- So a network can be printed and its parameters counted before it costs any memory.

local core = require "sagan.core"

---@class sagan.nn.ParameterSpec
---@field name string
---@field shape integer[]
---@field init sagan.nn.Init       how build() fills it
---@field numel integer
---@field spectral sagan.nn.SpectralOptions|false
---@field offset? integer          elements into the slab, from 0, once planned

---@class sagan.nn.BufferSpec
---@field name string
---@field shape integer[]
---@field value number             what build() and reset fill it with
---@field numel integer
---@field offset? integer

---@class sagan.nn.Module
---@field type string              the class's name
---@field training boolean         batch statistics and power iterations are updated in forward
---@field children {name: string, module: sagan.nn.Module}[]
---@field parameters sagan.nn.ParameterSpec[]
---@field buffers sagan.nn.BufferSpec[]
---@field divisors table<string, sagan.Tensor>  {1} each: what a parameter is divided by, during a forward pass only
---@field recompute? boolean       what a call makes is dropped after it and computed again in backward: less memory, more
---                                time, the same bits. At any time, of any module; of a module in another one it adds nothing
---@field recompute_norms? boolean    of a root: what a normalisation hands to a convolution is not kept for backward but made
---                                again there, from the same input and statistics. The same bits; less memory, a little more time
---@field update_spectral? boolean    of a root: training passes store u and v
---@field update_statistics? boolean  of a root: training passes move running statistics
---@field activations? "f32"|"bf16"   of a root: what lies between its layers. Parameters, statistics, what goes in and what
---                                comes out are f32; f32 if absent
---@field watch? fun(module: sagan.nn.Module, ...: any)  of a root: is told what each of its modules' calls returned, those
---                                inside first. What it means to hold on to it must :keep(), and of what others release it
---                                needs a handle of its own, such as a view. sagan/replay.lua looks into a step with it
---@field parent? sagan.nn.Module
---@field root? sagan.nn.Module    set by build
---@field output? string           what it puts out, for print: "8x8x1024"
---@overload fun(...): ...
local Module = { type = "Module" }
Module.__index = Module

local function numel(shape)
    local n = 1
    for _, d in ipairs(shape) do n = n * d end
    return n
end

local function with_commas(n)
    local s = tostring(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
    return (s:gsub("^,", ""))
end

local function run(self, ...)
    if self.recompute then return core.recompute(core.scope, self.forward, self, ...) end
    if self.scoped then return core.scope(self.forward, self, ...) end
    return self:forward(...)
end

local function tell(self, watch, ...)
    watch(self, ...)
    return ...
end

--- Runs the module. The outermost call of a forward pass normalises the network's weights and releases them at its
--- end; a module that was never built builds its tree with seed 0.
---@param ... any  what :forward takes
---@return any ... what :forward returns
function Module:__call(...)
    local root = self.root or self:top():build { seed = 0 }
    local pass <close> = not root.running and root:begin_pass(self) or nil
    core.set_path(self.full_path)
    if root.watch then return tell(self, root.watch, run(self, ...)) end
    return run(self, ...)
end

function Module:__tostring()
    return self:summary()
end

--- Makes a class. Its constructor is the class itself: `Class{...}` creates an instance and calls init(self, options).
--- A class defines init(self, options) and forward(self, ...), and may define describe(self). With the field
--- scoped = true all that a call makes, but for its results and what it says :keep() to, is let go of at its end: only
--- what the tape needs stays in memory, whenever the collector comes.
---@param name string   shown by print and in error messages
---@param base? table   another class; Module if absent
---@return table class
function Module.class(name, base)
    local class = { type = name }
    class.__index = class
    class.__call = Module.__call
    class.__tostring = Module.__tostring
    return setmetatable(class, {
        __index = base or Module,
        __call = function(cls, options)
            local m = setmetatable({
                training = true, children = {}, parameters = {}, buffers = {}, divisors = {}, full_path = name,
            }, cls)
            m:init(options or {})
            return m
        end,
    })
end

--- Adds a child under a name; it is then also the field of that name.
---@generic T: sagan.nn.Module
---@param name string
---@param module T
---@return T module
function Module:add(name, module)
    if self.root then error(self.full_path .. ": modules cannot be added after build", 2) end
    if type(name) ~= "string" or not name:match("^[%a_][%w_]*$") then
        error(("%s: a child's name is letters, digits and _, not %q"):format(self.type, tostring(name)), 2)
    end
    if type(module) ~= "table" or not module.children then
        error(("%s: child '%s' is not a module"):format(self.type, name), 2)
    end
    if module.parent or module.root then
        error(("%s: '%s' already belongs to another network; every module has one place"):format(self.type, name), 2)
    end
    if self[name] ~= nil then error(("%s: the name '%s' is taken"):format(self.type, name), 2) end
    module.parent = self
    self[name] = module
    self.children[#self.children + 1] = { name = name, module = module }
    return module
end

--- Declares a parameter; after build it is the field of that name, a view into the network's slab.
---@param name string
---@param shape integer[]
---@param init sagan.nn.Init
---@param spectral? boolean|sagan.nn.SpectralOptions  divide the matrix {shape[1], rest} by its largest singular value
function Module:parameter(name, shape, init, spectral)
    for _, d in ipairs(shape) do
        if math.type(d) ~= "integer" or d < 1 then
            error(("%s: parameter '%s' has a dimension %s; dimensions are whole numbers from 1")
                :format(self.type, name, tostring(d)), 3)
        end
    end
    if spectral == true then spectral = {} end
    self.parameters[#self.parameters + 1] = {
        name = name, shape = shape, init = init, numel = numel(shape), spectral = spectral or false,
    }
end

--- Declares a buffer: state that is saved but not trained, such as running statistics.
---@param name string
---@param shape integer[]
---@param value? number  initial value, 0
function Module:buffer(name, shape, value)
    self.buffers[#self.buffers + 1] = { name = name, shape = shape, value = value or 0, numel = numel(shape) }
end

--- The parameter as forward should use it: with spectral norm divided by its largest singular value. (Convolutions divide as
--- they read: theirs is never stored.)
---@param name string
---@return sagan.Tensor
function Module:weight_of(name)
    local sigma = self.divisors[name]
    return sigma and core.ops.div(self[name], sigma) or self[name]
end

--- The root of the tree this module is in.
---@return sagan.nn.Module
function Module:top()
    local m = self
    while m.parent do m = m.parent end
    return m
end

--- All modules, depth first, in the order they were added, with their paths relative to this one.
---@return fun(): string?, sagan.nn.Module?
function Module:modules()
    return coroutine.wrap(function()
        local function walk(m, path)
            coroutine.yield(path, m)
            for _, c in ipairs(m.children) do walk(c.module, path == "" and c.name or path .. "." .. c.name) end
        end
        walk(self, "")
    end)
end

--- The module's place in its network: "block3.conv2"; "" for the root.
---@return string
function Module:path()
    local parts, m = {}, self
    while m.parent do
        for _, c in ipairs(m.parent.children) do
            if c.module == m then table.insert(parts, 1, c.name) end
        end
        m = m.parent
    end
    return table.concat(parts, ".")
end

local function named(self, list)
    return coroutine.wrap(function()
        for path, m in self:modules() do
            for _, spec in ipairs(m[list]) do
                coroutine.yield(path == "" and spec.name or path .. "." .. spec.name, m[spec.name], spec, m)
            end
        end
    end)
end

--- Iterates over the parameters in a fixed order: name, tensor (nil before build), spec, module.
---@return fun(): string?, sagan.Tensor?, sagan.nn.ParameterSpec?, sagan.nn.Module?
function Module:named_parameters() return named(self, "parameters") end

--- Iterates over the buffers in a fixed order: name, tensor (nil before build), spec, module.
---@return fun(): string?, sagan.Tensor?, sagan.nn.BufferSpec?, sagan.nn.Module?
function Module:named_buffers() return named(self, "buffers") end

--- How many trainable numbers; needs no build.
---@return integer
function Module:parameter_count()
    local n = 0
    for _, m in self:modules() do
        for _, spec in ipairs(m.parameters) do n = n + spec.numel end
    end
    return n
end

--- Training mode on (or off): batch statistics in normalisation, running statistics and u, v are updated.
---@param on? boolean  true if absent
---@return self
function Module:train(on)
    for _, m in self:modules() do m.training = on ~= false end
    return self
end

--- Evaluation mode: running statistics, and forward changes no state.
---@return self
function Module:eval() return self:train(false) end

--- One line for print: the class and what distinguishes this instance.
---@return string
function Module:describe() return self.type end

--- The layers as a table: name, kind, output, parameters.
---@return string
function Module:summary()
    local rows = { { "name", "module", "output", "parameters" } }
    for _, c in ipairs(self.children) do
        rows[#rows + 1] = { c.name, c.module:describe(), c.module.output or "", with_commas(c.module:parameter_count()) }
    end
    local total = with_commas(self:parameter_count())
    if #rows == 1 then return ("%s, %s parameters"):format(self:describe(), total) end
    local own = 0
    for _, spec in ipairs(self.parameters) do own = own + spec.numel end
    if own > 0 then rows[#rows + 1] = { "(own)", "", "", with_commas(own) } end
    rows[#rows + 1] = { "total", "", self.output or "", total }
    local width = { 0, 0, 0, 0 }
    for _, r in ipairs(rows) do
        for i = 1, 4 do width[i] = math.max(width[i], #r[i]) end
    end
    local lines = { self:describe() }
    for _, r in ipairs(rows) do
        lines[#lines + 1] = ("  %-" .. width[1] .. "s  %-" .. width[2] .. "s  %-" .. width[3] .. "s  %" .. width[4] .. "s")
            :format(r[1], r[2], r[3], r[4])
    end
    return table.concat(lines, "\n")
end

return Module
