local core = require "sagan.core"
local helper = require "helper"

describe("tensor", function()
    setup(helper.start)
    teardown(helper.finish)

    local message_of = helper.message_of

    describe("construction", function()
        it("takes nested tables of any rank to 4 and gives them back", function()
            for _, values in ipairs { { 1.5, -2, 3 }, { { 1, 2, 3 }, { 4, 5, 6 } }, { { { 1 }, { 2 } } },
                { { { { 1, 2 }, { 3, 4 } }, { { 5, 6 }, { 7, 8 } }, { { 9, 10 }, { 11, 12 } } } } } do
                assert.same(values, core.tensor(values):totable())
            end
            local t = core.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
            assert.same({ 2, 3 }, t.shape)
            assert.equal("f32", t.dtype)
            assert.equal("cpu", t.device)
            assert.equal(2, t.rank)
            assert.equal(6, t:numel())
            assert.equal(3, t:size(2))
            assert.equal(2, #t)
            assert.same({ 1 }, core.tensor(7).shape)
        end)

        it("makes every dtype and keeps its values", function()
            for _, dtype in ipairs { "u8", "i32" } do
                local t = core.tensor({ { 0, 255 }, { 7, 1 } }, { dtype = dtype })
                assert.equal(dtype, t.dtype)
                assert.same({ { 0, 255 }, { 7, 1 } }, t:totable())
                assert.equal("integer", math.type(t:get(1, 2)))
            end
            assert.equal("float", math.type(core.tensor({ 3 }):item()))
            assert.equal(-2147483648, core.tensor({ -2147483648 }, { dtype = "i32" }):item())
        end)

        it("takes shapes as a table or as numbers", function()
            assert.same({ 2, 3 }, core.zeros(2, 3).shape)
            assert.same({ 2, 3 }, core.zeros({ 2, 3 }).shape)
            assert.same({ 2, 3 }, core.empty(2, 3, { dtype = "u8" }).shape)
            assert.same({ { 0, 0 } }, core.zeros({ 1, 2 }, { dtype = "i32" }):totable())
            assert.same({ 0, 1, 2, 3 }, core.arange(4, { dtype = "i32" }):totable())
            assert.equal("f32", core.arange(4).dtype)
        end)

        it("names the element where a table is ragged or no number", function()
            assert.matches("element %[2%] holds 1, 2 expected", message_of(core.tensor, { { 1, 2 }, { 3 } }))
            assert.matches("element %[2%]: table of 2 expected, got number", message_of(core.tensor, { { 1, 2 }, 3 }))
            assert.matches("element %[2%]: number expected, got a table", message_of(core.tensor, { 1, { 2 } }))
            assert.matches("element %[1%]%[2%]: number expected, got string", message_of(core.tensor, { { 1, "x" } }))
            assert.matches("element %[1%]%[1%]: number or table expected, got boolean", message_of(core.tensor, { { true } }))
            assert.matches("element %[1%] is an empty table", message_of(core.tensor, { {} }))
            assert.matches("nested more than 4 deep", message_of(core.tensor, { { { { { 1 } } } } }))
        end)

        it("refuses values that do not fit the dtype", function()
            assert.matches("element %[2%] is 256, which does not fit u8", message_of(core.tensor, { 1, 256 }, { dtype = "u8" }))
            assert.matches("element %[1%] is %-1, which", message_of(core.tensor, { -1 }, { dtype = "u8" }))
            assert.matches("element %[1%] is 1.5, which", message_of(core.tensor, { 1.5 }, { dtype = "i32" }))
            assert.matches("does not fit i32", message_of(core.tensor, { 0 / 0 }, { dtype = "i32" }))
            assert.matches("does not fit u8", message_of(core.full, { 2 }, 300, { dtype = "u8" }))
        end)

        it("refuses bad shapes, options and devices", function()
            assert.matches("dimension 2 of a shape is 0, must be at least 1", message_of(core.zeros, 2, 0))
            assert.matches("whole number, got 1.5", message_of(core.zeros, 2, 1.5))
            assert.matches("1 to 4 dimensions", message_of(core.zeros, {}))
            assert.matches("at most 4", message_of(core.zeros, 1, 1, 1, 1, 1))
            assert.matches("did you mean 'dtype'", message_of(core.zeros, 1, { dtyp = "f32" }))
            assert.matches("got 'f33'", message_of(core.zeros, 1, { dtype = "f33" }))
            assert.matches("'cpu' or 'cuda' expected", message_of(core.zeros, 1, { device = "gpu" }))
            assert.matches("too many arguments", message_of(core.zeros, 1, {}, 1))
            -- More bytes than an int64 counts must be a message, not a crash.
            assert.is_string(message_of(core.zeros, 1 << 40, 1 << 40))
        end)
    end)

    describe("views", function()
        it("share the data", function()
            local t = core.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
            local flat = t:reshape(-1)
            assert.same({ 6 }, flat.shape)
            assert.same({ 3, 2 }, t:reshape { 3, -1 }.shape)
            t:rows(2, 1):copy_ { { 7, 8, 9 } }
            assert.same({ 1, 2, 3, 7, 8, 9 }, flat:totable())
            flat:part(2, { 2 }):copy_ { 0, 0 }
            assert.same({ { 1, 0, 0 }, { 7, 8, 9 } }, t:totable())
            assert.equal(8, t:get(2, 2))
            assert.same({ { 8 } }, flat:part(5, 1, 1):totable())
        end)

        it("outlive what they are views of", function()
            local view = core.tensor({ 1, 2, 3, 4 }):part(3, 2)
            collectgarbage()
            collectgarbage()
            assert.same({ 3, 4 }, view:totable())
        end)

        it("are refused outside of the tensor", function()
            local t = core.zeros(2, 3)
            assert.matches("2 elements from number 6 on are outside", message_of(t.part, t, 6, 2))
            assert.matches("1 elements from number 0 on are outside", message_of(t.part, t, 0, 1))
            assert.matches("outside", message_of(t.rows, t, 2, 2))
            assert.matches("outside", message_of(t.rows, t, math.maxinteger, 2))
            assert.matches("outside", message_of(t.part, t, math.maxinteger, 2))
            assert.matches("number of elements differs", message_of(t.reshape, t, 4, -1))
            assert.matches("{2, 3} to {5}", message_of(t.reshape, t, 5))
            assert.matches("only one dimension may be %-1", message_of(t.reshape, t, -1, -1))
            assert.matches("index 2 is 4, must be 1 to 3", message_of(t.get, t, 1, 4))
            assert.matches("2 indices expected, got 1", message_of(t.get, t, 1))
            assert.matches("one element expected, got {2, 3}", message_of(t.item, t))
        end)
    end)

    describe("copies", function()
        it("are independent", function()
            local t = core.tensor { 1, 2 }
            local u = t:clone()
            u:copy_ { 3, 4 }
            assert.same({ 1, 2 }, t:totable())
            t:copy_(u)
            assert.same({ 3, 4 }, t:totable())
            assert.equal(t, t:copy_ { 5, 6 })
            assert.matches("holds 3, 2 expected", message_of(t.copy_, t, { 1, 2, 3 }))
            assert.is_string(message_of(t.copy_, t, core.zeros(3)))
            assert.matches("tensor or nested table expected, got string", message_of(t.copy_, t, "x"))
        end)

        it("go through raw bytes", function()
            local t = core.tensor({ 1, 2, 255 }, { dtype = "u8" })
            assert.equal("\1\2\255", t:bytes())
            assert.same({ 9, 8, 7 }, t:set_bytes("\9\8\7"):totable())
            assert.is_string(message_of(t.set_bytes, t, "\9\8"))
            assert.equal(string.pack("<ff", 1, -2), core.tensor({ 1, -2 }):bytes())
        end)

        it("to() returns the tensor itself when nothing changes", function()
            local t = core.zeros(2)
            assert.equal(t, t:to "f32")
            assert.equal(t, t:to "cpu")
            assert.matches("a dtype .* or a device .* expected, got 'f64'", message_of(t.to, t, "f64"))
        end)
    end)

    describe("as text", function()
        it("has shape, dtype, device and aligned columns", function()
            assert.equal("tensor {2, 3} i32 cpu\n     1    20     3\n     4     5  -600",
                (tostring(core.tensor({ { 1, 20, 3 }, { 4, 5, -600 } }, { dtype = "i32" }))))
            assert.equal("tensor {2} f32 cpu\n   0.5000  -1.2500", tostring(core.tensor { 0.5, -1.25 }))
            assert.equal("tensor {2, 1, 2} u8 cpu\n[1]\n  1  2\n[2]\n  3  4",
                tostring(core.tensor({ { { 1, 2 } }, { { 3, 4 } } }, { dtype = "u8" })))
        end)

        it("shows the edges of a big one, and how its values are spread", function()
            local text = tostring(core.arange(2000):reshape(20, 100))
            assert.matches("tensor {20, 100} f32 cpu\n +0 +1 +2  %.%.%. +97 +98 +99\n", text)
            assert.matches("\n  %.%.%.\n", text)
            assert.equal("min 0  max 1999  mean 999.5  std 577.4  " .. ("█"):rep(16), text:match("[^\n]*$"))
            assert.is_true(#text < 600)
            assert.equal("tensor {50, 50, 3, 3} f32 cpu\nmin 0  max 0  mean 0  std 0", tostring(core.zeros(50, 50, 3, 3)))
            assert.matches("%[1%]%[1%]\n.*%[2%]%[2%]\n", tostring(core.zeros(2, 2, 2, 30)))
        end)

        it("has a bar for each part of the range", function()
            -- parts of [0, 16]: eight values in the first, four in the third, one in the fourth, the largest in the last
            local values = { 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 2.1, 2.2, 2.3, 2.4, 3.5, 16, 16, 16, 16, 16 }
            assert.matches("  █ ▅▂" .. (" "):rep(11) .. "▅$", (tostring(core.tensor(values))))
            -- few values are all there to see
            assert.equal("tensor {2, 1, 2} i32 cpu\n[1]\n  1  2\n[2]\n  3  4",
                tostring(core.tensor({ { { 1, 2 } }, { { 3, 4 } } }, { dtype = "i32" })))
        end)

        it("counts what is not finite, and leaves it out of the rest", function()
            local t = core.ones(100)
            t:part(50, 3):copy_ { 0 / 0, 1 / 0, -1 / 0 }
            assert.matches("\nmin 1  max 1  mean 1  std 0  1 nan  2 infinite$", tostring(t))
            assert.matches("\n20 nan$", tostring(core.full({ 20 }, 0 / 0)))
            assert.matches("nan +inf", tostring(core.tensor { 0 / 0, 1 / 0 }))
        end)

        it("shows small and large numbers readably", function()
            assert.matches("1.000e%-06", tostring(core.tensor { 1e-6, 0.5 }))
            assert.matches("2.500e%+10", tostring(core.tensor { 2.5e10, 0.5 }))
            assert.equal("tensor (released)", (function()
                local t = core.zeros(1)
                t:release()
                return tostring(t)
            end)())
        end)
    end)

    describe("names", function()
        it("that do not exist are refused with the nearest", function()
            local t = core.zeros(2)
            assert.matches("no field or method 'shpae'", message_of(function() return t.shpae end))
            assert.matches("no field or method 'rellu' %(did you mean 'relu'%?%)", message_of(function() return t:rellu() end))
            assert.matches("did you mean 'requires_grad_'", message_of(function() return t.requires_gradd_ end))
            assert.matches("use x:get", message_of(function() return t[1] end))
            assert.matches("cannot be assigned %(grad%)", message_of(function() t.grad = nil end))
        end)
    end)

    describe("life", function()
        it("ends with release, close and the collector", function()
            helper.no_leaks(function()
                local a = core.zeros(10, 10)
                a:release()
                a:release()
                local _ <close> = core.zeros(10)
                local c = core.tensor { { 1, 2 }, { 3, 4 } }
                local _ = c:reshape(4):part(2, 2):clone():totable()
            end)
        end)

        it("of a released tensor is over", function()
            local t = core.zeros(2)
            t:release()
            assert.matches("was released", message_of(t.totable, t))
            assert.matches("was released", message_of(function() return t.shape end))
            assert.matches("was released", message_of(core.ops.relu, t))
        end)

        it("leaks nothing when construction fails", function()
            helper.no_leaks(function()
                pcall(core.tensor, { { 1, 2 }, { 3 } })
                pcall(core.zeros, 1 << 40, 1 << 40)
                local t = core.zeros(4)
                pcall(t.reshape, t, 3)
                pcall(t.copy_, t, { 1, "x" })
            end)
        end)

        it("survives every allocation failing in turn", function()
            local function work()
                local t = core.tensor { { 1, 2 }, { 3, 4 } }
                return t:reshape(4):part(2, 2):clone():totable()
            end
            helper.no_leaks(function()
                local failed = 0
                for n = 1, 60 do
                    core.fail_allocation(n)
                    local ok, result = pcall(work)
                    core.fail_allocation(0)
                    -- One failure is survived: the binding collects and tries again.
                    if ok then assert(result[1] == 2 and result[2] == 3) else failed = failed + 1 end
                end
                assert.equal(0, failed)
            end)
        end)

        it("does not let garbage pile up that Lua cannot see the size of", function()
            local before = core.memory().bytes_in_use
            core.reset_peak()
            for _ = 1, 100 do core.empty(4 << 20) end -- 16 MiB each
            assert.is_true(core.memory().bytes_peak - before < 400 << 20)
        end)
    end)
end)
