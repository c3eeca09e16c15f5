-- What scoring says to input that no score can be made of, by the program: pictures that are no numbers, too few, constant or
-- missing ones, weights of another network, runs without a checkpoint. Nothing of it may become a number.
local core = require "sagan.core"
local ledger = require "sagan.ledger"
local driver = require "driver"

describe("sagan-lua eval", function()
    local d = driver.new "score-input"
    local newest <const> = "runs/tiny/seed-5/checkpoints/step-00000002.safetensors"
    setup(function()
        d:experiment("tiny", [[train = { steps = 2, batch = 4 }, log = { every = 1, tensorboard = false },
            sample = { every = 0, rows = 1, columns = 1, attention = false }, checkpoint = { every = 0 },
            score = { n_fake = 100, n_real = 0, splits = 1 },]])
        d:succeeds "tiny.lua"
    end)
    teardown(function() d:remove() end)

    local function run(words) return d:shell(('export SAGAN_CACHE="$PWD/cache"; exec "$SAGAN" %s'):format(words)) end

    it("makes no score of a generator that draws NaN", function()
        local tensors, metadata = assert(core.safetensors.load(d:at(newest)))
        local spoilt = 0
        for name, t in pairs(tensors) do
            if t.dtype == "f32" and name:find("linear", 1, true) and not name:find("^D") then
                t:fill_(0 / 0)
                spoilt = spoilt + 1
            end
        end
        assert.is_true(spoilt > 0)
        assert(core.safetensors.save(d:at "nan.safetensors", tensors, metadata))
        for _, t in pairs(tensors) do t:release() end
        local text, code = run "eval nan.safetensors"
        assert.equal(1, code, text)
        assert.matches("nan.safetensors: the generator draws NaN or infinity, first in pictures 1 to 100", text, 1, true)
        assert.is_nil(text:find("FD-cnn", 1, true), text)
        text, code = run "eval nan.safetensors --batch-norm batch"
        assert.equal(1, code, text)
        assert.same({}, (ledger.read(d:at "runs/tiny/seed-5")))
    end)

    it("leaves out what too few pictures cannot give, and tells what they do to the others", function()
        local text, code = run "eval runs/tiny --fakes 4 --splits 5"
        assert.equal(0, code, text)
        local entry = ledger.read(d:at "runs/tiny/seed-5")[1]
        assert.matches("4 images cannot make 5 splits", entry.missing["IS-cnn"], 1, true)
        assert.matches("k = 5 needs 6 of each at least", entry.missing["recall-cnn"], 1, true)
        assert.matches("class 1 (horse)", entry.missing["intra-FD-cnn"], 1, true)
        for name in pairs(entry.missing) do assert.is_nil(entry.scores[name]) end
        assert.matches("the distance comes out too large", table.concat(entry.notes, "; "), 1, true)
        assert.matches("IS%-cnn +missing +inception_score: 4 images cannot make 5 splits", text)
    end)

    it("refuses data of one colour or one class", function()
        for i = 1, 6 do
            for _, class in ipairs { "a", "b" } do
                assert(core.system.mkdir(d:at("flat/" .. class)))
                assert(core.image.write(d:at(("flat/%s/%d.png"):format(class, i)), core.image.blank(32, 32, 3, { 90, 90, 90 })))
            end
            assert(core.system.mkdir(d:at "one/a"))
            assert(core.image.write(d:at(("one/a/%d.png"):format(i)), core.image.blank(32, 32, 3, { 9 * i, 9, 90 })))
        end
        d:refuses("eval runs/tiny --data folder:flat", { "flat: 12 of 12 sampled images are one flat colour" })
        d:refuses("eval runs/tiny --data folder:one", { 'one: all 6 images are of one class ("a")' })
    end)

    it("refuses weights of another network by digest and shape, and a cut file", function()
        local golden = (os.getenv("SAGAN_SOURCE") or ".") .. "/tests/golden/state_zip.pth"
        local bytes = assert(core.system.read(golden))
        d:write("other.pth", bytes)
        d:write("half.pth", bytes:sub(1, #bytes // 2))
        d:refuses("eval runs/tiny --weights other.pth", { "other.pth: not the weights of Inception-v3 (2015-12-05)",
            "SHA-256 " .. core.sha256.file(golden) })
        d:refuses("eval runs/tiny --weights half.pth", { "half.pth: is cut short" })
    end)

    it("says of a run that ended early that there is nothing to score", function()
        assert(core.system.mkdir(d:at "runs/early/seed-1"))
        d:write("runs/early/seed-1/config.lua", d:read "runs/tiny/seed-5/config.lua")
        d:refuses("eval runs/early", { "early/seed-1: no checkpoint yet" })
    end)
end)
