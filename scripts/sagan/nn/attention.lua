--- Self-attention over the positions of a feature map (arXiv 1805.08318, section 3).
---
---   beta_{j,i} = softmax_i( f(x_i) . g(x_j) ),   o_j = sum_i beta_{j,i} h(x_i),   y = gamma o + x,   gamma from 0
---
--- All projections are 1x1 convolutions without biases; the products are not scaled by 1/sqrt(d). Forms, for C channels
--- (d = C/8, at least 1):
---   slides   f, g: C -> d; h: C -> C.                                                        1.25 C^2 + 1 parameters
---   pooled   g: C -> d at all positions; f: C -> d and h: C -> C/2, both max-pooled 2x2 after the projection;
---            then v: C/2 -> C. What the official code and its descendants do.                 1.25 C^2 + 1
---   v2       f, g, h: C -> d; then v: d -> C. The paper's second version.                    0.5 C^2 + 1
--- The map itself (N x N) is never stored; :map draws the rows of chosen positions from the last q and k.

local core = require "sagan.core"
local Module = require "sagan.nn.module"
local Conv2d = require("sagan.nn.conv").Conv2d

---@class sagan.nn.SelfAttentionOptions
---@field channels integer
---@field form? "slides"|"pooled"|"v2"  slides
---@field spectral_norm? boolean|sagan.nn.SpectralOptions
---@field init? sagan.nn.Init           of the projections, xavier
---@field gamma_init? number            0

---@class sagan.nn.SelfAttention: sagan.nn.Module
---@field gamma sagan.Tensor   {1}, after build
---@field bypass boolean       true: y = x, to see what the network does without it
---@field capture boolean      hold on to the last q, k, o and x
---@field knockout? fun(q: sagan.Tensor, k: sagan.Tensor, v: sagan.Tensor, grid: sagan.nn.AttentionGrid): sagan.Tensor
---                            stands in for ops.attention, to see what the map does (sagan/knockout.lua makes some): o from
---                            q {B,N,d}, k {B,Nk,d}, v {B,Nk,e}; only where nothing is recorded for backward
---@field held? {q: sagan.Tensor, k: sagan.Tensor, o: sagan.Tensor, x: sagan.Tensor, height: integer, width: integer, key_height: integer, key_width: integer}
---@overload fun(options: sagan.nn.SelfAttentionOptions): sagan.nn.SelfAttention
local SelfAttention = Module.class("SelfAttention")
SelfAttention.scoped = true

---@class sagan.nn.AttentionGrid  of the positions that look (N = height * width) and of those looked at (Nk)
---@field height integer
---@field width integer
---@field key_height integer
---@field key_width integer

local FORMS <const> = { slides = true, pooled = true, v2 = true }

---@param o sagan.nn.SelfAttentionOptions
function SelfAttention:init(o)
    local c = o.channels
    if not c then error("SelfAttention needs channels", 3) end
    self.channels, self.form = c, o.form or "slides"
    if not FORMS[self.form] then
        error(("SelfAttention has no form '%s' (slides, pooled, v2)"):format(tostring(self.form)), 3)
    end
    local d = math.max(1, c // 8)
    local e = self.form == "slides" and c or self.form == "v2" and d or math.max(1, c // 2)
    local function projection(from, to)
        return Conv2d { in_channels = from, out_channels = to, kernel = 1, bias = false,
            spectral_norm = o.spectral_norm, init = o.init }
    end
    self:add("f", projection(c, d)) -- keys
    self:add("g", projection(c, d)) -- queries
    self:add("h", projection(c, e)) -- values
    if self.form ~= "slides" then self:add("v", projection(e, c)) end
    self:parameter("gamma", { 1 }, { kind = "constant", value = o.gamma_init or 0 })
    self.bypass, self.capture = false, false
end

---@param x sagan.Tensor  {N, H, W, C}; H and W even for the pooled form
---@return sagan.Tensor   the same shape
function SelfAttention:forward(x)
    if self.bypass and not self.capture then return x end
    local ops = core.ops
    local n, height, width = x:size(1), x:size(2), x:size(3)
    local q, k, v = self.g(x), self.f(x), self.h(x)
    core.set_path(self.full_path)
    local key_height, key_width = height, width
    if self.form == "pooled" then
        k, v = ops.max_pool(k), ops.max_pool(v)
        key_height, key_width = height // 2, width // 2
    end
    q = q:reshape(n, height * width, -1)
    k = k:reshape(n, key_height * key_width, -1)
    v = v:reshape(n, key_height * key_width, -1)
    local o
    if self.knockout then
        if core.is_recording() then error(self.full_path .. ": a knock-out is for looking; run the net in no_grad", 0) end
        o = self.knockout(q, k, v, { height = height, width = width, key_height = key_height, key_width = key_width })
    else
        o = ops.attention(q, k, v, 1)
    end
    o = o:reshape(n, height, width, -1)
    if self.v then
        o = self.v(o)
        core.set_path(self.full_path)
    end
    if self.capture then
        self.held = { q = q:detach():keep(), k = k:detach():keep(), o = o:detach():keep(),
            x = x:detach():keep(), height = height, width = width,
            key_height = key_height, key_width = key_width }
    end
    if self.bypass then return x end
    return ops.gated_add(x, o, self.gamma)
end

local function held(self)
    return self.held or error(self.full_path .. ": nothing captured; set capture and run a forward pass first", 3)
end

--- Lets go of what the last captured pass left, whenever the collector comes.
function SelfAttention:release_held()
    for _, name in ipairs { "q", "k", "o", "x" } do
        if self.held then self.held[name]:release() end
    end
    self.held = nil
end

--- Where chosen positions looked in the last captured pass.
---@param queries (integer|integer[])[]|sagan.Tensor  positions as {row, column} from 1 or as indices from 1;
---                                                    a tensor {M} i32 counts from 0
---@return sagan.Tensor p       {B, M, Nk}: each row sums to 1
---@return integer key_height   Nk = key_height * key_width
---@return integer key_width
function SelfAttention:map(queries)
    local s = held(self)
    if type(queries) == "table" then
        local index = {}
        for i, at in ipairs(queries) do
            local position = at
            if type(at) == "table" then
                if at[1] < 1 or at[1] > s.height or at[2] < 1 or at[2] > s.width then
                    error(("%s: position {%s, %s} is outside the %dx%d map"):format(self.full_path, at[1], at[2],
                        s.height, s.width), 2)
                end
                position = (at[1] - 1) * s.width + at[2]
            end
            if position < 1 or position > s.height * s.width then
                error(("%s: position %s is outside 1..%d"):format(self.full_path, position, s.height * s.width), 2)
            end
            index[i] = position - 1
        end
        queries = core.tensor(index, { dtype = "i32", device = s.q.device })
    end
    return core.ops.attention_map(s.q, s.k, queries, 1), s.key_height, s.key_width
end

---@class sagan.nn.AttentionStats
---@field entropy number      nats, mean over images and positions; the uniform map has ln Nk
---@field distance number     mean attended distance in positions of this map
---@field gate number         gamma |o| / |x|: how much of the output the attention is
---@field gamma number

--- What the last captured pass did, in numbers.
---@return sagan.nn.AttentionStats
function SelfAttention:stats()
    local s = held(self)
    return core.no_grad(function()
        local stats = core.ops.attention_stats(s.q, s.k, s.width, 1):totable()
        local gamma = self.gamma:item()
        local x = core.ops.norm(s.x):item()
        return {
            entropy = stats[1], distance = stats[2], gamma = gamma,
            gate = x > 0 and math.abs(gamma) * core.ops.norm(s.o):item() / x or 0,
        }
    end)
end

function SelfAttention:describe() return ("SelfAttention %s %d"):format(self.form, self.channels) end

return SelfAttention
