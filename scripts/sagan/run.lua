--- run.lua - a run folder opened for looking. Nothing is ever written into it, and no lock is taken: a run that trains goes
--- on, and one that is damaged stays as it is.
---
---     local run = assert(sagan.open "runs/feat32")
---     local a = run.G:attention { class = "Sandal", seed = 1 }      -- sagan/microscope.lua
---     local images = run.G(z, labels)
---
--- run.G and run.D are read when they are first used: the newest checkpoint that can be read, G as its moving average.
local core = require "sagan.core"
local arguments = require "sagan.arguments"
local checkpoint = require "sagan.checkpoint"
local run_folder = require "sagan.run_folder"

local run = {}

---@class sagan.OpenOptions
---@field raw? boolean    the generator itself instead of its moving average
---@field step? integer   the checkpoint of this step; the newest that can be read if absent

---@class sagan.OpenRun
---@field path string           the folder, or the checkpoint file that was named
---@field config sagan.Config
---@field step integer          of the checkpoint that G and D are from
---@field class_names string[]
---@field checkpoints {step: integer, path: string}[]  newest first
---@field damaged string[]      why checkpoints newer than that were passed over
---@field G sagan.RunNet
---@field D sagan.RunNet
local OpenRun = {}

---@class sagan.RunNet          one network of a run at one step
---@field run sagan.OpenRun
---@field letter "G"|"D"
---@field step integer
---@field path string           of the checkpoint
---@field net sagan.nn.Module   in eval mode; read when it is first asked for, and again after forget()
---@field weights "EMA"|"raw"
---@field config sagan.Config
---@field class_names string[]
---@overload fun(input: sagan.Tensor, labels: sagan.Tensor?): sagan.Tensor
local RunNet = {}

local function load(self)
    local net, info = checkpoint.network(self.path, self.letter, { raw = self.raw })
    if not net then error(info, 0) end
    self.weights, self.net = info.weights, net
end

function RunNet.__index(self, key)
    if key == "net" or key == "weights" then
        load(self)
        return rawget(self, key)
    end
    return RunNet[key]
end

RunNet.__methods = RunNet -- for completion (prompt/complete.lua)
function RunNet.__names() return { "net", "weights" } end

--- Runs the network without gradient, as after training.
function RunNet.__call(self, ...) return core.no_grad(self.net, ...) end

function RunNet.__tostring(self)
    local sizes = {}
    for size in pairs(self.net.attention) do sizes[#sizes + 1] = size end
    table.sort(sizes)
    return ("%s at step %d (%s): %s, %dx%d, %s"):format(self.letter, self.step, self.weights, self.net:describe(),
        self.config.model.resolution, self.config.model.resolution,
        #sizes > 0 and "attention at feat" .. table.concat(sizes, ", feat") or "no attention")
end

--- What its attention does with one input: where each position looks, how sharply, how far, and what depends on it.
---@param options? sagan.AttentionOptions
---@return sagan.Attention
function RunNet:attention(options) return require "sagan.microscope".open(self, options) end

--- A strip from one class or z to another (sagan/explore.lua).
---@param options {from: sagan.Place?, to: sagan.Place?, steps: integer?, file: string?}
---@return sagan.Strip? strip, string? message
function RunNet:interpolate(options) return require "sagan.explore".interpolate(self, options) end

--- Samples with z cut off ever farther out (sagan/explore.lua).
---@param options? {values: number[]?, seed: integer?, class: (string|integer)?, columns: integer?, file: string?}
---@return sagan.TruncationSweep? sweep, string? message
function RunNet:truncation_sweep(options) return require "sagan.explore".truncation_sweep(self, options) end

--- The training images that are nearest to a sample (sagan/training_neighbours.lua).
---@param options? sagan.NeighbourOptions
---@return sagan.TrainingNeighbours? near, string? message
function RunNet:neighbours(options) return require "sagan.training_neighbours".of(self, options) end

--- All singular values of every weight (sagan/spectrum.lua).
---@param options? {file: string?}
---@return sagan.Spectrum? spectrum, string? message
function RunNet:spectrum(options) return require "sagan.spectrum".of(self, options) end

--- Lets go of the network; it is read again when it is needed.
function RunNet:forget() self.net = nil end

function OpenRun.__index(self, key)
    if key == "G" or key == "D" then
        local net = self:net(key)
        rawset(self, key, net)
        return net
    end
    return OpenRun[key]
end

OpenRun.__methods = OpenRun
function OpenRun.__names() return { "G", "D" } end

function OpenRun.__tostring(self)
    local lines = { ("%s at step %d of %d, %d checkpoint%s, %d classes"):format(self.path, self.step,
        self.config.train.steps, #self.checkpoints, #self.checkpoints == 1 and "" or "s", #self.class_names) }
    for _, message in ipairs(self.damaged) do lines[#lines + 1] = "not usable: " .. message end
    return table.concat(lines, "\n")
end

--- A network of the run, also of another step or with other weights than run.G has. What is wrong with a file is raised when
--- the network is first used.
---@param letter "G"|"D"
---@param options? sagan.OpenOptions
---@return sagan.RunNet
function OpenRun:net(letter, options)
    if letter ~= "G" and letter ~= "D" then error("a run has the networks G and D, no " .. tostring(letter), 2) end
    local o = arguments("run:net", options, { "raw", "step" })
    local raw, wanted = o.raw, o.step or self.step
    if raw == nil then raw = self.raw end
    for _, c in ipairs(self.checkpoints) do
        if c.step == wanted then
            return setmetatable({ run = self, letter = letter, step = c.step, path = c.path, raw = raw, config = self.config,
                class_names = self.class_names }, RunNet)
        end
    end
    error(("%s: no checkpoint of step %s; there are %s"):format(self.path, tostring(wanted), self:steps()), 2)
end

--- A step once more, bit for bit, with every activation and gradient kept (sagan/replay.lua). Any step will do: what no
--- checkpoint is near to is trained again in memory.
---@param step integer  from 1
---@return sagan.Replay? replay
---@return string? message
function OpenRun:replay(step)
    if math.type(step) ~= "integer" or step < 1 or step > self.config.train.steps then
        error(("run:replay takes a step from 1 to %d, not %s"):format(self.config.train.steps, tostring(step)), 2)
    end
    return require "sagan.replay".open(self.path, step)
end

--- The state after a step, continued in another way: a run folder of its own (sagan/fork.lua). Fields are named as in an
--- experiment: run:fork { at = 1200, name = "slow", ["optimizer.lr_d"] = 2e-4 }
---@param options sagan.ForkOptions
---@return sagan.Fork? fork
---@return string? message
function OpenRun:fork(options)
    local o = options or {}
    if math.type(o.at) ~= "integer" or o.at < 0 or o.at > self.config.train.steps then
        error(("run:fork: at is a step from 0 to %d, not %s"):format(self.config.train.steps, tostring(o.at)), 2)
    end
    if type(o.name) ~= "string" then error("run:fork: name is what the new run is called", 2) end
    return require "sagan.fork".make(self.path, o)
end

--- The steps of the checkpoints in words: "250, 500, 600".
---@return string
function OpenRun:steps()
    local steps = {}
    for i, c in ipairs(self.checkpoints) do steps[#self.checkpoints + 1 - i] = tostring(c.step) end
    return table.concat(steps, ", ")
end

-- The checkpoints of a folder, or the one that was named itself.
local function find(path)
    local kind = core.system.stat(path)
    if kind and kind.type == "file" then
        local info, message = checkpoint.info(path)
        if not info then return nil, message end
        return path, { { step = info.step, path = path } }
    end
    local folder, message = run_folder.open(path)
    if not folder then return nil, message end
    local config, broken = folder:config()
    if not config then return nil, broken end
    local all = folder:checkpoints()
    if #all == 0 then return nil, folder.path .. ": no checkpoint yet" end
    return folder.path, all
end

--- Opens a run for looking: its folder (runs/feat32: its first seed), or a checkpoint file alone.
---@param path string
---@param options? sagan.OpenOptions
---@return sagan.OpenRun? run
---@return string? message  nothing is there, no checkpoint can be read, or another version wrote it
function run.open(path, options)
    local o = arguments("sagan.open", options, { "raw", "step" }, 4)
    local found, all = find(path)
    if not found then return nil, all end
    local self = setmetatable({ path = found, checkpoints = all, damaged = {}, raw = o.raw }, OpenRun)
    local known = false
    for _, c in ipairs(all) do
        if not o.step or c.step == o.step then
            known = true
            local info, message = checkpoint.info(c.path)
            if info then
                self.step, self.config, self.class_names = c.step, info.config, info.class_names
                return self
            end
            self.damaged[#self.damaged + 1] = message
        end
    end
    if not known then
        return nil, ("%s: no checkpoint of step %s; there are %s"):format(found, tostring(o.step), self:steps())
    end
    return nil, table.concat(self.damaged, "\n")
end

return run
