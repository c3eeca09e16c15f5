-- Attention altered: every rule against plain loops over the map, the networks against ones built without attention, and that
-- nothing stays altered.

local core = require "sagan.core"
local sagan = require "sagan"
local config_module = require "sagan.config"
local knockout = require "sagan.knockout"
local helper = require "helper"

local GRID <const> = { height = 4, width = 6, key_height = 4, key_width = 6 }
local POOLED <const> = { height = 4, width = 6, key_height = 2, key_width = 3 }

local function random(shape, seed)
    return core.ops.normal(core.empty(shape), core.zeros({ 2 }, { dtype = "i32" }), seed or 1, 77)
end

local function config(form)
    local c = config_module.defaults()
    for key, value in pairs { resolution = 32, width = 4, channels = 1, classes = 3, z_dim = 16 } do c.model[key] = value end
    c.model.attention = { generator = { 8, 16 }, discriminator = { 16 }, form = form or "slides", gamma_init = 0.7,
        spectral_norm = true }
    return c
end

--- A network as sagan.open gives it, and the same without its attention at 16.
local function pair(letter, form)
    local make = letter == "G" and sagan.models.generator or sagan.models.discriminator
    local c = config(form)
    local net = make(c.model):build { seed = 3, grad = false }
    net:eval()
    c.model.attention.generator, c.model.attention.discriminator = { 8 }, {}
    local without = make(c.model):build { seed = 4, grad = false }
    local state = net:state_dict()
    for name in pairs(state) do
        if name:find("^attention16") then state[name] = nil end
    end
    without:load_state_dict(state)
    without:eval()
    local view = { net = net, letter = letter, config = config(form), class_names = { "hat", "coat", "boot" } }
    return view, without
end

local function greatest_difference(a, b) return core.ops.max(core.ops.abs(core.ops.sub(a, b))):item() end

--- Plain softmax rows of one image's logits.
local function softmax(q, k)
    local map = {}
    for j, query in ipairs(q) do
        local row, sum = {}, 0
        for i, key in ipairs(k) do
            local s = 0
            for c = 1, #key do s = s + query[c] * key[c] end
            row[i] = math.exp(s)
            sum = sum + row[i]
        end
        for i = 1, #row do row[i] = row[i] / sum end
        map[j] = row
    end
    return map
end

--- The greatest difference between what a rule attends to and P v for the map that `alter` makes of the plain one.
local function off(options, grid, alter)
    local n, keys = grid.height * grid.width, grid.key_height * grid.key_width
    local q, k, v = random({ 2, n, 3 }, 1), random({ 2, keys, 3 }, 2), random({ 2, keys, 5 }, 3)
    local rule = knockout.new(options, grid)
    local got = core.no_grad(rule.attend, q, k, v):totable()
    local worst = 0
    for image = 1, 2 do
        local map = alter(softmax(q:totable()[image], k:totable()[image]))
        local weights = rule.weights(knockout.logits(q, k, image)):totable()[1]
        for j = 1, n do
            for i = 1, keys do worst = math.max(worst, math.abs(weights[j][i] - map[j][i])) end
            for c = 1, 5 do
                local o = 0
                for i = 1, keys do o = o + map[j][i] * v:get(image, i, c) end
                worst = math.max(worst, math.abs(o - got[image][j][c]))
            end
        end
    end
    return worst
end

describe("a knock-out", function()
    local view, without
    setup(function() view, without = pair("G") end)
    teardown(function() view, without = nil, nil end)

    local function outputs(net, a) return core.no_grad(net, a.input, core.tensor(a.labels, { dtype = "i32" })) end

    for _, form in ipairs { "slides", "pooled", "v2" } do
        it("gamma0 is the net without that attention, in the form " .. form, function()
            local with, plain = pair("G", form)
            local a = sagan.microscope.open(with, { count = 3, class = { 1, 2, 3 } })
            assert.equal(16, a.size)
            local altered = a:knockout { "gamma0" }
            local want = outputs(plain, a)
            assert.is_true(greatest_difference(altered.output, want) < 1e-6)
            assert.is_true(greatest_difference(a.output, want) > 1e-3) -- so there was something to knock out
            local change = core.ops.mean(core.ops.abs(core.ops.sub(a.output:rows(2, 1), want:rows(2, 1)))):item()
            assert.is_true(math.abs(altered.change[2] - change) < 1e-6)
            local d_view, d_plain = pair("D", form)
            local d = sagan.microscope.open(d_view, { image = a.output, class = { 1, 2, 3 } })
            local d_want = outputs(d_plain, d)
            assert.is_true(greatest_difference(d:knockout({ "gamma0" }).output, d_want) < 1e-6)
            assert.is_true(greatest_difference(d.output, d_want) > 1e-3)
        end)

        it("that alters nothing alters nothing, in the form " .. form, function()
            local with = pair("G", form)
            local a = sagan.microscope.open(with, { count = 2 })
            local wide = a:knockout { ["local"] = 15 }
            assert.is_true(greatest_difference(wide.output, a.output) < 1e-5)
            assert.is_true(helper.distance(wide:map { 3, 14, image = 2 }, a:map { 3, 14, image = 2 }) < 1e-5)
            assert.is_true(greatest_difference(a:knockout({ ["local"] = 2 }).output, a.output) > 1e-4)
        end)
    end

    it("local w looks within w rows and columns, in proportion", function()
        for _, grid in ipairs { GRID, POOLED } do
            local block = grid.height // grid.key_height
            for _, w in ipairs { 0, 1, 2, 5 } do
                local cut = 0
                local worst = off({ ["local"] = w }, grid, function(map)
                    for j, row in ipairs(map) do
                        local y, x, sum = (j - 1) // 6, (j - 1) % 6, 0
                        for i in ipairs(row) do
                            local near = false
                            for dy = 0, block - 1 do -- the positions that a pooled key stands for
                                for dx = 0, block - 1 do
                                    local ky, kx = (i - 1) // grid.key_width * block + dy, (i - 1) % grid.key_width * block + dx
                                    near = near or math.max(math.abs(ky - y), math.abs(kx - x)) <= w
                                end
                            end
                            if not near then row[i], cut = 0, cut + 1 end
                            sum = sum + row[i]
                        end
                        for i in ipairs(row) do row[i] = row[i] / sum end
                    end
                    return map
                end)
                assert.is_true(worst < 1e-5, ("w = %d: off by %g"):format(w, worst))
                assert.equal(w < 5, cut > 0)
            end
        end
    end)

    it("shuffle lets every position look as sharply, elsewhere, in one order for all", function()
        for _, grid in ipairs { GRID, POOLED } do
            local keys = grid.key_height * grid.key_width
            local order, seen = knockout.permutation(keys, 9), {}
            for _, i in ipairs(order) do seen[i] = true end
            for i = 0, keys - 1 do assert.is_true(seen[i]) end
            assert.same(order, knockout.permutation(keys, 9))
            assert.not_same(order, knockout.permutation(keys, 8))
            local worst = off({ "shuffle", seed = 9 }, grid, function(map)
                for j, row in ipairs(map) do
                    map[j] = {}
                    for i = 1, keys do map[j][i] = row[order[i] + 1] end
                end
                return map
            end)
            assert.is_true(worst < 1e-5, "off by " .. worst)
        end
        local a = sagan.microscope.open(view, { count = 2 })
        local altered = a:knockout { "shuffle" }
        assert.is_true(math.abs(altered:entropy() - (a:entropy())) < 1e-4)
        assert.is_true(math.abs(altered:entropy { 4, 4 } - (a:entropy { 4, 4 })) < 1e-5)
        assert.is_true(math.abs(altered:distance() - a:distance()) > 1e-3)
        assert.is_true(greatest_difference(altered.output, a.output) > 1e-4)
        assert.is_true(greatest_difference(altered.output, a:knockout({ "shuffle", seed = 5 }).output) > 1e-5)
    end)

    it("rows takes attention from these rows alone", function()
        for _, grid in ipairs { GRID, POOLED } do
            local worst = off({ rows = { 2, 3 } }, grid, function(map)
                for j, row in ipairs(map) do
                    if j > 6 and j <= 18 then
                        for i in ipairs(row) do row[i] = 0 end
                    end
                end
                return map
            end)
            assert.is_true(worst < 1e-5, "off by " .. worst)
        end
        local a = sagan.microscope.open(view)
        local all = a:knockout { rows = { 1, 16 } }
        assert.is_true(greatest_difference(all.output, a:knockout({ "gamma0" }).output) < 1e-6)
        assert.equal(0, (all:entropy()))
        local some = a:knockout { rows = 7 }
        assert.equal(0, core.ops.sum(some:map { 7, 1 }):item())
        assert.is_true(helper.distance(some:map { 8, 1 }, a:map { 8, 1 }) < 1e-5)
        local rest = 0
        for y = 1, 16 do
            for x = 1, 16 do rest = rest + (y ~= 7 and a:entropy { y, x } / 240 or 0) end
        end
        assert.is_true(math.abs(some:entropy() - rest) < 1e-4) -- of the rows that still look
        assert.matches("knock-out row 7: the output changes by", tostring(some), 1, true)
    end)

    it("leaves the network as it was, also after an error", function()
        local state = {}
        for name, tensor in pairs(view.net:state_dict()) do state[name] = tensor:bytes() end
        view.net:train()
        local a = sagan.microscope.open(view, { seed = 2 })
        for _, options in ipairs { { "gamma0" }, { ["local"] = 1 }, { "shuffle" }, { rows = 2 } } do a:knockout(options) end
        assert.has_error(function() a:knockout { "gamma0", score = function() error "no" end } end)
        local calls = 0
        assert.has_error(function()
            a:knockout { "gamma0", score = function()
                calls = calls + 1
                return calls == 1 and { x = 1 } or error "no"
            end }
        end)
        local module = view.net.attention[16]
        assert.is_nil(module.knockout)
        assert.is_nil(module.held)
        assert.is_false(module.capture)
        assert.is_true(view.net.training)
        view.net:eval()
        for name, tensor in pairs(view.net:state_dict()) do assert(tensor:bytes() == state[name], name) end
        assert(sagan.microscope.open(view, { seed = 2 }).output:bytes() == a.output:bytes())
    end)

    it("is not for training", function()
        local module = sagan.nn.SelfAttention { channels = 8, gamma_init = 1 }:build {}
        module.knockout = knockout.new({ "gamma0" }, { height = 2, width = 2, key_height = 2, key_width = 2 }).attend
        local x = random { 1, 2, 2, 8 }
        assert.matches("SelfAttention: a knock-out is for looking", helper.message_of(module, x), 1, true)
        assert(core.no_grad(module, x):bytes() == x:bytes())
    end)

    it("says how scores change, over all and by class", function()
        local a = sagan.microscope.open(view, { seed = 4 })
        local y = core.tensor({ 1 }, { dtype = "i32" })
        local recorded
        local altered = a:knockout { "gamma0", score = function(G)
            recorded = core.is_recording()
            local images = G(a.input, y)
            return { mean = core.ops.mean(images):item(), norm = core.ops.norm(images):item() },
                { coat = { first = images:get(1, 1, 1, 1) } }
        end }
        assert.is_false(recorded)
        local same = { input = a.input, labels = { 1 } }
        local plain_images, images = outputs(view.net, same), outputs(without, same)
        local function near(x, z) assert.is_true(math.abs(x - z) < 1e-5, ("%g, not %g"):format(x, z)) end
        near(altered.scores.norm.plain, core.ops.norm(plain_images):item())
        near(altered.scores.norm.altered, core.ops.norm(images):item())
        near(altered.scores.norm.change, altered.scores.norm.altered - altered.scores.norm.plain)
        assert.is_true(altered.scores.norm.change ~= 0)
        near(altered.class_scores.coat.first.altered, images:get(1, 1, 1, 1))
        local text = tostring(altered)
        assert.matches(("norm %.4g, without %.4g"):format(altered.scores.norm.altered, altered.scores.norm.plain), text, 1, true)
        assert.matches("    coat: first ", text, 1, true)
        assert.is_nil(a:knockout({ "gamma0", score = function() return {} end }).class_scores)
        local text_of_none = helper.message_of(a.knockout, a, { "gamma0", score = function() end })
        assert.matches("score returns { name = number }", text_of_none, 1, true)
    end)

    it("is drawn beside what it was", function()
        local a = sagan.microscope.open(view, { class = { 1, 3 } })
        local altered = a:knockout { ["local"] = 2 }
        local picture = altered:compare()
        assert.same({ 8 + 16 + 12 + 2 * 100 + 8, 3 }, { picture:size(1), picture:size(3) })
        assert(picture:bytes() ~= a:knockout({ "gamma0" }):compare():bytes())
        assert.matches("x%d+", altered:sheet().shape[1] .. "x" .. altered:sheet().shape[2])
        local d_view = pair("D")
        local d = sagan.microscope.open(d_view, { image = a.images, class = { 1, 3 } })
        assert.equal(8 + 16 + 2 * 100 + 8, d:knockout({ "gamma0" }):compare():size(1))
    end)

    it("refuses what makes no sense, at the line that asks", function()
        local a = sagan.microscope.open(view)
        for wanted, options in pairs {
            ["there is no 'gama0' (did you mean 'gamma0'?)"] = { "gama0" },
            ["one at a time, of gamma0, shuffle"] = {},
            ["one at a time"] = { "gamma0", rows = 3 },
            ['["local"] is a whole number of positions from 0, not -1'] = { ["local"] = -1 },
            ["not 1.5"] = { ["local"] = 1.5 },
            ["rows is { first, last } of the map's rows 1..16"] = { rows = { 3, 17 } },
            ["rows is { first, last }"] = { rows = { 3, 2 } },
            ["of the map's rows"] = { rows = "all" },
            ["seed is a whole number from 0, not -2"] = { "shuffle", seed = -2 },
            ["seed is the order of shuffle"] = { "gamma0", seed = 2 },
            ["no option 'row'; did you mean 'rows'?"] = { row = 2 },
        } do
            local ok, message = pcall(function() a:knockout(options) end)
            assert.is_false(ok)
            assert.matches(wanted, message, 1, true)
            assert.matches("knockout_spec.lua:", message, 1, true)
        end
        local d_view = pair("D")
        local d = sagan.microscope.open(d_view, { image = a.output })
        assert.matches("scores are those of the generator", helper.message_of(d.knockout, d, { "gamma0", score = true }), 1, true)
    end)
end)
