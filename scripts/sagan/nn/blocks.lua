--- The residual blocks of the generator and the discriminator (Miyato et al. 2018, appendix; the paper's networks).
---
--- GeneratorBlock       x -> cBN, ReLU -> up x2, 3x3 -> cBN, ReLU -> 3x3;           shortcut: up x2, 1x1
--- DiscriminatorBlock   x -> ReLU -> 3x3 -> ReLU -> 3x3, mean 2x2;                  shortcut: 1x1, mean 2x2
---     first            x -> 3x3 -> ReLU -> 3x3, mean 2x2;                          shortcut: mean 2x2, 1x1
---     without down     no pooling; the shortcut is the identity if the channels are equal, else 1x1
--- ResidualBlock        what the paper puts in attention's place to compare with: equal size, equal channels
---
--- A 1x1 convolution commutes with nearest upsampling and with mean pooling, so the shortcuts run it at the smaller
--- size: the same function for a quarter of the work.

local core = require "sagan.core"
local Module = require "sagan.nn.module"
local conv = require "sagan.nn.conv"
local norm = require "sagan.nn.norm"

---@class sagan.nn.ConvSettings  what all convolutions of a block share
---@field spectral_norm? boolean|sagan.nn.SpectralOptions
---@field init? sagan.nn.Init           of the 3x3 weights, xavier
---@field shortcut_init? sagan.nn.Init  of the 1x1 weight; as init
---@field bias_init? sagan.nn.Init      zeros

---@class sagan.nn.GeneratorBlockOptions: sagan.nn.ConvSettings
---@field in_channels integer
---@field out_channels integer
---@field classes? integer              nil: plain batch normalisation
---@field norm? table                   eps, momentum, gain_offset, gain_init, bias_init, spectral_norm

local function make_conv(class, from, to, o, kernel)
    return class {
        in_channels = from, out_channels = to, kernel = kernel, padding = kernel == 3 and 1 or nil,
        spectral_norm = o.spectral_norm, bias_init = o.bias_init,
        init = kernel == 1 and o.shortcut_init or o.init,
    }
end

local function make_norm(channels, o)
    local options = { channels = channels, classes = o.classes, relu = true }
    for key, value in pairs(o.norm or {}) do options[key] = value end
    return o.classes and norm.ConditionalBatchNorm2d(options) or norm.BatchNorm2d(options)
end

---@class sagan.nn.GeneratorBlock: sagan.nn.Module
---@overload fun(options: sagan.nn.GeneratorBlockOptions): sagan.nn.GeneratorBlock
local GeneratorBlock = Module.class("GeneratorBlock")
GeneratorBlock.scoped = true

---@param o sagan.nn.GeneratorBlockOptions
function GeneratorBlock:init(o)
    self.in_channels, self.out_channels = o.in_channels, o.out_channels
    self:add("bn1", make_norm(o.in_channels, o))
    self:add("conv1", make_conv(conv.UpConv2d, o.in_channels, o.out_channels, o))
    self:add("bn2", make_norm(o.out_channels, o))
    self:add("conv2", make_conv(conv.Conv2d, o.out_channels, o.out_channels, o, 3))
    self:add("shortcut", make_conv(conv.Conv2d, o.in_channels, o.out_channels, o, 1))
end

---@param x sagan.Tensor        {N, H, W, in}
---@param labels? sagan.Tensor  {N} i32; unused without classes
---@return sagan.Tensor         {N, 2H, 2W, out}
function GeneratorBlock:forward(x, labels)
    local ops = core.ops
    local h = self.conv2(self.bn2(self.conv1(self.bn1(x, labels)), labels))
    local s = self.shortcut(x)
    core.set_path(self.full_path)
    return ops.add_upsampled(h, s)
end

function GeneratorBlock:describe() return ("GeneratorBlock %d -> %d"):format(self.in_channels, self.out_channels) end

---@class sagan.nn.DiscriminatorBlockOptions: sagan.nn.ConvSettings
---@field in_channels integer
---@field out_channels integer
---@field hidden_channels? integer    between the two convolutions; out_channels
---@field down? boolean               halve height and width; true
---@field first? boolean              no ReLU in front, pooled shortcut; false
---@field inplace_shortcut? boolean   the shortcut sees relu(x) too, as where the ReLU overwrites its input; false

---@class sagan.nn.DiscriminatorBlock: sagan.nn.Module
---@overload fun(options: sagan.nn.DiscriminatorBlockOptions): sagan.nn.DiscriminatorBlock
local DiscriminatorBlock = Module.class("DiscriminatorBlock")
DiscriminatorBlock.scoped = true

---@param o sagan.nn.DiscriminatorBlockOptions
function DiscriminatorBlock:init(o)
    self.in_channels, self.out_channels = o.in_channels, o.out_channels
    self.down, self.first = o.down ~= false, o.first or false
    self.inplace_shortcut = o.inplace_shortcut or false
    local hidden = o.hidden_channels or o.out_channels
    self:add("conv1", make_conv(conv.Conv2d, o.in_channels, hidden, o, 3))
    if self.down then
        self:add("conv2", make_conv(conv.ConvPool2d, hidden, o.out_channels, o))
    else
        self:add("conv2", make_conv(conv.Conv2d, hidden, o.out_channels, o, 3))
    end
    if self.down or o.in_channels ~= o.out_channels then
        self:add("shortcut", make_conv(conv.Conv2d, o.in_channels, o.out_channels, o, 1))
    end
end

---@param x sagan.Tensor  {N, H, W, in}
---@return sagan.Tensor   {N, H/2, W/2, out}, or {N, H, W, out} without down
function DiscriminatorBlock:forward(x)
    local ops = core.ops
    local h = self.first and x or ops.relu(x)
    local s = self.inplace_shortcut and h or x
    h = self.conv1(h)
    core.set_path(self.full_path)
    h = self.conv2(ops.relu(h))
    core.set_path(self.full_path)
    if self.down then s = ops.mean_pool(s) end
    if self.shortcut then
        s = self.shortcut(s)
        core.set_path(self.full_path)
    end
    return ops.add(h, s)
end

function DiscriminatorBlock:describe()
    return ("DiscriminatorBlock %d -> %d%s"):format(self.in_channels, self.out_channels, self.down and ", down" or "")
end

---@class sagan.nn.ResidualBlockOptions: sagan.nn.ConvSettings
---@field channels integer
---@field hidden_channels? integer  the width that comes nearest to self-attention's 1.25 C^2 + 1 parameters
---@field norm? table|false         batch normalisation before each ReLU, with these settings; false: none

---@class sagan.nn.ResidualBlock: sagan.nn.Module
---@overload fun(options: sagan.nn.ResidualBlockOptions): sagan.nn.ResidualBlock
local ResidualBlock = Module.class("ResidualBlock")
ResidualBlock.scoped = true

---@param o sagan.nn.ResidualBlockOptions
function ResidualBlock:init(o)
    local c = o.channels
    -- two 3x3 convolutions without biases: 18 c h = 1.25 c^2
    local hidden = o.hidden_channels or math.max(1, math.floor(1.25 * c / 18 + 0.5))
    self.channels, self.hidden_channels = c, hidden
    local function make(from, to)
        return conv.Conv2d { in_channels = from, out_channels = to, kernel = 3, padding = 1, bias = false,
            spectral_norm = o.spectral_norm, init = o.init }
    end
    local plain = { norm = o.norm or nil }
    if o.norm then self:add("bn1", make_norm(c, plain)) end
    self:add("conv1", make(c, hidden))
    if o.norm then self:add("bn2", make_norm(hidden, plain)) end
    self:add("conv2", make(hidden, c))
end

---@param x sagan.Tensor  {N, H, W, C}
---@return sagan.Tensor   the same shape
function ResidualBlock:forward(x)
    local ops = core.ops
    local h = self.conv1(self.bn1 and self.bn1(x) or ops.relu(x))
    core.set_path(self.full_path)
    h = self.conv2(self.bn2 and self.bn2(h) or ops.relu(h))
    core.set_path(self.full_path)
    return ops.add(x, h)
end

function ResidualBlock:describe() return ("ResidualBlock %d, hidden %d"):format(self.channels, self.hidden_channels) end

return { GeneratorBlock = GeneratorBlock, DiscriminatorBlock = DiscriminatorBlock, ResidualBlock = ResidualBlock }
