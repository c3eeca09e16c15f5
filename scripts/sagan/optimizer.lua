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

--- One step from the gradients in the slab.
function Adam:step()
    ops.adam(self.net.slab, self.net.slab.grad, self.m, self.v, self.count, self.hyper, self.tf_eps)
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
local Average = {}
Average.__index = Average

--- A copy of a generator whose parameters and buffers follow the original: target = d target + (1 - d) source, and a plain
--- copy while the clock is below `start` (BGP averages its whole state so; FACTS 1.4).
---@param net sagan.nn.Module built network
---@param options {decay: number, start: integer}
---@return sagan.Average
function optimizer.average(net, options)
    local copy = net:clone { grad = false }
    copy:eval()
    return setmetatable({
        source = net,
        net = copy,
        hyper = core.tensor({ options.decay, options.start }, { device = net.slab.device }),
    }, Average)
end

--- Moves the average by one step.
---@param clock sagan.Tensor {2} i32
function Average:step(clock)
    ops.ema(self.net.slab, self.source.slab, clock, self.hyper)
    ops.ema(self.net.buffer_slab, self.source.buffer_slab, clock, self.hyper)
end

return optimizer
