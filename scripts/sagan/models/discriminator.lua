--- The discriminator (arXiv 1805.08318; networks of Miyato et al. 2018, projection of Miyato and Koyama 2018).
---
---     x {N, R, R, channels} -> blocks, each halving the size or not -> ReLU -> sum over positions: h {N, C}
---     logit = linear(h) + h . embed(label)          {N, 1}; without classes the linear part alone
---     with d_head = "auxiliary" (Odena et al. 2017) logit = linear(h), and a second result names the class:
---     class_logits = classifier(h)                  {N, classes}
---
--- Attention comes after the first block whose output has the size asked for.
---
---     local D = require "sagan.models.discriminator" (config.model)
---     D:build { seed = 1 }
---     local logits = D(images, labels)

local core = require "sagan.core"
local nn = require "sagan.nn"
local plan = require "sagan.models.plan"
local parts = require "sagan.models.parts"

---@class sagan.models.Discriminator: sagan.nn.Module
---@field attention table<integer, sagan.nn.SelfAttention>  by the size of the feature map
---@field classes integer?  nil: not conditional
---@field classifier sagan.nn.Linear?  the auxiliary head
---@overload fun(config: table): sagan.models.Discriminator
local Discriminator = nn.class("Discriminator")
Discriminator.scoped = true

---@param config table  the `model` part of a configuration
function Discriminator:init(config)
    local s = parts.settings(config, "discriminator")
    local wanted = plan.attention("discriminator", s.resolution, (config.attention or {}).discriminator)
    local blocks = plan.discriminator(s.resolution, s.width, s.channels)
    self.name, self.attention, self.classes = "D", {}, s.classes

    self.stages = {}
    for i, b in ipairs(blocks) do
        local hidden = b.output
        if config.d_hidden == "thin" and i > 1 then hidden = b.input end
        local block = self:add("block" .. i, nn.DiscriminatorBlock {
            in_channels = b.input, out_channels = b.output, hidden_channels = hidden, down = b.down, first = i == 1,
            inplace_shortcut = i > 1 and config.inplace_shortcut or false,
            spectral_norm = s.spectral, init = s.init.weights, shortcut_init = s.init.shortcut, bias_init = s.init.bias,
        })
        block.output = ("%dx%dx%d"):format(b.size, b.size, b.output)
        self.stages[#self.stages + 1] = block
        if wanted[b.size] then
            wanted[b.size] = nil
            local module = self:add("attention" .. b.size, parts.attention(s, "discriminator", b.output))
            module.output = block.output
            self.stages[#self.stages + 1] = module
            if module.type == "SelfAttention" then self.attention[b.size] = module end
        end
    end
    local last = blocks[#blocks].output
    self:add("linear", nn.Linear { in_features = last, out_features = 1, spectral_norm = s.spectral,
        init = s.init.plain, bias_init = s.init.bias })
    self.linear.output, self.output = "1", "1"
    if not s.classes then return end
    local spectral = (config.spectral_norm or {}).embedding ~= false and s.spectral or false
    if config.d_head == "auxiliary" then
        self:add("classifier", nn.Linear { in_features = last, out_features = s.classes, init = s.init.plain,
            spectral_norm = spectral, bias_init = s.init.bias })
        self.classifier.output = tostring(s.classes)
    else
        self:add("embedding", nn.Embedding { classes = s.classes, features = last, init = s.init.plain,
            spectral_norm = spectral })
        self.embedding.output = "1"
    end
end

---@param x sagan.Tensor        {N, R, R, channels} in [-1, 1]
---@param labels? sagan.Tensor  {N} i32, counted from 0; unused if not conditional, and by the auxiliary head
---@return sagan.Tensor         logits {N, 1}
---@return sagan.Tensor?        class logits {N, classes}, with the auxiliary head
function Discriminator:forward(x, labels)
    local ops = core.ops
    if self.classes and not self.classifier and not labels then
        error("D: this discriminator is conditional: D(images, labels)", 3)
    end
    local h = parts.run(self.stages, parts.lower(self, x))
    core.set_path(self.full_path)
    h = parts.raise(ops.global_sum_pool(ops.relu(h)))
    local logits = self.linear(h)
    if self.classifier then return logits, self.classifier(h) end
    if not self.embedding then return logits end
    local row = self.embedding(labels)
    core.set_path(self.full_path)
    return ops.add(logits, ops.sum(ops.mul(h, row), 2):reshape(-1, 1))
end

function Discriminator:describe()
    return ("Discriminator, %s"):format(self.classes and self.classes .. " classes" or "unconditional")
end

parts.with_attention(Discriminator)

return Discriminator
