--- replay.lua - one step of a run once more, bit for bit, with all that passed through the networks kept for looking:
---
---     local r = assert(run:replay(1250))
---     print(r, r.d, r.g)                             -- the numbers of the step; every module: size and gradient
---     r:activation "G.block3.conv2"                  -- what it put out in G's step
---     r:gradient "D.block1.conv1.weight"             -- of D's loss, in D's step
---     r.g:gradient "D.block1"                        -- of G's loss with respect to what D's first block put out
---     r:step_again { ["optimizer.lr_d"] = 2e-4 }     -- the same step from the same state, otherwise
---     r:save "step-1250.safetensors"                 -- the state after it, as a checkpoint
---
--- A step has two passes, r.d and r.g; with train.d_steps above 1, r.d_steps has all of D's and r.d is the last one.
--- Nothing is written into the run's folder (sagan/rebuild.lua).
local core = require "sagan.core"
local checkpoint = require "sagan.checkpoint"
local config_module = require "sagan.config"
local fields = require "sagan.fields"
local live = require "sagan.live"
local measurements = require "sagan.measurements"
local nearest = require "sagan.nearest"
local rebuild = require "sagan.rebuild"

local replay = {}

------------------------------------------------------------------------------------------------------------- a pass

---@class sagan.ReplayPass  what one network's step did, module by module
---@field letter "G"|"D"    whose step it is
local Pass = {}
Pass.__index = Pass

--- Follows one network's step: from now on every module that runs is seen. settle() must come between a backward and the
--- next forward, for gradients of what lies between live only until then.
local function watch(trainer, letter)
    local pass = setmetatable({ letter = letter, net = trainer[letter], order = {}, calls = {} }, Pass)
    local pending = {}
    local function see(module, value)
        if not core.is_tensor(value) then return end
        local path = module.full_path
        if not pass.calls[path] then
            pass.calls[path] = {}
            table.insert(pass.order, path)
        end
        local call = { view = value:reshape(table.unpack(value.shape)):keep() } -- others release theirs
        table.insert(pass.calls[path], call)
        table.insert(pending, call)
    end
    trainer.G.watch, trainer.D.watch = see, see
    return pass, function()
        for _, call in ipairs(pending) do
            local gradient = call.view.grad
            call.gradient = gradient and gradient:keep()
            call.activation = call.view:detach():keep()
            call.view:release()
            call.view = nil
        end
        pending = {}
    end
end

--- Runs a trainer's step of one network and returns what passed through.
local function watched(trainer, letter, step)
    local Trainer = require "sagan.trainer"
    local pass, settle = watch(trainer, letter)
    function trainer.parts(self, n, fn)
        local means = Trainer.parts(self, n, function(...)
            settle()
            return fn(...)
        end)
        settle()
        pass.slab_gradient = core.no_grad(function() return pass.net.slab.grad:clone():keep() end)
        return means
    end
    local _ <close> = setmetatable({}, { __close = function()
        trainer.parts, trainer.G.watch, trainer.D.watch = nil, nil, nil
    end })
    step(trainer)
    return pass
end

local function parameters(pass)
    local names, by_path = {}, {}
    for name, _, spec in pass.net:named_parameters() do
        local path = pass.letter .. "." .. name
        names[#names + 1], by_path[path] = path, spec
    end
    return names, by_path
end

--- The paths that can be asked for: of modules, in the order in which they ran, then of the network's own parameters.
---@param pattern? string  a Lua pattern that they contain: "conv1$"
---@return string[]
function Pass:paths(pattern)
    local out = {}
    for _, list in ipairs { self.order, (parameters(self)) } do
        for _, path in ipairs(list) do
            if not pattern or path:find(pattern) then out[#out + 1] = path end
        end
    end
    return out
end

local function calls_of(self, path, level)
    local calls = self.calls[path]
    if calls then return calls end
    local near = nearest(tostring(path), self:paths())
    error(("%s's step has no '%s'%s"):format(self.letter, tostring(path),
        near and ("; did you mean '%s'?"):format(near) or " (r:paths() lists what there is)"), level + 1)
end

--- The parts of one module's values, the last ones in the first dimension.
local function joined(calls, what)
    local all
    for _, call in ipairs(calls) do
        if not call[what] then return nil end
        all = all and core.no_grad(core.ops.concat, all, call[what], 1) or call[what]
    end
    return all
end

--- What a module put out. Where it ran several times (train.accumulate, train.d_forward=separate), all of it in the order of
--- the calls. D sees real images first, then fakes.
---@param path string  "G.block3.conv2"; "G" itself: the images
---@return sagan.Tensor
function Pass:activation(path)
    local _, by_path = parameters(self)
    if by_path[path] then error(("%s is a parameter: r:gradient %q, r.before[%q]"):format(path, path, path), 2) end
    return joined(calls_of(self, path, 2), "activation")
end

--- The gradient of the network's loss: with respect to what a module put out, or to a parameter.
---@param path string  "D.block1", "D.block1.conv1.weight"
---@return sagan.Tensor? gradient  nil: none flows there, as into G in D's step
function Pass:gradient(path)
    local _, by_path = parameters(self)
    local spec = by_path[path]
    if spec then return self.slab_gradient:part(spec.offset + 1, spec.shape) end
    return joined(calls_of(self, path, 2), "gradient")
end

local function size_of(t)
    return ("%.3g"):format(core.no_grad(core.ops.norm, t):item() / math.sqrt(t:numel()))
end

function Pass:__tostring()
    local rows = { { self.letter .. "'s step", "shape", "rms", "rms of gradient" } }
    local _, by_path = parameters(self)
    for _, path in ipairs(self:paths()) do
        local spec, gradient = by_path[path], self:gradient(path)
        local value = spec and self.before[path] or self:activation(path)
        rows[#rows + 1] = { path, table.concat(value.shape, "x"), size_of(value), gradient and size_of(gradient) or "-" }
    end
    local width = { 0, 0, 0 }
    for _, row in ipairs(rows) do
        for i = 1, 3 do width[i] = math.max(width[i], #row[i]) end
    end
    local form = ("%%-%ds  %%%ds  %%%ds  %%s"):format(width[1], width[2], width[3])
    for i, row in ipairs(rows) do rows[i] = form:format(table.unpack(row)) end
    return table.concat(rows, "\n")
end

----------------------------------------------------------------------------------------------------------- the step

---@class sagan.Replay
---@field path string              of the run
---@field step integer
---@field from integer             the checkpoint that it was rebuilt from; 0: the seed
---@field row table<string, number>  what the log would say of this step alone: losses, logits, gradient norms, gamma, sigma
---@field d sagan.ReplayPass       D's step, the last of them
---@field g sagan.ReplayPass       G's step
---@field d_steps sagan.ReplayPass[]
---@field before table<string, sagan.Tensor>  the state before the step, by its names in a checkpoint
---@field config sagan.Config      as the step saw it
local Replay = {}
Replay.__index = Replay

local function copy_of(state)
    local copies = {}
    core.no_grad(function()
        for name, tensor in pairs(state) do copies[name] = tensor:clone():keep() end
    end)
    return copies
end

--- Does the next step of a rebuilt run and keeps what passes through.
local function look(rebuilt)
    local trainer = rebuilt.trainer
    local self = setmetatable({ rebuilt = rebuilt, path = rebuilt.path, step = trainer.step + 1, from = rebuilt.from,
        d_steps = {}, before = copy_of(checkpoint.state(trainer)), config = config_module.copy(trainer.config) }, Replay)
    local d_step, g_step = trainer.d_step, trainer.g_step
    function trainer.d_step() table.insert(self.d_steps, watched(trainer, "D", trainer.discriminator_step)) end
    function trainer.g_step() self.g = watched(trainer, "G", trainer.generator_step) end
    local _ <close> = setmetatable({}, { __close = function()
        trainer.d_step, trainer.g_step = d_step, g_step
        core.retain_grads(false)
        core.clear_tape()
    end })
    rebuilt:as_the_run(function()
        core.retain_grads(true)
        trainer:iterate()
        self.row = measurements.of(trainer, 1)
    end)
    self.d, rebuilt.shown = self.d_steps[#self.d_steps], self
    for _, pass in ipairs { self.g, table.unpack(self.d_steps) } do pass.before = self.before end
    return self
end

local function own_pass(self, path) return tostring(path):match("^D") and self.d or self.g end

--- What a module put out in its own network's step.
---@param path string  "G.block3.conv2"
---@return sagan.Tensor
function Replay:activation(path)
    local t = own_pass(self, path):activation(path)
    return t
end

--- The gradient of its own network's loss with respect to what a module put out, or to a parameter.
---@param path string  "D.block1", "D.block1.conv1.weight"
---@return sagan.Tensor
function Replay:gradient(path)
    local t = own_pass(self, path):gradient(path)
    return t
end

--- The paths of modules and parameters, each network's in its own step.
---@param pattern? string  a Lua pattern that they contain
---@return string[]
function Replay:paths(pattern)
    local out = {}
    for _, pass in ipairs { self.g, self.d } do
        for _, path in ipairs(pass:paths(pattern)) do
            if path:match("^%a+") == pass.letter then out[#out + 1] = path end
        end
    end
    return out
end

local function present(self, what)
    local rebuilt = self.rebuilt
    if not rebuilt.trainer then error(what .. ": this replay is closed", 3) end
    if rebuilt.shown ~= self then error(what .. ": step_again has moved the state on; ask what it returned", 3) end
    return rebuilt.trainer
end

--- The same step once more from the state before it, perhaps with other rates. What was kept of this one stays; the state
--- is then that of the new one.
---@param changes? table  optimizer.lr_g, optimizer.lr_d; run:fork changes other fields
---@return sagan.Replay
function Replay:step_again(changes)
    local trainer = self.rebuilt.trainer
    if not trainer then error("step_again: this replay is closed", 2) end
    local wanted = {}
    local flat, pairs_ = pcall(config_module.flatten, changes or {})
    if not flat then error(pairs_, 2) end
    for _, pair in ipairs(pairs_) do
        local field = fields.by_key[pair.key]
        if not live.fields[pair.key] or field.free then
            error(("step_again changes optimizer.lr_g and optimizer.lr_d, not %s; run:fork changes what a run goes on with")
                :format(pair.key), 2)
        end
        local good, value = pcall(config_module.check, pair.key, pair.value)
        if not good then error(value, 2) end
        wanted[pair.key] = value
    end
    core.no_grad(function()
        for name, tensor in pairs(checkpoint.state(trainer)) do tensor:copy_(self.before[name]) end
    end)
    trainer.step, trainer.d_steps_done = self.step - 1, trainer.d_clock:totable()[1]
    for key in pairs(live.fields) do
        if not fields.by_key[key].free then
            live.put(trainer, key, wanted[key] or config_module.get(self.config, key))
        end
    end
    return look(self.rebuilt)
end

--- The state after the step, by its names in a checkpoint: copies.
---@return table<string, sagan.Tensor>
function Replay:state() return copy_of(checkpoint.state(present(self, "r:state"))) end

--- Writes the state after the step as a checkpoint, which sagan-lua sample and sagan.open read.
---@param path string
---@return string? path, string? message
function Replay:save(path)
    if path:sub(1, #self.path + 1) == self.path .. "/" then
        error("r:save writes nothing into the folder of the run; give another place", 2)
    end
    local ok, message = checkpoint.save(present(self, "r:save"), path)
    if not ok then return nil, message end
    return path
end

--- Lets go of the state and of the data set; what was kept of the step stays.
function Replay:close()
    self.rebuilt:close()
end
Replay.__close = Replay.close

function Replay:__tostring()
    local row = self.row
    local lines = { ("step %d of %s, rebuilt from %s"):format(self.step, self.path,
        self.from > 0 and "checkpoint " .. self.from or "the seed") }
    lines[2] = ("D's step  loss %.4g, logits real %.4g fake %.4g, gradient %.4g, rate %g"):format(row["loss/d"],
        row["logit/real"], row["logit/fake"], row["grad/d"], self.config.optimizer.lr_d)
    lines[3] = ("G's step  loss %.4g, gradient %.4g, rate %g"):format(row["loss/g"], row["grad/g"], self.config.optimizer.lr_g)
    lines[4] = ('%d paths: r:paths "conv1", r:activation %q, r:gradient %q; print(r.d), print(r.g)'):format(#self:paths(),
        self:paths("conv")[1] or "G", self:paths("D.*weight$")[1] or "D")
    return table.concat(lines, "\n")
end

--- Rebuilds a run up to a step and does that step with everything kept.
---@param path string   a run folder
---@param step integer  from 1
---@return sagan.Replay? replay  close it when done, or let the collector
---@return string? message
function replay.open(path, step)
    local rebuilt, message = rebuild.at(path, step - 1)
    if not rebuilt then return nil, message end
    return look(rebuilt)
end

return replay
