local core = require "sagan.core"
local helper = require "helper"

describe("core", function()
    setup(helper.start)
    teardown(helper.finish)

    local message_of = helper.message_of
    local x, w

    before_each(function()
        x = core.tensor { { 1, 2 }, { 3, 4 } }
        w = core.tensor({ { 1, 1 }, { 2, 0.5 } }):requires_grad_()
    end)
    after_each(function()
        core.clear_tape()
        x, w = nil, nil
        collectgarbage()
        collectgarbage()
    end)

    describe("no_grad", function()
        it("records nothing and passes arguments and results on", function()
            local a, b, n = core.no_grad(function(p, q)
                assert.is_false(core.is_recording())
                x:linear(w)
                return p, q, core.live().tape
            end, 1, 2)
            assert.same({ 1, 2, 0 }, { a, b, n })
            assert.is_true(core.is_recording())
            x:linear(w)
            assert.equal(1, core.live().tape)
        end)

        it("is undone after an error, and nests", function()
            assert.matches("stop", message_of(core.no_grad, function() error("stop") end))
            assert.is_true(core.is_recording())
            core.no_grad(function()
                core.no_grad(function() end)
                assert.is_false(core.is_recording())
            end)
            assert.is_true(core.is_recording())
            assert.matches("function expected", message_of(core.no_grad, 3))
        end)

        it("keeps the line at fault in the traceback", function()
            local function fault() error("here") end
            local _, trace = xpcall(core.no_grad, debug.traceback, function() fault() end)
            assert.matches("core_spec.lua:%d+: in [%w ]*'?fault'?", trace)
        end)
    end)

    describe("scope", function()
        it("releases what was made in it", function()
            local inner, kept, outer
            outer = core.zeros(2)
            local result, listed, number = core.scope(function(n)
                inner, kept = core.zeros(3), core.zeros(4):keep()
                return core.zeros(n), { deep = { core.zeros(6) } }, 7
            end, 5)
            assert.equal("tensor (released)", tostring(inner))
            assert.same({ 4 }, kept.shape)
            assert.same({ 2 }, outer.shape)
            assert.same({ 5 }, result.shape)
            assert.same({ 6 }, listed.deep[1].shape)
            assert.equal(7, number)
            assert.matches("scope", message_of(inner.relu, inner))
        end)

        it("releases what operators make, while the collector takes some of it", function()
            local kept = {}
            for _ = 1, 20 do
                core.scope(function()
                    for i = 1, 20 do
                        local a, b = core.ones(1), core.ones(2)
                        kept[#kept + 1] = a + a
                        kept[#kept + 1] = 2 - a
                        kept[#kept + 1] = a / b
                        kept[#kept + 1] = -b
                        assert(a * b and 1 / a)
                        if i % 7 == 0 then collectgarbage() end
                    end
                end)
            end
            for _, tensor in ipairs(kept) do assert.equal("tensor (released)", tostring(tensor)) end
        end)

        it("hands its results to the scope around it", function()
            local middle, out
            out = core.scope(function()
                middle = core.scope(function() return core.zeros(1) end)
                assert.same({ 1 }, middle.shape)
                return core.scope(function() return core.zeros(2) end)
            end)
            assert.equal("tensor (released)", tostring(middle))
            assert.same({ 2 }, out.shape)
        end)

        it("releases after an error too", function()
            local inner
            assert.matches("stop", message_of(core.scope, function()
                inner = core.zeros(3)
                core.scope(function() error("stop") end)
            end))
            assert.equal("tensor (released)", tostring(inner))
            local after = core.zeros(1) -- outside of any scope again
            collectgarbage()
            assert.same({ 1 }, after.shape)
        end)

        it("does not disturb the tape", function()
            core.scope(function() x:linear(w):hinge_g():backward() end)
            assert.same({ { -1, -1.5 }, { -1, -1.5 } }, w.grad:totable())
        end)

        it("survives results that hold themselves, and callables", function()
            local loop = core.scope(function()
                local t = { core.zeros(1) }
                t.self = t
                return t
            end)
            assert.same({ 1 }, loop[1].shape)
            assert.equal(3, core.scope(core.capture(function() return 3 end)))
            assert.equal(4, core.scope(core.no_grad, function() return 4 end))
        end)

        it("leaks nothing", function()
            helper.no_leaks(function()
                local kept = core.scope(function()
                    for _ = 1, 10 do core.zeros(100) end
                    return core.zeros(3)
                end)
                pcall(core.scope, function()
                    core.zeros(5)
                    error("stop")
                end)
                kept:release()
            end)
        end)
    end)

    describe("backward", function()
        it("fills gradients of leaves and adds them up", function()
            x:linear(w):hinge_g():backward()
            assert.same({ { -1, -1.5 }, { -1, -1.5 } }, w.grad:totable())
            x:linear(w):hinge_g():backward()
            assert.same({ { -2, -3 }, { -2, -3 } }, w.grad:totable())
            w:zero_grad()
            x:linear(w):hinge_g():backward(2)
            assert.same({ { -2, -3 }, { -2, -3 } }, w.grad:totable())
            assert.equal(0, core.live().tape)
        end)

        it("starts from any tensor with a gradient given", function()
            x:linear(w):backward(core.tensor { { 1, 0 }, { 0, 1 } })
            assert.same({ { 1, 2 }, { 3, 4 } }, w.grad:totable())
            local y = x:linear(w)
            assert.is_string(message_of(y.backward, y))
            assert.matches("'dy' to backward: tensor or number expected, got string", message_of(y.backward, y, "x"))
        end)

        it("reaches leaves through views", function()
            local slab = core.tensor({ 1, 1, 2, 0.5, 9 }):requires_grad_()
            local view = slab:part(1, 2, 2)
            assert.is_true(view.requires_grad)
            x:linear(view):hinge_g():backward()
            assert.same({ -1, -1.5, -1, -1.5, 0 }, slab.grad:totable())
            assert.same({ { -1, -1.5 }, { -1, -1.5 } }, view.grad:totable())
        end)

        it("passes frozen and detached tensors by", function()
            assert.is_nil(x.grad)
            assert.same({ { 0, 0 }, { 0, 0 } }, w.grad:totable())
            w:freeze()
            assert.is_false(w.requires_grad)
            x:linear(w)
            assert.equal(0, core.live().tape)
            w:freeze(false)
            x:linear(w:detach())
            assert.equal(0, core.live().tape)
            x:linear(w)
            assert.equal(1, core.live().tape)
        end)

        it("keeps gradients of intermediates on request", function()
            core.retain_grads(true)
            local y = x:linear(w)
            y:hinge_g():backward()
            core.retain_grads(false)
            assert.same({ { -0.25, -0.25 }, { -0.25, -0.25 } }, y.grad:totable())
        end)

        it("leaks nothing, whatever fails", function()
            helper.no_leaks(function()
                local a, b = core.ones(2, 2), core.ones(2, 2):requires_grad_()
                a:linear(b):hinge_g():backward()
            end)
            helper.no_leaks(function()
                for n = 1, 40 do
                    local a, b = core.tensor { { 1, 2 } }, core.tensor({ { 1, 2 } }):requires_grad_()
                    core.fail_allocation(n)
                    pcall(function() a:linear(b):hinge_g():backward() end)
                    core.fail_allocation(0)
                    core.clear_tape()
                end
            end)
        end)
    end)

    describe("capture", function()
        it("calls its function each time on the CPU", function()
            local n = 0
            local step = core.capture(function()
                n = n + 1
                return n
            end)
            assert.same({ 1, 2, 3 }, { step(), step(), step() })
            assert.equal("eager", step:mode())
            assert.matches("takes no arguments", message_of(step, 1))
            step:close()
            assert.matches("closed", message_of(step))
        end)
    end)

    describe("context", function()
        it("tells device, threads, memory", function()
            assert.equal("cpu", core.devices()[1])
            assert.matches("'cpu' or 'cuda' expected, got 'gpu'", message_of(core.device, "gpu"))
            local before = core.threads()
            assert.equal(2, core.threads(2))
            assert.equal(2, core.threads())
            core.threads(before)
            assert.is_true(core.winograd())
            assert.is_false(core.winograd(false))
            assert.is_false(core.winograd())
            assert.is_true(core.winograd(true))
            assert.has_error(function() core.winograd(1) end)
            core.reset_peak()
            local start = core.memory()
            local big = core.zeros(1000, 1000)
            assert.equal(start.live_tensors + 1, core.memory().live_tensors)
            assert.is_true(core.memory().bytes_in_use >= start.bytes_in_use + 4000000)
            big:release()
            assert.is_true(core.memory().bytes_peak >= start.bytes_in_use + 4000000)
            assert.equal(start.bytes_in_use, core.memory().bytes_in_use)
        end)

        it("puts the module path into messages", function()
            assert.is_nil(core.set_path("G.block3.conv2"))
            assert.matches("G.block3.conv2", message_of(x.linear, x, core.zeros(3, 3)))
            assert.equal("G.block3.conv2", core.path())
            assert.equal("G.block3.conv2", core.set_path(nil))
            assert.is_nil(core.path())
        end)

        it("profiles kernels", function()
            core.profile(true)
            x:linear(w)
            core.profile(false)
            local rows = core.profile_rows()
            assert.equal("matmul", rows[1].kernel)
            assert.equal(1, rows[1].calls)
            assert.is_true(rows[1].seconds >= 0)
            x:linear(w)
            assert.equal(1, core.profile_rows()[1].calls)
        end)
    end)

    describe("nearest", function()
        local nearest = require "sagan.nearest"
        it("finds the word that was meant", function()
            local words = { "optimizer", "model", "resolution", "relu", "batch", "add", "abs" }
            assert.equal("optimizer", nearest("optimiser", words))
            assert.equal("resolution", nearest("reslution", words))
            assert.equal("model", nearest("mdoel", words))
            assert.equal("batch", nearest("Batch", words))
            assert.equal("resolution", nearest("res", words) or nearest("resol", words))
            assert.is_nil(nearest("zebra", words))
            assert.is_nil(nearest("x", { "train" }))
        end)
    end)

    describe("require 'sagan'", function()
        local sagan = require "sagan"
        it("has core's functions and loads modules when they are named", function()
            assert.equal(core.zeros, sagan.zeros)
            assert.equal(require "sagan.nearest", sagan.nearest)
            assert.matches("did you mean 'zeros'", message_of(function() return sagan.zeross end))
        end)
    end)
end)
