--- Batch normalisation, plain and class-conditional, with an optional fused ReLU.
---
---   y = (gain + gain_offset) (x - mean) / sqrt(var + eps) + bias, statistics over N, H, W
---
--- Conditional: gain and bias are tables {classes, C}, one row a class (Dumoulin et al. 2017).
--- In training mode the batch's statistics are used and the running ones move by `momentum` towards them
--- (unless the network's update_statistics is false); in evaluation mode the running ones are used.

local core = require "sagan.core"
local Module = require "sagan.nn.module"

---@class sagan.nn.BatchNormOptions
---@field channels integer
---@field classes? integer             ConditionalBatchNorm2d only
---@field eps? number                  1e-5
---@field momentum? number             0.1: running = 0.9 running + 0.1 batch
---@field gain_offset? number          added to the gain, 0; 1 for gains that are stored as differences from 1
---@field relu? boolean                max(y, 0), in the same op
---@field gain_init? sagan.nn.Init     ones
---@field bias_init? sagan.nn.Init     zeros
---@field spectral_norm? boolean|sagan.nn.SpectralOptions  of the two tables; bounds every class's gains, so off

local function declare(self, o)
    if not o.channels then error(self.type .. " needs channels", 4) end
    self.channels = o.channels
    self.eps, self.momentum = o.eps or 1e-5, o.momentum or 0.1
    self.gain_offset, self.relu = o.gain_offset or 0, o.relu or false
    local shape = o.classes and { o.classes, o.channels } or { o.channels }
    self:parameter("gain", shape, o.gain_init or "ones", o.classes and o.spectral_norm)
    self:parameter("bias", shape, o.bias_init or "zeros", o.classes and o.spectral_norm)
    self:buffer("running_mean", { o.channels }, 0)
    self:buffer("running_var", { o.channels }, 1)
end

-- without running tensors the op in training mode has nothing to update
local function running(self)
    if self.training and not self.root.update_statistics then return nil, nil end
    return self.running_mean, self.running_var
end

---@class sagan.nn.BatchNorm2d: sagan.nn.Module
---@field momentum number  may be changed at any time, for instance to 1/n for a cumulative average
---@overload fun(options: sagan.nn.BatchNormOptions): sagan.nn.BatchNorm2d
local BatchNorm2d = Module.class("BatchNorm2d")

---@param o sagan.nn.BatchNormOptions
function BatchNorm2d:init(o)
    if o.classes then error("BatchNorm2d has no classes; ConditionalBatchNorm2d has", 3) end
    declare(self, o)
end

---@param x sagan.Tensor  {N, H, W, C}
---@return sagan.Tensor   the same shape
function BatchNorm2d:forward(x)
    local mean, var = running(self)
    return core.ops.batch_norm(x, self.gain, self.bias, mean, var, self.training, self.momentum, self.eps, self.relu,
        self.gain_offset)
end

--- Running statistics back to mean 0, variance 1.
function BatchNorm2d:reset_statistics()
    self.running_mean:fill_(0)
    self.running_var:fill_(1)
end

function BatchNorm2d:describe() return ("%s %d%s"):format(self.type, self.channels, self.relu and " + ReLU" or "") end

---@class sagan.nn.ConditionalBatchNorm2d: sagan.nn.BatchNorm2d
---@overload fun(options: sagan.nn.BatchNormOptions): sagan.nn.ConditionalBatchNorm2d
local ConditionalBatchNorm2d = Module.class("ConditionalBatchNorm2d", BatchNorm2d)

---@param o sagan.nn.BatchNormOptions
function ConditionalBatchNorm2d:init(o)
    if not o.classes then error("ConditionalBatchNorm2d needs classes", 3) end
    self.classes = o.classes
    declare(self, o)
end

---@param x sagan.Tensor       {N, H, W, C}
---@param labels sagan.Tensor  {N} i32, counted from 0; or f32 {N, classes}: how much of each class's gains and biases
---@return sagan.Tensor        the same shape as x
function ConditionalBatchNorm2d:forward(x, labels)
    local mean, var = running(self)
    local gain, bias = self:weight_of("gain"), self:weight_of("bias")
    if labels and labels.dtype == "f32" then -- a row of its own for each image
        gain, bias = core.ops.matmul(labels, gain), core.ops.matmul(labels, bias)
        local own = {}
        for i = 1, labels:size(1) do own[i] = i - 1 end
        labels = core.tensor(own, { dtype = "i32", device = x.device })
    end
    return core.ops.cond_batch_norm(x, gain, bias, labels, mean, var, self.training, self.momentum, self.eps,
        self.relu, self.gain_offset)
end

local function chain(norm, conv, x, labels, residual) return conv(norm(x, labels), residual) end

--- conv(norm(x, labels), residual), where nobody else reads what the normalisation puts out: with the root's recompute_norms it
--- is not kept.
---@param norm sagan.nn.BatchNorm2d
---@param conv sagan.nn.Module
---@param x sagan.Tensor
---@param labels? sagan.Tensor
---@param residual? sagan.Tensor
---@return sagan.Tensor
local function norm_conv(norm, conv, x, labels, residual)
    if not norm.root.recompute_norms then return chain(norm, conv, x, labels, residual) end
    return core.recompute(core.scope, chain, norm, conv, x, labels, residual)
end

return { BatchNorm2d = BatchNorm2d, ConditionalBatchNorm2d = ConditionalBatchNorm2d, norm_conv = norm_conv }
