--- Linear: y = x w^T + b, w {O, I}.   Embedding: rows of a table {classes, D}.

local core = require "sagan.core"
local Module = require "sagan.nn.module"

---@class sagan.nn.LinearOptions
---@field in_features integer
---@field out_features integer
---@field bias? boolean             true
---@field spectral_norm? boolean|sagan.nn.SpectralOptions
---@field init? sagan.nn.Init       xavier
---@field bias_init? sagan.nn.Init  zeros

---@class sagan.nn.Linear: sagan.nn.Module
---@overload fun(options: sagan.nn.LinearOptions): sagan.nn.Linear
local Linear = Module.class("Linear")
Linear.scoped = true -- weight_of may make a tensor

---@param o sagan.nn.LinearOptions
function Linear:init(o)
    if not o.in_features or not o.out_features then error("Linear needs in_features and out_features", 3) end
    self.in_features, self.out_features = o.in_features, o.out_features
    self:parameter("weight", { o.out_features, o.in_features }, o.init or "xavier", o.spectral_norm)
    if o.bias ~= false then
        local init = o.bias_init or "zeros"
        if init == "fan_uniform" then init = { kind = init, fan_in = o.in_features } end
        self:parameter("bias", { o.out_features }, init)
    end
end

---@param x sagan.Tensor  {..., I}
---@return sagan.Tensor   {..., O}
function Linear:forward(x) return core.ops.linear(x, self:weight_of("weight"), self.bias) end

function Linear:describe() return ("Linear %d -> %d"):format(self.in_features, self.out_features) end

---@class sagan.nn.EmbeddingOptions
---@field classes integer
---@field features integer
---@field spectral_norm? boolean|sagan.nn.SpectralOptions
---@field init? sagan.nn.Init  xavier

---@class sagan.nn.Embedding: sagan.nn.Module
---@overload fun(options: sagan.nn.EmbeddingOptions): sagan.nn.Embedding
local Embedding = Module.class("Embedding")
Embedding.scoped = true

---@param o sagan.nn.EmbeddingOptions
function Embedding:init(o)
    if not o.classes or not o.features then error("Embedding needs classes and features", 3) end
    self.classes, self.features = o.classes, o.features
    self:parameter("weight", { o.classes, o.features }, o.init or "xavier", o.spectral_norm)
end

---@param index sagan.Tensor  {N} i32, counted from 0
---@return sagan.Tensor       {N, D}
function Embedding:forward(index) return core.ops.embedding(self:weight_of("weight"), index) end

function Embedding:describe() return ("Embedding %d x %d"):format(self.classes, self.features) end

return { Linear = Linear, Embedding = Embedding }
