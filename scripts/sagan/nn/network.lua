--- Network: what the root of a module tree can do. build() carves every parameter from one slab and every buffer from
--- another, so that the optimiser, the moving average, clearing gradients and checkpoints are one call each.
---
--- Slab layout, offsets in floats, each rounded up to 16 (64 bytes):
---     [ spectrally normalised weights ... | all other parameters ... ]
--- Buffer layout: [ u of all | v of all | sigma {L} | running statistics ... ]
--- One spectral_norm op a forward pass finds the largest singular values of the whole prefix; the layers divide by theirs.
---
--- The methods here are mixed into Module: any module can be a root.

local core = require "sagan.core"
local Module = require "sagan.nn.module"
local initializers = require "sagan.nn.initializers"

---@class sagan.nn.SpectralOptions  one setting for a whole network
---@field iterations? integer  power iterations a pass, 1
---@field eps? number          what keeps the norms that divide from 0, 1e-12
---@field eps_form? "add"|"max" x / (|x| + eps), or x / max(|x|, eps); add
---@field through? boolean     let the gradient flow through the iterations, as the official code does; false
---@field u_init? "normal"|"truncated"  distribution of the first u and v, normal; truncated: within two standard deviations

---@class sagan.nn.BuildOptions
---@field seed? integer    0
---@field device? string   "cpu" or "cuda"; the current one
---@field grad? boolean    false: no gradients ever, as for a moving average; true
---@field path? string     the name that paths and random streams start with; the root's `name` or class

local ALIGN <const> = 16 -- floats: 64 bytes, a cache line and an AVX-512 register

local function round_up(n) return (n + ALIGN - 1) // ALIGN * ALIGN end

local SPECTRAL_DEFAULTS <const> = { iterations = 1, eps = 1e-12, eps_form = "add", through = false, u_init = "normal" }

local function merge_spectral(plan, spec, path)
    for key in pairs(spec.spectral) do
        if SPECTRAL_DEFAULTS[key] == nil then
            error(("%s: spectral norm has no option '%s' (iterations, eps, eps_form, through, u_init)"):format(path, key), 0)
        end
    end
    for key, default in pairs(SPECTRAL_DEFAULTS) do
        local value = spec.spectral[key]
        if value == nil then value = default end
        if plan.options == nil or plan.options[key] == nil then
            plan.options = plan.options or {}
            plan.options[key] = value
            plan.first = path
        elseif plan.options[key] ~= value then
            error(("%s: spectral norm with %s = %s, but %s has %s; a network has one setting, because all its weights "
                .. "are normalised in one call"):format(path, key, tostring(value), plan.first,
                tostring(plan.options[key])), 0)
        end
    end
end

--- Decides where everything lies. Pure bookkeeping: needs no engine memory.
local function make_plan(root)
    local plan = { layers = {}, u = 0, v = 0, slab = 0, buffers = 0 }
    local function place(spec)
        spec.offset = plan.slab
        plan.slab = plan.slab + round_up(spec.numel)
    end
    for name, _, spec, module in root:named_parameters() do
        if spec.spectral then
            merge_spectral(plan, spec, root.full_path .. "." .. name)
            place(spec)
            local layer = {
                name = name, module = module, spec = spec, rows = spec.shape[1], columns = spec.numel // spec.shape[1],
                u = plan.u, v = plan.v,
            }
            plan.u = plan.u + round_up(layer.rows)
            plan.v = plan.v + round_up(layer.columns)
            plan.layers[#plan.layers + 1] = layer
        end
    end
    plan.prefix = plan.slab
    for _, _, spec in root:named_parameters() do
        if not spec.spectral then place(spec) end
    end
    plan.sigma = plan.u + plan.v
    plan.buffers = plan.sigma + (#plan.layers > 0 and round_up(#plan.layers) or 0)
    for _, _, spec in root:named_buffers() do
        spec.offset = plan.buffers
        plan.buffers = plan.buffers + round_up(spec.numel)
    end
    return plan
end

--- Points every module at its parts of the two slabs.
local function carve(root, slab, buffers)
    local plan = root.plan
    root.slab, root.buffer_slab = slab:keep(), buffers:keep() -- a network outlives the scope that builds it
    for _, _, spec, module in root:named_parameters() do
        module[spec.name] = slab:part(spec.offset + 1, spec.shape):keep()
    end
    for _, _, spec, module in root:named_buffers() do
        module[spec.name] = buffers:part(spec.offset + 1, spec.shape):keep()
    end
    root.spectral = nil
    if #plan.layers > 0 then
        local rows = {}
        for i, l in ipairs(plan.layers) do
            rows[i] = { l.spec.offset, l.rows, l.columns, l.u, l.v }
            l.module[l.spec.name .. "_u"] = buffers:part(l.u + 1, { l.rows }):keep()
            l.module[l.spec.name .. "_v"] = buffers:part(plan.u + l.v + 1, { l.columns }):keep()
            l.module[l.spec.name .. "_sigma"] = buffers:part(plan.sigma + i, { 1 }):keep()
        end
        root.spectral = {
            weights = slab:part(1, { plan.prefix }):keep(),
            u = buffers:part(1, { plan.u }):keep(),
            v = buffers:part(plan.u + 1, { plan.v }):keep(),
            sigma = buffers:part(plan.sigma + 1, { #plan.layers }):keep(),
            layers = core.tensor(rows, { dtype = "i32", device = slab.device }):keep(),
        }
    end
end

local function initialise(root, seed)
    for name, tensor, spec in root:named_parameters() do
        initializers.fill(tensor, spec.shape, spec.init, seed, initializers.stream(root.full_path .. "." .. name))
    end
    local start = { kind = "normal", std = 1, bound = (root.plan.options or {}).u_init == "truncated" and 2 or 0 }
    for _, l in ipairs(root.plan.layers) do
        local name = root.full_path .. "." .. l.name
        local u = l.module[l.spec.name .. "_u"]
        local v = l.module[l.spec.name .. "_v"]
        initializers.fill(u, { l.rows }, start, seed, initializers.stream(name .. "_u"))
        initializers.fill(v, { l.columns }, start, seed, initializers.stream(name .. "_v"))
        l.module[l.spec.name .. "_sigma"]:fill_(1)
    end
    root:reset_buffers()
end

local function zeros(n, device) return core.zeros({ math.max(n, ALIGN) }, { device = device }) end

--- Allocates and initialises the whole tree. Initial values depend only on the seed and each parameter's full name:
--- adding a module does not change the others', and every device starts from the same numbers.
---@param options? sagan.nn.BuildOptions
---@return self
function Module:build(options)
    options = options or {}
    if self.parent then error(self.type .. ": only the root of a network is built; this module is part of one", 2) end
    if self.root then error(self.full_path .. ": is built already", 2) end
    local device = options.device or core.device()
    self.full_path = options.path or self.name or self.type
    for path, m in self:modules() do
        m.full_path = path == "" and self.full_path or self.full_path .. "." .. path
    end
    local ok, plan = pcall(make_plan, self)
    if not ok then error(plan, 2) end
    self.plan = plan
    core.no_grad(function()
        carve(self, zeros(plan.slab, "cpu"), zeros(plan.buffers, "cpu"))
        initialise(self, options.seed or 0)
        if device ~= "cpu" then carve(self, self.slab:to(device), self.buffer_slab:to(device)) end
    end)
    if options.grad ~= false then
        local slab = self.slab
        slab:requires_grad_()
        carve(self, slab, self.buffer_slab) -- views made before the slab became a leaf would not lead to its gradient
    end
    for _, m in self:modules() do m.root = self end
    self.update_spectral, self.update_statistics = true, true
    return self
end

local Pass = {}
Pass.__index = Pass
function Pass:__close()
    local root = self.root
    root.running = false
    for _, l in ipairs(root.plan.layers) do
        local sigma = l.module.divisors[l.spec.name]
        if sigma then
            l.module.divisors[l.spec.name] = nil
            sigma:release()
        end
    end
    if self.divisors then self.divisors:release() end
    core.set_path("")
end

--- Starts a forward pass: finds what the weights are divided by and hands every layer its own. Called by Module's __call.
--- In training mode the root's fields update_spectral and update_statistics (both true after build) say whether this
--- pass stores u and v and moves running statistics.
---@param caller sagan.nn.Module  power iterations are stored only if the whole network runs
---@return table pass  closed at the end of the pass
function Module:begin_pass(caller)
    local pass = setmetatable({ root = self }, Pass)
    local s = self.spectral
    if s then
        core.set_path(self.full_path)
        local options = self.plan.options
        local update = self.training and caller == self and self.update_spectral
        pass.divisors = core.ops.spectral_norm(s.weights, s.u, s.v, s.sigma, s.layers, options.iterations, options.eps,
            update, options.through, options.eps_form == "max")
        for i, l in ipairs(self.plan.layers) do l.module.divisors[l.spec.name] = pass.divisors:part(i, { 1 }) end
    end
    self.running = true -- last, so that a failure above leaves the network usable
    return pass
end

local function need_root(self, what)
    if self.root ~= self then
        error(("%s: %s works on a whole built network%s"):format(self.full_path, what,
            self.root and "; this is a part of " .. self.root.full_path or "; call build first"), 3)
    end
end

local Look = {}
Look.__index = Look
function Look:__close()
    self.net.buffer_slab:copy_(self.buffers)
    self.buffers:release()
    self.net:train(self.training)
end

--- Evaluation mode until the value that this returns is closed. Then the mode is what it was, and so is every buffer: a
--- pass writes sigma even then, and a run must not depend on how often its networks are looked at.
---     local look <close> = net:observe()
---@return table look  to be closed
function Module:observe()
    need_root(self, "observe")
    local look = setmetatable({ net = self, training = self.training, buffers = self.buffer_slab:clone():keep() }, Look)
    self:eval()
    return look
end

--- Freezes all parameters: passes through the network record no weight gradients.
---@return self
function Module:freeze()
    need_root(self, "freeze")
    self.slab:freeze(true)
    return self
end

--- Undoes freeze.
---@return self
function Module:unfreeze()
    need_root(self, "unfreeze")
    self.slab:freeze(false)
    return self
end

--- Clears the gradients of all parameters.
---@return self
function Module:zero_grad()
    need_root(self, "zero_grad")
    self.slab:zero_grad()
    return self
end

--- Gives the memory of all gradients back until the next backward; they read as 0.
---@return self
function Module:release_grad()
    need_root(self, "release_grad")
    self.slab:release_grad()
    return self
end

--- Running statistics back to their initial values (u, v and sigma stay).
---@return self
function Module:reset_buffers()
    for _, tensor, spec in self:named_buffers() do tensor:fill_(spec.value) end
    return self
end

--- The largest singular value of each normalised weight, as the last pass estimated it.
---@return table<string, number>
function Module:singular_values()
    need_root(self, "singular_values")
    local out = {}
    if self.spectral then
        local sigma = self.spectral.sigma:totable()
        for i, l in ipairs(self.plan.layers) do out[l.name] = sigma[i] end
    end
    return out
end

--- Everything that a checkpoint of this module holds: parameters, buffers, and spectral norm's u, v and sigma.
--- The tensors are the live ones, not copies.
---@return table<string, sagan.Tensor>
function Module:state_dict()
    if not self.root then error(self.type .. ": build the network before asking for its state", 2) end
    local state = {}
    for name, tensor, spec, module in self:named_parameters() do
        state[name] = tensor
        if spec.spectral then
            for _, part in ipairs { "_u", "_v", "_sigma" } do state[name .. part] = module[spec.name .. part] end
        end
    end
    for name, tensor in self:named_buffers() do state[name] = tensor end
    return state
end

local function same_shape(a, b)
    if #a ~= #b then return false end
    for i = 1, #a do
        if a[i] ~= b[i] then return false end
    end
    return true
end

--- Copies a state into this module. Names and shapes must be exactly this module's; nothing is copied otherwise.
---@param state table<string, sagan.Tensor>
---@return self
function Module:load_state_dict(state)
    local own = self:state_dict()
    local wrong = {}
    for name, tensor in pairs(own) do
        local given = state[name]
        if not given then
            wrong[#wrong + 1] = "missing " .. name
        elseif not same_shape(tensor.shape, given.shape) then
            wrong[#wrong + 1] = ("%s is {%s}, the network's is {%s}"):format(name, table.concat(given.shape, ", "),
                table.concat(tensor.shape, ", "))
        end
    end
    for name in pairs(state) do
        if not own[name] then wrong[#wrong + 1] = "no place for " .. name end
    end
    if #wrong > 0 then
        table.sort(wrong)
        local n = #wrong
        error(("%s: the state does not fit: %s%s"):format(self.full_path, table.concat(wrong, "; ", 1, math.min(n, 5)),
            n > 5 and ("; and %d more"):format(n - 5) or ""), 2)
    end
    core.no_grad(function()
        for name, tensor in pairs(own) do tensor:copy_(state[name]) end
    end)
    return self
end

--- A second network with the same structure and values in its own memory.
---@param options? {grad?: boolean}  grad = false: it never wants gradients
---@return sagan.nn.Module
function Module:clone(options)
    need_root(self, "clone")
    local skip = { [self.slab] = true, [self.buffer_slab] = true }
    for _, tensor in pairs(self:state_dict()) do skip[tensor] = true end
    local seen = {}
    local function copy(value)
        if skip[value] then return nil end
        if type(value) ~= "table" then return value end
        if seen[value] then return seen[value] end
        local t = {}
        seen[value] = t
        for k, v in next, value do
            if not (v == self.spectral and k == "spectral") then t[copy(k)] = copy(v) end
        end
        return setmetatable(t, getmetatable(value))
    end
    local twin = copy(self)
    core.no_grad(function() carve(twin, self.slab:clone(), self.buffer_slab:clone()) end)
    if not options or options.grad ~= false then
        twin.slab:requires_grad_()
        carve(twin, twin.slab, twin.buffer_slab)
    end
    return twin
end

return Module
