-- State dicts as PyTorch wrote them: tests/golden/make_pth.py made the files and knows their numbers.
local core = require "sagan.core"
local helper = require "helper"
local pth, system = core.pth, core.system

local folder = (os.getenv "SAGAN_SOURCE" or ".") .. "/tests/golden/"

local function fails(words, ok, message, code)
    assert.is_nil(ok)
    assert.truthy(message:find(words, 1, true), message)
    assert.is_string(code)
end

describe("core.pth", function()
    setup(helper.start)
    teardown(helper.finish)

    local path
    before_each(function() path = os.tmpname() end)
    after_each(function() os.remove(path) end)

    for _, kind in ipairs { "zip", "legacy", "deflated" } do
        it("reads the container " .. kind, function()
            local file = folder .. "state_" .. kind .. ".pth"
            local t = assert(pth.load(file))
            local base = {}
            for i = 0, 23 do base[i] = i / 8 - 1 end
            assert.same({ 2, 3, 2, 2 }, t["conv.weight"].shape)
            assert.same({ { base[12], base[13] }, { base[14], base[15] } }, t["conv.weight"]:totable()[2][1])
            assert.same({ { base[4], base[5], base[6] }, { base[7], base[8], base[9] } }, t.shared:totable())
            assert.same({ { base[0], base[3] }, { base[1], base[4] }, { base[2], base[5] } }, t.transposed:totable())
            assert.same({ base[1], base[4], base[7], base[10], base[13], base[16], base[19] }, t.strided:totable())
            assert.equal(core.ops.permute(t["conv.weight"], 1, 3, 4, 2):bytes(), t.permuted:bytes())
            assert.same({ 1.5, -2.25 }, t.parameter:totable())
            local half = t.half:totable()
            assert.equal("-0.0", tostring(half[2]))
            assert.truthy(half[10] ~= half[10])
            half[10] = nil
            assert.same({ 0, 0, 1, -2.5, 65504, 2 ^ -24, 2 ^ -14, math.huge, -math.huge, nil, 1 + 2 ^ -10 }, half)
            assert.same({ "bf16", 1, -3 }, { t.bfloat.dtype, table.unpack(t.bfloat:totable()) })
            assert.same({ { string.unpack("f", string.pack("f", 0.1)), -math.huge } }, t.double:totable())
            assert.same({ "i32", -5, 2 ^ 31 - 1 }, { t.int.dtype, table.unpack(t.int:totable()) })
            assert.same({ "i32", 7 }, { t.num_batches_tracked.dtype, t.num_batches_tracked:item() })
            assert.same({ "u8", 0, 255 }, { t.bytes.dtype, table.unpack(t.bytes:totable()) })
            local header, names = assert(pth.header(file)), 0
            assert.same({ dtype = "f32", shape = { 3, 2 }, bytes = 24, supported = true }, header.transposed)
            assert.same({ dtype = "i32", shape = {}, bytes = 4, supported = true }, header.num_batches_tracked)
            for name in pairs(header) do
                names = names + 1
                assert.truthy(t[name])
            end
            assert.equal(12, names)
        end)
    end

    it("runs nothing: what a file names beyond tensors is refused by that name", function()
        local function file(pickle)
            local magic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
            assert(system.write_atomic(path, magic .. "\x80\x02M\xe9\x03." .. "\x80\x02}." .. "\x80\x02" .. pickle))
        end
        file("cposix\nsystem\nX\4\0\0\0true\x85R.")
        fails("names posix.system, which is not among what is read here; nothing of the file was run", pth.load(path))
        file("c__builtin__\neval\nX\1\0\0\0001\x85R.")
        fails("names __builtin__.eval", pth.load(path))
        file("}X\5\0\0\0epochK\3s.")
        fails("tensor epoch is a number; a flat state dict", pth.load(path))
        file("}X\5\0\0\0model}s.")
        fails("tensor model is a dictionary; a flat state dict", pth.load(path))
        file("K\3.")
        fails("holds a number, not a state dict", pth.load(path))
    end)

    it("answers other bad files with nil and a message", function()
        fails("/nonexistent.pth: cannot open", pth.load("/nonexistent.pth"))
        assert(system.write_atomic(path, "hello"))
        fails("is neither of the two containers of PyTorch's files", pth.header(path))
        for _, kind in ipairs { "zip", "legacy", "deflated" } do
            local whole = system.read(folder .. "state_" .. kind .. ".pth")
            for cut = 0, #whole - 1, 97 do
                assert(system.write_atomic(path, whole:sub(1, cut)))
                assert.is_nil((pth.load(path)))
            end
        end
    end)

    it("leaves nothing behind, errors included", function()
        helper.no_leaks(function()
            pth.load(folder .. "state_deflated.pth")
            pth.header(folder .. "state_legacy.pth")
            pth.load("/nonexistent")
            pth.load(folder .. "make_pth.py")
        end)
    end)
end)

describe("core.sha256", function()
    it("gives the digests of FIPS 180-4's examples", function()
        assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", core.sha256.text("abc"))
        local path = os.tmpname()
        assert(system.write_atomic(path, "abc"))
        assert.equal(core.sha256.text("abc"), core.sha256.file(path))
        os.remove(path)
        local digest, message = core.sha256.file("/nonexistent")
        assert.is_nil(digest)
        assert.truthy(message:find("/nonexistent: cannot open", 1, true))
    end)
end)
