--- The residual blocks of the generator and the discriminator (Miyato et al. 2018, appendix; the paper's networks).
---
--- GeneratorBlock       x -> cBN, ReLU -> up x2, 3x3 -> cBN, ReLU -> 3x3;           shortcut: up x2, 1x1
--- DiscriminatorBlock   x -> ReLU -> 3x3 -> ReLU -> 3x3, mean 2x2;                  shortcut: 1x1, mean 2x2
---     first            x -> 3x3 -> ReLU -> 3x3, mean 2x2;                          shortcut: mean 2x2, 1x1
---     without down     no pooling; the shortcut is the identity if the channels are equal, else 1x1
--- ResidualBlock        what the paper puts in attention's place to compare with: equal size, equal channels
---
--- ReLUs without a normalisation before them, and the sums, are part of the convolutions: the last one of a block puts out
--- the block's sum.
---
--- A 1x1 convolution commutes with upsampling and with mean pooling, so the shortcuts run it at the smaller size: the same
--- function for a quarter of the work.

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
---@field upsample? "nearest"|"bilinear"  nearest

local function make_conv(class, from, to, o, kernel, relu)
    return class {
        in_channels = from, out_channels = to, kernel = kernel, padding = kernel and kernel // 2 or nil, relu = relu,
        spectral_norm = o.spectral_norm, bias_init = o.bias_init,
        init = kernel == 1 and o.shortcut_init or o.init,
    }
end

local function make_norm(channels, o)
    local options = { channels = channels, classes = o.classes, relu = true }
    for key, value in pairs(o.norm or {}) do options[key] = value end
    return o.classes and norm.ConditionalBatchNorm2d(options) or norm.BatchNorm2d(options)
end

--- Bilinear x2 with half-pixel centres: nearest x2, then weights 1/4, 1/2, 1/4 along both axes, which are two 2x2 means;
--- the border repeats because the first of them leaves its padding out.
---@param x sagan.Tensor  {N, H, W, C}
---@return sagan.Tensor   {N, 2H, 2W, C}
local function upsample_bilinear(x)
    local ops = core.ops
    return ops.mean_pool(ops.mean_pool(ops.upsample(x), 2, 1, 1, false), 2, 1)
end

---@class sagan.nn.GeneratorBlock: sagan.nn.Module
---@overload fun(options: sagan.nn.GeneratorBlockOptions): sagan.nn.GeneratorBlock
local GeneratorBlock = Module.class("GeneratorBlock")
GeneratorBlock.scoped = true

---@param o sagan.nn.GeneratorBlockOptions
function GeneratorBlock:init(o)
    self.in_channels, self.out_channels = o.in_channels, o.out_channels
    self.bilinear = o.upsample == "bilinear"
    self:add("bn1", make_norm(o.in_channels, o))
    if self.bilinear then
        self:add("conv1", make_conv(conv.Conv2d, o.in_channels, o.out_channels, o, 3))
    else
        self:add("conv1", make_conv(conv.UpConv2d, o.in_channels, o.out_channels, o))
    end
    self:add("bn2", make_norm(o.out_channels, o))
    self:add("conv2", make_conv(conv.Conv2d, o.out_channels, o.out_channels, o, 3))
    self:add("shortcut", make_conv(conv.Conv2d, o.in_channels, o.out_channels, o, 1))
end

---@param x sagan.Tensor        {N, H, W, in}
---@param labels? sagan.Tensor  {N} i32; unused without classes
---@return sagan.Tensor         {N, 2H, 2W, out}
function GeneratorBlock:forward(x, labels)
    local h
    if self.bilinear then
        h = self.bn1(x, labels)
        core.set_path(self.full_path)
        h = self.conv1(upsample_bilinear(h))
    else
        h = norm.norm_conv(self.bn1, self.conv1, x, labels)
    end
    local s = self.shortcut(x)
    if self.bilinear then
        core.set_path(self.full_path)
        s = upsample_bilinear(s)
    end
    return norm.norm_conv(self.bn2, self.conv2, h, labels, s)
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
    self:add("conv1", make_conv(conv.Conv2d, o.in_channels, hidden, o, 3, not self.first and not self.inplace_shortcut))
    if self.down then
        self:add("conv2", make_conv(conv.ConvPool2d, hidden, o.out_channels, o, nil, true))
    else
        self:add("conv2", make_conv(conv.Conv2d, hidden, o.out_channels, o, 3, true))
    end
    if self.down or o.in_channels ~= o.out_channels then
        self:add("shortcut", make_conv(conv.Conv2d, o.in_channels, o.out_channels, o, 1))
    end
end

---@param x sagan.Tensor  {N, H, W, in}
---@return sagan.Tensor   {N, H/2, W/2, out}, or {N, H, W, out} without down
function DiscriminatorBlock:forward(x)
    local ops = core.ops
    if self.inplace_shortcut and not self.first then x = ops.relu(x) end
    local h = self.conv1(x)
    if not self.shortcut then return self.conv2(h, x) end
    h = self.conv2(h)
    if self.down then
        core.set_path(self.full_path)
        x = ops.mean_pool(x)
    end
    return self.shortcut(x, h)
end

function DiscriminatorBlock:describe()
    return ("DiscriminatorBlock %d -> %d%s"):format(self.in_channels, self.out_channels, self.down and ", down" or "")
end

---@class sagan.nn.ResidualBlockOptions: sagan.nn.ConvSettings
---@field channels integer
---@field kernel? integer           3, 5 or 7; 3
---@field norm? table|false         batch normalisation before each ReLU, with these settings; false: none

--- y = x + conv(relu(conv(relu(x)))) with as many parameters as self-attention's 1.25 C^2 + 1, whatever the kernel k: of the
--- hidden channels `wide` come from and go to k x k convolutions and `narrow` to 1x1 ones, so the weights are
--- 2 C (k^2 wide + narrow), a step of 2 C. (The paper says only that the counts are equal; its layout is not known.)
---@class sagan.nn.ResidualBlock: sagan.nn.Module
---@overload fun(options: sagan.nn.ResidualBlockOptions): sagan.nn.ResidualBlock
local ResidualBlock = Module.class("ResidualBlock")
ResidualBlock.scoped = true

-- The widths whose count comes nearest to attention's; at least one channel sees its neighbours.
local function hidden_widths(c, kernel, has_norm)
    local target = 1.25 * c * c + 1
    local best, wide, narrow
    for w = 1, math.max(1, math.floor(target / (2 * c * kernel * kernel))) do
        for n = 0, kernel * kernel - 1 do
            local count = 2 * c * (kernel * kernel * w + n) + (has_norm and 2 * c + 2 * (w + n) or 0)
            local miss = math.abs(count - target)
            if not best or miss < best or miss == best and w > wide then best, wide, narrow = miss, w, n end
        end
    end
    return wide, narrow
end

---@param o sagan.nn.ResidualBlockOptions
function ResidualBlock:init(o)
    local c, kernel = o.channels, o.kernel or 3
    self.channels, self.kernel = c, kernel
    self.wide, self.narrow = hidden_widths(c, kernel, o.norm)
    local function convolution(name, from, to, size)
        self:add(name, conv.Conv2d { in_channels = from, out_channels = to, kernel = size, padding = size // 2, bias = false,
            relu = not o.norm, spectral_norm = o.spectral_norm, init = o.init })
    end
    local plain = { norm = o.norm or nil }
    if o.norm then self:add("bn1", make_norm(c, plain)) end
    convolution("conv1", c, self.wide, kernel)
    if self.narrow > 0 then convolution("point1", c, self.narrow, 1) end
    if o.norm then self:add("bn2", make_norm(self.wide + self.narrow, plain)) end
    convolution("conv2", self.wide, c, kernel)
    if self.narrow > 0 then convolution("point2", self.narrow, c, 1) end
end

---@param x sagan.Tensor  {N, H, W, C}
---@return sagan.Tensor   the same shape
function ResidualBlock:forward(x)
    local ops = core.ops
    local a = self.bn1 and self.bn1(x) or x
    local h = self.conv1(a)
    if self.point1 then
        local p = self.point1(a)
        core.set_path(self.full_path)
        h = ops.concat(h, p, 4)
    end
    if self.bn2 then h = self.bn2(h) end
    if not self.point2 then return self.conv2(h, x) end
    core.set_path(self.full_path)
    local first, rest = ops.slice(h, 4, 1, self.wide), ops.slice(h, 4, self.wide + 1, self.narrow)
    return self.point2(rest, self.conv2(first, x))
end

function ResidualBlock:describe()
    return ("ResidualBlock %d, hidden %d %dx%d + %d 1x1"):format(self.channels, self.wide, self.kernel, self.kernel, self.narrow)
end

return { GeneratorBlock = GeneratorBlock, DiscriminatorBlock = DiscriminatorBlock, ResidualBlock = ResidualBlock }
