-- core.recompute and Module.recompute: the same bits with and without, state moved once, less memory, nothing left open.

local core = require "sagan.core"
local nn = require "sagan.nn"
local helper = require "helper"
local ops = core.ops

local function random(shape, stream)
    local t = core.empty(shape)
    ops.normal(t, core.zeros({ 2 }, { dtype = "i32" }), 1, stream or 1)
    return t
end

--- Two networks of the smallest kind, attention at 16x16, their blocks (and attention) recomputed or not, or "norms".
local function networks(recompute, attention)
    local config = { resolution = 32, width = 2, channels = 3, classes = 3,
        attention = { generator = { 16 }, discriminator = { 16 }, gamma_init = 0.5 } }
    local G = require "sagan.models.generator"(config):build { seed = 1 }
    local D = require "sagan.models.discriminator"(config):build { seed = 2 }
    for _, net in ipairs { G, D } do
        net.recompute_norms = recompute == "norms"
        net:recompute_blocks(recompute == true)
        for _, module in pairs(net.attention) do module.recompute = attention or false end
    end
    return G, D
end

--- A generator's step against the frozen discriminator, then a discriminator's: everything that they change, as bytes.
local function bits(recompute, attention)
    local G, D = networks(recompute, attention)
    local labels = core.tensor({ 0, 1, 2, 0 }, { dtype = "i32" })
    local out = {}
    core.scope(function()
        D:freeze()
        local images = G(random({ 4, 128 }, 3), labels)
        local loss = ops.hinge_g(D(images, labels))
        loss:backward()
        D:unfreeze()
        out[#out + 1] = loss:bytes()
        ops.hinge_d(D(random({ 4, 32, 32, 3 }, 4), labels), D(images:detach(), labels)):backward()
        for _, t in ipairs { images, G.slab.grad, D.slab.grad, G.buffer_slab, D.buffer_slab } do out[#out + 1] = t:bytes() end
    end)
    return out
end

describe("recompute", function()
    it("gives the same loss, gradients and state, frozen or not, with attention kept or recomputed", function()
        local kept = bits(false)
        for _, recompute in ipairs { "norms", true } do
            assert.same(kept, bits(recompute))
            assert.same(kept, bits(recompute, true))
        end
    end)

    it("works for a whole network and for one layer", function()
        local function gradient(whole, part)
            local net = nn.GeneratorBlock { in_channels = 4, out_channels = 3, spectral_norm = true }
            net:build { seed = 3 }
            net.recompute, net.conv1.recompute = whole, part
            net(random { 2, 4, 4, 4 }):square():mean():backward()
            return { net.slab.grad:bytes(), net.buffer_slab:bytes() }
        end
        local kept = gradient(false, false)
        assert.same(kept, gradient(true, false))
        assert.same(kept, gradient(false, true))
        assert.same(kept, gradient(true, true))
    end)

    it("keeps less between forward and backward", function()
        local function held(recompute)
            local G = networks(recompute)
            local z, labels = random { 8, 128 }, core.zeros({ 8 }, { dtype = "i32" })
            local before = core.memory().bytes_in_use
            local y = G(z, labels)
            local bytes = core.memory().bytes_in_use - before
            y:mean():backward()
            return bytes
        end
        local kept, norms, blocks = held(false), held "norms", held(true)
        assert(norms < 0.7 * kept, ("%d bytes instead of %d"):format(norms, kept))
        assert(blocks < 0.6 * kept, ("%d bytes instead of %d"):format(blocks, kept))
    end)

    it("takes a normalisation's statistics once, and makes only what it puts out again", function()
        local G = networks()
        local labels = core.zeros({ 2 }, { dtype = "i32" })
        local function profile(norms)
            G.recompute_norms = norms
            G:release_grad()
            core.profile(true)
            G(random { 2, 128 }, labels):mean():backward()
            local rows = {}
            for _, row in ipairs(core.profile_rows()) do rows[row.kernel] = { calls = row.calls, flops = row.flops } end
            core.profile(false)
            return rows
        end
        local kept, again = profile(false), profile(true)
        assert.equal(2 * kept.batch_norm_fwd.calls, again.batch_norm_fwd.calls)
        assert.equal(kept.batch_norm_fwd.flops * (7 + 3) / 7, again.batch_norm_fwd.flops) -- 3 of a number's 7 are y's
        kept.batch_norm_fwd, again.batch_norm_fwd = nil, nil
        assert.same(kept, again)
    end)

    it("holds no residual that only the last sum of the part reads", function()
        local x, w = random { 1, 32, 32, 32 }, random { 32, 3, 3, 32 }
        x:requires_grad_()
        local map = x:numel() * 4
        collectgarbage()
        local before = core.memory().bytes_in_use
        local y = core.scope(function()
            local s = ops.square(x)
            return core.recompute(core.scope, function() return ops.conv2d(ops.tanh(x), w, nil, s, nil, 1, 1, 1) end)
        end)
        assert.equal(map, core.memory().bytes_in_use - before)
        core.clear_tape()
        y:release()
    end)

    it("needs no input of a convolution any more once its weights' gradient is there", function()
        local x, w = random { 8, 64, 64, 8 }, random { 8, 1, 1, 8 }
        x:requires_grad_()
        w:requires_grad_()
        local map = x:numel() * 4
        local y, dy = core.scope(function() return ops.conv2d(ops.square(x), w) end), core.ones(x.shape)
        core.reset_peak()
        local before = core.memory().bytes_in_use
        y:backward(dy)
        -- dy's copy; then dx in the place of what square put out; then that of x, which square's backward takes over
        local most = (core.memory().bytes_peak - before) / map
        assert(most < 1.9, most)
    end)

    it("passes arguments and results through", function()
        assert.same({ 3, nil, 5, n = 3 }, table.pack(core.recompute(function(a, b, c) return a + 1, b, c + 1 end, 2, nil, 4)))
    end)

    it("ends with an error, and refuses a backward inside", function()
        local x = random({ 4 }):requires_grad_()
        assert.matches("inside a part", helper.message_of(core.recompute, function() x:sum():backward() end))
        core.clear_tape()
        x:square():sum():backward()
        assert.near(2 * x:totable()[1], x.grad:totable()[1], 1e-6)
    end)

    it("leaves nothing behind, with or without a backward", function()
        helper.no_leaks(function()
            local G, D = networks(true)
            local labels = core.zeros({ 2 }, { dtype = "i32" })
            core.scope(function() D(G(random { 2, 128 }, labels), labels):mean():backward() end)
            core.scope(function() D(G(random { 2, 128 }, labels), labels) end)
        end)
    end)
end)

describe("release_grad", function()
    it("gives the memory back; the gradient is 0 until the next backward", function()
        local net = nn.Linear { in_features = 512, out_features = 512 }
        net:build { seed = 1 }
        local x = random { 2, 512 }
        local before = core.memory().bytes_in_use
        net(x):square():mean():backward()
        local first = net.slab.grad:bytes()
        net:release_grad()
        collectgarbage()
        assert.is_true(core.memory().bytes_in_use - before < 512 * 512)
        assert.equal(0, net.slab.grad:norm():item())
        assert.equal(0, net.weight.grad:norm():item())
        net:release_grad()
        net(x):square():mean():backward()
        assert.equal(first, net.slab.grad:bytes())
        assert.equal(net.slab.grad:norm():item() > 0, net.weight.grad:norm():item() > 0)
    end)
end)
