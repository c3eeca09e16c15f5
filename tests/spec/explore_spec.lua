-- Interpolation, truncation, neighbours, spectra, the animation of a training: their numbers against what they should be, and
-- the commands that draw them.

local core = require "sagan.core"
local ops = core.ops
local sagan = require "sagan"
local explore = require "sagan.explore"
local driver = require "driver"
local helper = require "helper"

local d = driver.new "explore"
local message_of = helper.message_of

local function row(images, i) return images:rows(i, 1):bytes() end

describe("exploring", function()
    local run
    setup(function()
        d:experiment("run", [[train = { steps = 4, batch = 4, ema_start = 2 }, log = { every = 2, tensorboard = false },
            sample = { every = 1, rows = 2, columns = 2, attention = false }, checkpoint = { every = 2 }]])
        d:succeeds("run.lua")
        run = assert(sagan.open(d:at "runs/run"))
    end)
    teardown(function()
        run = nil
        d:remove()
    end)

    it("moves z along a great circle", function()
        local rows = explore.spherical({ 2, 0 }, { 0, 4 }, 3)
        assert.same({ 2, 0 }, rows[1])
        assert.same({ 0, 4 }, rows[3])
        assert.near(3 * math.sqrt(0.5), rows[2][1], 1e-12)
        assert.near(3 * math.sqrt(0.5), rows[2][2], 1e-12)
        assert.same({ { 1, 2 }, { 1.5, 3 }, { 2, 4 } }, explore.spherical({ 1, 2 }, { 2, 4 }, 3)) -- one direction
    end)

    it("from one class to another: mixed tables, whose ends are the classes themselves", function()
        local G = run.G
        local strip = assert(G:interpolate { from = { seed = 3, class = 2 }, to = { class = 5 }, steps = 5,
            file = d:at "strip.png" })
        assert.same({ 5, 32, 32, 3 }, strip.images.shape)
        assert.same({ 0.25, 0.75 }, { strip.mix:get(4, 2), strip.mix:get(4, 5) })
        local labels = core.tensor({ 1, 1, 4, 4, 4 }, { dtype = "i32" })
        local plain = core.no_grad(ops.float_to_pixels, G(strip.z, labels))
        assert.equal(row(plain, 1), row(strip.images, 1))
        assert.equal(row(plain, 5), row(strip.images, 5))
        assert.not_equal(row(plain, 2), row(strip.images, 2))
        -- half way is what a network has whose tables' row is the mean of the two
        local twin = G.net:clone { grad = false }
        core.no_grad(function()
            for _, module in twin:modules() do
                if module.type == "ConditionalBatchNorm2d" then
                    for _, name in ipairs { "gain", "bias" } do
                        local t = module[name]
                        t:rows(1, 1):copy_(t:rows(2, 1):add(t:rows(5, 1)):scale(0.5))
                    end
                end
            end
        end)
        local mean = core.no_grad(twin, strip.z, core.tensor({ 0, 0, 0, 0, 0 }, { dtype = "i32" }))
        local mixed = G(strip.z, strip.mix)
        assert.is_true(helper.distance(mixed:rows(3, 1), mean:rows(3, 1)) < 1e-5)
        assert.is_true(helper.distance(mixed:rows(2, 1), mean:rows(2, 1)) > 1e-5)
        local picture = assert(core.image.read(d:at "strip.png"))
        assert.equal(strip.picture:bytes(), core.image.convert(picture, 3):bytes())
    end)

    it("from one z to another, and with what is left out as it was", function()
        local strip = assert(run.G:interpolate { from = { seed = 1, class = 4 }, to = { seed = 2 }, steps = 3 })
        local pictures = require "sagan.pictures"
        assert.equal(pictures.noise(1, 128, 1):bytes(), strip.z:rows(1, 1):bytes())
        assert.equal(pictures.noise(1, 128, 2):bytes(), strip.z:rows(3, 1):bytes())
        assert.same({ 0, 0, 0, 1, 0, 0, 0, 0 }, strip.mix:totable()[2])
        assert.matches("did you mean", message_of(run.G.interpolate, run.G, { step = 3 }))
        assert.matches("there is no 'Cat'", message_of(run.G.interpolate, run.G, { from = { class = "Cat" } }))
        assert.matches("is G's", message_of(run.D.interpolate, run.D))
    end)

    it("sweeps the cut of z: the farther, the more samples differ; columns keep their z", function()
        local sweep = assert(run.G:truncation_sweep { values = { 0.1, 1, math.huge }, class = 3, columns = 6 })
        assert.same({ 18, 32, 32, 3 }, sweep.images.shape)
        assert.is_true(sweep.spread[1] < sweep.spread[2] and sweep.spread[2] < sweep.spread[3])
        assert.is_true(sweep.spread[1] > 0)
        local z = require "sagan.pictures".noise(6, 128, run.config.seed)
        local plain = core.no_grad(ops.float_to_pixels, run.G(z, core.tensor({ 2, 2, 2, 2, 2, 2 }, { dtype = "i32" })))
        assert.equal(plain:bytes(), sweep.images:rows(13, 6):bytes())
        assert.matches("numbers above 0", message_of(run.G.truncation_sweep, run.G, { values = { 0 } }))
    end)

    it("finds the nearest training images: each one of them finds itself", function()
        local lines = {}
        local data = assert(core.dataset.open("quadrupeds:64", { resolution = 32, split = "train" }))
        local images = (data:batch { 7, 30 })
        local function say(text) lines[#lines + 1] = text end
        -- few steps: the network's quality is not what is tested
        local classifier = require "sagan.classifier"
        local get, folder = classifier.get, classifier.cache_folder
        classifier.cache_folder = function() return d:at "cache" end
        classifier.get = function(o)
            o.steps = 2
            return get(o)
        end
        local near = assert(run.G:neighbours { images = images, count = 3, say = say, file = d:at "near.png" })
        local again = assert(run.G:neighbours { images = images, count = 3, say = say })
        local sampled = assert(run.G:neighbours { class = { 1, 2, 3 }, samples = 3, seed = 2, count = 64, say = say })
        classifier.get, classifier.cache_folder = get, folder
        assert.equal(7, near[1][1].index)
        assert.equal(30, near[2][1].index)
        assert.near(0, near[1][1].distance, 1e-2)
        assert.is_true(near[1][2].distance > 0 and near[1][3].distance >= near[1][2].distance)
        local _, label = data:get(7)
        assert.equal(data.class_names[label + 1], near[1][1].class)
        for i = 1, 3 do assert.equal(near[1][i].index, again[1][i].index) end
        assert.equal(64, #sampled[3])
        local seen = {}
        for k, n in ipairs(sampled[3]) do
            assert.is_nil(seen[n.index])
            seen[n.index] = true
            assert.is_true(k == 1 or n.distance >= sampled[3][k - 1].distance)
        end
        local kept = 0
        for _, name in ipairs(d:list "cache") do kept = kept + (name:match("^training%-") and 1 or 0) end
        assert.equal(1, kept)
        data:close()
    end)

    it("has all singular values: of known matrices, and of a network what their squares must sum to", function()
        local values = assert(core.metrics.singular_values(core.tensor { { 3, 0, 0 }, { 0, -4, 0 } }))
        assert.near(4, values[1], 1e-12)
        assert.near(3, values[2], 1e-12)
        -- 1 1; 1 0: the golden ratio and its inverse
        values = assert(core.metrics.singular_values(core.tensor { { 1, 1 }, { 1, 0 }, { 0, 0 } }))
        assert.near((1 + math.sqrt(5)) / 2, values[1], 1e-12)
        assert.near((math.sqrt(5) - 1) / 2, values[2], 1e-12)
        local none, message = core.metrics.singular_values(core.tensor { { 0 / 0, 1 } })
        assert.is_nil(none)
        assert.matches("row 1, column 1", message)
        local s = assert(run.D:spectrum { file = d:at "spectrum.png" })
        for _, layer in ipairs(s) do
            local sum, weight = 0, run.D.net
            for part in layer.path:gmatch("[^.]+") do weight = weight[part] end
            for _, value in ipairs(layer.values) do sum = sum + value ^ 2 end
            assert.near(core.no_grad(ops.norm, weight):item(), math.sqrt(sum), 1e-4)
            assert.equal(math.min(layer.rows, layer.columns), #layer.values)
            assert.near(sum / layer.values[1] ^ 2, layer.stable_rank, 1e-9)
            -- a power iteration comes from below
            if layer.sigma then assert.is_true(layer.sigma <= layer.values[1] * (1 + 1e-4)) end
        end
        assert.equal(s["linear.weight"], s[#s - 1])
        assert.matches("linear.weight%s+1 x 8%s+%S+%s+%S+%s+1%s+%S+", tostring(s))
        assert.equal(3, assert(core.image.read(d:at "spectrum.png")):size(3))
    end)

    it("makes an animation of the sheets that the run drew", function()
        local text = d:succeeds "sample runs/run --grid progress"
        assert.matches("progress.gif: 4 sheets of runs/run/seed-5", text, 1, true)
        local bytes = d:read "progress.gif"
        local sheet = assert(core.image.read(d:at "runs/run/seed-5/samples/ema-00000004.png"))
        assert.equal("GIF89a", bytes:sub(1, 6))
        local width, height = ("<I2I2"):unpack(bytes, 7)
        assert.same({ sheet:size(2), sheet:size(1) + 12 }, { width, height })
        local frames = 0
        for _ in bytes:gmatch("\x21\xf9\x04\x04\x14\0\0\0\x2c\0\0\0\0") do frames = frames + 1 end
        assert.equal(4 + 7, frames) -- the last one stays for a while
        assert.equal(0x3b, bytes:byte(-1))
        assert.matches("ends in .gif", message_of(core.image.write_gif, d:at "x.png", core.image.blank(2, 2, 3)))
        assert.matches("no sheets", select(2, require "sagan.film".write(d:at "runs", d:at "x.gif")))
    end)

    it("is drawn by sagan-lua sample --grid", function()
        local function size_of(words)
            d:succeeds("sample runs/run -o out.png " .. words)
            local picture = assert(core.image.read(d:at "out.png"))
            return picture:size(1), picture:size(2)
        end
        local high, wide = size_of "--grid interpolate --columns 4 --rows 3"
        local _, wider = size_of "--grid interpolate --columns 5 --rows 3"
        assert.equal(66, wider - wide)
        assert.equal(high, (size_of "--grid interpolate --columns 4 --rows 3 --class 2"))
        assert.equal(2 * high - 2, (size_of "--grid truncation --columns 2 --class sheep")) -- six rows
        d:refuses("sample runs/run --grid truncation --class goat", { "there is no 'goat'" })
        d:refuses("sample runs/run --grid progres", { "there is no 'progres'", "did you mean progress?" })
        d:refuses("sample runs/run --grid progress -o a.png", { "does not end in .gif" })
        d:refuses("sample runs/run --class 2", { "--class goes with" })
        assert.matches("--grid KIND", d:succeeds "sample --help", 1, true)
    end)
end)
