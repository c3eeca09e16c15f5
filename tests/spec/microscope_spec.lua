-- What the microscope says of a run's attention, against plain loops over the stored weights.

local core = require "sagan.core"
local sagan = require "sagan"
local pictures = require "sagan.pictures"
local driver = require "driver"
local helper = require "helper"
local plain = require "plain_attention"

local d = driver.new "microscope"
local WORDS = "model.attention.generator={8,16} model.attention.gamma_init=0.5 "

local function same_bytes(a, b) assert(a:bytes() == b:bytes(), "the numbers differ") end
local function other_bytes(a, b) assert(a:bytes() ~= b:bytes(), "the numbers are the same") end

--- The attention module of a view, and its input for the attention's own input, by a pass of its own.
local function module_input(view, a)
    local module = view.net.attention[a.size]
    module.capture = true
    view(a.input, core.tensor(a.labels, { dtype = "i32" }))
    module.capture = false
    local x = module.held.x:totable()
    module:release_held()
    return module, x
end

describe("the microscope", function()
    local run, before
    setup(function()
        d:experiment("tiny", [[train = { steps = 6, batch = 4, ema_start = 2 }, log = { every = 2, tensorboard = false },
            sample = { every = 0, rows = 2, columns = 2, attention = false }, checkpoint = { every = 2, keep = 3 }]])
        d:succeeds("tiny.lua " .. WORDS)
        before = d:snapshot "runs/tiny"
        run = assert(sagan.open(d:at "runs/tiny"))
    end)
    teardown(function()
        run = nil
        d:remove()
    end)

    describe("shows a map", function()
        it("whose rows sum to 1 and are the plain softmax(f^T g) of the stored weights", function()
            for _, size in ipairs { 8, 16 } do
                local a = run.G:attention { at = size, class = run.class_names[3], count = 2 }
                local module, x = module_input(run.G, a)
                local worst = 0
                for image = 1, 2 do
                    local want = plain.attend(module, x[image])
                    for y = 1, size do
                        for column = 1, size do
                            local map, sum, i = a:map { y = y, x = column, image = image }, 0, 0
                            assert.same({ size, size }, map.shape)
                            for _, row in ipairs(map:totable()) do
                                for _, p in ipairs(row) do
                                    i = i + 1
                                    sum = sum + p
                                    worst = math.max(worst, math.abs(p - want[(y - 1) * size + column][i]))
                                end
                            end
                            assert.is_true(math.abs(sum - 1) < 1e-5)
                        end
                    end
                end
                assert.is_true(worst < 1e-5, "off by " .. worst)
            end
        end)

        it("with its entropy, distance and largest weights", function()
            local a = run.G:attention { count = 2, class = 4 }
            local module, x = module_input(run.G, a)
            local entropy, distance = 0, 0
            for image = 1, 2 do
                local e, far = plain.statistics(plain.attend(module, x[image]), 16)
                entropy, distance = entropy + e / 2, distance + far / 2
            end
            local got, uniform = a:entropy()
            assert.is_true(math.abs(got - entropy) < 1e-4)
            assert.is_true(math.abs(uniform - math.log(256)) < 1e-12)
            assert.is_true(math.abs(a:distance() - 2 * distance) < 1e-3) -- 2 pixels a position
            local here, map = { y = 5, x = 7, image = 2 }, plain.attend(module, x[2])[4 * 16 + 7]
            entropy, distance = 0, 0
            for i, p in ipairs(map) do
                entropy = entropy - p * math.log(p)
                distance = distance + 2 * p * math.sqrt(((i - 1) // 16 + 1 - 5) ^ 2 + ((i - 1) % 16 + 1 - 7) ^ 2)
            end
            assert.is_true(math.abs(a:entropy(here) - entropy) < 1e-5)
            assert.is_true(math.abs(a:distance(here) - distance) < 1e-4)
            here.count = 5
            local top = a:top(here)
            assert.equal(5, #top)
            table.sort(map, function(p, q) return p > q end)
            for i, key in ipairs(top) do assert.is_true(math.abs(key.weight - map[i]) < 1e-5) end
            local shown = a:map { 5, 7, image = 2 }
            for _, key in ipairs(top) do assert.equal(key.weight, shown:get(key.y, key.x)) end
        end)

        it("of the z and the classes that are named, as other pictures draw them", function()
            local z = pictures.noise(3, 128, 5)
            local y = core.tensor({ 2, 0, 7 }, { dtype = "i32" })
            local images = run.G(z, y)
            local names = { run.class_names[3], 1, run.class_names[8] }
            local a = run.G:attention { class = names }
            same_bytes(images, a.output)
            assert.same({ run.class_names[3], run.class_names[1], run.class_names[8] }, a.classes)
            same_bytes(core.ops.float_to_pixels(images), a.images)
            same_bytes(a.output, run.G:attention({ z = z, class = names }).output)
            local one = run.G:attention { z = z:rows(2, 1):reshape(-1) }
            same_bytes(run.G:attention({ z = z:rows(2, 1), class = 1 }).output, one.output)
            same_bytes(run.G:attention({ z = z:rows(2, 1):reshape(-1):totable() }).output, one.output)
            other_bytes(a.output, run.G:attention({ class = names, seed = 6 }).output)
        end)

        it("of D, for files that are made to fit as the data are, and for tensors", function()
            local rows = {}
            for i = 1, 40 do
                rows[i] = {}
                for j = 1, 50 do rows[i][j] = { (i * 7 + j) % 256, (j * 5) % 256, (i * j) % 256 } end
            end
            for _, class in ipairs { "a", "b" } do
                assert(core.system.mkdir(d:at("folder/" .. class)))
                assert(core.image.write(d:at("folder/" .. class .. "/1.png"), core.tensor(rows, { dtype = "u8" })))
                for i = 1, 40 do rows[i] = rows[40 - i] or rows[i] end
            end
            local data = assert(core.dataset.open("folder:" .. d:at "folder",
                { resolution = 32, channels = run.config.model.channels }))
            local a = run.D:attention { image = { d:at "folder/a/1.png", d:at "folder/b/1.png" }, class = { 1, 2 } }
            assert.equal("D.attention16", a.name)
            local images = data:batch { 1, 2 }
            same_bytes(images, a.images)
            other_bytes(images:rows(1, 1), images:rows(2, 1))
            local floats = images:totable()
            for _, image in ipairs(floats) do
                for _, row in ipairs(image) do
                    for _, pixel in ipairs(row) do
                        for c, v in ipairs(pixel) do pixel[c] = v * 2 / 255 - 1 end
                    end
                end
            end
            local logits = run.D(core.tensor(floats), core.tensor({ 0, 1 }, { dtype = "i32" }))
            assert.is_true(helper.distance(a.output, logits) < 1e-5)
            for _, given in ipairs { images, core.tensor(floats) } do
                local again = run.D:attention { image = given, class = { 1, 2 } }
                assert.is_true(helper.distance(again.output, a.output) < 1e-5)
                assert.is_true(helper.distance(again:map { 3, 4, image = 2 }, a:map { 3, 4, image = 2 }) < 1e-5)
            end
            local single = run.D:attention { image = core.tensor(rows, { dtype = "u8" }), class = 2 }
            same_bytes(a.images:rows(2, 1), single.images)
            local map = plain.attend(module_input(run.D, single) , select(2, module_input(run.D, single))[1])
            assert.is_true(helper.distance(single:map({ 9, 2 }):reshape(-1), map[8 * 16 + 2]) < 1e-4)
        end)

        it("and refuses what makes no sense, at the line that asks", function()
            local a = run.G:attention {}
            local function refused(wanted, f)
                local ok, message = pcall(f)
                assert(not ok, "this was not refused: " .. wanted)
                assert.matches(wanted, message, 1, true)
                assert.matches("microscope_spec.lua:", message, 1, true)
            end
            for _, ask in ipairs { "map", "top", "entropy", "distance", "show" } do
                refused("outside of G.attention16's map, rows 1..16, columns 1..16", function() a[ask](a, { y = 17, x = 1 }) end)
                refused("outside", function() a[ask](a, { y = 1, x = 0 }) end)
                refused("needs a query point: y = row 1..16", function() a[ask](a, { y = 1 }) end)
                refused("needs a query point", function() a[ask](a, { y = 1.5, x = 2 }) end)
                refused("image = 2, but there are 1..1", function() a[ask](a, { y = 1, x = 2, image = 2 }) end)
                refused("no option 'column'", function() a[ask](a, { y = 1, column = 2 }) end)
            end
            refused("outside", function() a:sheet { queries = { { 1, 1 }, { 1, 99 } } } end)
            refused("no option 'file_name'; did you mean 'file'?", function() a:sheet { file_name = "x" } end)
            local name = run.class_names[2]
            refused(("there is no '%s'; did you mean '%s'"):format(name .. "s", name), function()
                run.G:attention { class = name .. "s" }
            end)
            refused("the run has " .. table.concat(run.class_names, ", "), function() run.G:attention { class = "spoon" } end)
            refused("class: 9 is outside of 1..8", function() run.G:attention { class = 9 } end)
            refused("2 classes for 3 inputs", function() run.G:attention { class = { 1, 2 }, count = 3 } end)
            refused("z is f32 {128} or {n, 128}, not f32 {3}", function() run.G:attention { z = core.zeros(3) } end)
            refused("seed and count are for z that is drawn", function() run.G:attention { z = core.zeros(128), seed = 1 } end)
            refused("seed is a whole number", function() run.G:attention { seed = -1 } end)
            refused("G has no attention at 32; it has feat8, feat16", function() run.G:attention { at = 32 } end)
            refused("G:attention: no option 'image'", function() run.G:attention { image = "x.png" } end)
            refused("D:attention: no option 'z'", function() run.D:attention { z = core.zeros(128) } end)
            refused("D looks at pictures", function() run.D:attention {} end)
            refused("not f32 {1, 2, 2, 3}", function() run.D:attention { image = core.zeros { 1, 2, 2, 3 } } end)
            local none, message = run.D:attention { image = d:at "none.png" }
            assert.is_nil(none)
            assert.matches("none.png: cannot open", message, 1, true)
            none, message = a:rollout { from = 7 }
            assert.is_nil(none)
            assert.matches("no checkpoint from step 7 to the last; there are 2, 4, 6", message, 1, true)
            refused("a:compare draws a knock-out", function() a:compare() end)
            local without = sagan.models.generator(require("sagan.config").with_data(
                sagan.config.defaults(), { classes = 2, channels = 1 }).model)
            without.attention = {}
            refused("G has no attention; nothing to look at", function()
                sagan.microscope.open { net = without, letter = "G", config = run.config, class_names = {} }
            end)
        end)
    end)

    it("follows a point over the checkpoints, for both networks", function()
        local rollout = assert(run.G:attention({ at = 8, class = 2 }):rollout())
        assert.equal(3, #rollout)
        for i, a in ipairs(rollout) do
            local alone = run:net("G", { step = 2 * i }):attention { at = 8, class = 2 }
            assert.equal(2 * i, a.view.step)
            same_bytes(alone.output, a.output)
            same_bytes(alone:map({ 3, 3 }), a:map({ 3, 3 }))
            assert.equal(alone.gamma, a.gamma)
            assert.matches(("\n%10d  %8.4f"):format(2 * i, a.gamma), tostring(rollout), 1, true)
        end
        assert.equal(1, #assert(rollout[3]:rollout { from = 3, to = 5 }))
        assert.same({ 2 * 100 + 44, 3 * 100 + 16, 3 }, rollout:show({ 3, 3 }).shape)
        local raw = assert(run:net("G", { raw = true }):attention({ at = 8 }):rollout { to = 2 })
        assert.equal("raw", raw[1].view.weights)
        local of_d = assert(run.D:attention({ image = rollout[1].images }):rollout())
        assert.equal(3, #of_d)
        same_bytes(rollout[1].images, of_d[3].images)
        other_bytes(of_d[1].output, of_d[3].output)
    end)

    it("draws: sizes, marks, files, the same each time", function()
        local a = run.G:attention { class = { 1, 2, 3 } }
        local shown = assert(a:show { y = 4, x = 13, image = 2, size = 160, file = d:at "show.png" })
        same_bytes(shown, assert(core.image.read(d:at "show.png")))
        same_bytes(shown, a:show({ y = 4, x = 13, image = 2, size = 160 }))
        assert.same({ 160 + 48, 3 }, { shown:size(1), shown:size(3) })
        local function at(picture, y, x) return { picture:get(y, x, 1), picture:get(y, x, 2), picture:get(y, x, 3) } end
        for _, left in ipairs { 8, 160 + 16 } do -- the middle of row 4, column 13 in both panels
            assert.same({ 230, 60, 60 }, at(shown, 20 + 35, left - 1 + 125))
        end
        other_bytes(shown, a:show({ y = 4, x = 13, image = 2, size = 160, top = 0 }))
        local sheet = a:sheet()
        assert.equal(3 * 100 + 24 + 8, sheet:size(1))
        local wide = a:sheet { queries = { { 1, 1 }, { y = 16, x = 16 } }, size = 64 }
        assert.equal(3 * 68 + 24 + 8, wide:size(1))
        assert.equal(6 * 100 - 3 * 68, sheet:size(2) - wide:size(2))
        local none, message = a:sheet { file = d:at "nowhere/x.png" }
        assert.is_nil(none)
        assert.matches("nowhere/x.png", message, 1, true)
    end)

    it("says in words what it sees", function()
        local a = run.G:attention { class = 2 }
        local text = tostring(a)
        for _, part in ipairs { "G.attention16 at step 6 (EMA): 16x16, N = 256 positions, slides form",
            ("gamma %.4f"):format(a.gamma), ("entropy %.3f nats of the uniform map's 5.545"):format((a:entropy())),
            ("mean distance %.1f of 32 pixels"):format(a:distance()), "1 input: " .. run.class_names[2] } do
            assert.matches(part, text, 1, true)
        end
        local module = run.G.net.attention[16]
        assert.equal(module.gamma:item(), a.gamma)
        assert.matches("G.attention8 at step 6", tostring(run.G:attention { at = 8 }), 1, true)
    end)

    it("logs in training what plain loops find in the map", function()
        local rows = d:log "runs/tiny/seed-5"
        local row, z = rows[#rows], pictures.noise(4, 128, 5)
        assert.equal(6, row.step)
        local g = run:net("G", { raw = true }):attention { z = z, class = { 1, 3, 5, 7 } }
        local small = g.view:attention { z = z, class = { 1, 3, 5, 7 }, at = 8 }
        local on_fakes = run.D:attention { image = g.output, class = { 1, 3, 5, 7 } }
        for name, a in pairs { ["G.feat16"] = g, ["G.feat8"] = small, ["D.feat16"] = on_fakes } do
            local module, x = module_input(a.view, a)
            local entropy, distance, o_all, x_all = 0, 0, {}, {}
            for image = 1, 4 do
                local map, o, positions = plain.attend(module, x[image])
                local e, far = plain.statistics(map, a.size)
                entropy, distance = entropy + e / 4, distance + far / 4
                for i = 1, #o do
                    o_all[#o_all + 1], x_all[#x_all + 1] = o[i], positions[i]
                end
            end
            local share = math.abs(module.gamma:item()) * plain.length(o_all) / plain.length(x_all)
            assert.is_true(share > 0)
            for field, want in pairs { entropy = entropy, distance = distance * 32 / a.size, share = share } do
                local got = row[("attention/%s.%s"):format(name, field)]
                assert.is_true(math.abs(got - want) < 1e-4 * math.abs(want), ("%s %s: %g, %g"):format(name, field, got, want))
            end
            assert.is_true(math.abs(a.share - share) < 1e-4 * share)
        end
    end)

    it("does not touch a run that it measures", function()
        d:succeeds("tiny.lua --runs blind log.attention=false " .. WORDS)
        for _, name in ipairs(d:list "runs/tiny/seed-5/checkpoints") do
            assert.equal("", d:differing("runs/tiny/seed-5/checkpoints/" .. name, "blind/tiny/seed-5/checkpoints/" .. name))
        end
        local seeing, blind = d:log "runs/tiny/seed-5", d:log "blind/tiny/seed-5"
        for i, row in ipairs(seeing) do
            for name, value in pairs(row) do
                if name:find("^attention/") then
                    assert.is_nil(blind[i][name])
                elseif name ~= "images_per_second" then
                    assert.equal(value, blind[i][name])
                end
            end
        end
    end)

    it("has changed nothing in the run's folder", function() assert.equal(before, d:snapshot "runs/tiny") end)
end)
