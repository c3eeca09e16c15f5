local core = require "sagan.core"
local helper = require "helper"
local events, system = core.events, core.system

-- Walks the frames of an event file; returns their payloads.
local function records(path)
    local bytes, at, list = assert(system.read(path)), 1, {}
    while at <= #bytes do
        local n = string.unpack("<I8", bytes, at)
        list[#list + 1] = bytes:sub(at + 12, at + 11 + n)
        assert(#list[#list] == n)
        at = at + 16 + n
    end
    return list
end

describe("core.events", function()
    local path
    before_each(function() path = os.tmpname() end)
    after_each(function() os.remove(path) end)

    it("writes scalars and pictures", function()
        do
            local writer <close> = assert(events.open(path))
            assert.is_true(writer:scalar("loss/d", 0.25, 300, 1234.5))
            assert.is_true(writer:image("x", "PNG", 2, 300, 3, 1, 1234.5))
            assert.is_true(writer:scalar("now", 1, 0))
        end
        local list = records(path)
        assert.equal(4, #list)
        assert.equal("brain.Event:2", list[1]:sub(-13))
        assert.equal(string.pack("<Bd", 9, 1234.5) .. "\x10\xac\x02\x2a\x0f\x0a\x0d\x0a\x06loss/d\x15" .. string.pack("<f", 0.25), list[2])
        assert.equal("PNG", list[3]:sub(-3))
        assert.truthy(math.abs(string.unpack("<d", list[4], 2) - os.time()) < 60)
    end)

    it("goes on with a file, and with the file of a folder", function()
        for step = 1, 3 do
            local writer = assert(events.open(path, true))
            writer:scalar("a", step, step)
            assert.is_true(writer:close())
        end
        assert.equal(4, #records(path))
        assert(events.open(path, false)):close()
        assert.equal(1, #records(path))
        os.remove(path)
        assert(system.mkdir(path))
        for step = 1, 2 do
            local writer <close> = assert(events.open(path, true))
            writer:scalar("a", step, step)
        end
        local names = system.list(path)
        assert.equal(1, #names)
        assert.truthy(names[1]:find("^events%.out%.tfevents%.%d+%."))
        assert.equal(3, #records(path .. "/" .. names[1]))
        system.remove(path .. "/" .. names[1])
    end)

    it("says what is wrong", function()
        local ok, message = events.open("/nonexistent/e")
        assert.is_nil(ok)
        assert.truthy(message:find("/nonexistent/e: cannot open", 1, true))
        assert(system.write_atomic(path, "this is somebody's diary"))
        ok, message = events.open(path, true)
        assert.is_nil(ok)
        assert.truthy(message:find("is not a TensorBoard event file", 1, true))
        local writer = assert(events.open(path))
        ok, message = writer:scalar("", 1, 1)
        assert.is_nil(ok)
        assert.truthy(message:find("a tag has 1 to 1024 bytes", 1, true))
        assert.has_error(function() writer:scalar("a", "x", 1) end)
        assert.has_error(function() writer:image("a", "x", 0, 1, 1, 1) end)
        writer:close()
        assert.is_true(writer:close())
        assert.truthy(helper.message_of(writer.scalar, writer, "a", 1, 1):find("was closed", 1, true))
    end)

    it("leaves nothing behind", function()
        helper.no_leaks(function()
            events.open(path):scalar("a", 1, 1)
            events.open("/nonexistent/e")
        end)
    end)
end)
