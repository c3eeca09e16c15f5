-- The resizers against F.interpolate, Pillow and a gather after TensorFlow 1's kernel (tests/golden/make_inception.py).
local core = require "sagan.core"
local helper = require "helper"
local resizer = core.resizer

local TOLERANCE <const> = 1e-5 -- relative error norms
local golden_path = (os.getenv "SAGAN_SOURCE" or ".") .. "/tests/golden/inception.safetensors"

local function u8(values) return core.tensor(values, { dtype = "u8" }) end

describe("core.resizer", function()
    setup(helper.start)
    teardown(helper.finish)

    it("has the three rules by name", function()
        assert.same({ "tf1", "torch", "clean" }, resizer.names())
    end)

    it("agrees with the programs whose rules they are", function()
        local golden = assert(core.safetensors.load(golden_path))
        local cases = 0
        for name, want in pairs(golden) do
            local case, kind = name:match "^resize/(%w+)/(%w+)$"
            if kind and kind ~= "images" then
                cases = cases + 1
                local got = resizer.run(golden["resize/" .. case .. "/images"], kind, want:size(2))
                assert.same(want.shape, got.shape)
                local e = core.ops.norm(core.ops.sub(got, want)):item() / core.ops.norm(want):item()
                assert(e <= TOLERANCE, ("%s: relative error %.2e"):format(name, e))
            end
        end
        assert.equal(18, cases)
    end)

    it("keeps the network's scale, repeats grey, is 299 wide by itself", function()
        local flat = resizer.run(u8 { { { { 0 }, { 0 } } }, { { { 255 }, { 255 } } } }, "clean")
        assert.same({ 2, 299, 299, 3 }, flat.shape)
        assert.equal(-1, flat:get(1, 150, 150, 2))
        assert.near(127 / 128, flat:get(2, 1, 299, 3), 1e-6)
        local picture = resizer.run(u8 { { { { 0 }, { 255 } } } }, "torch", 2)
        assert.same({ -1, -1, -1 }, picture:totable()[1][2][1])
        assert.same({ 1, 1, 1 }, picture:totable()[1][1][2])
        assert.same({ 3, 4, 4, 3 }, resizer.run(core.zeros({ 3, 2, 2, 3 }, { dtype = "u8" }), "tf1", 4).shape)
        assert.same({ 1, 4, 4, 3 }, resizer.run(core.zeros({ 2, 2, 3 }, { dtype = "u8" }), "tf1", 4).shape)
    end)

    it("cuts off what the bicubic rule overshoots", function()
        local edge = {}
        for x = 1, 8 do edge[x] = { x <= 4 and 0 or 255 } end
        local got = resizer.run(u8 { { edge, edge, edge, edge, edge, edge, edge, edge } }, "clean", 64)
        assert.equal(-1, core.ops.min(got):item())
        assert.equal(127 / 128, core.ops.max(got):item())
    end)

    it("gives the same bits with any number of threads", function()
        local images = core.zeros({ 5, 40, 30, 3 }, { dtype = "u8" })
        for i = 1, 5 do images:rows(i, 1):fill_(40 * i) end
        local before, seen = core.threads(), nil
        for threads = 1, 3 do
            core.threads(threads)
            local bytes = resizer.run(images, "clean", 50):bytes()
            assert.equal(seen or bytes, bytes)
            seen = bytes
        end
        core.threads(before)
    end)

    it("names what is wrong with an argument", function()
        local m = helper.message_of
        local image = core.zeros({ 1, 2, 2, 3 }, { dtype = "u8" })
        assert.truthy(m(resizer.run, image, "bicubic"):find("no resizer is called 'bicubic' (tf1, torch, clean)", 1, true))
        assert.truthy(m(resizer.run, core.zeros(1, 2, 2, 3), "tf1"):find("u8 tensor expected", 1, true))
        assert.truthy(m(resizer.run, image, "tf1", 0):find("must be 1 to 16384", 1, true))
        assert.truthy(m(resizer.run, core.zeros({ 1, 2, 2, 2 }, { dtype = "u8" }), "tf1"):find("1 or 3 channels", 1, true))
    end)

    it("leaves nothing behind", function()
        helper.no_leaks(function()
            for _, name in ipairs(resizer.names()) do resizer.run(core.zeros({ 2, 3, 3, 3 }, { dtype = "u8" }), name, 5) end
        end)
    end)
end)
