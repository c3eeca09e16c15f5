-- Experiments, configurations, recipes, profiles: pure data, no engine.
local config = require "sagan.config"
local experiment = require "sagan.experiment"
local fields = require "sagan.fields"
local recipes = require "sagan.recipes"

local CPU <const>, GPU <const> = { cuda = false }, { cuda = true }

local function resolve(e, overrides, machine) return assert(experiment.resolve(e, overrides, machine or CPU)) end

local function refused(e, overrides)
    local configs, message = experiment.resolve(e, overrides, CPU)
    assert.is_nil(configs)
    return message
end

local function names(configs)
    local out = {}
    for i, c in ipairs(configs) do out[i] = c.name end
    return out
end

describe("fields", function()
    it("have a line of description, a type and a default that fits it", function()
        for _, f in ipairs(fields.list) do
            assert.is_true(#f.doc > 10, f.key)
            assert.is_nil(f.doc:find("\n"), f.key)
            assert.is_string(f.type.text)
            if f.default ~= nil then assert.same(f.default, f.type.check(f.default), f.key) end
        end
    end)

    it("are described in full, with the allowed values", function()
        local text = config.describe_fields()
        for _, f in ipairs(fields.list) do
            assert.is_truthy(text:find(f.key, 1, true), f.key)
            assert.is_truthy(text:find(f.doc, 1, true), f.key)
        end
    end)

    it("are what the editor annotations say", function()
        local path = assert(package.searchpath("sagan.config_types", package.path))
        local file <close> = assert(io.open(path))
        assert.equal(config.annotations(), file:read("a"))
    end)
end)

describe("the paper's recipe", function()
    it("is the default, and says what the paper says", function()
        local c = resolve({ profile = "paper" })[1]
        assert.same({ 1e-4, 4e-4, 0.0, 0.9, 1e-8, false }, {
            c.optimizer.lr_g, c.optimizer.lr_d, c.optimizer.beta1, c.optimizer.beta2, c.optimizer.eps, c.optimizer.tf_eps })
        assert.equal("hinge", c.loss)
        assert.equal(1, c.train.d_steps)
        assert.equal("slides", c.model.attention.form)
        assert.equal(0.0, c.model.attention.gamma_init)
        local sn = c.model.spectral_norm
        assert.same({ true, true, true, false, 1 }, { sn.generator, sn.discriminator, sn.embedding, sn.cbn, sn.iterations })
        assert.same({ 128, 64, 256, 1000000 }, { c.model.resolution, c.model.width, c.train.batch, c.train.steps })
    end)

    it("differs from every other recipe in named fields", function()
        local paper = resolve({ profile = "paper" })[1]
        for _, name in ipairs(recipes.names) do
            local other = resolve({ recipe = name, profile = "paper" })[1]
            local changed = {}
            for _, d in ipairs(config.diff(paper, other, { identity = true })) do changed[d.field] = d.b end
            if name == "paper" then assert.same({}, changed) else assert.is_truthy(next(changed), name) end
            if name == "tf_official" then
                assert.equal(0.999, changed["optimizer.beta2"])
                assert.equal("pooled", changed["model.attention.form"])
                assert.is_true(changed["model.spectral_norm.through"])
            elseif name == "studiogan" then
                assert.is_true(changed["model.spectral_norm.cbn"])
                assert.equal("orthogonal", changed["model.init.weights"])
            end
        end
    end)
end)

describe("resolve", function()
    it("lets the experiment win over the profile, and overrides over the experiment", function()
        local e = { name = "x", profile = "quick", train = { steps = 123 }, optimizer = { lr_d = 1e-3 } }
        local c = resolve(e, { "optimizer.lr_d=2e-4", "seed=3", "data=cifar10:/a,b=c d" })[1]
        assert.equal(123, c.train.steps)
        assert.equal(8, c.model.width)
        assert.equal(2e-4, c.optimizer.lr_d)
        assert.equal(3, c.seed)
        assert.equal("cifar10:/a,b=c d", c.data)
        assert.equal("x", c.name)
    end)

    it("takes literals, words, quoted text and lists from the command line", function()
        local c = resolve({}, { "loss=wasserstein", "train.flip=true", "model.attention.generator={8, 16}",
            "model.attention.discriminator=none", "question='a, b'", "train.batch=0x10" })[1]
        assert.equal("wasserstein", c.loss)
        assert.is_true(c.train.flip)
        assert.same({ 8, 16 }, c.model.attention.generator)
        assert.same({}, c.model.attention.discriminator)
        assert.equal("'a, b'", "'" .. c.question .. "'")
        assert.equal(16, c.train.batch)
    end)

    it("sets attention in both networks by its short name, later words winning", function()
        local c = resolve({ model = { attention = { generator = { 8 } } } }, { "attention=16" })[1]
        assert.same({ { 16 }, { 16 } }, { c.model.attention.generator, c.model.attention.discriminator })
        c = resolve({}, { "attention=16", "model.attention.discriminator=8" })[1]
        assert.same({ { 16 }, { 8 } }, { c.model.attention.generator, c.model.attention.discriminator })
        assert.same({ 8, 32 }, resolve({}, { "attention=32,8" })[1].model.attention.generator)
    end)

    it("expands lists to a sweep whose names tell the runs apart", function()
        assert.same({ "e-lr_d=1e-4", "e-lr_d=4e-4" }, names(resolve({ name = "e" }, { "optimizer.lr_d=1e-4,4e-4" })))
        assert.same({ "e-lr_d=1e-4", "e-lr_d=4e-4" }, names(resolve { name = "e", optimizer = { lr_d = { 1e-4, 4e-4 } } }))
        assert.same({ "e-loss=hinge", "e-loss=bce" }, names(resolve({ name = "e" }, { "loss=hinge,bce" })))
        assert.same({ "e-attention=none", "e-attention=8", "e-attention=8+16" },
            names(resolve { name = "e", attention = { {}, { 8 }, { 8, 16 } } }))
        assert.equal(6, #resolve({ name = "e" }, { "optimizer.lr_d={1e-4,4e-4}", "train.batch=8,16,32" }))
    end)

    it("keeps the name when only the seed varies", function()
        local configs = resolve({ name = "e", seed = { 1, 2 } })
        assert.same({ "e", "e" }, names(configs))
        assert.same({ 1, 2 }, { configs[1].seed, configs[2].seed })
    end)

    it("runs named arms, and overrides hold in all of them", function()
        local e = experiment {
            name = "rates",
            arms = {
                { name = "paper", optimizer = { lr_g = 1e-4, lr_d = 4e-4 } },
                { name = "equal", optimizer = { lr_g = 2e-4, lr_d = 2e-4 } },
            },
        }
        local configs = resolve(e, { "seed=1,2", "train.batch=8" })
        assert.same({ "rates-paper", "rates-paper", "rates-equal", "rates-equal" }, names(configs))
        assert.equal(2e-4, configs[3].optimizer.lr_g)
        for _, c in ipairs(configs) do assert.equal(8, c.train.batch) end
        assert.equal(1e-5, resolve(e, { "optimizer.lr_g=1e-5" })[2].optimizer.lr_g)
    end)

    it("gives all runs of a sweep one resolution, the one that its largest attention needs", function()
        for _, c in ipairs(resolve({ attention = { {}, { 8 }, { 64 } }, profile = "quick" })) do
            assert.equal(128, c.model.resolution)
        end
        assert.equal(64, resolve({ attention = 32, profile = "quick" })[1].model.resolution)
        assert.equal(128, resolve({ attention = 64, profile = "quick" })[1].model.resolution)
    end)

    it("chooses the profile by the machine and says why", function()
        local quick, small = resolve({}, {}, CPU)[1], resolve({}, {}, GPU)[1]
        assert.equal("quick", quick.profile)
        assert.is_truthy(quick.profile_reason:find("no CUDA device", 1, true))
        assert.equal("small", small.profile)
        assert.is_truthy(small.profile_reason:find("CUDA", 1, true))
        assert.equal("quick", resolve({}, { "device=cpu" }, GPU)[1].profile)
        assert.is_nil(resolve({}, { "profile=paper" }, CPU)[1].profile_reason)
    end)
end)

describe("mistakes", function()
    it("in keys name the nearest key", function()
        assert.is_truthy(refused({}, { "lr_d=1" }):find("did you mean 'optimizer.lr_d'", 1, true))
        assert.is_truthy(refused({}, { "optimizer.lr_dd=1" }):find("did you mean 'optimizer.lr_d'", 1, true))
        assert.is_truthy(refused({}, { "train.bach=1" }):find("did you mean 'train.batch'", 1, true))
        assert.is_truthy(refused({}, { "recipe=bigan_pytorch" }):find("did you mean 'biggan_pytorch'", 1, true))
    end)

    it("in values say what is allowed", function()
        for override, words in pairs {
            ["loss=hing"] = "hinge, bce, wasserstein",
            ["train.batch=0"] = "a whole number from 1",
            ["train.batch=1.5"] = "a whole number from 1",
            ["optimizer.beta2=1"] = "below 1",
            ["optimizer.lr_d=nan"] = "a number from 0 to 1",
            ["optimizer.lr_d=0/0"] = "a number from 0 to 1",
            ["train.flip=yes"] = "true or false",
            ["model.resolution=48"] = "one of 32, 64, 128, 256",
            ["attention=7"] = "a size of feature maps",
            ["optimizer.lr_g={}"] = "at least one value",
            ["model=3"] = "a group of fields",
            ["profile=quick,small"] = "all runs",
            ["name=../x"] = "a name",
            ["train.accumulate=3"] = "does not divide",
        } do
            local message = refused({ profile = "quick" }, { override })
            assert.is_truthy(message:find(words, 1, true), override .. ": " .. message)
        end
    end)

    it("in the size of attention list the sizes that the network has", function()
        local message = refused({ profile = "quick", model = { resolution = 64 } }, { "attention=64" })
        assert.is_truthy(message:find("discriminator", 1, true))
        assert.is_truthy(message:find("32, 16, 8, 4", 1, true))
    end)

    it("in an experiment file are raised where it is written", function()
        local ok, message = pcall(function() experiment { name = "x", modl = {} } end)
        assert.is_false(ok)
        assert.is_truthy(message:find("experiment_spec.lua", 1, true))
        assert.is_truthy(message:find("did you mean 'model'", 1, true))
        assert.has_error(function() experiment { arms = { { optimizer = { lr_g = 1 } } } } end)
        assert.has_error(function() experiment { model = 3 } end)
    end)

    it("in combinations are warned of", function()
        assert.same({}, experiment.warnings(resolve({})[1]))
        assert.equal(1, #experiment.warnings(resolve({ optimizer = { lr_d = 4e-5 } })[1]))
        assert.equal(1, #experiment.warnings(resolve({ loss = "wasserstein",
            model = { spectral_norm = { discriminator = false } } })[1]))
    end)
end)

describe("a configuration", function()
    it("is written as Lua that gives the same configuration", function()
        local c = resolve({ name = "w", question = 'with "quotes"\nand a line' }, {
            "optimizer.lr_d=0.00012345678901234567", "attention=8,16", "optimizer.eps=1e-300", "train.flip=true" })[1]
        local text = config.serialize(c)
        local back = assert(config.parse(text, "w.lua"))
        assert.same(c, back)
        local again = assert(load((text:gsub('require%("sagan"%)%.', "")), "w", "t", { experiment = experiment }))()
        assert.same(c, resolve(again, {}, GPU)[1])
    end)

    it("is read without running anything else", function()
        local c, message = config.parse("os.exit(1)", "bad.lua")
        assert.is_nil(c)
        assert.is_truthy(message:find("bad.lua", 1, true))
        c, message = config.parse('return require("sagan").experiment { model = { widht = 3 } }', "bad.lua")
        assert.is_nil(c)
        assert.is_truthy(message:find("model.width", 1, true))
    end)

    it("differs field by field", function()
        local a = resolve({ profile = "quick" })[1]
        local b = resolve({ profile = "quick" }, { "seed=2", "train.steps=7", "attention=16" })[1]
        local found = {}
        for _, d in ipairs(config.diff(a, b)) do found[d.field] = { d.a, d.b, d.free } end
        assert.same({
            seed = { 1, 2, false }, ["train.steps"] = { 3750, 7, true },
            ["model.attention.generator"] = { { 32 }, { 16 }, false },
            ["model.attention.discriminator"] = { { 32 }, { 16 }, false },
        }, found)
        assert.equal(3, #config.diff(a, b, { identity = true }))
    end)

    it("takes classes and channels from the data set unless they are given", function()
        local c = resolve({ model = { channels = 1 } })[1]
        local full = config.with_data(c, { channels = 3, classes = 10 })
        assert.same({ 1, 10 }, { full.model.channels, full.model.classes })
        assert.equal("data", c.model.classes)
    end)
end)

describe("the experiments in the tree", function()
    local ablation = require "sagan.ablation"
    local root = os.getenv("SAGAN_SOURCE") or "."
    local system = require("sagan.core").system

    local function load_experiment(name)
        package.loaded["sagan"] = package.loaded["sagan"] or { experiment = experiment, ablation = ablation }
        return dofile(("%s/experiments/%s.lua"):format(root, name))
    end

    it("are named as their files, ask something and resolve at every scale", function()
        local count = 0
        for _, file in ipairs(system.list(root .. "/experiments")) do
            local name = file:match("^(.*)%.lua$")
            if name then
                local e = load_experiment(name)
                count = count + 1
                assert.equal(name, e.name)
                assert.is_true(#e.question > 20, name)
                for _, profile in ipairs { "quick", "small", "paper" } do
                    if ablation.is(e) then
                        assert.is_truthy(assert(ablation.plan(e, { "profile=" .. profile }, "r", CPU)))
                    else
                        assert.is_true(experiment.is(e), name)
                        for _, c in ipairs(resolve(e, { "profile=" .. profile })) do assert.equal(name, c.name:sub(1, #name)) end
                    end
                end
            end
        end
        assert.equal(20, count)
    end)

    it("change what they say", function()
        for name, want in pairs {
            gan = { "", "bce", false, false, 1e-4, "slides" }, baseline_sn_d = { "", "hinge", false, true, 1e-4, "slides" },
            sn_gd = { "", "hinge", true, true, 1e-4, "slides" }, ttur = { "", "hinge", true, true, 4e-4, "slides" },
            no_attention = { "", "hinge", true, true, 4e-4, "slides" }, feat8 = { "8", "hinge", true, true, 4e-4, "slides" },
            feat16 = { "16", "hinge", true, true, 4e-4, "slides" }, feat32 = { "32", "hinge", true, true, 4e-4, "slides" },
            feat64 = { "64", "hinge", true, true, 4e-4, "slides" },
            residual_feat8 = { "8", "hinge", true, true, 4e-4, "residual" },
            residual_feat16 = { "16", "hinge", true, true, 4e-4, "residual" },
            residual_feat32 = { "32", "hinge", true, true, 4e-4, "residual" },
            residual_feat64 = { "64", "hinge", true, true, 4e-4, "residual" },
            sngan_projection = { "", "hinge", false, true, 2e-4, "slides" }, acgan = { "", "hinge", false, true, 2e-4, "slides" },
        } do
            local c = resolve(load_experiment(name))[1]
            assert.same(want, { table.concat(c.model.attention.generator, ","), c.loss, c.model.spectral_norm.generator,
                c.model.spectral_norm.discriminator, c.optimizer.lr_d, c.model.attention.form }, name)
            assert.same(c.model.attention.generator, c.model.attention.discriminator)
        end
        local rates = resolve(load_experiment "ttur_rates")
        assert.same({ 1e-4, 4e-5, 1e-4, 4e-4 }, { rates[1].optimizer.lr_g, rates[1].optimizer.lr_d, rates[2].optimizer.lr_g,
            rates[2].optimizer.lr_d })
    end)

    -- The configurations that have a residual block in attention's place.
    local function blocks_of(e, overrides)
        if not ablation.is(e) then return resolve(e, overrides) end
        local list = {}
        for i, arm in ipairs(assert(ablation.plan(e, overrides, "r", CPU)).arms) do list[i - 1] = arm.config end
        return list -- but the base
    end

    it("compare attention with blocks of as many parameters, within 2 %, in each network", function()
        for _, name in ipairs { "residual_feat8", "residual_feat16", "residual_feat32", "residual_feat64", "large_kernels" } do
            for _, profile in ipairs { "paper", "small" } do
                for _, c in ipairs(blocks_of(load_experiment(name), { "profile=" .. profile })) do
                    c.model.channels, c.model.classes = 3, 10
                    for _, net in ipairs { "generator", "discriminator" } do
                        local block
                        for _, child in ipairs(require("sagan.models." .. net)(c.model).children) do
                            if child.module.type == "ResidualBlock" then block = child.module end
                        end
                        local want = 1.25 * block.channels ^ 2 + 1
                        local off = block:parameter_count() / want - 1
                        -- 32 channels have no room for 5x5; the run prints what is achieved
                        if block.kernel ^ 2 <= 5 * block.channels // 8 then
                            assert.is_true(math.abs(off) < 0.02 + 1e-9 or profile == "small" and math.abs(off) < 0.05,
                                ("%s %s %s: %+.3f"):format(name, profile, net, off))
                        else
                            assert.equal("small", profile)
                        end
                    end
                end
            end
        end
    end)

    it("are studies where several arms are to be compared", function()
        local placement = assert(ablation.plan(load_experiment "attention_placement", { "profile=paper" }, "r", CPU))
        local columns = {}
        for i, arm in ipairs(placement.arms) do columns[i] = arm.name end
        assert.same({ "none", "feat8", "feat16", "feat32", "feat64", "residual_feat8", "residual_feat16", "residual_feat32",
            "residual_feat64" }, columns)
        local kernels, arms = assert(ablation.plan(load_experiment "large_kernels", {}, "r", CPU)), {}
        for i, arm in ipairs(kernels.arms) do
            local a = arm.config.model.attention
            arms[i] = { arm.name, a.form, a.kernel, a.generator[1], a.discriminator[1] }
        end
        assert.same({ { "attention", "slides", 3, 32, 32 }, { "kernel5", "residual", 5, 32, 32 },
            { "kernel7", "residual", 7, 32, 32 } }, arms)
        local stability = assert(ablation.plan(load_experiment "stability", { "profile=paper" }, "r", CPU))
        local steps = {}
        for i, stage in ipairs(stability.cells[1].stages) do steps[i] = stage.step end
        assert.same({ 10000, 160000, 260000, 1000000 }, steps)
        for i, want in ipairs { { false, 1e-4 }, { true, 1e-4 }, { true, 4e-4 } } do
            local c = stability.arms[i].config
            assert.same(want, { c.model.spectral_norm.generator, c.optimizer.lr_d })
            assert.same({ 1, 1e-4, true }, { c.train.d_steps, c.optimizer.lr_g, c.model.spectral_norm.discriminator })
        end
        local art = assert(ablation.plan(load_experiment "state_of_the_art", {}, "r", CPU))
        for i, want in ipairs { "paper", "sngan_projection", "acgan" } do
            assert.equal(want, art.arms[i].config.recipe)
            assert.same(i == 1 and { 64 } or {}, art.arms[i].config.model.attention.generator)
        end
    end)
end)
