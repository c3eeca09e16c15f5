-- The score legs: counts from pictures against what the data know, and where the score appears in a ledger.
local core = require "sagan.core"
local metrics = require "sagan.metrics"
local ledger = require "sagan.ledger"
local score_table = require "sagan.score_table"
local ablation = require "sagan.ablation"
local helper = require "helper"
local driver = require "driver"

describe("legs in pictures", function()
    setup(helper.start)
    teardown(helper.finish)

    it("are those that the data know, and none in noise", function()
        local data = assert(core.dataset.open("quadrupeds:200", { resolution = 64 }))
        local list, expected, right = {}, {}, 0
        for i = 1, 200 do list[i], expected[i] = i, data:legs(i) end
        local images, labels = data:batch(list)
        local counts = metrics.legs(images, expected)
        for i, legs in ipairs(counts) do right = right + (legs == expected[i] and 1 or 0) end
        assert.is_true(right >= 194, right)
        assert.same(counts, metrics.legs(images, 4))
        local dark = core.zeros({ 3, 64, 64, 3 }, { dtype = "u8" })
        assert.same({ 0, 0, 0 }, metrics.legs(dark, 4))
        for _, t in ipairs { images, labels, dark } do t:release() end
        data:close()
    end)

    it("want pictures, and a number for each", function()
        local images = core.zeros({ 3, 32, 32, 1 }, { dtype = "u8" })
        assert.matches("2 numbers of legs for 3 images", helper.message_of(metrics.legs, images, { 4, 4 }), 1, true)
        assert.matches("entry 2 is no whole number", helper.message_of(metrics.legs, images, { 4, 4.5, 4 }), 1, true)
        assert.matches("number expected", helper.message_of(metrics.legs, images, nil), 1, true)
        local narrow = core.zeros({ 3, 32, 4, 1 }, { dtype = "u8" })
        assert.matches("pictures of 32x4", helper.message_of(metrics.legs, narrow, 4), 1, true)
        local floats = core.zeros { 3, 32, 32, 1 }
        assert.is_string(helper.message_of(metrics.legs, floats, 4))
        for _, t in ipairs { images, narrow, floats } do t:release() end
    end)
end)

describe("the score legs", function()
    local d = driver.new "legs"
    setup(function()
        d:experiment("drawn", [[train = { steps = 1, batch = 4 }, log = { every = 1, tensorboard = false },
            sample = { every = 0, rows = 1, columns = 1, attention = false }, checkpoint = { every = 0 },
            score = { n_fake = 50, n_real = 0, splits = 1 },]])
        d:succeeds "drawn.lua"
        d:succeeds "pack quadrupeds:64 -o q.safetensors --resolution 32"
        d:succeeds "drawn.lua data=pack:q.safetensors --runs packed"
    end)
    teardown(function() d:remove() end)

    local function eval(words)
        local text, code = d:shell(('export SAGAN_CACHE="$PWD/cache"; exec "$SAGAN" eval %s'):format(words))
        assert.equal(0, code, text)
        return text
    end

    it("is high for real figures, low for those of an untrained generator, and has a share for each class", function()
        local text = eval "runs/drawn"
        eval "runs/drawn --real"
        assert.matches("\n  legs +0", text)
        local fake, real = table.unpack((ledger.read(d:at "runs/drawn/seed-5")))
        assert.is_true(fake.scores.legs <= 0.1, fake.scores.legs)
        assert.equal("real", real.fingerprint.generator)
        assert.is_true(real.scores.legs >= 0.9 and real.scores.legs <= 1, real.scores.legs)
        assert.equal(8, #real.per_class.legs)
        for _, share in ipairs(real.per_class.legs) do assert.is_true(share >= 0 and share <= 1, share) end
        assert.is_nil(real.scores["legs-cnn"]) -- it is of no network
    end)

    it("is not there where the data do not know", function()
        local text = eval "packed/drawn"
        assert.is_nil(text:find("\n  legs ", 1, true), text)
        assert.is_nil(ledger.read(d:at "packed/drawn/seed-5")[1].scores.legs)
    end)

    it("is better when higher, and comes after the others", function()
        assert.equal("higher", ablation.direction({}, "legs"))
        assert.same({ "FD-cnn", "intra-FD-cnn", "legs", "odd" },
            score_table.names { legs = 1, odd = 1, ["intra-FD-cnn"] = 1, ["FD-cnn"] = 1 })
    end)
end)
