--- What generator and discriminator build in the same way from the `model` part of a configuration.

local core = require "sagan.core"
local nn = require "sagan.nn"

local parts = {}

--- A number of the configuration that the data set decides ("data") must be known by now.
local function whole(config, name)
    local n = config[name]
    if math.type(n) ~= "integer" or n < 1 then
        error(("model.%s is %s; a network needs a whole number (\"data\" is replaced when the data set is open)")
            :format(name, tostring(n)), 0)
    end
    return n
end

---@class sagan.models.Settings
---@field resolution integer
---@field width integer
---@field channels integer
---@field classes integer?      nil: not conditional
---@field z_dim integer
---@field spectral false|sagan.nn.SpectralOptions   for convolutions and linear layers
---@field init table            weights, shortcut, bias
---@field norm table
---@field config table

--- Reads the fields that both networks need; everything but the sizes has the paper's default.
---@param config table  the `model` part of a configuration
---@param net "generator"|"discriminator"
---@return sagan.models.Settings
function parts.settings(config, net)
    local sn, bn, init = config.spectral_norm or {}, config.batch_norm or {}, config.init or {}
    local spectral = false
    if sn[net] ~= false then
        spectral = {
            iterations = sn.iterations or 1, eps = sn.eps or 1e-12, through = sn.through or false,
            u_init = sn.u_init or "normal", eps_form = sn.eps_form or "add",
        }
    end
    local kind = init.weights or "xavier"
    local function weights(gain)
        return { kind = kind, gain = gain, std = init.std }
    end
    local width = whole(config, "width")
    if net == "discriminator" then width = math.max(1, math.floor(width * (config.d_width or 1) + 0.5)) end
    return {
        resolution = whole(config, "resolution"),
        width = width,
        channels = whole(config, "channels"),
        classes = config.conditional ~= false and whole(config, "classes") or nil,
        z_dim = config.z_dim or 128,
        spectral = spectral,
        init = {
            weights = weights(init.gain or 1),
            shortcut = weights(init.shortcut_gain or 1),
            plain = weights(1),
            bias = init.bias or "zeros",
        },
        norm = {
            eps = bn.eps or 1e-5, momentum = bn.momentum or 0.1, gain_offset = bn.gain_offset or 0,
            -- the tables of the conditional form may start elsewhere than at gain 1, bias 0
            gain_init = bn.init == "weights" and weights(1) or { kind = "constant", value = 1 - (bn.gain_offset or 0) },
            bias_init = bn.init == "weights" and weights(1) or "zeros",
            spectral_norm = sn.cbn and spectral or false,
        },
        config = config,
    }
end

--- The attention module, or what stands in its place, for a feature map of so many channels.
---@param s sagan.models.Settings
---@param net "generator"|"discriminator"
---@param channels integer
---@return sagan.nn.Module
function parts.attention(s, net, channels)
    local attention = s.config.attention or {}
    local form = attention.form or "slides"
    local spectral = attention.spectral_norm ~= false and s.spectral or false
    if form == "residual" then
        return nn.ResidualBlock {
            channels = channels, kernel = attention.kernel, spectral_norm = spectral, init = s.init.plain,
            norm = net == "generator" and { eps = s.norm.eps, momentum = s.norm.momentum } or false,
        }
    end
    return nn.SelfAttention {
        channels = channels, form = form, spectral_norm = spectral, init = s.init.plain,
        gamma_init = attention.gamma_init,
    }
end

--- One stage after the other; what lies between two stages is let go of as soon as the second has run.
---@param stages sagan.nn.Module[]
---@param x sagan.Tensor
---@param labels? sagan.Tensor
---@return sagan.Tensor
function parts.run(stages, x, labels)
    local h = x
    for _, stage in ipairs(stages) do
        local y = stage(h, labels)
        if h ~= x and h ~= y then h:release() end -- a stage that is bypassed returns what it was given
        h = y
    end
    return h
end

--- x in the dtype that the network keeps between its layers (Module.activations).
---@param net sagan.nn.Module
---@param x sagan.Tensor  f32
---@return sagan.Tensor
function parts.lower(net, x)
    local dtype = net.activations or "f32"
    return dtype == "f32" and x or core.ops.cast(x, dtype)
end

--- x in f32 again: what leaves a network, and what its heads compute with.
---@param x sagan.Tensor
---@return sagan.Tensor
function parts.raise(x) return x.dtype == "f32" and x or core.ops.cast(x, "f32") end

--- The methods that both networks have for their attention modules.
---@param class table
function parts.with_attention(class)
    --- Holds on to the queries and keys of every attention module in the next passes, or lets go of them.
    ---@param on? boolean  true if absent
    ---@return self
    function class:capture_attention(on)
        for _, module in pairs(self.attention) do
            module.capture = on ~= false
            if on == false then module:release_held() end
        end
        return self
    end

    --- Drops what the residual blocks make and computes it again in backward (Module.recompute), or keeps it again.
    ---@param on? boolean  true if absent
    ---@return self
    function class:recompute_blocks(on)
        for _, stage in ipairs(self.stages) do
            if stage.type ~= "SelfAttention" then stage.recompute = on ~= false end
        end
        return self
    end

    --- Switches attention off (y = x) at the given sizes, or at all; or on again.
    ---@param off boolean
    ---@param sizes? integer[]
    ---@return self
    function class:bypass_attention(off, sizes)
        for size, module in pairs(self.attention) do
            local chosen = sizes == nil
            for _, s in ipairs(sizes or {}) do chosen = chosen or s == size end
            if chosen then module.bypass = off end
        end
        return self
    end
end

return parts
