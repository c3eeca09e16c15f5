-- Training on the device "cuda", emulated or not: replayed steps give the bits of called ones, also when a learning rate and
-- the number of D steps change on the way, and the losses are the CPU's up to rounding.
local core = require "sagan.core"
local helper = require "helper"
local ops = core.ops

local there, reason = core.cuda.is_available()
local STEPS <const> = 20

describe("core.cuda", function()
    it("says what there is, or why nothing is", function()
        if there then
            assert.is_nil(reason)
            assert.matches("sm_%d+", core.cuda.name())
        else
            assert.is_true(#reason > 10)
            assert.equal("", core.cuda.name())
        end
    end)
end)

describe("training on cuda", function()
    if not there then
        pending("needs a card: " .. reason)
        return
    end
    setup(helper.start)
    teardown(function()
        core.device "cpu"
        helper.finish()
    end)

    local function configuration()
        local config = assert(require("sagan.experiment").resolve({
            recipe = "paper", profile = "quick", data = "quadrupeds", seed = 7, attention = 8,
            model = { resolution = 32, width = 4, z_dim = 8 },
            train = { batch = 2, steps = STEPS, ema_start = 3 }, log = { every = STEPS },
        }))[1]
        config.model.channels, config.model.classes = 3, 3
        return config
    end

    --- The losses of D and G at each step, and a number that every weight has a part in.
    local function train(device, replayed)
        core.device(device)
        local losses
        core.scope(function()
            local Trainer = require "sagan.trainer"
            local config = configuration()
            local trainer = Trainer.new(config, { classes = 3 })
            if not replayed then
                trainer.d_step = function() trainer:discriminator_step() end
                trainer.g_step = function() trainer:generator_step() end
            end
            local r, clock = config.model.resolution, core.zeros({ 2 }, { dtype = "i32" })
            trainer.loader = { fill = function(_, step, images, labels)
                core.scope(function()
                    local noise = core.zeros { 2, r, r, 3 }
                    ops.uniform(noise, clock, 3, step, -1, 1)
                    images:copy_(ops.float_to_pixels(noise))
                    ops.randint(labels, clock, 4, step, 0, 3)
                end)
            end }
            for step = 1, STEPS do
                if step == 8 then trainer.adam_d:set_rate(2e-3) end
                if step == 12 then trainer.config.train.d_steps = 2 end
                trainer:iterate()
            end
            losses = { d = trainer.d_ring:totable(), g = trainer.g_ring:totable(),
                weights = trainer.G.slab:bytes() .. trainer.D.slab:bytes() }
            if replayed then
                assert.equal("replaying", trainer.d_step:mode())
                trainer.d_step:reset()
                trainer.g_step:reset()
            end
        end)
        core.clear_tape()
        core.device "cpu"
        return losses
    end

    it("gives the same bits replayed as called, and the CPU's losses", function()
        local called, replayed = train("cuda", false), train("cuda", true)
        assert.same(called.d, replayed.d)
        assert.same(called.g, replayed.g)
        assert.is_true(called.weights == replayed.weights)
        local cpu = train("cpu", false)
        for step = 1, 10 do
            for which, name in ipairs { "d", "g" } do
                local got, want = called[name][step][1], cpu[name][step][1]
                assert(math.abs(got - want) <= 1e-3 * math.max(1, math.abs(want)),
                    ("loss %d at step %d: %.7g, on the CPU %.7g"):format(which, step, got, want))
            end
        end
        assert.not_same(called.g[1], called.g[2])
    end)
end)
