-- Every recipe against what its authors did, field by field, typed from the papers and repositories and not from the recipe
-- files: a field that a table below does not name is the paper's, which the first table has in full.
local config = require "sagan.config"
local experiment = require "sagan.experiment"
local fields = require "sagan.fields"
local recipes = require "sagan.recipes"
local core = require "sagan.core"
local losses = require "sagan.losses"
local ops = core.ops

-- arXiv 1805.08318; where the paper says nothing, what its siblings agree on
local PAPER <const> = {
    -- networks
    ["model.resolution"] = 128, ["model.width"] = 64, ["model.z_dim"] = 128, ["model.conditional"] = true,
    ["model.d_head"] = "projection", ["model.d_width"] = 1.0, ["model.d_hidden"] = "wide", ["model.upsample"] = "nearest",
    ["model.inplace_shortcut"] = false, ["model.generator_linear_bias"] = true,
    -- attention: f, g C/8, h C, no pooling, gamma from 0, after the 32x32 maps
    ["model.attention.generator"] = "32", ["model.attention.discriminator"] = "32", ["model.attention.form"] = "slides",
    ["model.attention.kernel"] = 3, ["model.attention.gamma_init"] = 0.0, ["model.attention.spectral_norm"] = true,
    -- spectral norm: both networks, embedding, not the tables
    ["model.spectral_norm.generator"] = true, ["model.spectral_norm.discriminator"] = true,
    ["model.spectral_norm.embedding"] = true, ["model.spectral_norm.cbn"] = false, ["model.spectral_norm.iterations"] = 1,
    ["model.spectral_norm.eps"] = 1e-12, ["model.spectral_norm.eps_form"] = "add", ["model.spectral_norm.u_init"] = "normal",
    ["model.spectral_norm.through"] = false, ["model.spectral_norm.update"] = "every_forward",
    -- batch norm
    ["model.batch_norm.eps"] = 1e-5, ["model.batch_norm.momentum"] = 0.1, ["model.batch_norm.last_momentum"] = 0.0,
    ["model.batch_norm.gain_offset"] = 0.0, ["model.batch_norm.init"] = "identity",
    ["model.batch_norm.update"] = "every_forward",
    -- weights
    ["model.init.weights"] = "xavier", ["model.init.gain"] = 1.0, ["model.init.shortcut_gain"] = 1.0,
    ["model.init.std"] = 0.02, ["model.init.bias"] = "zeros",
    -- losses and optimisers
    ["loss"] = "hinge", ["auxiliary.d_weight"] = 1.0, ["auxiliary.g_weight"] = 1.0, ["auxiliary.d_on_fake"] = true,
    ["optimizer.lr_g"] = 1e-4, ["optimizer.lr_d"] = 4e-4, ["optimizer.rate_factor"] = 1.0, ["optimizer.beta1"] = 0.0,
    ["optimizer.beta2"] = 0.9, ["optimizer.eps"] = 1e-8, ["optimizer.tf_eps"] = false, ["optimizer.weight_decay"] = 0.0,
    -- the loop
    ["train.steps"] = 1000000, ["train.batch"] = 256, ["train.d_steps"] = 1, ["train.accumulate"] = 1,
    ["train.g_batch"] = 1, ["train.d_forward"] = "together", ["train.order"] = "d_first",
    -- not the paper's, which has none: kept beside it, since training does not depend on it
    ["train.ema_decay"] = 0.999, ["train.ema_start"] = 2000,
    ["train.flip"] = false, ["train.dequantize"] = 0.0, ["train.lr_decay"] = 0.0,
    -- 50 k samples; the rest is the original scores' (FACTS 6)
    ["score.network"] = "auto", ["score.n_fake"] = 50000, ["score.n_real"] = 0, ["score.reference"] = "train",
    ["score.generator"] = "ema", ["score.batch_norm"] = "moving", ["score.resizer"] = "tf1", ["score.splits"] = 10,
    ["score.bias"] = false,
}

local SNGAN <const> = {
    ["model.attention.generator"] = "", ["model.attention.discriminator"] = "", -- none
    ["model.d_hidden"] = "thin", ["model.spectral_norm.generator"] = false,
    ["model.batch_norm.eps"] = 2e-5, -- Chainer's
    ["model.init.gain"] = 2 ^ 0.5, -- main convolutions; 1 on shortcuts
    ["optimizer.lr_g"] = 2e-4, ["optimizer.lr_d"] = 2e-4,
    ["train.steps"] = 450000, ["train.batch"] = 64, -- 16 on each of 4 GPUs; 32 for G
    ["train.g_batch"] = 2, ["train.d_steps"] = 5, ["train.order"] = "g_first", ["train.d_forward"] = "separate",
    ["train.dequantize"] = 1 / 128, ["train.ema_decay"] = 0.0,
    ["train.lr_decay"] = 50000 / 450000,
}

local FACTS <const> = {
    paper = {},
    paper_v2 = { ["model.attention.form"] = "v2" },
    tf_official = {
        ["model.attention.form"] = "pooled",
        ["model.spectral_norm.u_init"] = "truncated", ["model.spectral_norm.through"] = true,
        ["model.spectral_norm.update"] = "real_pass",
        ["model.batch_norm.momentum"] = 0.001, ["model.batch_norm.last_momentum"] = 0.0001, -- decays 0.999 and 0.9999
        ["optimizer.beta2"] = 0.999, ["optimizer.tf_eps"] = true,
        ["train.steps"] = 2000000, ["train.accumulate"] = 4, -- towers
        ["train.order"] = "g_first", ["train.d_forward"] = "separate", ["train.ema_decay"] = 0.0,
        ["score.splits"] = 1,
    },
    biggan_pytorch = {
        ["model.attention.generator"] = "64", ["model.attention.discriminator"] = "64", ["model.attention.form"] = "pooled",
        ["model.spectral_norm.eps"] = 1e-8, ["model.spectral_norm.eps_form"] = "max",
        ["model.batch_norm.gain_offset"] = 1.0, ["model.batch_norm.init"] = "weights",
        ["model.init.bias"] = "fan_uniform",
        ["optimizer.beta2"] = 0.999,
        ["train.steps"] = 500000, ["train.accumulate"] = 2, ["train.ema_decay"] = 0.9999, ["train.ema_start"] = 2000,
    },
    studiogan = {
        ["model.attention.generator"] = "64", ["model.attention.discriminator"] = "64", ["model.attention.form"] = "pooled",
        ["model.inplace_shortcut"] = true,
        ["model.spectral_norm.cbn"] = true, ["model.spectral_norm.eps"] = 1e-6,
        ["model.batch_norm.eps"] = 1e-4, ["model.batch_norm.gain_offset"] = 1.0, ["model.batch_norm.init"] = "weights",
        ["model.batch_norm.update"] = "own_step",
        ["model.init.weights"] = "orthogonal",
        ["optimizer.beta2"] = 0.999, ["optimizer.eps"] = 1e-6,
        ["train.d_forward"] = "separate", ["train.flip"] = true, ["train.ema_decay"] = 0.0,
        ["score.batch_norm"] = "standing", ["score.splits"] = 1, ["score.bias"] = true,
    },
    mimicry = {
        ["model.attention.form"] = "pooled", ["model.d_width"] = 8 / 64, ["model.d_hidden"] = "thin",
        ["model.upsample"] = "bilinear", ["model.inplace_shortcut"] = true,
        ["optimizer.lr_g"] = 2e-4, ["optimizer.lr_d"] = 2e-4,
        ["train.steps"] = 100000, ["train.batch"] = 64, ["train.d_steps"] = 5, ["train.d_forward"] = "separate",
        ["train.ema_decay"] = 0.0, ["train.lr_decay"] = 1.0,
    },
    sngan_projection = SNGAN,
    acgan = setmetatable({ ["model.d_head"] = "auxiliary" }, { __index = SNGAN }),
    gan = {
        ["loss"] = "bce", ["model.attention.generator"] = "", ["model.attention.discriminator"] = "",
        ["model.spectral_norm.generator"] = false, ["model.spectral_norm.discriminator"] = false,
        ["optimizer.lr_g"] = 1e-4, ["optimizer.lr_d"] = 1e-4,
    },
}

-- what a run is, not what it learns by
local NOT_SCIENCE <const> = {
    name = true, question = true, recipe = true, profile = true, profile_reason = true, seed = true, data = true,
    device = true, threads = true, precision = true, winograd = true, control = true, ["model.channels"] = true, ["model.classes"] = true,
    ["train.recompute"] = true,
}

local function is_science(key) return not NOT_SCIENCE[key] and not key:find("^log%.") and not key:find("^sample%.")
    and not key:find("^checkpoint%.")
    and key ~= "score.every" end

local function plain(value) return type(value) == "table" and table.concat(value, ",") or value end

local function resolved(name) return assert(experiment.resolve({ recipe = name, profile = "paper" }, {}, { cuda = false }))[1] end

describe("recipes", function()
    it("are all in the tables here", function()
        for _, name in ipairs(recipes.names) do assert.is_table(FACTS[name], name) end
        for name in pairs(FACTS) do assert.is_table(recipes.get(name), name) end
        for _, f in ipairs(fields.list) do
            if is_science(f.key) then assert.is_not_nil(PAPER[f.key], f.key .. " is in no table") end
        end
        for key in pairs(PAPER) do assert.is_table(fields.by_key[key], key) end
        for name, table in pairs(FACTS) do
            for key in pairs(table) do assert.is_table(fields.by_key[key], name .. ": " .. key) end
        end
    end)

    for _, name in ipairs(recipes.names) do
        it("have their authors' value in every field: " .. name, function()
            local c = resolved(name)
            for key, value in pairs(PAPER) do
                local want = FACTS[name][key]
                if want == nil then want = value end
                assert.equal(want, plain(config.get(c, key)), name .. ": " .. key)
            end
        end)
    end

    it("train: a step moves both networks and leaves them finite", function()
        for _, name in ipairs(recipes.names) do
            local c = assert(experiment.resolve({ recipe = name, profile = "quick", attention = "none",
                model = { resolution = 32, width = 4, channels = 1, classes = 3 }, train = { batch = 4, steps = 4 } },
                {}, { cuda = false }))[1]
            if #resolved(name).model.attention.generator > 0 then
                c.model.attention.generator, c.model.attention.discriminator = { 16 }, { 16 }
            end
            local t = require("sagan.trainer").new(c, { classes = 3 })
            t.loader = { fill = function() end }
            local G, D = t.G.slab:bytes(), t.D.slab:bytes()
            t:iterate()
            assert.is_nil(require("sagan.measurements").not_finite(t), name)
            assert.is_true(G ~= t.G.slab:bytes() and D ~= t.D.slab:bytes(), name)
        end
        core.clear_tape()
    end)

    it("keep their rates' meaning at every scale, and their accumulation only at their own", function()
        for _, profile in ipairs { "quick", "small" } do
            for _, name in ipairs(recipes.names) do
                local c = assert(experiment.resolve({ recipe = name, profile = profile }, {}, { cuda = false }))[1]
                local own = resolved(name)
                assert.equal(own.optimizer.lr_g, c.optimizer.lr_g)
                assert.equal(own.optimizer.lr_d, c.optimizer.lr_d)
                assert.equal(profile == "quick" and 3.0 or 1.0, c.optimizer.rate_factor)
                assert.equal(1, c.train.accumulate)
                assert.is_true(c.train.batch <= 64 and c.train.steps <= 50000)
            end
        end
    end)
end)

-- A small version of a recipe's networks.
local function networks(name)
    local c = resolved(name).model
    c.resolution, c.width, c.channels, c.classes = 32, 8, 1, 3
    c.attention.generator, c.attention.discriminator = { 16 }, { 16 }
    local G, D = require "sagan.models.generator" (c), require "sagan.models.discriminator" (c)
    return G:build { seed = 1, path = "G" }, D:build { seed = 1, path = "D" }
end

describe("networks of", function()
    it("mimicry have a discriminator of an eighth of the width and a generator that upsamples bilinearly", function()
        local G, D = networks "mimicry"
        assert.equal(2, D.linear.weight.shape[2]) -- 2 x 1 channels where the generator has 4 x 8
        assert.equal("Conv2d", G.block1.conv1.type)
        assert.equal("UpConv2d", (networks "paper").block1.conv1.type)
    end)

    it("tf_official start u within two standard deviations and keep the last batch norm's average longer", function()
        local G, D = networks "tf_official"
        local worst = 0
        for _, net in ipairs { G, D } do
            worst = math.max(worst, ops.max(ops.abs(net.spectral.u)):item(), ops.max(ops.abs(net.spectral.v)):item())
        end
        assert.is_true(worst <= 2 and worst > 1.8)
        local plain_G = networks "paper"
        assert.is_true(ops.max(ops.abs(plain_G.spectral.v)):item() > 2)
        assert.equal(0.0001, G.bn.momentum)
        assert.equal(0.001, G.block1.bn1.momentum)
        assert.equal(0.1, plain_G.bn.momentum)
    end)
end)

describe("the auxiliary classifier", function()
    local function random(shape, stream)
        local t = core.zeros(shape)
        ops.normal(t, core.zeros({ 2 }, { dtype = "i32" }), 3, stream)
        return t
    end
    local function labels(list) return core.tensor(list, { dtype = "i32" }) end

    it("is a second head on the pooled features, and the label does not reach the first", function()
        local _, D = networks "acgan"
        D:eval()
        assert.is_nil(D.embedding)
        local x = random({ 2, 32, 32, 1 }, 1)
        local logits, classes = D(x)
        local with_labels = D(x, labels { 2, 0 })
        assert.same({ 2, 1 }, logits.shape)
        assert.same({ 2, 3 }, classes.shape)
        assert.same(logits:totable(), with_labels:totable())
        local h = x
        for _, stage in ipairs(D.stages) do h = stage(h) end
        h = ops.global_sum_pool(h:relu())
        local W, b = D.classifier.weight:totable(), D.classifier.bias:totable()
        local sigma = D.classifier.weight_sigma:item()
        for n, row in ipairs(h:totable()) do
            for k = 1, 3 do
                local sum = b[k]
                for i, value in ipairs(row) do sum = sum + W[k][i] * value / sigma end
                assert.near(sum, classes:totable()[n][k], 2e-3 * math.abs(sum) + 1e-3)
            end
        end
    end)

    it("adds the cross-entropy of the labels to both losses", function()
        local real, fake = random({ 4, 3 }, 1), random({ 4, 3 }, 2)
        local real_labels, fake_labels = { 0, 2, 1, 1 }, { 2, 2, 0, 1 }
        local function cross_entropy(logits, list)
            local sum = 0
            for n, row in ipairs(logits:totable()) do
                local z = 0
                for _, v in ipairs(row) do z = z + math.exp(v) end
                sum = sum + math.log(z) - row[list[n] + 1]
            end
            return sum / #list
        end
        local on_real, on_fake = cross_entropy(real, real_labels), cross_entropy(fake, fake_labels)
        local l = losses.auxiliary { d_weight = 0.5, g_weight = 2, d_on_fake = true }
        assert.near(0.5 * (on_real + on_fake), l.discriminator(real, labels(real_labels), fake, labels(fake_labels)):item(), 1e-5)
        assert.near(2 * on_fake, l.generator(fake, labels(fake_labels)):item(), 1e-5)
        l = losses.auxiliary { d_weight = 1, g_weight = 1, d_on_fake = false }
        assert.near(on_real, l.discriminator(real, labels(real_labels), fake, labels(fake_labels)):item(), 1e-5)
    end)

    -- one step of the trainer, in which every optimiser step is left out, so that the slabs hold the gradients
    local function trainer_of(more)
        local c = assert(experiment.resolve({
            recipe = "acgan", profile = "quick", data = "quadrupeds",
            model = { resolution = 32, width = 4, channels = 1, classes = 3, spectral_norm = { discriminator = false } },
            train = { batch = 4, d_steps = 1, steps = 2 }, log = { every = 1 }, auxiliary = more,
        }, {}, { cuda = false }))[1]
        local t = require("sagan.trainer").new(c, { classes = 3 })
        t.adam_g.step, t.adam_d.step = function() end, function() end
        t.G.release_grad, t.D.release_grad = function() end, function() end -- which the trainer would drop
        t.images:copy_(core.zeros(t.images.shape, { dtype = "u8" }))
        t.real_labels:copy_(labels { 0, 1, 2, 1 })
        return t
    end

    it("reaches every parameter of both networks with the gradient that differences show", function()
        for _, separate in ipairs { "together", "separate" } do
            local t = trainer_of { d_on_fake = true, d_weight = 3, g_weight = 3 }
            t.config.train.d_forward = separate
            local function loss_d() t:discriminator_step() return t.d_ring:totable()[1][1] end
            local function loss_g() t:generator_step() return t.g_ring:totable()[1][1] end
            local function numeric(loss, tensor, index, clock)
                local at = tensor:detach():reshape(-1):part(index, { 1 })
                local value, h = at:item(), 1e-2
                local function probe(v)
                    at:fill_(v)
                    clock:copy_(core.zeros({ 2 }, { dtype = "i32" })) -- the same noise every time
                    return loss()
                end
                local up, down = probe(value + h), probe(value - h)
                probe(value)
                return (up - down) / (2 * h)
            end
            loss_d()
            for _, index in ipairs { 1, 5, 11 } do
                local measured = numeric(loss_d, t.D.classifier.weight, index, t.d_clock)
                local got = t.D.classifier.weight.grad:reshape(-1):totable()[index]
                assert.near(measured, got, 0.02 * math.abs(measured) + 2e-3, separate)
            end
            local bias = numeric(loss_d, t.D.classifier.bias, 2, t.d_clock)
            assert.near(bias, t.D.classifier.bias.grad:totable()[2], 0.02 * math.abs(bias) + 2e-3)
            local gain = t.G.conv.bias
            loss_g()
            local measured = numeric(loss_g, gain, 1, t.g_clock)
            assert.near(measured, gain.grad:totable()[1], 0.03 * math.abs(measured) + 2e-3)
        end
    end)

    it("changes nothing else: with weights 0 the losses are those of the head alone", function()
        local with, without = trainer_of { d_weight = 0, g_weight = 0 }, trainer_of { d_weight = 1, g_weight = 1 }
        for _, t in ipairs { with, without } do
            t:discriminator_step()
            t:generator_step()
        end
        local a, b = with.d_ring:totable()[1], without.d_ring:totable()[1]
        assert.equal(a[2], b[2]) -- logits
        assert.equal(a[3], b[3])
        assert.is_true(b[1] - a[1] > 0.1) -- a cross-entropy is positive
        local c, d = with.g_ring:totable()[1], without.g_ring:totable()[1]
        assert.is_true(d[1] - c[1] > 0.01)
        -- the part that is about classes is logged by itself
        assert.near(b[1] - a[1], b[5], 1e-5)
        assert.near(d[1] - c[1], d[3], 1e-5)
        assert.same({ 0.0, 0.0 }, { a[5], c[3] })
        with.step, with.d_steps_done = 1, 1
        assert.equal(a[5], with:measure(1)["loss/d_class"])
    end)

    it("needs classes", function()
        local _, message = experiment.resolve({ recipe = "acgan", model = { conditional = false } }, {}, { cuda = false })
        assert.is_truthy(message:find("names classes", 1, true))
    end)
end)
