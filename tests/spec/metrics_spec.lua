-- sagan.metrics against other implementations (tests/golden/make_metrics.py wrote what they say of the same features), and
-- what it does with numbers that no score can be made of.
local sagan = require "sagan"
local metrics = require "sagan.metrics"
local helper = require "helper"
local ops, system = sagan.ops, sagan.system

local golden, meta

--- The golden number of that name, within 1e-6 relative; where it is 0, exactly.
local function agrees(value, key)
    local want = assert(tonumber(meta[key]), key)
    local difference = math.abs(value - want)
    assert(difference <= 1e-6 * math.abs(want), ("%s: %.17g, got %.17g"):format(key, want, value))
end

local function moments_of(...)
    local m = metrics.moments()
    for _, features in ipairs { ... } do assert(m:add(features)) end
    return m
end

--- Normal numbers {n, d}.
local function noise(n, d, seed)
    local x, clock = sagan.empty { n, d }, sagan.zeros({ 2 }, { dtype = "i32" })
    ops.normal(x, clock, seed, 16)
    clock:release()
    return x
end

--- f() must give nil and a message with these words.
local function refuses(words, value, message, code)
    assert(value == nil, ("%s where '%s' was to be refused"):format(tostring(value), words))
    assert(message:find(words, 1, true), ("'%s' is missing in: %s"):format(words, message))
    assert.is_string(code)
end

describe("metrics", function()
    setup(function()
        golden, meta = assert(sagan.safetensors.load((os.getenv "SAGAN_SOURCE" or ".") .. "/tests/golden/metrics.safetensors"))
    end)
    teardown(function()
        for _, t in pairs(golden) do t:release() end
    end)

    describe("like pytorch-fid, torch-fidelity and prdc:", function()
        for _, name in ipairs { "plain", "rectified", "shifted", "low_rank", "few", "collapsed" } do
            it("Frechet distance of the features " .. name, function()
                local distance = assert(metrics.frechet(moments_of(golden[name .. ".x"]), moments_of(golden[name .. ".y"])))
                for _, key in ipairs { "exact", "pytorch_fid", "torch_fidelity" } do
                    agrees(distance, ("%s.frechet.%s"):format(name, key))
                end
            end)
            it("neighbours of the features " .. name, function()
                local x, y = golden[name .. ".x"], golden[name .. ".y"]
                for _, k in ipairs { 3, 5 } do
                    local scores = assert(metrics.prdc(x, y, { k = k }))
                    for _, key in ipairs { "precision", "recall", "density", "coverage" } do
                        agrees(scores[key], ("%s.prdc.%d.%s"):format(name, k, key))
                    end
                end
                local closed = assert(metrics.prdc(x, y, { k = 3, inclusive = true }))
                -- torch-fidelity averages in f32
                assert.near(tonumber(meta[name .. ".prc.precision"]), closed.precision, 1e-7)
                assert.near(tonumber(meta[name .. ".prc.recall"]), closed.recall, 1e-7)
            end)
        end
        for _, name in ipairs { "plain", "low_rank" } do
            it("KID of the features " .. name, function()
                local x, y = golden[name .. ".x"], golden[name .. ".y"]
                local all = { size = x:size(1), subsets = 2 }
                local mean, deviation, values = metrics.kid(x, y, all)
                agrees(mean, name .. ".kid.all")
                agrees(values[2], name .. ".kid.all")
                assert.near(0, deviation, 1e-9 * mean)
                all.degree, all.gamma, all.coef = 2, 0.05, 0.5
                agrees(assert(metrics.kid(x, y, all)), name .. ".kid.other")
            end)
        end
        it("KID over subsets, which are drawn differently", function()
            local mean, deviation, values = metrics.kid(golden["plain.x"], golden["plain.y"], { subsets = 100, size = 100 })
            local want, spread = tonumber(meta["plain.kid.mean"]), tonumber(meta["plain.kid.std"])
            assert.equal(100, #values)
            assert.near(want, mean, 4 * spread * math.sqrt(2 / 100))
            assert.near(spread, deviation, 4 * spread / math.sqrt(100))
        end)
        it("inception score", function()
            local order = golden.order:totable()
            for i, row in ipairs(order) do order[i] = row + 1 end
            for _, splits in ipairs { 1, 10 } do
                local given = { ordered = { splits = splits }, shuffled = { splits = splits, order = order } }
                for kind, options in pairs(given) do
                    local mean, deviation, scores = metrics.inception_score(golden.logits, options)
                    local key = ("isc.%d.%s."):format(splits, kind)
                    agrees(mean, key .. "mean")
                    agrees(deviation, key .. "std")
                    assert.equal(splits, #scores)
                end
            end
        end)
    end)

    describe("moments", function()
        it("do not depend on how the rows were cut, and merge", function()
            local x, y = golden["shifted.x"], golden["plain.y"]
            local whole = moments_of(x)
            local cut = moments_of(x:rows(1, 1), x:rows(2, 77), x:rows(79, 122))
            local merged = moments_of(x:rows(1, 30))
            assert(merged:merge(moments_of(x:rows(31, 170))))
            assert(merged:merge(metrics.moments()))
            assert(cut:count() == 200 and merged:count() == 200 and merged:width() == 64)
            local other = moments_of(y)
            local want = metrics.frechet(whole, other)
            assert.near(want, metrics.frechet(cut, other), 1e-12 * want)
            assert.near(want, metrics.frechet(merged, other), 1e-12 * want)
            assert.near(0, metrics.frechet(whole, merged), 1e-9)
        end)
        it("are the same after a file", function()
            local path = ("%s/sagan-moments-%d.safetensors"):format(os.getenv "TMPDIR" or "/tmp", system.getpid())
            local m = moments_of(golden["plain.x"])
            assert(metrics.save(m, path, { network = "none" }))
            local loaded, metadata = metrics.load(path)
            assert(loaded, metadata)
            assert.equal("none", metadata.network)
            assert.equal(400, loaded:count())
            local other = moments_of(golden["plain.y"])
            assert.equal((metrics.frechet(m, other)), (metrics.frechet(loaded, other)))
            local tensors = assert(sagan.safetensors.load(path))
            assert(sagan.safetensors.save(path, tensors, { format = "sagan.moments.1", count = "0" }))
            refuses("of 0 rows", metrics.load(path))
            tensors.mean:fill_(255) -- NaN
            assert(sagan.safetensors.save(path, tensors, { format = "sagan.moments.1", count = "400" }))
            refuses("feature 1 has no mean", metrics.load(path))
            assert(sagan.safetensors.save(path, { x = golden.logits }))
            refuses("is no file of moments", metrics.load(path))
            for _, t in pairs(tensors) do t:release() end
            system.remove(path)
            refuses(path, metrics.load(path))
            refuses("nothing was added", metrics.save(metrics.moments(), path))
        end)
    end)

    it("give the same bits for any number of threads", function()
        local before = sagan.threads()
        local function all()
            local x, y = golden["plain.x"], golden["plain.y"]
            local prdc = assert(metrics.prdc(x, y))
            return { assert(metrics.frechet(moments_of(x), moments_of(y))),
                assert(metrics.kid(x, y, { subsets = 3, size = 300 })),
                (metrics.inception_score(golden.logits)), prdc.density, prdc.recall }
        end
        sagan.threads(1)
        local want = all()
        for n = 2, 3 do
            sagan.threads(n)
            assert.same(want, all())
        end
        sagan.threads(before)
    end)

    it("leave nothing behind", function()
        helper.no_leaks(function()
            local x, y <close> = noise(40, 8, 1), metrics.moments()
            assert(y:add(x))
            metrics.frechet(y, y)
            metrics.kid(x, x, { size = 10, subsets = 2 })
            metrics.inception_score(x)
            metrics.prdc(x, x)
            metrics.prdc(x, noise(3, 8, 2))
            metrics.moments():add(x)
        end)
    end)

    it("survive the failure of every allocation", function()
        local x = noise(40, 8, 1)
        helper.no_leaks(function()
            for _, score in ipairs {
                function() return metrics.kid(x, x, { size = 10, subsets = 1 }) end,
                function() return metrics.inception_score(x) end,
                function()
                    local scores, message = metrics.prdc(x, x)
                    return scores and scores.density, message
                end,
                function()
                    local m <close> = metrics.moments()
                    local ok, message = m:add(x)
                    if not ok then return nil, message end
                    return metrics.frechet(m, m)
                end,
            } do
                local want = assert(score())
                for n = 1, 40 do
                    sagan.fail_allocation(n) -- once: the second try, after a collection, succeeds
                    local ok, value = pcall(score)
                    sagan.fail_allocation(0)
                    assert.is_true(ok)
                    assert.equal(want, value)
                end
            end
        end)
    end)

    describe("intra-class Frechet distance", function()
        local function by_class(seed, classes)
            local list = {}
            for i = 1, classes do list[i] = moments_of(noise(20, 4, seed + i) + i) end
            return list
        end
        it("is the mean over classes, from lists or one class at a time", function()
            local real, fake = by_class(1, 3), by_class(11, 3)
            local mean, distances = metrics.intra_frechet(real, fake)
            assert.equal(3, #distances)
            local sum = 0
            for i = 1, 3 do
                assert.equal((metrics.frechet(real[i], fake[i])), distances[i])
                sum = sum + distances[i]
            end
            assert.near(sum / 3, mean, 1e-12)
            local asked = {}
            local again = metrics.intra_frechet(real, function(i)
                asked[#asked + 1] = i
                return moments_of(noise(20, 4, 11 + i) + i)
            end)
            assert.same({ 1, 2, 3 }, asked)
            assert.near(mean, again, 1e-12)
        end)
        it("names the class that is missing", function()
            local real, fake = by_class(1, 3), by_class(11, 2)
            refuses("no fake images of class 3 (dog)", metrics.intra_frechet(real, fake, { names = { "ape", "bee", "dog" } }))
            refuses("no real images of class 3", metrics.intra_frechet(fake, real))
            refuses("no real images of class 2", metrics.intra_frechet({ real[1], nil, real[3] }, real))
            fake[3] = metrics.moments()
            refuses("no fake images of class 3", metrics.intra_frechet(real, fake))
            assert(fake[3]:add(noise(1, 4, 1)))
            refuses("class 3: frechet: the second set has 1 image", metrics.intra_frechet(real, fake))
            refuses("no real images of class 2: disk full", metrics.intra_frechet(function(i)
                if i == 2 then return nil, "disk full", "io" end
                return real[i]
            end, fake))
            refuses("no classes", metrics.intra_frechet({}, {}))
            assert.error_matches(function() metrics.intra_frechet(print, print) end, "how many")
        end)
        it("warns of classes with few images", function()
            local few = { moments_of(noise(4, 4, 1)) }
            local _, _, warning = metrics.intra_frechet(few, few)
            assert.matches("^class 1: 4 and 4 images for 4 features", warning)
        end)
    end)

    describe("of what cannot be scored:", function()
        it("too few images", function()
            local one, three = moments_of(noise(1, 4, 1)), moments_of(noise(9, 4, 1))
            refuses("the first set has 1 image,", metrics.frechet(one, three))
            refuses("the second set has 0 images", metrics.frechet(three, metrics.moments()))
            refuses("5 images cannot make 10 splits", metrics.inception_score(noise(5, 4, 1)))
            refuses("cannot be drawn from 9 and 12", metrics.kid(noise(9, 4, 1), noise(12, 4, 2), { size = 10 }))
            refuses("k = 5 needs 6", metrics.prdc(noise(5, 4, 1), noise(9, 4, 1)))
        end)
        it("NaN and infinity, by row and column", function()
            local good, bad = noise(20, 4, 1), noise(20, 4, 1)
            bad:part(2 * 4 + 2, { 1 }):fill_(0 / 0)
            bad:part(15 * 4 + 1, { 1 }):fill_(math.huge)
            local words = "NaN in row 3, column 2"
            refuses(words, metrics.inception_score(bad))
            refuses("kid: y: " .. words, metrics.kid(good, bad, { size = 10 }))
            refuses("real features: " .. words, metrics.prdc(bad, good))
            refuses("fake features: infinity in row 13, column 1", metrics.prdc(good, bad:rows(4, 17)))
            local m, other = moments_of(good), moments_of(good)
            refuses(words, m:add(bad))
            -- a batch left out must not go unnoticed
            assert.equal(20, m:count())
            refuses(words, metrics.frechet(m, other))
            refuses(words, m:add(good))
            refuses(words, other:merge(m))
            refuses(words, metrics.save(m, "/nowhere/x.safetensors"))
        end)
        it("widths that differ", function()
            local x, y = noise(20, 4, 1), noise(20, 5, 1)
            local m = moments_of(x)
            refuses("rows of 5 features where the rows before had 4", m:add(y))
            refuses("rows of 5 features", m:merge(moments_of(y)))
            refuses("the first set has 4 features, the second 5", metrics.frechet(m, moments_of(y)))
            refuses("x has 4 features, y 5", metrics.kid(x, y, { size = 10 }))
            refuses("real has 4 features, fake 5", metrics.prdc(x, y))
            refuses("logits of 1 class", metrics.inception_score(noise(20, 1, 1)))
        end)
        it("wrong arguments, which raise", function()
            local x = noise(20, 4, 1)
            for _, case in ipairs {
                { "did you mean 'splits'", metrics.inception_score, x, { split = 3 } },
                { "0 splits", metrics.inception_score, x, { splits = 0 } },
                { "either order or shuffle", metrics.inception_score, x, { order = {}, shuffle = 1 } },
                { "an order of 2 rows for 20", metrics.inception_score, x, { order = { 1, 2 } } },
                { "did you mean 'subsets'", metrics.kid, x, x, { subset = 3 } },
                { "subsets is 0", metrics.kid, x, x, { subsets = 0 } },
                { "degree is 0", metrics.kid, x, x, { size = 10, degree = 0 } },
                { "k is 0", metrics.prdc, x, x, { k = 0 } },
                { "no option 'strict'", metrics.prdc, x, x, { strict = true } },
                { "f32 tensor expected", metrics.prdc, x, sagan.zeros({ 2, 2 }, { dtype = "u8" }) },
                { "rank 2", metrics.kid, x, sagan.zeros(3) },
                { "sagan.moments expected", metrics.frechet, x, x },
            } do
                local message = helper.message_of(table.unpack(case, 2))
                assert(message:find(case[1], 1, true), message)
            end
            local order = {}
            for i = 1, 20 do order[i] = i end
            order[7] = 3
            refuses("no permutation, see place 7", metrics.inception_score(x, { order = order }))
            local m = moments_of(x)
            m:close()
            assert.error_matches(function() m:add(x) end, "closed")
        end)
    end)

    describe("of what can be scored, if with a warning:", function()
        it("fewer images than features", function()
            local distance, warning = metrics.frechet(moments_of(golden["few.x"]), moments_of(golden["few.y"]))
            assert.is_true(distance > 0)
            assert.matches("^40 and 30 images for 64 features: .*too large", warning)
            local _, none = metrics.frechet(moments_of(golden["plain.x"]), moments_of(golden["plain.y"]))
            assert.is_nil(none)
        end)
        it("one image over and over", function()
            local x, y = golden["collapsed.x"], golden["collapsed.y"]
            local distance, warning = metrics.frechet(moments_of(x), moments_of(y))
            assert.is_true(distance > 0 and distance < math.huge)
            assert.matches("all images of the second set have the same features", warning)
            assert.equal(0, (metrics.frechet(moments_of(y), moments_of(y:rows(1, 10)))))
            local scores, note = metrics.prdc(x, y)
            assert.equal("50 fake images have balls of radius 0: images are repeated", note)
            assert.equal(50, scores.repeated_fake)
            -- a copy lies on the edge of a ball of radius 0: outside, or inside where the edge belongs to it
            assert.equal(0, metrics.prdc(y, y).precision)
            assert.equal(1, metrics.prdc(y, y, { inclusive = true }).precision)
            local kid = metrics.kid(x, y, { size = 50, subsets = 2 })
            assert.is_true(kid > 0 and kid < math.huge)
            assert.near(1, (metrics.inception_score(y)), 1e-12)
        end)
        it("copies of the real images", function()
            local x = golden["plain.x"]
            -- the k-th neighbour's distance is the radius to the last bit: never less than itself
            local scores = assert(metrics.prdc(x, x, { k = 3 }))
            assert.near(1, scores.density, 1e-12)
            local closed = assert(metrics.prdc(x, x, { k = 3, inclusive = true }))
            assert.near(4 / 3, closed.density, 1e-12)
        end)
    end)

    it("report progress, and stop where that raises", function()
        local last, whole = 0, nil
        local x = noise(300, 4, 1)
        metrics.prdc(x, x, { progress = function(done, total)
            assert(done > last and done <= total)
            last, whole = done, total
        end })
        assert.equal(whole, last)
        assert.error_matches(function() metrics.prdc(x, x, { progress = function() error("enough") end }) end, "enough")
        assert.error_matches(function()
            metrics.kid(x, x, { size = 10, progress = function(done) if done == 2 then error("enough") end end })
        end, "enough")
    end)

    it("are scores of 2048 features too", function()
        local x = noise(300, 2048, 1)
        local real, fake = moments_of(x), moments_of(x + 1)
        -- equal covariances and means 0 and 1: |mu1 - mu2|^2 = 2048, but for the roundings of x + 1
        assert.near(2048, (metrics.frechet(real, fake)), 1e-3)
        real:close()
        fake:close()
    end)
end)
