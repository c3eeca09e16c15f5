-- Standing statistics are plain means over batches.

local core = require "sagan.core"
local streams = require "sagan.streams"
local statistics = require "sagan.nn.statistics"
local helper = require "helper"

local function generator()
    return require "sagan.models.generator" { resolution = 32, width = 2, channels = 1, classes = 3, z_dim = 8,
        attention = { generator = { 16 } } }:build { seed = 3 }
end

describe("standing statistics", function()
    setup(helper.start)
    teardown(helper.finish)

    it("equal the mean over the batches' own statistics", function()
        local G = generator()
        local passes, batch, seed = 3, 6, 9
        statistics.standing(G, { passes = passes, batch = batch, seed = seed })
        local got = G.bn.running_mean:totable()
        -- the same batches one at a time, each with momentum 1 from a network of the same seed
        local sum
        local clock = core.zeros({ 2 }, { dtype = "i32" })
        for _ = 1, passes do
            local H = generator()
            H.update_spectral = false
            for _, m in H:modules() do
                if m.reset_statistics then m.momentum = 1 end
            end
            local z, labels = core.empty { batch, 8 }, core.zeros({ batch }, { dtype = "i32" })
            core.ops.normal(z, clock, seed, streams.standing_noise)
            core.ops.randint(labels, clock, seed, streams.standing_labels, 0, 3)
            core.no_grad(H, z, labels)
            local mean = H.bn.running_mean:detach()
            sum = sum and sum + mean or mean:clone()
            core.ops.tick(clock)
        end
        assert.is_true(helper.distance(got, sum / passes) < 1e-5)
        collectgarbage()
    end)

    it("leave weights, u and the network's mode alone", function()
        local G = generator():eval()
        local slab, u = G.slab:bytes(), G.spectral.u:bytes()
        local before = G.bn.running_var:bytes()
        statistics.standing(G, { passes = 2, batch = 4 })
        assert.equal(slab, G.slab:bytes())
        assert.equal(u, G.spectral.u:bytes())
        assert.is_false(G.training)
        assert.equal(0.1, G.bn.momentum)
        assert.not_equal(before, G.bn.running_var:bytes())
        collectgarbage()
    end)
end)
