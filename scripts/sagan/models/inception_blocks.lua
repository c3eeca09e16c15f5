--- The mixed blocks of Inception-v3 (Szegedy et al. 2015, arXiv 1512.00567, figures 5 to 7 and 10) as tables: a block is a
--- list of branches that all see its input, and their outputs are concatenated in the list's order; a branch is a list of
--- units and poolings, one after the other; a fork is a list of units that all see what came before them.
---
---     local block = blocks.Block { input = 192, branches = blocks.A(32) }
---
--- Names are those of torchvision's inception_v3, so that its state dicts fit.

local core = require "sagan.core"
local nn = require "sagan.nn"

local blocks = {}

---@class sagan.models.UnitSpec
---@field [1] string              its name; "mean" or "max" is a 3x3 pooling with stride 1
---@field [2] integer             output channels
---@field [3] integer|integer[]   kernel, {h, w}
---@field stride? integer         1
---@field padding? integer        as much as keeps the size if the stride is 1, else 0

---@class sagan.models.InceptionUnit: sagan.nn.Module
---@overload fun(options: table): sagan.models.InceptionUnit
local Unit = nn.class("InceptionUnit")
blocks.Unit = Unit

--- Convolution without bias, batch norm with eps 1e-3, ReLU.
---@param o {input: integer, spec: sagan.models.UnitSpec, init?: sagan.nn.Init}
function Unit:init(o)
    local spec = o.spec
    local h, w = spec[3], spec[3]
    if type(spec[3]) == "table" then h, w = spec[3][1], spec[3][2] end
    local stride = spec.stride or 1
    local padding = spec.padding or (stride == 1 and { (h - 1) // 2, (w - 1) // 2 }) or 0
    self:add("conv", nn.Conv2d {
        in_channels = o.input, out_channels = spec[2], kernel = { h, w }, stride = stride, padding = padding, bias = false,
        -- keeps the activations' size through ReLUs (He et al. 2015, eq. 10)
        init = o.init or { kind = "normal", std = math.sqrt(2 / (o.input * h * w)) },
    })
    self:add("bn", nn.BatchNorm2d { channels = spec[2], eps = 1e-3, relu = true })
end

function Unit:forward(x)
    local y <close> = self.conv(x)
    return self.bn(y)
end

function Unit:describe()
    return ("%s + BatchNorm + ReLU"):format(self.conv:describe())
end

-- The 2015 graph leaves padding out of the mean's divisor; torchvision counts it.
local POOLS <const> = {
    mean = function(x) return core.ops.mean_pool { x = x, size = 3, stride = 1, pad = 1, include_pad = false } end,
    max = function(x) return core.ops.max_pool { x = x, size = 3, stride = 1, pad = 1 } end,
    halve = function(x) return core.ops.max_pool { x = x, size = 3, stride = 2 } end,
}
blocks.pools = POOLS

---@class sagan.models.InceptionBlock: sagan.nn.Module
---@field channels integer  of its output
---@overload fun(options: table): sagan.models.InceptionBlock
local Block = nn.class("InceptionBlock")
Block.scoped = true
blocks.Block = Block

---@param o {input: integer, branches: table[], init?: sagan.nn.Init}
function Block:init(o)
    self.branches, self.channels = {}, 0
    local function unit(spec, input)
        return self:add(spec[1], Unit { input = input, spec = spec, init = o.init }), spec[2]
    end
    for i, branch in ipairs(o.branches) do
        local steps, channels = {}, o.input
        for j, spec in ipairs(branch) do
            if type(spec) == "string" then
                steps[j] = { POOLS[spec] }
            elseif type(spec[1]) == "table" then
                local fork, input = {}, channels
                channels = 0
                for k, part in ipairs(spec) do
                    local width
                    fork[k], width = unit(part, input)
                    channels = channels + width
                end
                steps[j] = fork
            else
                local module
                module, channels = unit(spec, channels)
                steps[j] = { module }
            end
        end
        self.branches[i] = steps
        self.channels = self.channels + channels
    end
end

--- The outputs of several steps on one input, side by side.
local function spread(steps, x)
    local parts = {}
    for i, step in ipairs(steps) do parts[i] = step(x) end
    -- pairs of pairs: each number is copied twice at most where there are four
    while #parts > 1 do
        local joined = {}
        for i = 1, #parts, 2 do
            joined[#joined + 1] = parts[i + 1] and core.ops.concat(parts[i], parts[i + 1], 4) or parts[i]
        end
        parts = joined
    end
    return parts[1]
end

local function run(branch, x)
    for _, steps in ipairs(branch) do x = spread(steps, x) end
    return x
end

---@param x sagan.Tensor  {N, H, W, C}
---@return sagan.Tensor   {N, H', W', channels}
function Block:forward(x)
    local functions = {}
    for i, branch in ipairs(self.branches) do
        functions[i] = function(input) return run(branch, input) end
    end
    return spread(functions, x)
end

-- 35x35 (figure 5); pool: width of the branch behind the mean
function blocks.A(pool)
    return {
        { { "branch1x1", 64, 1 } },
        { { "branch5x5_1", 48, 1 }, { "branch5x5_2", 64, 5 } },
        { { "branch3x3dbl_1", 64, 1 }, { "branch3x3dbl_2", 96, 3 }, { "branch3x3dbl_3", 96, 3 } },
        { "mean", { "branch_pool", pool, 1 } },
    }
end

-- 35x35 to 17x17 (figure 10)
function blocks.B()
    return {
        { { "branch3x3", 384, 3, stride = 2 } },
        { { "branch3x3dbl_1", 64, 1 }, { "branch3x3dbl_2", 96, 3 }, { "branch3x3dbl_3", 96, 3, stride = 2 } },
        { "halve" },
    }
end

-- 17x17 with 7x7 convolutions taken apart (figure 6); c: width of their inner units
function blocks.C(c)
    return {
        { { "branch1x1", 192, 1 } },
        { { "branch7x7_1", c, 1 }, { "branch7x7_2", c, { 1, 7 } }, { "branch7x7_3", 192, { 7, 1 } } },
        {
            { "branch7x7dbl_1", c, 1 }, { "branch7x7dbl_2", c, { 7, 1 } }, { "branch7x7dbl_3", c, { 1, 7 } },
            { "branch7x7dbl_4", c, { 7, 1 } }, { "branch7x7dbl_5", 192, { 1, 7 } },
        },
        { "mean", { "branch_pool", 192, 1 } },
    }
end

-- 17x17 to 8x8
function blocks.D()
    return {
        { { "branch3x3_1", 192, 1 }, { "branch3x3_2", 320, 3, stride = 2 } },
        {
            { "branch7x7x3_1", 192, 1 }, { "branch7x7x3_2", 192, { 1, 7 } }, { "branch7x7x3_3", 192, { 7, 1 } },
            { "branch7x7x3_4", 192, 3, stride = 2 },
        },
        { "halve" },
    }
end

-- 8x8 (figure 7); pool: "mean", or "max" in the last block of the 2015 graph
function blocks.E(pool)
    return {
        { { "branch1x1", 320, 1 } },
        { { "branch3x3_1", 384, 1 }, { { "branch3x3_2a", 384, { 1, 3 } }, { "branch3x3_2b", 384, { 3, 1 } } } },
        {
            { "branch3x3dbl_1", 448, 1 }, { "branch3x3dbl_2", 384, 3 },
            { { "branch3x3dbl_3a", 384, { 1, 3 } }, { "branch3x3dbl_3b", 384, { 3, 1 } } },
        },
        { pool, { "branch_pool", 192, 1 } },
    }
end

return blocks
