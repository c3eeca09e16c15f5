-- Layers, blocks and the network slab, against plain loops in Lua and against central differences.
local core = require "sagan.core"
local nn = require "sagan.nn"
local helper = require "helper"
local ops = core.ops

local function random(shape, stream, std)
    local t = core.zeros(shape)
    ops.normal(t, core.zeros({ 2 }, { dtype = "i32" }), 7, stream or 1, 0, std or 1)
    return t
end

local function labels(list) return core.tensor(list, { dtype = "i32" }) end

-- Counts: name -> value, for reading a tensor of any rank by flat index.
local function flat(t)
    local out = {}
    local function walk(v)
        if type(v) == "number" then out[#out + 1] = v else for _, x in ipairs(v) do walk(x) end end
    end
    walk(t:totable())
    return out
end

local function assert_near(a, b, tolerance)
    local d = helper.distance(a, b)
    assert.is_true(d <= tolerance, ("relative distance %g, allowed %g"):format(d, tolerance))
end

-- Central differences of sum(y * r) in some elements of a leaf against its gradient.
local function check_gradient(leaf, forward, elements, tolerance)
    local y = forward()
    local r = random(y.shape, 99)
    leaf:zero_grad()
    ops.sum(ops.mul(y, r)):backward()
    local grad, values = flat(leaf.grad), flat(leaf)
    local function loss() return core.no_grad(function() return ops.sum(ops.mul(forward(), r)):item() end) end
    local measured, expected = {}, {}
    for _, i in ipairs(elements) do
        local h = 1e-2
        local at = leaf:detach():reshape(-1):part(i, { 1 })
        at:fill_(values[i] + h)
        local up = loss()
        at:fill_(values[i] - h)
        local down = loss()
        at:fill_(values[i])
        measured[#measured + 1], expected[#expected + 1] = grad[i], (up - down) / (2 * h)
    end
    assert_near(measured, expected, tolerance)
end

local function spread(n, count)
    local out = {}
    for i = 1, count do out[i] = 1 + (i * 7919) % n end
    return out
end

describe("a module", function()
    it("counts its parameters and prints without allocating", function()
        helper.no_leaks(function()
            local before = core.live().storages
            local net = nn.Sequential { nn.Linear { in_features = 1000, out_features = 1000 }, nn.Conv2d { in_channels = 3,
                out_channels = 5, kernel = { 1, 7 }, padding = { 0, 3 }, bias = false } }
            assert.equal(1001000 + 105, net:parameter_count())
            local text = tostring(net)
            assert.is_truthy(text:find("1,001,105", 1, true))
            assert.is_truthy(text:find("Conv2d 1x7 3 -> 5", 1, true))
            assert.equal(before, core.live().storages)
        end)
    end)

    it("lies in one slab: normalised weights first, every offset on 64 bytes", function()
        local net = nn.Sequential {
            nn.Linear { in_features = 3, out_features = 5 },
            nn.Linear { in_features = 5, out_features = 7, spectral_norm = true },
        }:build {}
        local order, offsets = {}, {}
        for name, tensor, spec in net:named_parameters() do
            order[#order + 1] = name
            offsets[name] = spec.offset
            assert.equal(0, spec.offset % 16)
            assert.same(spec.shape, tensor.shape)
        end
        assert.same({ "layer1.weight", "layer1.bias", "layer2.weight", "layer2.bias" }, order)
        assert.equal(0, offsets["layer2.weight"])
        assert.equal(48, offsets["layer1.weight"])
        assert.equal(48 + 16 + 16 + 16, net.slab:numel())
        net.slab:detach():fill_(2.5)
        assert.equal(2.5, net.layer1.bias:get(1))
    end)

    it("starts from values that depend on seed and name alone", function()
        local function first(seed, extra)
            local net = nn.Sequential { nn.Linear { in_features = 4, out_features = 4 }, extra }
            net:build { seed = seed }
            return flat(net.layer1.weight)
        end
        assert.same(first(1), first(1, nn.Linear { in_features = 2, out_features = 2, spectral_norm = true }))
        assert.not_same(first(1), first(2))
        local net = nn.Sequential { nn.Linear { in_features = 4, out_features = 4 }, nn.Linear { in_features = 4,
            out_features = 4 } }:build { seed = 1 }
        assert.not_same(flat(net.layer1.weight), flat(net.layer2.weight))
    end)

    it("builds itself when it is used first, and reports mistakes with its path", function()
        local net = nn.Sequential { nn.Linear { in_features = 3, out_features = 2 } }
        assert.same({ 4, 2 }, net(random { 4, 3 }).shape)
        local message = helper.message_of(net, random { 4, 5 })
        assert.is_truthy(message:find("Sequential.layer1", 1, true), message)
        assert.equal("", core.path() or "")
        assert.same({ 4, 2 }, net(random { 4, 3 }).shape) -- still usable
        assert.is_truthy(helper.message_of(function() net:build {} end):find("built already", 1, true))
        assert.is_truthy(helper.message_of(function() net.layer1:freeze() end):find("whole built network", 1, true))
        assert.is_truthy(helper.message_of(function() nn.Conv2d { in_channels = 1, out_channel = 2 } end)
            :find("out_channel", 1, true))
        local shared = nn.Linear { in_features = 1, out_features = 1 }
        assert.is_truthy(helper.message_of(function() nn.Sequential { shared, shared } end)
            :find("one place", 1, true))
    end)

    it("records no weight gradient while frozen, and passes the input's on", function()
        local net = nn.Linear { in_features = 3, out_features = 2, spectral_norm = true }
        net:build {}
        local x = random({ 4, 3 }):requires_grad_()
        net:freeze()
        ops.sum(ops.square(net(x))):backward()
        assert.is_true(net.slab.grad == nil or ops.norm(net.slab.grad):item() == 0)
        assert.is_true(ops.norm(x.grad):item() > 0)
        net:unfreeze()
        ops.sum(ops.square(net(x))):backward()
        assert.is_true(ops.norm(net.slab.grad):item() > 0)
    end)

    it("saves and loads its state, all or nothing", function()
        local function make(seed)
            return nn.Sequential { nn.Conv2d { in_channels = 2, out_channels = 3, padding = 1, spectral_norm = true },
                nn.BatchNorm2d { channels = 3 } }:build { seed = seed }
        end
        local a, b = make(1), make(2)
        local x = random { 2, 4, 4, 2 }
        a(x)
        local names = {}
        for name in pairs(a:state_dict()) do names[#names + 1] = name end
        table.sort(names)
        assert.same({ "layer1.bias", "layer1.weight", "layer1.weight_sigma", "layer1.weight_u", "layer1.weight_v",
            "layer2.bias", "layer2.gain", "layer2.running_mean", "layer2.running_var" }, names)
        b:load_state_dict(a:state_dict())
        a:eval()
        b:eval()
        assert.same(flat(a(x)), flat(b(x)))
        local state = make(3):state_dict()
        state["layer1.bias"] = nil
        state["layer2.gain"] = core.zeros { 4 }
        state.other = core.zeros { 1 }
        local before = flat(b.slab)
        local message = helper.message_of(b.load_state_dict, b, state)
        for _, words in ipairs { "missing layer1.bias", "layer2.gain is {4}, the network's is {3}", "no place for other" } do
            assert.is_truthy(message:find(words, 1, true), message)
        end
        assert.same(before, flat(b.slab))
    end)

    it("clones into memory of its own", function()
        local a = nn.Sequential { nn.Linear { in_features = 3, out_features = 2, spectral_norm = true } }:build { seed = 4 }
        local b = a:clone { grad = false }
        local x = random { 5, 3 }
        a:eval()
        b:eval()
        assert.same(flat(a(x)), flat(b(x)))
        a.slab:detach():fill_(0.5)
        assert.is_true(flat(b.slab)[1] ~= 0.5)
        assert.is_nil(b.slab.grad)
        assert.equal(b, b.layer1.root)
        assert.equal("Sequential.layer1", b.layer1.full_path)
    end)

    it("survives the scope that builds it, and leaves nothing behind when it goes", function()
        helper.no_leaks(function()
            local net = nn.Sequential { nn.Linear { in_features = 3, out_features = 2, spectral_norm = true } }
            core.scope(function() net(random { 2, 3 }) end)
            core.scope(function() ops.sum(net(random { 2, 3 })):backward() end)
            assert.same({ 2, 2 }, net(random { 2, 3 }).shape)
        end)
    end)
end)

describe("initial values", function()
    local function moments(t)
        local list = flat(t)
        local sum, square, most = 0, 0, 0
        for _, v in ipairs(list) do
            sum, square, most = sum + v, square + v * v, math.max(most, math.abs(v))
        end
        local mean = sum / #list
        return mean, math.sqrt(square / #list - mean * mean), most
    end

    it("xavier: uniform with the variance 2 / (in + out)", function()
        local conv = nn.Conv2d { in_channels = 16, out_channels = 24 }:build { seed = 3 }
        local mean, std, most = moments(conv.weight)
        local bound = math.sqrt(6 / (9 * 16 + 9 * 24))
        assert.is_true(most <= bound and most > 0.99 * bound)
        assert.is_true(math.abs(mean) < 0.05 * bound)
        assert.is_true(math.abs(std / (bound / math.sqrt(3)) - 1) < 0.05)
        assert.equal(0, ops.norm(conv.bias):item())
    end)

    it("normal: the standard deviation asked for", function()
        local t = core.zeros { 5000 }
        nn.initializers.fill(t, { 5000 }, { kind = "normal", std = 0.02 }, 1, 5)
        local mean, std = moments(t)
        assert.is_true(math.abs(mean) < 0.001)
        assert.is_true(math.abs(std / 0.02 - 1) < 0.05)
    end)

    it("orthogonal: rows or columns are orthonormal, whichever are fewer", function()
        for _, shape in ipairs { { 5, 40 }, { 40, 5 }, { 24, 24 }, { 6, 3, 3, 4 }, { 64, 3, 3, 2 }, { 1, 9 } } do
            local w = core.zeros(shape)
            nn.initializers.fill(w, shape, { kind = "orthogonal", gain = 1 }, 2, nn.stream("w"))
            local rows, columns = shape[1], w:numel() // shape[1]
            local m = w:reshape(rows, columns)
            local few = math.min(rows, columns)
            local gram = rows <= columns and ops.matmul(m, m, false, true) or ops.matmul(m, m, true, false)
            local list = flat(gram)
            for i = 1, few do
                for j = 1, few do
                    local off = math.abs(list[(i - 1) * few + j] - (i == j and 1 or 0))
                    assert.is_true(off < 2e-5, ("{%s}: %d, %d is off by %g"):format(table.concat(shape, ","), i, j, off))
                end
            end
        end
        local w = core.zeros { 3, 8 }
        nn.initializers.fill(w, { 3, 8 }, { kind = "orthogonal", gain = 2 }, 2, 9)
        assert.is_true(math.abs(ops.norm(w):item() - 2 * math.sqrt(3)) < 1e-4)
    end)

    it("refuse unknown kinds", function()
        assert.is_truthy(helper.message_of(nn.initializers.fill, core.zeros { 1 }, { 1 }, "xavir", 1, 1)
            :find("orthogonal", 1, true))
    end)
end)

describe("spectral norm", function()
    it("divides by the largest singular value, and stores u only in training", function()
        local layer = nn.Linear { in_features = 6, out_features = 4, bias = false, spectral_norm = true }
        layer:build { seed = 5 }
        local x = random { 3, 6 }
        for _ = 1, 200 do core.scope(function() layer(x) end) end
        -- the same by plain power iteration on W^T W in double precision
        local w, v = layer.weight:totable(), { 1, 0.5, -0.3, 0.2, 0.7, -0.9 }
        local sigma
        for _ = 1, 500 do
            local u, next_v = {}, {}
            for i = 1, 4 do
                u[i] = 0
                for j = 1, 6 do u[i] = u[i] + w[i][j] * v[j] end
            end
            local norm = 0
            for j = 1, 6 do
                next_v[j] = 0
                for i = 1, 4 do next_v[j] = next_v[j] + w[i][j] * u[i] end
                norm = norm + next_v[j] ^ 2
            end
            norm = math.sqrt(norm)
            sigma = math.sqrt(norm)
            for j = 1, 6 do v[j] = next_v[j] / norm end
        end
        assert.is_true(math.abs(layer:singular_values()["weight"] / sigma - 1) < 1e-5)
        local expected = ops.linear(x, layer.weight):scale(1 / sigma)
        layer:eval()
        local u = flat(layer.weight_u)
        assert_near(layer(x), expected, 1e-5)
        assert.same(u, flat(layer.weight_u))
        layer.weight:detach():fill_(1) -- a u that is far from the new matrix's
        layer(x)
        assert.same(u, flat(layer.weight_u))
        layer:train()
        layer.update_spectral = false
        layer(x)
        assert.same(u, flat(layer.weight_u))
        layer.update_spectral = true
        layer(x)
        assert.not_same(u, flat(layer.weight_u))
    end)

    it("keeps every layer's own u and v", function()
        local net = nn.Sequential {
            nn.Linear { in_features = 6, out_features = 4, spectral_norm = true },
            nn.Linear { in_features = 4, out_features = 3, spectral_norm = true },
        }:build { seed = 2 }
        for _ = 1, 300 do core.scope(function() net(random { 1, 6 }) end) end
        for _, layer in ipairs { net.layer1, net.layer2 } do
            -- at the fixed point W v = sigma u
            local wv = ops.matmul(layer.weight, layer.weight_v:reshape(-1, 1)):reshape(-1)
            assert_near(wv, layer.weight_u:scale(layer.weight_sigma:item()), 1e-4)
        end
    end)

    it("runs once in a pass, for all layers, and its result goes with the pass", function()
        local net = nn.Sequential {
            nn.Sequential { nn.Linear { in_features = 3, out_features = 3, bias = false, spectral_norm = true } },
            nn.Linear { in_features = 3, out_features = 3, bias = false, spectral_norm = true },
        }:build {}
        local x = random { 2, 3 }
        core.profile(true)
        core.no_grad(net, x)
        local calls = {}
        for _, row in ipairs(core.profile_rows()) do calls[row.kernel] = row.calls end
        core.profile(false)
        assert.equal(1, calls.spectral_norm_fwd)
        local one = nn.Linear { in_features = 3, out_features = 3, bias = false, spectral_norm = true }:build {}
        collectgarbage()
        collectgarbage("stop")
        local before = core.live().tensors
        local y = core.no_grad(one, x)
        local after = core.live().tensors
        collectgarbage("restart")
        assert.equal(1, after - before)
        assert.same({ 2, 3 }, y.shape)
    end)

    it("can be asked for by name, one setting for a network", function()
        local layer = nn.SpectralNorm(nn.Linear { in_features = 2, out_features = 2 }, { iterations = 3 })
        assert.equal(3, layer:build {}.plan.options.iterations)
        assert.is_truthy(helper.message_of(nn.SpectralNorm, nn.BatchNorm2d { channels = 1 }):find("no weight", 1, true))
        local mixed = nn.Sequential {
            nn.Linear { in_features = 2, out_features = 2, spectral_norm = { iterations = 1 } },
            nn.Linear { in_features = 2, out_features = 2, spectral_norm = { iterations = 2 } },
        }
        assert.is_truthy(helper.message_of(mixed.build, mixed, {}):find("one setting", 1, true))
    end)
end)

describe("layers", function()
    it("UpConv2d is upsampling and convolution, ConvPool2d convolution and mean", function()
        local x = random { 2, 6, 4, 3 }
        local up = nn.UpConv2d { in_channels = 3, out_channels = 5, bias_init = { kind = "normal" } }:build {}
        assert_near(up(x), ops.conv2d(ops.upsample(x), up.weight, up.bias, nil, nil, 1, 1, 1), 1e-5)
        local down = nn.ConvPool2d { in_channels = 3, out_channels = 5, bias_init = { kind = "normal" } }:build {}
        assert_near(down(x), ops.mean_pool(ops.conv2d(x, down.weight, down.bias, nil, nil, 1, 1, 1)), 1e-5)
    end)

    it("take a ReLU in front and a sum behind", function()
        local function bits(a, b) assert.equal(a:bytes(), b:bytes()) end
        local x, full, half = random { 2, 4, 6, 5 }, random { 2, 4, 6, 3 }, random { 2, 2, 3, 3 }
        local conv = nn.Conv2d { in_channels = 5, out_channels = 3, padding = 1, relu = true }:build {}
        local alone = ops.conv2d(x:relu(), conv.weight, conv.bias, nil, nil, 1, 1, 1)
        bits(ops.add(alone, full), conv(x, full))
        bits(ops.add(alone, ops.upsample(half)), conv(x, half))
        assert.matches("'residual' must have the shape of y, {2, 4, 6, 3}", helper.message_of(conv, x, x))
        local down = nn.ConvPool2d { in_channels = 5, out_channels = 3, relu = true }:build {}
        bits(ops.convpool(x:relu(), down.weight, down.bias), down(x))
        assert.equal("ReLU + Conv2d 3x3 5 -> 3", conv:describe())
        assert.equal("ReLU + ConvPool2d 5 -> 3", down:describe())
        local up = { in_channels = 5, out_channels = 3, relu = true }
        assert.matches("UpConv2d has no option 'relu'", helper.message_of(nn.UpConv2d, up))
    end)

    it("Embedding picks rows", function()
        local e = nn.Embedding { classes = 4, features = 3 }:build {}
        local w = e.weight:totable()
        assert.same({ w[3], w[1], w[3] }, e(labels { 2, 0, 2 }):totable())
    end)

    it("BatchNorm2d normalises by the batch, then by what it has seen", function()
        local bn = nn.BatchNorm2d { channels = 2, momentum = 0.5, eps = 1e-3 }:build {}
        local x = random({ 3, 2, 2, 2 }, 4, 3)
        local v = flat(x)
        local mean, var = { 0, 0 }, { 0, 0 }
        for i, value in ipairs(v) do mean[(i - 1) % 2 + 1] = mean[(i - 1) % 2 + 1] + value / 12 end
        for i, value in ipairs(v) do var[(i - 1) % 2 + 1] = var[(i - 1) % 2 + 1] + (value - mean[(i - 1) % 2 + 1]) ^ 2 / 12 end
        local function normalised(m, s)
            local out = {}
            for i, value in ipairs(v) do
                local c = (i - 1) % 2 + 1
                out[i] = (value - m[c]) / math.sqrt(s[c] + 1e-3)
            end
            return out
        end
        assert_near(bn(x):reshape(-1), normalised(mean, var), 1e-5)
        assert_near(bn.running_mean, { 0.5 * mean[1], 0.5 * mean[2] }, 1e-5)
        local running = { 0.5 + 0.5 * var[1] * 12 / 11, 0.5 + 0.5 * var[2] * 12 / 11 }
        assert_near(bn.running_var, running, 1e-5)
        bn:eval()
        assert_near(bn(x):reshape(-1), normalised({ 0.5 * mean[1], 0.5 * mean[2] }, running), 1e-5)
        assert_near(bn.running_var, running, 1e-5)
        bn:train()
        bn.update_statistics = false
        assert_near(bn(x):reshape(-1), normalised(mean, var), 1e-5)
        assert_near(bn.running_var, running, 1e-5)
        bn:reset_statistics()
        assert.same({ { 0, 0 }, { 1, 1 } }, { bn.running_mean:totable(), bn.running_var:totable() })
        -- a cumulative average: momentum 1, 1/2, 1/3 ... of equal batches is the batch's
        bn.update_statistics = true
        for n = 1, 3 do
            bn.momentum = 1 / n
            bn(x)
        end
        assert_near(bn.running_mean, mean, 1e-5)
    end)

    it("BatchNorm2d can store gains as differences", function()
        local x = random { 2, 2, 2, 3 }
        local a = nn.BatchNorm2d { channels = 3, gain_init = { kind = "constant", value = 1.5 }, relu = true }:build {}
        local b = nn.BatchNorm2d { channels = 3, gain_init = { kind = "constant", value = 0.5 }, gain_offset = 1, relu = true }
        assert_near(b(x), a(x), 1e-6)
    end)

    it("ConditionalBatchNorm2d has a row of gains and biases for each class", function()
        local bn = nn.ConditionalBatchNorm2d { channels = 2, classes = 3, relu = true, gain_offset = 1,
            gain_init = { kind = "normal", std = 1 }, bias_init = { kind = "normal", std = 1 } }:build { seed = 2 }
        local plain = nn.BatchNorm2d { channels = 2 }:build {}
        local x = random { 2, 2, 2, 2 }
        local n, g, b = plain(x):totable(), bn.gain:totable(), bn.bias:totable()
        local expected = {}
        for i, class in ipairs { 3, 1 } do
            for h = 1, 2 do
                for w = 1, 2 do
                    for c = 1, 2 do
                        expected[#expected + 1] = math.max(0, (g[class][c] + 1) * n[i][h][w][c] + b[class][c])
                    end
                end
            end
        end
        assert_near(bn(x, labels { 2, 0 }):reshape(-1), expected, 1e-5)
    end)
end)

describe("SelfAttention", function()
    -- 1x1 convolution of a list of positions {C} by w {K, 1, 1, C}
    local function project(w, x)
        local out = {}
        for i, row in ipairs(x) do
            out[i] = {}
            for k, kernel in ipairs(w:totable()) do
                local sum = 0
                for c, value in ipairs(row) do sum = sum + kernel[1][1][c] * value end
                out[i][k] = sum
            end
        end
        return out
    end

    local function pool(x, width)
        local out = {}
        for y = 1, width // 2 do
            for z = 1, width // 2 do
                local top = ((2 * y - 2) * width + 2 * z - 1)
                local row = {}
                for c = 1, #x[1] do
                    row[c] = math.max(x[top][c], x[top + 1][c], x[top + width][c], x[top + width + 1][c])
                end
                out[#out + 1] = row
            end
        end
        return out
    end

    local function attend(q, k, v)
        local out, map = {}, {}
        for j = 1, #q do
            local weight, sum = {}, 0
            for i = 1, #k do
                local s = 0
                for d = 1, #q[1] do s = s + q[j][d] * k[i][d] end
                weight[i] = math.exp(s)
                sum = sum + weight[i]
            end
            out[j], map[j] = {}, {}
            for i = 1, #k do map[j][i] = weight[i] / sum end
            for e = 1, #v[1] do
                local o = 0
                for i = 1, #k do o = o + map[j][i] * v[i][e] end
                out[j][e] = o
            end
        end
        return out, map
    end

    for _, form in ipairs { "slides", "pooled", "v2" } do
        it(form .. ": is what the loops say, and so is its map", function()
            local m = nn.SelfAttention { channels = 16, form = form, gamma_init = 0.7 }:build { seed = 3 }
            local count = form == "v2" and 0.5 * 16 ^ 2 + 1 or 1.25 * 16 ^ 2 + 1
            assert.equal(count, m:parameter_count())
            local x = random { 2, 4, 4, 16 }
            m.capture = true
            local y = m(x):totable()
            local p, key_height, key_width = m:map { { 1, 1 }, { 2, 3 }, 16 }
            local side = form == "pooled" and 2 or 4
            assert.same({ side, side }, { key_height, key_width })
            p = p:totable()
            for n, image in ipairs(x:totable()) do
                local positions = {}
                for h = 1, 4 do
                    for w = 1, 4 do positions[#positions + 1] = image[h][w] end
                end
                local q, k, v = project(m.g.weight, positions), project(m.f.weight, positions), project(m.h.weight, positions)
                if form == "pooled" then k, v = pool(k, 4), pool(v, 4) end
                local o, map = attend(q, k, v)
                if m.v then o = project(m.v.weight, o) end
                for j, row in ipairs(positions) do
                    for c = 1, 16 do o[j][c] = 0.7 * o[j][c] + row[c] end
                end
                local got = {}
                for h = 1, 4 do
                    for w = 1, 4 do got[#got + 1] = y[n][h][w] end
                end
                assert_near(got, o, 1e-5)
                assert_near(p[n], { map[1], map[7], map[16] }, 1e-5)
            end
        end)
    end

    it("is the identity at first, and has one channel for f and g at least", function()
        local m = nn.SelfAttention { channels = 4 }:build {}
        local x = random { 1, 2, 2, 4 }
        assert.same(flat(x), flat(m(x)))
        assert.same({ 1, 1, 1, 4 }, m.f.weight.shape)
        ops.sum(ops.mul(m(x), random({ 1, 2, 2, 4 }, 5))):backward()
        assert.is_true(math.abs(m.gamma.grad:item()) > 0) -- so gamma can leave 0
    end)

    it("says how sharp, how far and how strong it is", function()
        local m = nn.SelfAttention { channels = 8, gamma_init = -0.5 }:build {}
        m.f.weight:detach():zero_()
        m.capture = true
        local x = random { 2, 4, 4, 8 }
        m(x)
        local s = m:stats()
        assert.is_true(math.abs(s.entropy - math.log(16)) < 1e-4) -- equal weights everywhere
        local far = 0
        for a = 0, 15 do
            for b = 0, 15 do far = far + math.sqrt((a // 4 - b // 4) ^ 2 + (a % 4 - b % 4) ^ 2) / 256 end
        end
        assert.is_true(math.abs(s.distance - far) < 1e-4)
        assert.is_true(math.abs(s.gate - 0.5 * ops.norm(m.held.o):item() / ops.norm(x):item()) < 1e-5)
        assert.equal(-0.5, s.gamma)
        m.bypass = true
        assert.same(flat(x), flat(m(x)))
    end)

    it("refuses positions outside of the map, and maps of nothing", function()
        local m = nn.SelfAttention { channels = 8 }:build {}
        assert.is_truthy(helper.message_of(m.map, m, { 1 }):find("nothing captured", 1, true))
        m.capture = true
        m(random { 1, 2, 2, 8 })
        assert.is_truthy(helper.message_of(m.map, m, { { 3, 1 } }):find("outside the 2x2 map", 1, true))
        assert.is_truthy(helper.message_of(m.map, m, { 5 }):find("outside 1..4", 1, true))
    end)
end)

describe("blocks", function()
    local settings = { bias_init = { kind = "normal", std = 0.5 } }

    local function with(options)
        for k, v in pairs(settings) do options[k] = options[k] or v end
        return options
    end

    it("GeneratorBlock is the published one, unfused", function()
        local b = nn.GeneratorBlock(with { in_channels = 3, out_channels = 5, classes = 2,
            norm = { gain_init = { kind = "normal", std = 1 } } }):build {}
        local x, y = random { 2, 4, 4, 3 }, labels { 1, 0 }
        local function bn(m, h) return ops.cond_batch_norm(h, m.gain, m.bias, y, nil, nil, true, 0.1, 1e-5):relu() end
        local h = ops.conv2d(ops.upsample(bn(b.bn1, x)), b.conv1.weight, b.conv1.bias, nil, nil, 1, 1, 1)
        h = ops.conv2d(bn(b.bn2, h), b.conv2.weight, b.conv2.bias, nil, nil, 1, 1, 1)
        local s = ops.conv2d(ops.upsample(x), b.shortcut.weight, b.shortcut.bias)
        assert_near(b(x, y), ops.add(h, s), 1e-5)
    end)

    it("DiscriminatorBlock is the published one, unfused, in all its variants", function()
        local x = random { 2, 4, 4, 3 }
        for _, variant in ipairs {
            { down = true }, { down = true, first = true }, { down = true, inplace_shortcut = true },
            { down = true, hidden_channels = 3 }, { down = false, out_channels = 3 }, { down = false, out_channels = 4 },
        } do
            local v = with { in_channels = 3, out_channels = variant.out_channels or 5 }
            for k, value in pairs(variant) do v[k] = value end
            local b = nn.DiscriminatorBlock(v):build {}
            local h = v.first and x or x:relu()
            local s = v.inplace_shortcut and h or x
            h = ops.conv2d(h, b.conv1.weight, b.conv1.bias, nil, nil, 1, 1, 1):relu()
            h = ops.conv2d(h, b.conv2.weight, b.conv2.bias, nil, nil, 1, 1, 1)
            if b.shortcut then s = ops.conv2d(s, b.shortcut.weight, b.shortcut.bias) end
            if v.down then h, s = ops.mean_pool(h), ops.mean_pool(s) end
            assert.equal(not (v.down == false and v.out_channels == 3), b.shortcut ~= nil)
            assert_near(b(x), ops.add(h, s), 1e-5)
        end
    end)

    it("ResidualBlock has about as many parameters as the attention it replaces", function()
        for _, c in ipairs { 64, 128, 256, 512, 1024 } do
            local attention = nn.SelfAttention { channels = c }:parameter_count()
            for _, kernel in ipairs { 3, 5, 7 } do
                if kernel * kernel <= 5 * c // 8 then -- one channel of the kernel is within the budget
                    local plain = nn.ResidualBlock { channels = c, kernel = kernel }
                    assert.equal(attention - 1, plain:parameter_count())
                    assert.is_true(plain.wide >= 1)
                    local normed = nn.ResidualBlock { channels = c, kernel = kernel, norm = {} }:parameter_count()
                    assert.is_true(math.abs(normed / attention - 1) < 0.02, c .. " " .. normed)
                end
            end
        end
    end)

    it("ResidualBlock adds two convolutions whose hidden channels are part k x k, part 1x1", function()
        local x = random { 2, 4, 4, 32 }
        for _, kernel in ipairs { 3, 5, 7 } do
            for _, normed in ipairs { false, true } do
                local b = nn.ResidualBlock { channels = 32, kernel = kernel, norm = normed and {} }:build { seed = 3 }
                assert.same({ b.wide, kernel, kernel, 32 }, b.conv1.weight.shape)
                assert.equal(kernel == 3, b.point1 ~= nil)
                local pad = kernel // 2
                local a = normed and ops.batch_norm(x, nil, nil, nil, nil, true, 0.1, 1e-5, true) or x:relu()
                local function middle(h)
                    return normed and ops.batch_norm(h, nil, nil, nil, nil, true, 0.1, 1e-5, true) or h:relu()
                end
                local y = ops.add(x, ops.conv2d(middle(ops.conv2d(a, b.conv1.weight, nil, nil, nil, 1, pad, pad)), b.conv2.weight, nil,
                    nil, nil, 1, pad, pad))
                if b.point1 then
                    y = ops.add(y, ops.conv2d(middle(ops.conv2d(a, b.point1.weight, nil)), b.point2.weight, nil))
                end
                assert_near(b(x), y, 1e-5)
            end
        end
    end)

    it("GeneratorBlock with bilinear upsampling takes half-pixel bilinear values between", function()
        local x = random { 2, 3, 5, 4 }
        local b = nn.GeneratorBlock { in_channels = 4, out_channels = 6, upsample = "bilinear" }:build { seed = 2 }
        -- a plain loop: output i sits at (i + 1/2) / 2 - 1/2 of the input, whose border repeats
        local function bilinear(t)
            local v, shape = t:totable(), t.shape
            local function at(n, i, j, c)
                i, j = math.max(1, math.min(shape[2], i)), math.max(1, math.min(shape[3], j))
                return v[n][i][j][c]
            end
            local out = {}
            for n = 1, shape[1] do
                out[n] = {}
                for i = 1, 2 * shape[2] do
                    out[n][i] = {}
                    for j = 1, 2 * shape[3] do
                        out[n][i][j] = {}
                        local p, q = (i - 0.5) / 2 + 0.5, (j - 0.5) / 2 + 0.5
                        local r, s = math.floor(p), math.floor(q)
                        for c = 1, shape[4] do
                            out[n][i][j][c] = (1 - p + r) * ((1 - q + s) * at(n, r, s, c) + (q - s) * at(n, r, s + 1, c))
                                + (p - r) * ((1 - q + s) * at(n, r + 1, s, c) + (q - s) * at(n, r + 1, s + 1, c))
                        end
                    end
                end
            end
            return core.tensor(out)
        end
        local h = bilinear(ops.batch_norm(x, nil, nil, nil, nil, true, 0.1, 1e-5, true))
        h = ops.conv2d(h, b.conv1.weight, b.conv1.bias, nil, nil, 1, 1, 1)
        h = ops.conv2d(ops.batch_norm(h, nil, nil, nil, nil, true, 0.1, 1e-5, true), b.conv2.weight, b.conv2.bias, nil, nil, 1, 1, 1)
        assert_near(b(x), ops.add(h, ops.conv2d(bilinear(x), b.shortcut.weight, b.shortcut.bias)), 1e-5)
    end)

    it("have the gradients that differences show, through batch norm, attention and spectral norm", function()
        local net = nn.class("Net")
        function net:init()
            self:add("block", nn.GeneratorBlock(with { in_channels = 4, out_channels = 4, classes = 2, spectral_norm = true }))
            self:add("attention", nn.SelfAttention { channels = 4, gamma_init = 0.8, spectral_norm = true })
            self:add("down", nn.DiscriminatorBlock(with { in_channels = 4, out_channels = 3, spectral_norm = true }))
        end
        function net:forward(x, y) return self.down(self.attention(self.block(x, y))) end
        local m = net {}:build { seed = 6 }
        local x, y = random { 2, 2, 2, 4 }, labels { 0, 1 }
        -- with u and v at their fixed point the gradient with u, v constant is the exact one
        for _ = 1, 300 do core.scope(function() m(x, y) end) end
        m.update_spectral, m.update_statistics = false, false
        local n = m.slab:numel()
        check_gradient(m.slab, function() return m(x, y) end, spread(n, 60), 2e-2)
        local leaf = random({ 2, 2, 2, 4 }, 8):requires_grad_()
        check_gradient(leaf, function() return m(leaf, y) end, spread(32, 32), 2e-2)
    end)
end)
