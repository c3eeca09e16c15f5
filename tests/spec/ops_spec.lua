local core = require "sagan.core"
local helper = require "helper"

local ops, message_of, distance = core.ops, helper.message_of, helper.distance

describe("ops", function()
    setup(helper.start)
    teardown(helper.finish)
    after_each(function() core.clear_tape() end)

    describe("from ops.def", function()
        it("are all functions, methods and described", function()
            local names = core.op_names()
            assert.is_true(#names > 50)
            for _, name in ipairs(names) do
                assert.is_function(ops[name])
                assert.equal(ops[name], core.tensor_methods[name])
                local info = core.op_info(name)
                assert.equal(name, info.name)
                assert.is_true(#info.doc > 5)
                assert.equal("tensor", info.inputs[1].type)
                assert.is_true(#info.outputs > 0 or info.inputs[1].mutated, name)
            end
        end)

        it("carry names, types and defaults as Lua has them", function()
            local conv = core.op_info "conv2d"
            assert.same({ { name = "x", type = "tensor", optional = false, mutated = false },
                { name = "w", type = "tensor", optional = false, mutated = false },
                { name = "b", type = "tensor", optional = true, mutated = false },
                { name = "residual", type = "tensor", optional = true, mutated = false },
                { name = "sigma", type = "tensor", optional = true, mutated = false } }, conv.inputs)
            assert.same({ name = "stride", type = "integer", optional = true, default = 1 }, conv.attributes[1])
            assert.same({ "y" }, conv.outputs)
            assert.is_true(conv.differentiable)
            assert.same({ name = "axis", type = "position", optional = true, default = 1 }, core.op_info("concat").attributes[1])
            assert.same({ name = "axis", type = "position", optional = true }, core.op_info("sum").attributes[1])
            assert.same({ name = "train", type = "boolean", optional = true, default = true },
                core.op_info("batch_norm").attributes[1])
            assert.is_true(core.op_info("adam").inputs[1].mutated)
            assert.is_false(core.op_info("adam").differentiable)
        end)

        it("that do not exist are refused with the nearest", function()
            assert.matches("no op 'conv2' %(did you mean 'conv2d'%?%)", message_of(function() return ops.conv2 end))
            assert.matches("no op 'sofmax' %(did you mean 'softmax'%?%)", message_of(core.op_info, "sofmax"))
        end)
    end)

    describe("arguments", function()
        local x, w = core.ones(1, 4, 4, 1), core.ones(1, 3, 3, 1)
        teardown(function()
            x:release()
            w:release()
        end)

        it("go by position, by name, or left out", function()
            local padded = ops.conv2d(x, w, nil, nil, nil, 2, 1, 1):totable()
            assert.same(padded, ops.conv2d(x, w, { stride = 2, pad_h = 1, pad_w = 1 }):totable())
            assert.same(padded, x:conv2d(w, nil, nil, nil, 2, { pad_w = 1, pad_h = 1 }):totable())
            assert.same(padded, ops.conv2d { x = x, w = w, stride = 2, pad_h = 1, pad_w = 1 }:totable())
            assert.same({ 1, 2, 2, 1 }, x:conv2d(w).shape)
            local b = core.tensor { 5 }
            assert.equal(14, x:conv2d(w, { b = b }):get(1, 1, 1, 1))
        end)

        it("of the wrong type are named", function()
            assert.matches("bad argument 'w' to conv2d: tensor expected, got number", message_of(ops.conv2d, x, 3))
            assert.matches("bad argument 'w' to conv2d: tensor expected, got nothing", message_of(ops.conv2d, x))
            assert.matches("bad argument 'x' to relu: tensor expected, got nothing", message_of(ops.relu))
            assert.matches("'stride' to conv2d: whole number expected, got 1.5", message_of(ops.conv2d, x, w, nil, nil, nil, 1.5))
            assert.matches("'stride' to conv2d: whole number expected, got string", message_of(ops.conv2d, x, w, nil, nil, nil, "1"))
            assert.matches("'trans_a' to matmul: boolean expected, got 1", message_of(ops.matmul, x, w, 1))
            assert.matches("'slope' to leaky_relu: number expected, got tensor", message_of(ops.leaky_relu, x, x))
            assert.matches("'value' to fill: number expected, got nothing", message_of(ops.fill, x))
            assert.matches("conv2d has no attribute 'strid' %(did you mean 'stride'%?%)",
                message_of(ops.conv2d, x, w, { strid = 2 }))
            assert.matches("named attributes, got a number key", message_of(ops.conv2d, x, w, { 2 }))
            assert.matches("'stride' to conv2d is given twice", message_of(ops.conv2d, x, w, nil, nil, nil, 1, { stride = 2 }))
            assert.matches("relu takes at most 1 arguments, got 2", message_of(ops.relu, x, x))
            assert.matches("'dtype' to cast: 'f32', 'bf16', 'u8' or 'i32' expected, got 'f64'", message_of(ops.cast, x, "f64"))
        end)

        it("with a bad shape say op, shapes and script line", function()
            local message = message_of(function() return x:conv2d(core.ones(1, 3, 3, 2)) end)
            assert.matches("ops_spec.lua:%d+: conv2d", message)
            assert.matches("{1, 4, 4, 1}", message)
            assert.matches("{1, 3, 3, 2}", message)
        end)

        it("that are positions count from 1", function()
            local t = core.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
            assert.same({ 5, 7, 9 }, t:sum(1):totable())
            assert.same({ 6, 15 }, t:sum(2):totable())
            assert.same({ 21 }, t:sum():totable())
            assert.same({ { 2, 3 }, { 5, 6 } }, t:slice(2, 2, 2):totable())
            assert.same({ { 1, 2, 3, 1, 2, 3 }, { 4, 5, 6, 4, 5, 6 } }, t:concat(t, 2):totable())
            assert.same({ 4, 3 }, { #t:concat(t), t:concat(t):size(2) })
            assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, t:permute(2, 1):totable())
            assert.matches("'axis' to sum: position %(counted from 1%) expected, got 0", message_of(t.sum, t, 0))
            assert.matches("position", message_of(t.sum, t, -1))
            assert.is_string(message_of(t.sum, t, 3))
        end)
    end)

    it("in place return their first tensor", function()
        local t = core.zeros(3)
        assert.equal(t, t:fill(2))
        assert.equal(t, ops.axpy(t, core.ones(3), 0.5))
        assert.same({ 2.5, 2.5, 2.5 }, t:totable())
    end)

    it("draw the same random numbers for the same key", function()
        local clock = core.zeros({ 2 }, { dtype = "i32" })
        local a, b, c = core.empty(5), core.empty(5), core.empty(5)
        ops.normal(a, clock, 1, 2)
        ops.normal(b, clock, 1, 2)
        ops.normal(c, clock, { seed = 1, stream = 3 })
        assert.same(a:totable(), b:totable())
        assert.are_not.same(a:totable(), c:totable())
        assert.matches("'seed' to normal: whole number expected, got nothing", message_of(ops.normal, a, clock))
    end)

    it("convert between dtypes", function()
        local t = core.tensor { 1, 2.5, 300 }
        assert.same({ 1, 2.5, 300 }, t:to("bf16"):to("f32"):totable())
        assert.equal("bf16", t:to("bf16").dtype)
        assert.same({ 1, 2.5, 300 }, t:to("bf16"):totable())
        assert.same({ 1, 2.5 }, core.tensor({ 1, 2.5 }, { dtype = "bf16" }):totable())
        assert.same({ 3, 3 }, core.full({ 2 }, 3, { dtype = "bf16" }):totable())
        assert.same({ 3, 3 }, core.full({ 2 }, 3, { dtype = "u8" }):totable())
        assert.same({ -3, -3 }, core.full({ 2 }, -3, { dtype = "i32" }):totable())
    end)

    describe("operators", function()
        local a, b, row = { { 1, 2 }, { 3, 4 } }, { { 5, -6 }, { 7, 8 } }, { 10, 20 }

        -- The plain meaning of each operator, on numbers.
        local meaning = {
            ["+"] = function(p, q) return p + q end,
            ["-"] = function(p, q) return p - q end,
            ["*"] = function(p, q) return p * q end,
            ["/"] = function(p, q) return p / q end,
        }
        local function at(v, i, j)
            if type(v) == "number" then return v end
            if type(v[1]) == "table" then return v[i][j] end
            return #v == 1 and v[1] or v[j]
        end
        local function expected(f, p, q)
            local out = {}
            for i = 1, 2 do
                out[i] = {}
                for j = 1, 2 do out[i][j] = f(at(p, i, j), at(q, i, j)) end
            end
            return out
        end
        local function made(v) return type(v) == "table" and core.tensor(v) or v end

        it("mean what they mean on numbers, smaller operands repeating on either side", function()
            for _, pair in ipairs { { a, b }, { a, row }, { row, a }, { a, { 3 } }, { { 3 }, b },
                { a, 2 }, { 2, b }, { -0.5, a } } do
                for symbol, f in pairs(meaning) do
                    local p, q = made(pair[1]), made(pair[2])
                    local got = symbol == "+" and p + q or symbol == "-" and p - q or symbol == "*" and p * q or p / q
                    assert.is_true(distance(got, expected(f, pair[1], pair[2])) < 1e-6, symbol)
                end
            end
            assert.same({ { -1, -2 }, { -3, -4 } }, (-made(a)):totable())
        end)

        it("carry gradients, checked by differences", function()
            for symbol, f in pairs(meaning) do
                for _, sides in ipairs { { a, b }, { a, row }, { row, b }, { 2, b }, { a, 2 } } do
                    local leaves = {}
                    local values = { sides[1], sides[2] }
                    for side = 1, 2 do
                        if type(sides[side]) == "table" then
                            leaves[side] = core.tensor(sides[side]):requires_grad_()
                            values[side] = leaves[side]
                        end
                    end
                    local p, q = values[1], values[2]
                    local y = symbol == "+" and p + q or symbol == "-" and p - q or symbol == "*" and p * q or p / q
                    y:sum():backward()
                    for side, leaf in pairs(leaves) do
                        -- d sum / d element by central differences of the plain meaning
                        local flat = sides[side]
                        local function total()
                            local sum = 0
                            for _, line in ipairs(expected(f, sides[1], sides[2])) do sum = sum + line[1] + line[2] end
                            return sum
                        end
                        local function slope(t, k)
                            local keep, h = t[k], 1e-4
                            t[k] = keep + h
                            local up = total()
                            t[k] = keep - h
                            local down = total()
                            t[k] = keep
                            return (up - down) / (2 * h)
                        end
                        local want = {}
                        for i, item in ipairs(flat) do
                            if type(item) == "table" then
                                want[i] = { slope(item, 1), slope(item, 2) }
                            else
                                want[i] = slope(flat, i)
                            end
                        end
                        assert.is_true(distance(leaf.grad, want) < 1e-5, symbol .. " side " .. side)
                    end
                end
            end
        end)

        it("refuse other operands", function()
            local t = core.tensor(a)
            assert.matches("bad operand of '%+': tensor or number expected, got string",
                message_of(function() return t + "1" end))
            assert.matches("bad operand of '/': tensor or number expected, got nil", message_of(function() return nil / t end))
            assert.is_string(message_of(function() return t + core.zeros(3) end))
        end)
    end)

    it("leak nothing, also when an allocation fails", function()
        helper.no_leaks(function()
            local t = core.tensor { { 1, 2 }, { 3, 4 } }
            local _ = ((2 - t) / t + t * 3):relu():softmax():sum()
            pcall(ops.matmul, t, core.ones(3, 3))
        end)
        helper.no_leaks(function()
            for n = 1, 60 do
                local t = core.tensor({ { 1, 2 }, { 3, 4 } }):requires_grad_()
                core.fail_allocation(n)
                pcall(function() (1 / t + t):batch_norm():sum():backward() end)
                core.fail_allocation(0)
                core.clear_tape()
            end
        end)
    end)

    it("survive one allocation that fails: garbage is collected and the op tried again", function()
        local t = core.tensor { { 1, 2 }, { 3, 4 } }
        core.fail_allocation(1)
        local y = t:relu()
        core.fail_allocation(0)
        assert.same({ { 1, 2 }, { 3, 4 } }, y:totable())
    end)
end)
