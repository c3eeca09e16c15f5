--- optimizer.lua - Adam and the exponential moving average over a network's slabs. Every hyperparameter lives in device
--- memory, so a captured step sees a changed learning rate at its next replay.
local core = require "sagan.core"
local ops = core.ops

local optimizer = {}

---@class sagan.Adam
---@field hyper sagan.Tensor {6}: rate, beta1, beta2, eps, weight decay, factor on the gradient
local Adam = {}
Adam.__index = Adam

--- Adam (Kingma and Ba 2015) over the parameter slab of a built network. TTUR is two of these with different rates.
---@param net sagan.nn.Module built network
---@param options {lr: number, beta1: number, beta2: number, eps: number, tf_eps: boolean?, weight_decay: number?}
---@return sagan.Adam
function optimizer.adam(net, options)
    local n = net.slab:numel()
    local o = options
    return setmetatable({
        net = net,
        m = core.zeros({ n }, { device = net.slab.device }),
        v = core.zeros({ n }, { device = net.slab.device }),
        count = core.zeros({ 2 }, { dtype = "i32", device = net.slab.device }),
        hyper = core.tensor({ o.lr, o.beta1, o.beta2, o.eps, o.weight_decay or 0, 1 }, { device = net.slab.device }),
        tf_eps = o.tf_eps or false,
    }, Adam)
end

--- One step from the gradients in the slab; and, in the same pass, one of the average that follows the network.
---@param average? sagan.Average of the same network
---@param clock? sagan.Tensor {2} i32: steps done, for the average
function Adam:step(average, clock)
    local slab, m, v, count, hyper = self.net.slab, self.m, self.v, self.count, self.hyper
    if not average then return ops.adam(slab, slab.grad, m, v, count, hyper, self.tf_eps) end
    assert(average.source == self.net, "the average follows another network")
    ops.adam_ema(slab, slab.grad, m, v, count, hyper, average.net.slab, clock, average.hyper, self.tf_eps)
    ops.ema(average.net.buffer_slab, average.source.buffer_slab, clock, average.hyper)
end

--- Changes the learning rate; takes effect at the next step, captured or not.
---@param lr number
function Adam:set_rate(lr)
    local h = self.hyper:totable()
    h[1] = lr
    self.hyper:copy_(h)
end

---@return table<string, sagan.Tensor>
function Adam:state()
    return { m = self.m, v = self.v, count = self.count }
end

---@class sagan.Average
---@field source sagan.nn.Module what it follows
---@field net sagan.nn.Module    the average
---@field hyper sagan.Tensor     {2}: decay, first step that averages

--- A copy of a generator whose parameters and buffers follow the original: target = d target + (1 - d) source, and a plain
--- copy while the clock is below `start` (BGP averages its whole state so; FACTS 1.4). Adam:step moves it.
---@param net sagan.nn.Module built network
---@param options {decay: number, start: integer}
---@return sagan.Average
function optimizer.average(net, options)
    local copy = net:clone { grad = false }
    copy:eval()
    return { source = net, net = copy,
        hyper = core.tensor({ options.decay, options.start }, { device = net.slab.device }) }
end

return optimizer
