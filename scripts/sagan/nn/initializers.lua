--- Initial values of parameters, from keyed random numbers. The stream of a parameter is a hash of its full name, so
--- its values depend on the seed and the name alone. Everything is drawn on the CPU and then moved to the device.
---
--- Fans of a shape {O, R, S, I} or {O, I}: in = I R S, out = O R S.
---   xavier       uniform in +-gain sqrt(6 / (in + out))              Glorot and Bengio 2010, eq. 16
---   orthogonal   the matrix {O, rest} has orthonormal rows or columns times gain   Saxe et al. 2013
---   normal       mean 0, standard deviation std (0.02); cut off at bound standard deviations if bound > 0
---   uniform      in +-bound;  fan_uniform: bound = 1 / sqrt(fan in), what PyTorch gives biases and weights
---   constant     value;  zeros, ones

local core = require "sagan.core"

---@class sagan.nn.InitTable
---@field kind "xavier"|"orthogonal"|"normal"|"uniform"|"fan_uniform"|"constant"|"zeros"|"ones"
---@field gain? number    xavier, orthogonal: 1
---@field std? number     normal: 0.02
---@field bound? number   uniform: 0.05; normal: 0, no bound
---@field value? number   constant: 0
---@field fan_in? integer fan_uniform: instead of the shape's own, for biases

---@alias sagan.nn.Init string|sagan.nn.InitTable

local initializers = {}

--- Random streams from 2^31 belong to parameters; those below are for the training loop.
---@param name string
---@return integer  32-bit FNV-1a hash with the top bit set
function initializers.stream(name)
    local h = 0x811c9dc5
    for i = 1, #name do h = ((h ~ name:byte(i)) * 0x01000193) & 0xffffffff end
    return h | 0x80000000
end

local function fans(shape)
    local receptive = 1
    for i = 2, #shape - 1 do receptive = receptive * shape[i] end
    return shape[#shape] * receptive, shape[1] * receptive
end

local function normal(t, seed, stream, std, bound)
    local clock <close> = core.zeros({ 2 }, { dtype = "i32", device = t.device })
    core.ops.normal(t, clock, seed, stream, 0, std, bound or 0)
end

local function uniform(t, seed, stream, bound)
    local clock <close> = core.zeros({ 2 }, { dtype = "i32", device = t.device })
    core.ops.uniform(t, clock, seed, stream, -bound, bound)
end

--- The orthogonal factor of the polar decomposition of a normal matrix, which is as uniformly distributed as the Q of
--- its QR decomposition, by Newton-Schulz steps X <- 1.5 X - 0.5 (X X^T) X: matrix products only. Singular values below
--- sqrt(3) go to 1; small ones grow by 1.5 a step, so a square matrix needs some 25 steps and a wide one 6.
local function orthogonal(t, shape, seed, stream, gain)
    local ops = core.ops
    local rows = shape[1]
    local columns = t:numel() // rows
    local few, many = math.min(rows, columns), math.max(rows, columns)
    local x = core.empty({ few, many })
    -- a standard normal matrix has its largest singular value near sqrt(rows) + sqrt(columns)
    normal(x, seed, stream, 1 / (1.1 * (math.sqrt(few) + math.sqrt(many))))
    local identity = {}
    for i = 1, few do
        local row = {}
        for j = 1, few do row[j] = i == j and 1 or 0 end
        identity[i] = row
    end
    identity = core.tensor(identity)
    local tolerance = 2e-6 * few -- Frobenius norm; f32 rounding keeps it above about 1e-6 * few
    for _ = 1, 100 do
        local square = ops.matmul(x, x, false, true)
        local done = ops.norm(ops.sub(square, identity)):item() < tolerance
        -- the step once more after the test: convergence is quadratic, so it reaches rounding
        x = ops.sub(ops.scale(x, 1.5), ops.scale(ops.matmul(square, x), 0.5))
        if done then break end
    end
    if rows > columns then x = ops.permute(x, 2, 1) end
    t:copy_(ops.scale(x, gain):reshape(shape))
end

local KINDS <const> = {
    zeros = function(t) t:zero_() end,
    ones = function(t) t:fill_(1) end,
    constant = function(t, _, o) t:fill_(o.value or 0) end,
    normal = function(t, _, o, seed, stream) normal(t, seed, stream, o.std or 0.02, o.bound) end,
    uniform = function(t, _, o, seed, stream) uniform(t, seed, stream, o.bound or 0.05) end,
    fan_uniform = function(t, shape, o, seed, stream)
        uniform(t, seed, stream, 1 / math.sqrt(o.fan_in or (fans(shape))))
    end,
    xavier = function(t, shape, o, seed, stream)
        local fan_in, fan_out = fans(shape)
        uniform(t, seed, stream, (o.gain or 1) * math.sqrt(6 / (fan_in + fan_out)))
    end,
    orthogonal = function(t, shape, o, seed, stream) orthogonal(t, shape, seed, stream, o.gain or 1) end,
}

--- Fills a tensor.
---@param tensor sagan.Tensor  f32
---@param shape integer[]      its shape, {O, ...}
---@param init sagan.nn.Init   a kind's name, or a table with `kind` and its numbers
---@param seed integer
---@param stream integer       below 2^32
function initializers.fill(tensor, shape, init, seed, stream)
    local options = type(init) == "table" and init or { kind = init }
    local fill = KINDS[options.kind]
    if not fill then
        local known = {}
        for k in pairs(KINDS) do known[#known + 1] = k end
        table.sort(known)
        error(("unknown initialiser '%s' (%s)"):format(tostring(options.kind), table.concat(known, ", ")), 2)
    end
    fill(tensor, shape, options, seed, stream)
end

return initializers
