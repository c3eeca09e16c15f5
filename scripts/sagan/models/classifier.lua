--- A small classifier of pictures, whose features and logits scores are computed from where Inception's weights are not at
--- hand (scripts/sagan/classifier.lua trains and keeps it). Plain: convolutions, batch norm, ReLU, maxima.
---
---     x {N, R, R, C} in [-1, 1] -> mean over squares, until R is 64 at most
---            -> stages of 3x3, batch norm, ReLU and a 2x2 maximum, down to 4x4; each twice as wide as the one before
---            -> 3x3, batch norm, ReLU, 128 wide -> mean over positions: features {N, 128} -> linear: logits {N, classes}
---
--- The end is 128 wide whatever the resolution, so the first stage is the narrower, the larger the pictures.

local core = require "sagan.core"
local nn = require "sagan.nn"
local parts = require "sagan.models.parts"

local FEATURES <const>, LARGEST <const>, SMALLEST <const> = 128, 64, 4

---@class sagan.models.Classifier: sagan.nn.Module
---@field shrink integer         larger pictures are averaged over squares of this side first
---@overload fun(options: {resolution: integer, channels: integer, classes: integer}): sagan.models.Classifier
local Classifier = nn.class("Classifier")
Classifier.scoped = true
Classifier.FEATURES = FEATURES

---@class sagan.models.ClassifierStage: sagan.nn.Module
---@overload fun(options: {input: integer, output: integer, halve?: boolean}): sagan.models.ClassifierStage
local Stage = nn.class("ClassifierStage")
Stage.scoped = true

function Stage:init(o)
    self.halve = o.halve
    self:add("conv", nn.Conv2d { in_channels = o.input, out_channels = o.output, padding = 1, bias = false,
        -- keeps the activations' size through ReLUs (He et al. 2015, eq. 10)
        init = { kind = "normal", std = math.sqrt(2 / (9 * o.input)) } })
    self:add("bn", nn.BatchNorm2d { channels = o.output, relu = true })
end

function Stage:forward(x)
    local y = self.bn(self.conv(x))
    return self.halve and core.ops.max_pool(y) or y
end

function Stage:describe()
    return self.conv:describe() .. " + BatchNorm + ReLU" .. (self.halve and " + max" or "")
end

---@param o {resolution: integer, channels: integer, classes: integer}
function Classifier:init(o)
    self.shrink = (o.resolution + LARGEST - 1) // LARGEST
    local size, halvings = o.resolution // self.shrink, 0
    while size >> halvings > SMALLEST do halvings = halvings + 1 end
    self.stages = {}
    local input = o.channels
    for i = 1, halvings + 1 do
        local halve, output = i <= halvings, FEATURES >> (halvings + 1 - i)
        if halve then size = size // 2 end
        local stage = self:add("stage" .. i, Stage { input = input, output = output, halve = halve })
        stage.output, input = ("%dx%dx%d"):format(size, size, output), output
        self.stages[i] = stage
    end
    self:add("linear", nn.Linear { in_features = FEATURES, out_features = o.classes })
    self.linear.output, self.output = tostring(o.classes), tostring(o.classes)
end

---@param x sagan.Tensor  {N, R, R, C} in [-1, 1]
---@return sagan.Tensor   logits {N, classes}
---@return sagan.Tensor   features {N, 128}
function Classifier:forward(x)
    local ops = core.ops
    local small = self.shrink > 1 and ops.mean_pool { x = x, size = self.shrink, stride = self.shrink } or x
    local h = parts.run(self.stages, small)
    local features = ops.scale(ops.global_sum_pool(h), 1 / (h:size(2) * h:size(3)))
    return self.linear(features), features
end

function Classifier:describe() return "Classifier" end

return Classifier
