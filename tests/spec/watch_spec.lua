-- core.watch: a function that does not end is ended, whatever it does against it, and what must be put back is put back.

local core = require "sagan.core"

local function enough() error("enough", 0) end

local function ends(f, ...)
    local ok, message = pcall(core.watch, enough, f, ...)
    assert.is_false(ok)
    assert.matches("enough$", message) -- coroutine.wrap puts a position before it
    assert.is_nil((debug.gethook()))
end

describe("watch", function()
    it("passes arguments, results and errors through", function()
        assert.same({ 1, nil, 3, n = 3 }, table.pack(core.watch(enough, function(...) return ... end, 1, nil, 3)))
        local ok, message = pcall(core.watch, enough, error, "own")
        assert.is_false(ok)
        assert.equal("own", message)
        assert.has_error(function() core.watch(enough) end)
        assert.has_error(function() core.watch(nil, enough) end)
        assert.is_nil((debug.gethook()))
    end)

    it("asks again and again, and lets go on while nothing is raised", function()
        local asked = 0
        local sum = core.watch(function() asked = asked + 1 end, function()
            local s = 0
            for i = 1, 1000000 do s = s + i % 7 end
            return s
        end)
        assert(asked >= 50, asked)
        assert.equal(2999998, sum)
    end)

    it("ends loops, also in coroutines, in callbacks of C functions, and around pcall", function()
        local function loop() while true do end end
        ends(loop)
        ends(function() coroutine.wrap(loop)() end)
        ends(function() table.sort({ 3, 2, 1 }, loop) end)
        ends(function() return ("x"):gsub("x", loop) end)
        ends(function() core.no_grad(loop) end)
        ends(function() while true do pcall(loop) end end)
        ends(function() while true do pcall(coroutine.wrap(loop)) end end)
        ends(function() core.no_grad(function() while true do pcall(loop) end end) end)
        assert.is_true(core.is_recording())
    end)

    it("lets variables that are to be closed do their work", function()
        local closed
        ends(function()
            local guard <close> = setmetatable({}, { __close = function()
                for i = 1, 1000 do closed = i end
            end })
            while guard do end
        end)
        assert.equal(1000, closed)
    end)

    it("works inside itself; the outer one goes on", function()
        local inner, outer = 0, 0
        ends(function()
            pcall(core.watch, function()
                inner = inner + 1
                error "inner"
            end, function() while true do end end)
            pcall(core.watch, function() outer = outer + 1 end, function() return 1 end)
            while true do end
        end)
        assert.equal(1, inner)
        assert.equal(0, outer)
    end)

    it("leaves coroutines that outlive it in peace", function()
        local co
        core.watch(enough, function()
            co = coroutine.create(function()
                coroutine.yield()
                local n = 0
                for i = 1, 100000 do n = n + i end
                return n
            end)
            coroutine.resume(co)
        end)
        assert.same({ true, 5000050000 }, { coroutine.resume(co) })
    end)
end)
