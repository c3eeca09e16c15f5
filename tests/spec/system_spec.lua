local core = require "sagan.core"
local helper = require "helper"
local system = core.system

-- A folder of this file's own, made anew for each test.
local root

local function remove_tree(path)
    local info = system.stat(path)
    if not info then return end
    if info.type == "folder" then
        for _, name in ipairs(assert(system.list(path))) do remove_tree(path .. "/" .. name) end
    end
    assert(system.remove(path))
end

local function fails(words, ok, message, code)
    assert.is_nil(ok)
    assert.truthy(message:find(words, 1, true), message)
    assert.is_string(code)
end

-- Runs Lua code in another process that has the same search paths; returns its output and exit code.
local function run(code)
    local file = root .. "/child.lua"
    assert(system.write_atomic(file, code))
    local child = io.popen("lua5.4 " .. file .. " 2>&1; echo \"exit $?\"")
    local output = child:read("a")
    child:close()
    local result = output:match("exit (%d+)\n$")
    return output:gsub("exit %d+\n$", ""), tonumber(result)
end

describe("core.system", function()
    before_each(function()
        root = os.tmpname()
        os.remove(root)
        assert(system.mkdir(root))
    end)
    after_each(function() remove_tree(root) end)

    it("writes, reads, appends, lists and removes files", function()
        local path = root .. "/a.txt"
        assert.is_true(system.write_atomic(path, "one\0two"))
        assert.is_true(system.append(path, "!\n"))
        assert.equal("one\0two!\n", system.read(path))
        local info = system.stat(path)
        assert.equal("file", info.type)
        assert.equal(9, info.size)
        assert.truthy(math.abs(info.mtime - system.time()) < 60)
        assert.is_true(system.mkdir(root .. "/b/c"))
        assert.is_true(system.mkdir(root .. "/b/c"))
        assert.same({ "a.txt", "b" }, system.list(root))
        assert.equal("folder", system.stat(root .. "/b").type)
        assert.is_true(system.rename(path, root .. "/b/z"))
        assert.same({ "c", "z" }, system.list(root .. "/b"))
        assert.is_true(system.remove(root .. "/b/z"))
        assert.is_nil(system.stat(root .. "/b/z"))
        assert.is_true(system.free_disk(root) > 0)
        assert.truthy(system.read("/proc/self/status"):find("Name:", 1, true))
    end)

    it("answers failures with nil, a message that names the file, and a code", function()
        local missing = root .. "/none/x"
        fails("none/x: cannot open: No such file", system.read(missing))
        fails("none/x: cannot create: No such file", system.write_atomic(missing, ""))
        fails("none/x: cannot open for appending", system.append(missing, ""))
        fails("none/x: no such file or folder", system.stat(missing))
        fails("none/x: cannot list folder", system.list(missing))
        fails("none/x: cannot remove", system.remove(missing))
        fails("none/x: cannot rename", system.rename(missing, root .. "/y"))
        fails("none/x: cannot ask for free space", system.free_disk(missing))
        fails("none/x: cannot open for locking", system.lock(missing))
        assert(system.write_atomic(root .. "/file", ""))
        fails("a file of that name", system.mkdir(root .. "/file/x"))
        fails("not empty", system.remove(root))
        assert.has_error(function() system.read("a\0b") end)
        assert.has_error(function() system.read("") end)
        assert.has_error(function() system.read() end)
    end)

    it("writes all or nothing when the disk is full", function()
        local path = root .. "/kept"
        assert(system.write_atomic(path, "old"))
        -- ulimit -f counts blocks of 512 or 1024 bytes: 100 of them are less than a megabyte either way
        local file = root .. "/child.lua"
        assert(system.write_atomic(file, ([[
            local system = require "sagan.core".system
            local ok, message, code = system.write_atomic(%q, ("x"):rep(1000000))
            io.write(tostring(ok), " ", code, " ", message)
        ]]):format(path)))
        local child = io.popen("trap '' XFSZ; ulimit -f 100; exec lua5.4 " .. file .. " 2>&1")
        local output = child:read("a")
        child:close()
        assert.truthy(output:find("nil io .*/kept: cannot write: File too large"), output)
        assert.equal("old", system.read(path))
        assert.same({ "child.lua", "kept" }, system.list(root))
    end)

    it("keeps locks until they are closed or collected", function()
        local path = root .. "/lock"
        do
            assert.is_false(system.lock_held(path))
            local lock <close> = assert(system.lock(path))
            assert.is_true(system.lock_held(path))
            fails("is locked by another process", system.lock(path))
            local output = run(([[print(select(3, require "sagan.core".system.lock(%q)))]]):format(path))
            assert.equal("state\n", output)
        end
        assert.is_false(system.lock_held(path))
        local second = assert(system.lock(path))
        second:close()
        second:close()
        assert(system.lock(path))
        collectgarbage()
        collectgarbage()
        assert(system.lock(path)):close()
    end)

    it("catches the first Ctrl-C and dies of the second", function()
        local code = [[
            local system = require "sagan.core".system
            -- os.execute would ignore Ctrl-C while its command runs
            local function interrupt() io.popen("kill -INT " .. system.getpid()):close() end
            system.catch_interrupts(true)
            print(system.interrupted())
            interrupt()
            print(system.interrupted(), system.interrupted())
            io.stdout:flush()
            %s
            interrupt()
            print("alive")
            io.stdout:flush()
            system.catch_interrupts(false)
            interrupt()
            print("not reached")
        ]]
        local output, result = run(code:format(""))
        assert.equal("false\ntrue\tfalse\n", output)
        assert.equal(130, result)
        output, result = run(code:format("system.catch_interrupts(true)")) -- armed again
        -- at the end lua5.4's own handler is back
        assert.truthy(output:find("^false\ntrue\tfalse\nalive\nlua5.4: .*interrupted!"), output)
        assert.is_nil(output:find("not reached", 1, true))
        assert.equal(1, result)
        system.catch_interrupts(true)
        assert.is_false(system.interrupted())
        system.catch_interrupts(false)
        system.catch_interrupts(false)
        assert.has_error(function() system.catch_interrupts() end)
    end)

    it("knows the clock and the machine", function()
        local before = system.now()
        assert.is_true(system.now() >= before)
        assert.truthy(math.abs(system.time() - os.time()) < 2)
        assert.is_true(system.cpu_count() >= system.nproc() and system.nproc() >= 1)
        assert.is_true(system.getpid() > 1)
        assert.is_true(#system.hostname() > 0)
        assert.truthy(system.executable_path():find("lua"))
        assert.is_nil(system.env("SAGAN_NO_SUCH_VARIABLE"))
        assert.equal(os.getenv("PATH"), system.env("PATH"))
        assert.is_boolean(system.isatty(2))
        assert.is_false(system.isatty(-1))
        local width = system.terminal_width()
        assert.truthy(width == nil or width > 0)
    end)

    it("leaves nothing behind", function()
        helper.no_leaks(function()
            assert(system.write_atomic(root .. "/x", "x"))
            system.read(root .. "/x")
            system.list(root)
            system.lock(root .. "/x")
            system.read(root .. "/none")
            system.list(root .. "/none")
            system.lock(root .. "/none/x")
        end)
    end)
end)
