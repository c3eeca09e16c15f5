-- Generator and discriminator: parameter counts of the published networks, placement of attention, forward and backward.
local core = require "sagan.core"
local Generator = require "sagan.models.generator"
local Discriminator = require "sagan.models.discriminator"
local plan = require "sagan.models.plan"
local helper = require "helper"
local ops = core.ops

local function model(resolution, width, classes, sizes, more)
    local m = { resolution = resolution, width = width, classes = classes, channels = 3,
        attention = { generator = sizes, discriminator = sizes } }
    for k, v in pairs(more or {}) do m[k] = v end
    return m
end

local function random(shape, stream)
    local t = core.zeros(shape)
    ops.normal(t, core.zeros({ 2 }, { dtype = "i32" }), 3, stream or 1)
    return t
end

local function labels(list) return core.tensor(list, { dtype = "i32" }) end

local function flat(t) return t:reshape(-1):totable() end

describe("parameter counts", function()
    -- logged by StudioGAN for its networks, or following from the paper's table
    local published = {
        { "ImageNet 128, no attention", model(128, 64, 1000, {}), 41996931, 39443137 },
        { "ImageNet 128, feat8", model(128, 64, 1000, { 8 }), 43307652, 39770818 },
        { "ImageNet 128, feat16", model(128, 64, 1000, { 16 }), 42324612, 39525058 },
        { "ImageNet 128, feat32", model(128, 64, 1000, { 32 }), 42078852, 39463618 },
        { "ImageNet 128, feat64", model(128, 64, 1000, { 64 }), 42017412, 39448258 },
        { "CIFAR-10, attention at 16", model(32, 64, 10, { 16 }), 4386308, 1075586 },
        { "CIFAR-10, no attention", model(32, 64, 10, {}), 4304387, 1055105 },
        { "Tiny ImageNet 64, attention at 32", model(64, 64, 200, { 32 }), 13387396, 19752642 },
    }
    for _, row in ipairs(published) do
        it("of " .. row[1], function()
            local live = core.live().storages
            assert.equal(row[3], Generator(row[2]):parameter_count())
            assert.equal(row[4], Discriminator(row[2]):parameter_count())
            assert.equal(live, core.live().storages)
        end)
    end

    it("are the same for the pooled form, whose weights are split otherwise", function()
        local m = model(128, 64, 1000, { 32 })
        m.attention.form = "pooled"
        assert.equal(42078852, Generator(m):parameter_count())
        assert.equal(39463618, Discriminator(m):parameter_count())
    end)

    it("are in the table that print shows", function()
        local text = tostring(Generator(model(128, 64, 1000, { 32 })))
        for _, words in ipairs { "42,078,852", "attention32", "32x32x256", "81,921", "128x128x3", "GeneratorBlock 1024 -> 512" } do
            assert.is_truthy(text:find(words, 1, true), words)
        end
    end)
end)

describe("attention", function()
    it("goes after the block whose output has its size", function()
        local G, D = Generator(model(128, 4, 2, { 8, 16, 32, 64 })), Discriminator(model(128, 4, 2, { 8, 16, 32, 64 }))
        local function order(net)
            local out = {}
            for _, c in ipairs(net.children) do out[#out + 1] = c.name end
            return table.concat(out, " ")
        end
        assert.equal("linear block1 attention8 block2 attention16 block3 attention32 block4 attention64 block5 bn conv", order(G))
        assert.equal("block1 attention64 block2 attention32 block3 attention16 block4 attention8 block5 block6 linear embedding",
            order(D))
        assert.equal(16, G.attention[32].channels)
        assert.equal(8, D.attention[32].channels)
        -- three blocks of this network put out 8x8: one attention, after the first of them
        assert.equal("block1 block2 attention8 block3 block4 linear embedding",
            order(Discriminator(model(32, 4, 2, { 8 }))))
    end)

    it("at a size that the net does not have is an error with the sizes that it has", function()
        local message = helper.message_of(Discriminator, model(64, 4, 2, { 64 }))
        assert.is_truthy(message:find("attention at 64", 1, true))
        assert.is_truthy(message:find("32, 16, 8, 4", 1, true))
        assert.same({ 8, 16, 32, 64 }, plan.sizes("generator", 64))
        assert.is_truthy(helper.message_of(Generator, model(48, 4, 2, {})):find("32, 64, 128", 1, true))
        assert.is_truthy(helper.message_of(Generator, model(32, 4, "data", {})):find("data", 1, true))
    end)

    it("changes nothing while gamma is 0, and the other layers start alike with and without it", function()
        local z, y = random { 2, 128 }, labels { 1, 0 }
        local with, without = Generator(model(32, 2, 2, { 16 })), Generator(model(32, 2, 2, {}))
        with:build { seed = 3 }
        without:build { seed = 3 }
        assert.same(flat(without(z, y)), flat(with(z, y)))
        with.attention[16].gamma:detach():fill_(1)
        assert.not_same(flat(without(z, y)), flat(with(z, y)))
        with:bypass_attention(true)
        assert.same(flat(without(z, y)), flat(with(z, y)))
    end)

    it("is caught on request", function()
        local G = Generator(model(32, 2, 2, { 8, 16 })):build { seed = 1 }
        G:capture_attention(true)
        G(random { 2, 128 }, labels { 1, 0 })
        assert.same({ 2, 1, 256 }, G.attention[16]:map({ { 8, 8 } }).shape)
        assert.same({ 2, 2, 64 }, G.attention[8]:map({ 1, 64 }).shape)
        G:capture_attention(false)
        assert.is_nil(G.attention[16].held)
    end)

    it("has a stand-in of as many parameters", function()
        local m = model(64, 32, 10, { 32 })
        local with = Generator(m):parameter_count()
        m.attention.form = "residual"
        local block = Generator(m).attention32
        assert.equal("ResidualBlock", block.type)
        assert.is_true(math.abs(Generator(m):parameter_count() - with) < 600)
    end)
end)

describe("the networks", function()
    for _, case in ipairs {
        { 32, 2, 3, {} }, { 64, 1, 1, { 32 } }, { 32, 2, 3, { 16 }, { conditional = false } },
        { 32, 2, 3, { 8 }, { d_hidden = "thin", inplace_shortcut = true, generator_linear_bias = false,
            spectral_norm = { cbn = true, iterations = 2 }, init = { weights = "orthogonal", gain = 1.4 },
            batch_norm = { gain_offset = 1, init = "weights" } } },
        { 32, 2, 3, { 16 }, { spectral_norm = { generator = false, discriminator = false }, init = { weights = "normal" } } },
    } do
        local resolution, width, channels, sizes, more = table.unpack(case)
        local name = ("%d px, width %d, %d channels, attention {%s}%s"):format(resolution, width, channels,
            table.concat(sizes, ","), more and ", variant" or "")
        it("work forward and backward: " .. name, function()
            local m = model(resolution, width, 3, sizes, more)
            m.channels = channels
            local G, D = Generator(m):build { seed = 1 }, Discriminator(m):build { seed = 1 }
            local z, y = random { 2, 128 }, labels { 2, 0 }
            local images = G(z, y)
            assert.same({ 2, resolution, resolution, channels }, images.shape)
            assert.is_true(ops.max(images):item() <= 1 and ops.min(images):item() >= -1)
            local logits = D(images, y)
            assert.same({ 2, 1 }, logits.shape)
            ops.sum(ops.square(logits)):backward()
            for _, net in ipairs { G, D } do
                assert.equal(0, ops.count_nonfinite(net.slab.grad):item())
                local used = 0
                for pname, tensor, spec in net:named_parameters() do
                    used = used + spec.numel
                    local size = ops.norm(tensor.grad):item()
                    -- gamma is 0: nothing flows to the projections yet; one number over its own norm is a constant
                    local constant = pname:find("attention%d+%.[fgh]%.") or spec.spectral and spec.numel == 1
                    if not constant then assert.is_true(size > 0, pname) end
                end
                -- what lies between the parameters stays 0, so that Adam never moves it
                local total = 0
                for _, tensor in net:named_parameters() do total = total + ops.norm(tensor.grad):item() ^ 2 end
                assert.is_true(math.abs(ops.norm(net.slab.grad):item() - math.sqrt(total)) <= 1e-4 * math.sqrt(total))
                assert.equal(used, net:parameter_count())
            end
        end)
    end

    it("depend on the labels, and insist on them", function()
        local m = model(32, 2, 3, {}, { batch_norm = { init = "weights", gain_offset = 1 } })
        local G, D = Generator(m):build { seed = 1 }:eval(), Discriminator(m):build { seed = 1 }:eval()
        local z, x = random { 2, 128 }, random { 2, 32, 32, 3 }
        assert.not_same(flat(G(z, labels { 0, 0 })), flat(G(z, labels { 1, 1 })))
        assert.not_same(flat(D(x, labels { 0, 0 })), flat(D(x, labels { 1, 1 })))
        assert.is_truthy(helper.message_of(G, z):find("G(z, labels)", 1, true))
        assert.is_truthy(helper.message_of(D, x):find("D(images, labels)", 1, true))
    end)

    it("D is the linear part plus the projection of the label", function()
        local m = model(32, 2, 3, {}, { spectral_norm = { discriminator = false } })
        local D = Discriminator(m):build { seed = 1 }:eval()
        D.linear.bias:detach():fill_(0.25)
        local x = random { 2, 32, 32, 3 }
        local h = x
        for _, stage in ipairs(D.stages) do h = stage(h) end
        h = ops.global_sum_pool(h:relu()):totable()
        local w, e = D.linear.weight:totable()[1], D.embedding.weight:totable()
        local expected = {}
        for i, class in ipairs { 3, 1 } do
            local sum = 0.25
            for c = 1, #w do sum = sum + h[i][c] * (w[c] + e[class][c]) end
            expected[i] = sum
        end
        assert.is_true(helper.distance(D(x, labels { 2, 0 }):reshape(-1), expected) < 1e-5)
    end)

    it("normalise what the configuration says", function()
        local function normalised(net, m)
            local set = {}
            for name, _, spec in net(m):named_parameters() do
                if spec.spectral then set[name] = true end
            end
            return set
        end
        local m = model(32, 2, 3, { 16 })
        local g, d = normalised(Generator, m), normalised(Discriminator, m)
        for _, name in ipairs { "linear.weight", "block1.conv1.weight", "block3.shortcut.weight", "attention16.f.weight",
            "attention16.h.weight", "conv.weight" } do
            assert.is_true(g[name], name)
        end
        assert.is_nil(g["block1.bn1.gain"])
        assert.is_true(d["embedding.weight"] and d["linear.weight"] and d["attention16.g.weight"])
        m.spectral_norm = { generator = false, embedding = false }
        m.attention.spectral_norm = false
        assert.same({}, normalised(Generator, m))
        d = normalised(Discriminator, m)
        assert.is_nil(d["embedding.weight"])
        assert.is_nil(d["attention16.g.weight"])
        assert.is_true(d["linear.weight"])
        m.spectral_norm = { cbn = true }
        assert.is_true(normalised(Generator, m)["block1.bn1.gain"])
    end)

    it("start with different numbers in G and D", function()
        local m = model(32, 2, 3, {})
        local G, D = Generator(m):build { seed = 1, path = "G" }, Discriminator(m):build { seed = 1, path = "D" }
        local a, b = flat(G.block2.conv2.weight), flat(D.block2.conv2.weight)
        -- other fans, so equal numbers would be proportional
        assert.is_true(math.abs(a[1] / a[2] - b[1] / b[2]) > 1e-3)
        assert.equal("G.block2.conv2", G.block2.conv2.full_path)
        assert.equal("block2.conv2", G.block2.conv2:path())
    end)

    it("hold on to their result and what the tape needs, not to what waits for the collector", function()
        local G = Generator(model(32, 2, 3, { 16 })):build { seed = 1 }
        local D = Discriminator(model(32, 2, 3, { 16 })):build { seed = 1 }
        local z, which = random({ 4, 128 }), labels { 0, 1, 2, 0 }
        collectgarbage()
        collectgarbage("stop")
        local before = core.memory().bytes_in_use
        local y = core.no_grad(G, z, which)
        local images = core.memory().bytes_in_use - before
        local x = G(z, which)
        D(x, which):mean():backward()
        local rest = core.memory().bytes_in_use - before - images
        collectgarbage("restart")
        assert.same({ 4, 32, 32, 3 }, y.shape)
        assert.is_true(images <= 1.25 * 4 * 32 * 32 * 3 * 4, images .. " bytes for the images")
        assert.is_true(rest <= images + 4096, rest .. " bytes for the same images and some logits")
    end)

    it("leave nothing behind", function()
        helper.no_leaks(function()
            local m = model(32, 1, 2, { 16 })
            local G, D = Generator(m):build {}, Discriminator(m):build {}
            core.scope(function()
                ops.sum(D(G(random { 1, 128 }, labels { 1 }), labels { 1 })):backward()
            end)
            local twin = G:clone { grad = false }:eval()
            core.no_grad(twin, random { 1, 128 }, labels { 1 })
        end)
    end)
end)
