-- Networks with bf16 activations on the device "cuda" (emulated or not), judged by f32 on the CPU: the error may be twice that of
-- the naive way, which is f32 with every activation, weight and gradient between two layers rounded to bf16. And checkpoints
-- that cross from one device to the other.
local core = require "sagan.core"
local helper = require "helper"
local ops = core.ops
local noise_trainer = require "noise_trainer"

local there, reason = core.cuda.is_available()

-- What hands activations on; those with weights have them second, and what they are divided by at this place.
local LAYERS <const> = { conv2d = 5, upconv = 4, convpool = 4, add = false, relu = false, batch_norm = false,
    cond_batch_norm = false, mean_pool = false, attention = false, gated_add = false,
    global_sum_pool = false }

--- Calls f while every layer rounds what it is given as weights and what it returns.
local function naively(f)
    local whole = {}
    local function rounded(x) return ops.cast(ops.cast(x, "bf16"), "f32") end
    for name, sigma in pairs(LAYERS) do
        local layer = assert(ops[name], name)
        whole[name] = layer
        ops[name] = function(...)
            local given = table.pack(...)
            if sigma then
                given[2] = rounded(given[sigma] and ops.div(given[2], given[sigma]) or given[2])
                given[sigma] = nil
            end
            return rounded(layer(table.unpack(given, 1, given.n)))
        end
    end
    local restore <close> = setmetatable({}, { __close = function() -- luacheck: ignore restore
        for name, layer in pairs(whole) do ops[name] = layer end
    end })
    return f()
end

local function distance(a, b)
    local sum, norm = 0, 0
    for i, x in ipairs(a) do
        sum, norm = sum + (x - b[i]) ^ 2, norm + b[i] ^ 2
    end
    return math.sqrt(sum / norm)
end

describe("bf16 and checkpoints between devices", function()
    if not there then
        pending("needs a card: " .. reason)
        return
    end
    setup(helper.start)
    teardown(function()
        core.device "cpu"
        helper.finish()
    end)

    --- At the paper's own rates, which the quick profile has thrice.
    local function configuration(steps)
        return noise_trainer.configuration(steps, { seed = 3, optimizer = { rate_factor = 1 } })
    end

    --- Images, logits and the gradients of both networks, as lists of numbers.
    local function pass(device, activations)
        core.device(device)
        local found = core.scope(function()
            local config = configuration(1)
            local G, D = require "sagan.models.generator"(config.model), require "sagan.models.discriminator"(config.model)
            for name, net in pairs { G = G, D = D } do
                net:build { seed = 4, path = name }
                net.activations = activations
                for _, attention in pairs(net.attention) do attention.gamma:fill_(0.5) end
                net:zero_grad()
            end
            local z = ops.normal(core.empty { 4, 8 }, core.zeros({ 2 }, { dtype = "i32" }), 5, 6)
            local labels = core.tensor({ 0, 1, 2, 0 }, { dtype = "i32" })
            local images = G(z, labels)
            local logits = D(images, labels)
            require("sagan.losses").get("hinge").generator(logits):backward()
            return { images = images:reshape(-1):totable(), logits = logits:reshape(-1):totable(),
                G = G.slab.grad:totable(), D = D.slab.grad:totable() }
        end)
        core.clear_tape()
        core.device "cpu"
        return found
    end

    it("errs at most twice as much as rounding between the layers does", function()
        local exact = pass("cpu", "f32")
        local naive = naively(function() return pass("cpu", "f32") end)
        local bf16 = pass("cuda", "bf16")
        for name, values in pairs(bf16) do
            local error, allowed = distance(values, exact[name]), 2 * distance(naive[name], exact[name])
            assert(error > 1e-4, name .. ": no rounding at all; was this bf16?")
            assert(error <= allowed, ("%s: error %.3g, twice the naive one is %.3g"):format(name, error, allowed))
        end
    end)

    it("gives nearly the CPU's numbers in f32", function()
        local exact, f32 = pass("cpu", "f32"), pass("cuda", "f32")
        for name, values in pairs(f32) do
            local error = distance(values, exact[name])
            assert(error <= 1e-4, ("%s: error %.3g"):format(name, error))
        end
    end)

    --- Losses of `steps` more steps; from a checkpoint, and into one.
    local function train(device, from, to, steps)
        local checkpoint = require "sagan.checkpoint"
        local losses
        core.scope(function()
            core.device(device)
            local trainer = noise_trainer.new(configuration(20))
            if from then
                trainer.step = assert(checkpoint.load(trainer, from))
                trainer.d_steps_done = trainer.d_clock:totable()[1]
            end
            for _ = 1, steps do trainer:iterate() end
            if to then assert(checkpoint.save(trainer, to)) end
            losses = { trainer.d_ring:totable(), trainer.g_ring:totable() }
            if trainer.d_step:mode() ~= "eager" then
                trainer.d_step:reset()
                trainer.g_step:reset()
            end
        end)
        core.clear_tape()
        core.device "cpu"
        return losses
    end

    for _, way in ipairs { { "cpu", "cuda" }, { "cuda", "cpu" } } do
        it(("goes on from a checkpoint of %s on %s: losses within 1e-3 over 10 steps"):format(way[1], way[2]), function()
            local path = os.tmpname()
            train(way[1], nil, path, 4)
            local same, other = train(way[1], path, nil, 10), train(way[2], path, nil, 10)
            os.remove(path)
            for step = 5, 14 do
                for which = 1, 2 do
                    local a, b = same[which][step][1], other[which][step][1]
                    assert(math.abs(a - b) <= 1e-3 * math.max(1, math.abs(a)),
                        ("loss %d of step %d: %.7g and %.7g"):format(which, step, a, b))
                end
            end
            assert.not_same(same[1][5], same[1][14])
        end)
    end
end)
