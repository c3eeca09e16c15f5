--- Inception-v3 as FID knows it, the TensorFlow graph of 2015-12-05: the network whose 2048 features and 1008 logits FID,
--- KID, precision and recall and the Inception Score are defined on.
---
---     images u8 {N, H, W, 1 or 3} -> resizer -> {N, 299, 299, 3} -> stem 35x35x192 -> 5b-5d 35x35x288
---            -> 6a-6e 17x17x768 -> 7a-7c 8x8x2048 -> mean: features {N, 2048} -> fc: logits {N, 1008}
---
--- Against torchvision's inception_v3: means leave padding out of the divisor, the last block pools by maximum, there are
--- 1008 classes and other weights, and neither an auxiliary head nor dropout.
---
---     local inception = require "sagan.models.inception"
---     local net = assert(inception.load "pt_inception-2015-12-05-6726825d.pth")
---     local features, logits = net:features(images, { resizer = "clean" })

local core = require "sagan.core"
local nn = require "sagan.nn"
local blocks = require "sagan.models.inception_blocks"
local parts = require "sagan.models.parts"

local FEATURES <const>, CLASSES <const> = 2048, 1008

-- Name, blocks.Unit's or blocks.Block's table; a string is a pooling.
local STAGES <const> = {
    { unit = { "Conv2d_1a_3x3", 32, 3, stride = 2 }, size = 149 },
    { unit = { "Conv2d_2a_3x3", 32, 3, padding = 0 }, size = 147 },
    { unit = { "Conv2d_2b_3x3", 64, 3 }, size = 147 },
    "halve",
    { unit = { "Conv2d_3b_1x1", 80, 1 }, size = 73 },
    { unit = { "Conv2d_4a_3x3", 192, 3, padding = 0 }, size = 71 },
    "halve",
    { name = "Mixed_5b", block = blocks.A(32), size = 35 },
    { name = "Mixed_5c", block = blocks.A(64), size = 35 },
    { name = "Mixed_5d", block = blocks.A(64), size = 35 },
    { name = "Mixed_6a", block = blocks.B(), size = 17 },
    { name = "Mixed_6b", block = blocks.C(128), size = 17 },
    { name = "Mixed_6c", block = blocks.C(160), size = 17 },
    { name = "Mixed_6d", block = blocks.C(160), size = 17 },
    { name = "Mixed_6e", block = blocks.C(192), size = 17 },
    { name = "Mixed_7a", block = blocks.D(), size = 8 },
    { name = "Mixed_7b", block = blocks.E("mean"), size = 8 },
    { name = "Mixed_7c", block = blocks.E("max"), size = 8 },
}

---@class sagan.models.Inception: sagan.nn.Module
---@field weights {name: string, genuine: boolean, sha256: string?, path: string?}  which weights it has
---@overload fun(options?: {init?: sagan.nn.Init}): sagan.models.Inception
local Inception = nn.class("Inception")
Inception.scoped = true

---@param o {init?: sagan.nn.Init}  of the convolutions and the last layer
function Inception:init(o)
    self.name, self.stages = "inception", {}
    local channels = 3
    for i, stage in ipairs(STAGES) do
        if type(stage) == "string" then
            self.stages[i] = blocks.pools[stage]
        else
            local module
            if stage.unit then
                module = self:add(stage.unit[1], blocks.Unit { input = channels, spec = stage.unit, init = o.init })
                channels = stage.unit[2]
            else
                module = self:add(stage.name, blocks.Block { input = channels, branches = stage.block, init = o.init })
                channels = module.channels
            end
            module.output = ("%dx%dx%d"):format(stage.size, stage.size, channels)
            self.stages[i] = module
        end
    end
    self:add("fc", nn.Linear { in_features = channels, out_features = CLASSES, init = o.init })
    self.fc.output, self.output = tostring(CLASSES), tostring(CLASSES)
    self.weights = { name = "none", genuine = false }
end

---@param x sagan.Tensor  {N, 299, 299, 3}, from core.resizer
---@return sagan.Tensor   features {N, 2048}
function Inception:forward(x)
    local h = parts.run(self.stages, x)
    core.set_path(self.full_path)
    return core.ops.scale(core.ops.global_sum_pool(h), 1 / (h:size(2) * h:size(3)))
end

--- The last layer.
---@param features sagan.Tensor  {N, 2048}
---@param bias? boolean          true; false for scores that leave it out, as the original Inception Score does
---@return sagan.Tensor          logits {N, 1008}
function Inception:logits(features, bias)
    return core.ops.linear(features, self.fc.weight, bias ~= false and self.fc.bias or nil)
end

---@class sagan.models.FeatureOptions
---@field resizer? "tf1"|"torch"|"clean"   tf1, FID's own; see engine/data/resizer.h
---@field batch? integer                   pictures at a time, 8
---@field bias? boolean                    of the logits, true
---@field progress? fun(done: integer, total: integer): boolean?  false stops

local OPTIONS <const> = { resizer = true, batch = true, bias = true, progress = true }

--- Features and logits of pictures. Generated ones are rounded to u8 once, before: core.ops.float_to_pixels.
---@param images sagan.Tensor  u8 {N, H, W, 1 or 3}, any size; grey counts as three equal channels
---@param options? sagan.models.FeatureOptions
---@return sagan.Tensor? features  {N, 2048}; nil if progress stopped it
---@return sagan.Tensor|string logits  {N, 1008}, or a message
function Inception:features(images, options)
    options = options or {}
    for key in pairs(options) do
        if not OPTIONS[key] then
            local near = require "sagan.nearest" (tostring(key), { "resizer", "batch", "bias", "progress" })
            error(("inception:features has no option '%s'%s"):format(tostring(key),
                near and (" (did you mean '%s'?)"):format(near) or ""), 2)
        end
    end
    if not core.is_tensor(images) or images.dtype ~= "u8" or images.rank ~= 4 then
        error("inception:features takes pictures u8 {N,H,W,C}; round generated ones once with float_to_pixels", 2)
    end
    local batch, resizer = options.batch or 8, options.resizer or "tf1"
    if math.type(batch) ~= "integer" or batch < 1 then error("inception:features: batch is a whole number from 1", 2) end
    if not self.root then error("inception:features: load or build the network first", 2) end
    local n = images:size(1)
    self:eval()
    return core.no_grad(function()
        local features, logits = core.empty { n, FEATURES }, core.empty { n, CLASSES }
        for first = 1, n, batch do
            local count = math.min(batch, n - first + 1)
            core.scope(function()
                local f = self(core.resizer.run(images:rows(first, count), resizer))
                features:rows(first, count):copy_(f)
                logits:rows(first, count):copy_(self:logits(f, options.bias))
            end)
            if options.progress and options.progress(first + count - 1, n) == false then
                features:release()
                logits:release()
                return nil, "stopped on request"
            end
        end
        return features, logits
    end)
end

function Inception:describe() return "Inception-v3 (2015-12-05)" end

--- A network with the weights of a file; see models/inception_weights.lua.
---@param path string  pt_inception-2015-12-05-6726825d.pth, or what inception.convert made of it
---@param options? {other?: boolean}  other weights are welcome too; their scores must not be called FID
---@return sagan.models.Inception? net
---@return string? message
function Inception.load(path, options)
    return require "sagan.models.inception_weights".load(path, options)
end

--- Writes the weights of a .pth file as safetensors, which load takes for the same.
---@param path string
---@param target string
---@return true? ok
---@return string? message
function Inception.convert(path, target)
    return require "sagan.models.inception_weights".convert(path, target)
end

--- A network with random weights, for tests.
---@param seed? integer  0
---@return sagan.models.Inception
function Inception.random(seed)
    local net = Inception():build { seed = seed or 0, grad = false }
    net.weights = { name = "random", genuine = false }
    return net:eval()
end

return Inception
