--- Convolutions. Activations NHWC, weights {K, R, S, C}, so that the weight is spectral norm's matrix {K, R S C}.
---
---   Conv2d      y = w * x + b, or with relu w * max(x, 0) + b; + residual, if forward is given one
---   UpConv2d    nearest x2, then 3x3 with padding 1, in one op with fewer multiplies
---   ConvPool2d  3x3 with padding 1, then 2x2 mean, likewise; with relu of max(x, 0)
---
--- What goes into and comes out of the module is then x as it is and the whole sum: no ReLU's output is stored.

local core = require "sagan.core"
local Module = require "sagan.nn.module"

---@class sagan.nn.ConvOptions
---@field in_channels integer
---@field out_channels integer
---@field kernel? integer|integer[]   {h, w}; 3. Conv2d only, as are the next two
---@field stride? integer             1
---@field padding? integer|integer[]  {h, w}; 0
---@field relu? boolean               of max(x, 0) in place of x, in the same op; false. Not UpConv2d
---@field bias? boolean               true
---@field spectral_norm? boolean|sagan.nn.SpectralOptions
---@field init? sagan.nn.Init         xavier
---@field bias_init? sagan.nn.Init    zeros

local ALLOWED <const> = {
    in_channels = true, out_channels = true, kernel = true, stride = true, padding = true, relu = true, bias = true,
    spectral_norm = true, init = true, bias_init = true,
}

local function pair(value)
    if type(value) == "table" then return value[1], value[2] end
    return value, value
end

local function declare(self, o, r, s)
    for key in pairs(o) do
        if not ALLOWED[key] then error(("%s has no option '%s'"):format(self.type, tostring(key)), 4) end
    end
    if not o.in_channels or not o.out_channels then
        error(self.type .. " needs in_channels and out_channels", 4)
    end
    self.in_channels, self.out_channels, self.relu = o.in_channels, o.out_channels, o.relu or false
    self:parameter("weight", { o.out_channels, r, s, o.in_channels }, o.init or "xavier", o.spectral_norm)
    if o.bias ~= false then
        local init = o.bias_init or "zeros"
        if init == "fan_uniform" then init = { kind = init, fan_in = r * s * o.in_channels } end
        self:parameter("bias", { o.out_channels }, init)
    end
end

---@class sagan.nn.Conv2d: sagan.nn.Module
---@overload fun(options: sagan.nn.ConvOptions): sagan.nn.Conv2d
local Conv2d = Module.class("Conv2d")

---@param o sagan.nn.ConvOptions
function Conv2d:init(o)
    self.kernel_h, self.kernel_w = pair(o.kernel or 3)
    self.pad_h, self.pad_w = pair(o.padding or 0)
    self.stride = o.stride or 1
    declare(self, o, self.kernel_h, self.kernel_w)
end

---@param x sagan.Tensor          {N, H, W, C}
---@param residual? sagan.Tensor  of the result's shape, or half its height and width: each number for 2x2 pixels
---@return sagan.Tensor           {N, (H + 2 pad - R) / stride + 1, ..., K}
function Conv2d:forward(x, residual)
    return core.ops.conv2d(x, self.weight, self.bias, residual, self.divisors.weight, self.stride, self.pad_h, self.pad_w, self.relu)
end

function Conv2d:describe()
    return ("%s%s %dx%d %d -> %d"):format(self.relu and "ReLU + " or "", self.type, self.kernel_h, self.kernel_w,
        self.in_channels, self.out_channels)
end

---@class sagan.nn.UpConv2d: sagan.nn.Module
---@overload fun(options: sagan.nn.ConvOptions): sagan.nn.UpConv2d
local UpConv2d = Module.class("UpConv2d")

---@param o sagan.nn.ConvOptions  without kernel, stride, padding and relu
function UpConv2d:init(o)
    if o.kernel or o.stride or o.padding then error("UpConv2d is always 3x3 with stride 1 and padding 1", 3) end
    if o.relu then error("UpConv2d has no option 'relu'", 3) end
    declare(self, o, 3, 3)
end

---@param x sagan.Tensor  {N, H, W, C}
---@return sagan.Tensor   {N, 2H, 2W, K}
function UpConv2d:forward(x) return core.ops.upconv(x, self.weight, self.bias, self.divisors.weight) end

function UpConv2d:describe() return ("UpConv2d %d -> %d"):format(self.in_channels, self.out_channels) end

---@class sagan.nn.ConvPool2d: sagan.nn.Module
---@overload fun(options: sagan.nn.ConvOptions): sagan.nn.ConvPool2d
local ConvPool2d = Module.class("ConvPool2d")

---@param o sagan.nn.ConvOptions  without kernel, stride and padding
function ConvPool2d:init(o)
    if o.kernel or o.stride or o.padding then error("ConvPool2d is always 3x3 with stride 1 and padding 1", 3) end
    declare(self, o, 3, 3)
end

---@param x sagan.Tensor  {N, H, W, C}, H and W even
---@return sagan.Tensor   {N, H/2, W/2, K}
function ConvPool2d:forward(x) return core.ops.convpool(x, self.weight, self.bias, self.divisors.weight, self.relu) end

function ConvPool2d:describe()
    return ("%sConvPool2d %d -> %d"):format(self.relu and "ReLU + " or "", self.in_channels, self.out_channels)
end

return { Conv2d = Conv2d, UpConv2d = UpConv2d, ConvPool2d = ConvPool2d }
