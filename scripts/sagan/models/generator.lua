--- The generator (arXiv 1805.08318; networks of Miyato et al. 2018).
---
---     z {N, 128} -> linear -> {N, 4, 4, C0} -> blocks, each x2 -> BN, ReLU -> 3x3 -> tanh -> {N, R, R, channels}
---
--- Class-conditional batch normalisation in the blocks, plain in front of the last convolution. Attention comes after
--- the block whose output has the size asked for.
---
---     local G = require "sagan.models.generator" (config.model)
---     G:build { seed = 1 }
---     local images = G(z, labels)

local core = require "sagan.core"
local nn = require "sagan.nn"
local plan = require "sagan.models.plan"
local parts = require "sagan.models.parts"

---@class sagan.models.Generator: sagan.nn.Module
---@field attention table<integer, sagan.nn.SelfAttention>  by the size of the feature map
---@field z_dim integer
---@field classes integer?  nil: not conditional
---@overload fun(config: table): sagan.models.Generator
local Generator = nn.class("Generator")
Generator.scoped = true

---@param config table  the `model` part of a configuration
function Generator:init(config)
    local s = parts.settings(config, "generator")
    local blocks, first = plan.generator(s.resolution, s.width)
    local wanted = plan.attention("generator", s.resolution, (config.attention or {}).generator)
    self.name, self.attention = "G", {}
    self.z_dim, self.classes, self.first_channels = s.z_dim, s.classes, first

    self:add("linear", nn.Linear { in_features = s.z_dim, out_features = 16 * first, spectral_norm = s.spectral,
        init = s.init.plain, bias = (config.generator_linear_bias ~= false), bias_init = s.init.bias })
    self.linear.output = ("4x4x%d"):format(first)
    self.stages = {}
    for i, b in ipairs(blocks) do
        local block = self:add("block" .. i, nn.GeneratorBlock {
            in_channels = b.input, out_channels = b.output, classes = s.classes, norm = s.norm,
            upsample = config.upsample,
            spectral_norm = s.spectral, init = s.init.weights, shortcut_init = s.init.shortcut, bias_init = s.init.bias,
        })
        block.output = ("%dx%dx%d"):format(b.size, b.size, b.output)
        self.stages[#self.stages + 1] = block
        if wanted[b.size] then
            local module = self:add("attention" .. b.size, parts.attention(s, "generator", b.output))
            module.output = block.output
            self.stages[#self.stages + 1] = module
            if module.type == "SelfAttention" then self.attention[b.size] = module end
        end
    end
    local last = blocks[#blocks].output
    local momentum = (config.batch_norm or {}).last_momentum or 0
    self:add("bn", nn.BatchNorm2d { channels = last, eps = s.norm.eps, relu = true,
        momentum = momentum > 0 and momentum or s.norm.momentum })
    self:add("conv", nn.Conv2d { in_channels = last, out_channels = s.channels, padding = 1,
        spectral_norm = s.spectral, init = s.init.plain, bias_init = s.init.bias })
    self.output = ("%dx%dx%d"):format(s.resolution, s.resolution, s.channels)
    self.conv.output = self.output
end

---@param z sagan.Tensor        {N, z_dim}, standard normal
---@param labels? sagan.Tensor  {N} i32, counted from 0, or f32 {N, classes}: a mixture; unused if not conditional
---@return sagan.Tensor         {N, R, R, channels} in [-1, 1]
function Generator:forward(z, labels)
    if self.classes and not labels then
        error("G: this generator is conditional: G(z, labels)", 3)
    end
    local h = self.linear(z)
    core.set_path(self.full_path)
    h = h:reshape(z:size(1), 4, 4, self.first_channels)
    h = parts.run(self.stages, parts.lower(self, h), labels)
    h = nn.norm_conv(self.bn, self.conv, h)
    core.set_path(self.full_path)
    return core.ops.tanh(parts.raise(h))
end

function Generator:describe()
    return ("Generator, %s"):format(self.classes and self.classes .. " classes" or "unconditional")
end

parts.with_attention(Generator)

return Generator
