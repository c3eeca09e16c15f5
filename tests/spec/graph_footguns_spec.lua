-- Steps recorded as graphs: each way in which a replay could differ from a call, by name. Needs a CUDA device, emulated or not.
local core = require "sagan.core"
local ops = core.ops
local optimizer = require "sagan.optimizer"
local nn = require "sagan.nn"

local on_cuda = false
for _, name in ipairs(core.devices()) do on_cuda = on_cuda or name == "cuda" end
local it = on_cuda and it or pending

describe("a recorded step", function()
    before_each(function() if on_cuda then core.device "cuda" end end)
    after_each(function()
        core.device "cpu"
        collectgarbage()
    end)

    --- Calls a capture until it replays: once eagerly, once recording.
    local function replaying(fn)
        local step = core.capture(fn)
        for _ = 1, 2 do core.scope(step) end
        assert.equal("replaying", step:mode())
        return step
    end

    it("is called once, recorded once, then replayed, with the same results", function()
        core.scope(function()
            local x, y, calls = core.tensor { 1, 2, 3 }, core.zeros { 3 }, 0
            local step <close> = core.capture(function()
                calls = calls + 1
                y:copy_(x * 2)
            end)
            for i = 1, 5 do
                x:fill_(i)
                step()
                assert.same({ 2 * i, 2 * i, 2 * i }, y:totable())
            end
            assert.equal(2, calls)
        end)
    end)

    it("takes no arguments: a replay would not see them change", function()
        local step <close> = core.capture(function() end)
        assert.has_error(function() step(1) end)
    end)

    it("cannot read a value while it is recorded, and says so; the next call records anew", function()
        core.scope(function()
            local x, read = core.tensor { 4 }, true
            local step <close> = core.capture(function() return read and (x * 2):item() or (x * 2) end)
            assert.equal(8, step())
            local ok, message = pcall(step)
            assert.is_false(ok)
            assert.matches("under capture cannot read back to the host", message)
            read = false
            local y = step()
            assert.equal(8, y:item())
            x:fill_(5)
            step()
            assert.equal(10, y:item())
        end)
    end)

    it("cannot take a number from Lua as a tensor's content while it is recorded", function()
        core.scope(function()
            local x = core.zeros { 2 }
            local step <close> = core.capture(function() x:copy_ { 1, 2 } end)
            step()
            local ok, message = pcall(step)
            assert.is_false(ok)
            assert.matches("under capture cannot copy from the host", message)
        end)
    end)

    it("forgets what was recorded when the function fails, and can be called again", function()
        core.scope(function()
            local x, y, fail = core.tensor { 1 }, core.zeros { 1 }, false
            local step <close> = core.capture(function()
                y:copy_(x + 1)
                if fail then error "in the middle" end
            end)
            step()
            fail = true
            assert.matches("in the middle", select(2, pcall(step)))
            fail = false
            x:fill_(7)
            step()
            assert.equal(8, y:item())
            step()
            assert.equal("replaying", step:mode())
        end)
    end)

    it("never shares memory with what is made between two replays", function()
        core.scope(function()
            local x, y = core.ones { 40000 }, core.zeros { 40000 }
            local step <close> = replaying(function()
                local h = x * 2
                for _ = 1, 6 do h = h + x end
                y:copy_(h)
            end)
            local others = {}
            for i = 1, 12 do others[i] = core.zeros({ 40000 }):fill_(i) end
            step()
            for i, other in ipairs(others) do assert.equal(40000 * i, other:sum():item()) end
            assert.equal(8 * 40000, y:sum():item())
        end)
    end)

    it("returns what no other step's replay writes to, though they share memory", function()
        core.scope(function()
            local x, sum = core.ones { 50000 }, core.zeros { 50000 }
            local function doubled()
                local h = x * 2
                return h + 1, h:sum()
            end
            local function read(kept)
                local h = x * -1 -- where `first` has its h
                sum:copy_(kept + h)
                return h
            end
            local first <close> = core.capture(doubled)
            core.scope(first)
            local kept, of_half = first()
            local second <close> = core.capture(function() return read(kept) end)
            core.scope(second)
            local before = core.memory().device_allocs
            local result = second()
            assert.equal("replaying", second:mode())
            assert.is_true(core.memory().device_allocs - before <= 1) -- for the result; all else lies where `first` writes
            for i = 1, 4 do
                x:fill_(i)
                first()
                second()
                assert.equal(50000 * (2 * i + 1), kept:sum():item())
                assert.equal(50000 * 2 * i, of_half:item())
                assert.equal(50000 * (2 * i + 1 - i), sum:sum():item())
                first()
                assert.equal(-50000 * i, result:sum():item())
            end
        end)
    end)

    it("keeps the memory of a tensor that the collector takes in mid-recording", function()
        core.scope(function()
            local x, y = core.tensor { 3 }, core.zeros { 1 }
            local step <close> = replaying(function()
                local h = x * 2
                h:release()
                collectgarbage()
                y:copy_(x + 1)
            end)
            x:fill_(9)
            step()
            assert.equal(10, y:item())
        end)
    end)

    it("gives its results back as the same tensors each time", function()
        core.scope(function()
            local x = core.tensor { 1 }
            local step <close> = replaying(function() return x + 1 end)
            local first = step()
            x:fill_(5)
            step()
            assert.equal(6, first:item())
        end)
    end)

    it("sees a learning rate that changed, and Adam's count goes on", function()
        local function trained(recorded)
            return core.scope(function()
                local net = nn.Linear { in_features = 3, out_features = 2 }
                net:build { seed = 1 }
                local adam = optimizer.adam(net, { lr = 0.1, beta1 = 0, beta2 = 0.9, eps = 1e-8 })
                local x = core.tensor { { 1, 2, 3 } }
                local function f()
                    net:zero_grad()
                    net(x):square():sum():backward()
                    adam:step()
                end
                local step = recorded and core.capture(f) or f
                for i = 1, 8 do
                    if i == 5 then adam:set_rate(0.01) end
                    step()
                end
                local weights = net.slab:totable()
                if recorded then step:close() end
                return weights
            end)
        end
        assert.same(trained(false), trained(true))
    end)

    it("draws new random numbers at each replay, those of its clock", function()
        local function drawn(recorded)
            return core.scope(function()
                local x, clock, list = core.zeros { 8 }, core.zeros({ 2 }, { dtype = "i32" }), {}
                local function f()
                    ops.normal(x, clock, 3, 5)
                    ops.tick(clock)
                end
                local step = recorded and core.capture(f) or f
                for i = 1, 5 do
                    step()
                    list[i] = x:totable()
                end
                if recorded then step:close() end
                return list
            end)
        end
        local eager = drawn(false)
        assert.same(eager, drawn(true))
        assert.not_same(eager[4], eager[5])
    end)

    it("gives its memory back when it is closed", function()
        core.scope(function()
            local x, y = core.ones { 100000 }, core.zeros { 100000 }
            core.trim()
            local before = core.memory()
            local step = replaying(function()
                local h = x * 2
                y:copy_(h + x)
            end)
            step:close()
            core.trim()
            local after = core.memory()
            assert.equal(before.bytes_in_use, after.bytes_in_use)
            assert.equal(before.bytes_cached, after.bytes_cached)
            assert.matches("closed", select(2, pcall(step)))
        end)
    end)
end)
