local core = require "sagan.core"
local helper = require "helper"
local safetensors, system = core.safetensors, core.system

local function sample()
    return {
        weight = core.tensor { { 1, 2, 3 }, { 4, 5, -6.5 } },
        pixels = core.tensor({ 0, 7, 255 }, { dtype = "u8" }),
        labels = core.tensor({ { 3 }, { -1 } }, { dtype = "i32" }),
        half = core.tensor({ 1, -2 }, { dtype = "bf16" }),
    }
end

local function fails(words, ok, message, code)
    assert.is_nil(ok)
    assert.truthy(message:find(words, 1, true), message)
    assert.is_string(code)
end

describe("core.safetensors", function()
    setup(helper.start)
    teardown(helper.finish)

    local path
    before_each(function() path = os.tmpname() end)
    after_each(function() os.remove(path) end)

    it("brings tensors and metadata back", function()
        local t = sample()
        assert.is_true(safetensors.save(path, t, { step = "7", note = "line\n\"quoted\" \u{e4}" }))
        local back, metadata = assert(safetensors.load(path))
        assert.same({ step = "7", note = "line\n\"quoted\" \u{e4}" }, metadata)
        for name, tensor in pairs(t) do
            assert.same(tensor.shape, back[name].shape)
            assert.equal(tensor.dtype, back[name].dtype)
            assert.equal(tensor:bytes(), back[name]:bytes())
            back[name] = nil
        end
        assert.is_nil(next(back))
        local header, again = assert(safetensors.header(path))
        assert.same(metadata, again)
        assert.same({ dtype = "f32", shape = { 2, 3 }, bytes = 24, supported = true }, header.weight)
        assert.equal("bf16", header.half.dtype)
    end)

    it("writes the same bytes for the same content", function()
        local names = {}
        for i = 1, 50 do names[i] = "layer." .. i end
        local function write(first, last, step)
            local t, m = {}, {}
            for i = first, last, step do
                t[names[i]] = core.full({ 2 }, i)
                m[names[i]] = tostring(i)
            end
            assert(safetensors.save(path, t, m))
            return system.read(path)
        end
        local forwards = write(1, 50, 1)
        assert.equal(forwards, write(50, 1, -1))
        assert.equal(0, string.unpack("<I8", forwards) % 8)
    end)

    it("saves views and empty tables", function()
        local slab = core.arange(6)
        assert(safetensors.save(path, { part = slab:part(3, { 2, 2 }) }))
        assert.same({ { 2, 3 }, { 4, 5 } }, safetensors.load(path).part:totable())
        assert(safetensors.save(path, {}))
        local none, metadata = safetensors.load(path)
        assert.same({}, none)
        assert.same({}, metadata)
    end)

    it("loads into tensors that exist, or changes nothing", function()
        local t = sample()
        assert(safetensors.save(path, t, { step = "1" }))
        local into = {}
        for name, tensor in pairs(t) do into[name] = core.zeros(tensor.shape, { dtype = tensor.dtype }) end
        local ok, metadata = safetensors.load_into(path, into)
        assert.is_true(ok)
        assert.equal("1", metadata.step)
        for name, tensor in pairs(t) do assert.equal(tensor:bytes(), into[name]:bytes()) end

        for _, tensor in pairs(into) do tensor:zero_() end
        into.extra = core.zeros(1)
        fails("lacks 1 of the tensors that are needed, the first is extra", safetensors.load_into(path, into))
        into.extra, into.labels = nil, nil
        fails("holds 4 tensors where 3 are needed, the first too many is labels", safetensors.load_into(path, into))
        into.labels = core.zeros({ 2, 2 }, { dtype = "i32" })
        fails("tensor labels is {2, 1} i32 in the file, {2, 2} i32 is needed", safetensors.load_into(path, into))
        into.labels = core.zeros(2, 1)
        fails("tensor labels is {2, 1} i32 in the file, {2, 1} f32 is needed", safetensors.load_into(path, into))
        into.labels = nil
        for _, tensor in pairs(into) do assert.equal(("\0"):rep(#tensor:bytes()), tensor:bytes()) end
        assert.has_error(function() safetensors.load_into(path, { weight = 3 }) end)
    end)

    it("names what is wrong with a file", function()
        fails("/nonexistent/x: cannot open", safetensors.load("/nonexistent/x"))
        fails("/nonexistent/x: cannot create", safetensors.save("/nonexistent/x", {}))
        local function file(header, data)
            assert(system.write_atomic(path, string.pack("<s8", header) .. data))
        end
        assert(system.write_atomic(path, "short"))
        fails("not even a safetensors header", safetensors.load(path))
        file('{"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}', ("\0"):rep(8))
        fails("tensor n is I64 with 1 dimensions; supported are F32, BF16, U8 and I32", safetensors.load(path))
        fails("tensor n is I64", safetensors.load_into(path, { n = core.zeros(1) }))
        assert.same({ dtype = "I64", shape = { 1 }, bytes = 8, supported = false }, safetensors.header(path).n)
        file('{"n":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', ("\0"):rep(5))
        fails("4 bytes of tensors, but 5 bytes of data", safetensors.header(path))
        assert(safetensors.save(path, sample()))
        local whole = system.read(path)
        for cut = 0, #whole - 1, 11 do
            assert(system.write_atomic(path, whole:sub(1, cut)))
            assert.is_nil((safetensors.load(path)))
        end
    end)

    it("refuses what no file can hold", function()
        local m = helper.message_of
        assert.truthy(m(safetensors.save, path, { 1 }):find("the names of tensors must be strings", 1, true))
        assert.truthy(m(safetensors.save, path, { a = 1 }):find("'a' is a number, a tensor expected", 1, true))
        assert.truthy(m(safetensors.save, path, { ["a\0b"] = core.zeros(1) }):find("zero byte", 1, true))
        assert.truthy(m(safetensors.save, path, { ["\xff"] = core.zeros(1) }):find("not UTF-8", 1, true))
        assert.truthy(m(safetensors.save, path, {}, { step = 3 }):find("metadata 'step' must be a string", 1, true))
        assert.truthy(m(safetensors.save, path, { __metadata__ = core.zeros(1) }):find("__metadata__", 1, true))
        local released = core.zeros(1)
        released:release()
        assert.has_error(function() safetensors.save(path, { a = released }) end)
    end)

    it("leaves nothing behind, errors included", function()
        helper.no_leaks(function()
            local t = sample()
            assert(safetensors.save(path, t, { a = "b" }))
            safetensors.load(path)
            safetensors.header(path)
            safetensors.load_into(path, t)
            safetensors.load_into(path, { weight = t.weight })
            pcall(safetensors.load_into, path, { weight = 1 })
            pcall(safetensors.save, path, { a = t.weight, b = 3 })
            safetensors.load("/nonexistent")
        end)
    end)
end)
