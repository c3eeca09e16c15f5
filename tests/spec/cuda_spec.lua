-- Training on the device "cuda", emulated or not: replayed steps give the bits of called ones, also when a learning rate and
-- the number of D steps change on the way, and the losses are the CPU's up to rounding.
local core = require "sagan.core"
local helper = require "helper"
local noise_trainer = require "noise_trainer"

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

    --- The losses of D and G at each step, and a number that every weight has a part in.
    local function train(device, replayed)
        core.device(device)
        local losses, first
        core.scope(function()
            local trainer = noise_trainer.new(noise_trainer.configuration(STEPS))
            if not replayed then
                trainer.d_step = function() trainer:discriminator_step() end
                trainer.g_step = function() trainer:generator_step() end
            end
            for step = 1, STEPS do
                if step == 8 then trainer.adam_d:set_rate(2e-3) end
                if step == 12 then trainer.config.train.d_steps = 2 end
                trainer:iterate()
                if step == 10 then first = { d = trainer.d_ring:totable(), g = trainer.g_ring:totable() } end
            end
            losses = { d = trainer.d_ring:totable(), g = trainer.g_ring:totable(), first = first,
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
                local got, want = called.first[name][step][1], cpu.first[name][step][1]
                assert(math.abs(got - want) <= 1e-3 * math.max(1, math.abs(want)),
                    ("loss %d at step %d: %.7g, on the CPU %.7g"):format(which, step, got, want))
            end
        end
        assert.not_same(called.g[1], called.g[2])
    end)
end)
