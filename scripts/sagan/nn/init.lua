--- sagan.nn: layers, blocks and networks. See nn/module.lua for what every module can do and nn/network.lua for what
--- the root of a network can do.
---
---     local nn = require "sagan.nn"
---     local net = nn.Sequential {
---         nn.Conv2d { in_channels = 3, out_channels = 8, padding = 1, spectral_norm = true },
---         function(x) return x:relu() end,
---         nn.SelfAttention { channels = 8 },
---     }
---     print(net)                  -- names, kinds, parameters; nothing is allocated yet
---     net:build { seed = 1 }
---     local y = net(x)

local Module = require "sagan.nn.module"
require "sagan.nn.network" -- adds build, state_dict, ... to every module
local conv = require "sagan.nn.conv"
local linear = require "sagan.nn.linear"
local norm = require "sagan.nn.norm"
local blocks = require "sagan.nn.blocks"
local initializers = require "sagan.nn.initializers"

local nn = {
    Module = Module,
    Conv2d = conv.Conv2d,
    UpConv2d = conv.UpConv2d,
    ConvPool2d = conv.ConvPool2d,
    Linear = linear.Linear,
    Embedding = linear.Embedding,
    BatchNorm2d = norm.BatchNorm2d,
    ConditionalBatchNorm2d = norm.ConditionalBatchNorm2d,
    norm_conv = norm.norm_conv,
    SelfAttention = require "sagan.nn.attention",
    GeneratorBlock = blocks.GeneratorBlock,
    DiscriminatorBlock = blocks.DiscriminatorBlock,
    ResidualBlock = blocks.ResidualBlock,
    Sequential = require "sagan.nn.sequential",
    initializers = initializers,
    stream = initializers.stream,
    standing_statistics = require("sagan.nn.statistics").standing,
}

--- Makes a class of modules: define init(self, options) and forward(self, ...) on the result.
---@param name string
---@return table
function nn.class(name) return Module.class(name) end

--- Turns spectral norm on for a module's weight (not those of its children), before build.
---@generic T: sagan.nn.Module
---@param module T
---@param options? sagan.nn.SpectralOptions
---@return T module
function nn.SpectralNorm(module, options)
    if module.root then error(module.full_path .. ": spectral norm must be asked for before build", 2) end
    for _, spec in ipairs(module.parameters) do
        if spec.name == "weight" then
            spec.spectral = options or {}
            return module
        end
    end
    error(module.type .. " has no weight to normalise", 2)
end

return nn
