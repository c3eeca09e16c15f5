--- Data sets from Lua: fields, batches, the loader, packs, and messages for what is wrong.
local core = require "sagan.core"
local helper = require "helper"
local dataset = core.dataset

local function open(spec, options) return assert(dataset.open(spec, options)) end

describe("core.dataset", function()
    setup(helper.start)
    teardown(function()
        collectgarbage()
        helper.finish()
    end)

    it("describes what was opened", function()
        local ds = open("quadrupeds:50", { resolution = 16, channels = 3 })
        assert.equal(50, ds.count)
        assert.equal(16, ds.height)
        assert.equal(16, ds.width)
        assert.equal(3, ds.channels)
        assert.equal(8, ds.classes)
        assert.equal("horse", ds.class_names[1])
        assert.equal(8, #ds.class_names)
        assert.equal("quadrupeds", ds.name)
        assert.equal("quadrupeds:50", ds.spec)
        assert.equal("train", ds.split)
        assert.equal(0, ds.skipped)
        assert.is_nil(ds.nonsense)
        assert.is_nil(ds:check())
        assert.equal("dataset quadrupeds (train): 50 images 16x16x3, 8 classes", tostring(ds))
        local sum, histogram = 0, ds:histogram()
        for c = 1, 8 do sum = sum + histogram[c] end
        assert.equal(50, sum)
        assert.equal(4, ds:legs(1))
        assert.matches("^%x+$", ds:hash())
        assert.equal(32, #ds:hash())
        ds:close()
        assert.error_matches(function() return ds.count end, "closed")
        assert.equal("dataset (closed)", tostring(ds))
    end)

    it("gives images and labels", function()
        local ds <close> = open("quadrupeds:20", { resolution = 12, channels = 1 })
        local image, label = ds:get(7)
        assert.same({ 12, 12, 1 }, image.shape)
        assert.equal("u8", image.dtype)
        assert.equal(label, ds:label(7))
        local images, labels = ds:batch { 3, 7, 7 }
        assert.same({ 3, 12, 12, 1 }, images.shape)
        assert.equal("i32", labels.dtype)
        assert.same({ ds:label(3), label, label }, labels:totable())
        assert.equal(image:bytes(), images:bytes():sub(145, 288))
        assert.equal(image:bytes(), images:bytes():sub(289))
        assert.error_matches(function() ds:get(0) end, "image 0 of 20")
        assert.error_matches(function() ds:get(21) end, "image 21 of 20")
        assert.error_matches(function() ds:batch {} end, "empty")
        assert.error_matches(function() ds:batch { "x" } end, "image number 1 is a string")
        assert.error_matches(function() ds:batch { 1, 21 } end, "image 21 of 20")
    end)

    it("says what is wrong with a spec", function()
        local ds, message, code = dataset.open("nowhere")
        assert.is_nil(ds)
        assert.matches("nowhere", message)
        assert.matches("quadrupeds", message)
        assert.equal("io", code)
        assert.is_nil((dataset.open("folder:/no/such/place")))
        assert.is_nil((dataset.open("quadrupeds", { split = "val" })))
        assert.error_matches(function() dataset.open("quadrupeds", { resolutoin = 3 }) end, "resolutoin")
        assert.error_matches(function() dataset.open("quadrupeds", { channels = 2 }) end, "channels")
        assert.error_matches(function() dataset.open() end, "string expected")
    end)

    it("passes errors of a progress function on", function()
        local path = os.tmpname()
        assert.error_matches(function()
            dataset.pack("quadrupeds:300", path, { resolution = 4, progress = function() error("enough") end })
        end, "enough")
        local count, message = dataset.pack("quadrupeds:300", path, { resolution = 4, progress = function() return false end })
        assert.is_nil(count)
        assert.matches("stopped", message)
        os.remove(path)
    end)

    it("packs and opens packs", function()
        local path, calls = os.tmpname(), 0
        local count = assert(dataset.pack("quadrupeds:30", path, { resolution = 8, progress = function(done, total)
            calls = calls + 1
            assert(done <= total and total == 30)
        end }))
        assert.equal(30, count)
        assert.is_true(calls > 0)
        local ds <close> = open("quadrupeds:30", { resolution = 8 })
        local pack <close> = open("pack:" .. path)
        assert.equal(ds:hash(), pack:hash())
        assert.same(ds.class_names, pack.class_names)
        assert.equal("quadrupeds", pack.name)
        assert.is_nil((dataset.open(path, { split = "test" })))
        assert.equal(30, dataset.pack(ds, path))
        assert.error_matches(function() dataset.pack(ds, path, { resolution = 4 }) end, "as it is")
        os.remove(path)
    end)

    describe("loader", function()
        it("depends on seed and step only", function()
            local ds <close> = open("quadrupeds:25", { resolution = 8, channels = 1 })
            local images, labels = core.zeros({ 10, 8, 8, 1 }, { dtype = "u8" }), core.zeros({ 10 }, { dtype = "i32" })
            local function batch(loader, step)
                loader:fill(step, images, labels)
                return images:bytes() .. labels:bytes()
            end
            local first, seen = {}, {}
            do
                local loader <close> = ds:loader { batch = 10, seed = 4 }
                for step = 0, 9 do
                    first[step] = batch(loader, step)
                    for i = 0, 9 do -- every image once in each epoch of 25
                        local key = (step * 10 + i) // 25 .. images:bytes():sub(i * 64 + 1, i * 64 + 64)
                        seen[key] = (seen[key] or 0) + 1
                    end
                end
            end
            for _, n in pairs(seen) do assert.equal(1, n) end
            local again <close> = ds:loader { batch = 10, seed = 4, slots = 5, workers = 3 }
            for _, step in ipairs { 7, 8, 2, 9, 0, 1 } do assert.equal(first[step], batch(again, step)) end
            local other <close> = ds:loader { batch = 10, seed = 5 }
            assert.not_equal(first[0], batch(other, 0))
        end)

        it("outlives its data set and can be dropped at any time", function()
            helper.no_leaks(function()
                local ds = open("quadrupeds:25", { resolution = 8 })
                local loader = ds:loader { batch = 4 }
                ds:close()
                local images = core.zeros({ 4, 8, 8, 3 }, { dtype = "u8" })
                loader:fill(3, images)
                images:release()
                loader:close()
                loader:close()
                open("quadrupeds:9"):loader { batch = 2 } -- left to the collector
            end)
        end)

        it("checks what it is given", function()
            local ds <close> = open("quadrupeds:25", { resolution = 8 })
            assert.error_matches(function() ds:loader {} end, "batch")
            assert.error_matches(function() ds:loader { batch = 2, slot = 3 } end, "slot")
            assert.error_matches(function() ds:loader { batch = 2, slots = 1 } end, "slots")
            local loader <close> = ds:loader { batch = 4 }
            local images = core.zeros({ 4, 8, 8, 3 }, { dtype = "u8" })
            local labels = core.zeros({ 4 }, { dtype = "i32" })
            assert.error_matches(function() loader:fill(-1, images, labels) end, "from 0")
            assert.error_matches(function() loader:fill(0, labels, images) end, "u8")
            assert.error_matches(function() loader:fill(0, core.zeros({ 4, 8, 8, 1 }, { dtype = "u8" }), labels) end,
                "{4, 8, 8, 3}", 1, true)
            loader:close()
            assert.error_matches(function() loader:fill(0, images, labels) end, "closed")
        end)
    end)

    it("reads Fashion-MNIST", function()
        local ds = dataset.open("fashion-mnist", { resolution = 32, limit = 500 })
        if not ds then return pending("its files are not on this machine") end
        assert.equal(500, ds.count)
        assert.equal(1, ds.channels)
        assert.equal("Ankle boot", ds.class_names[10])
        assert.is_nil(ds:check())
        for _, n in ipairs(ds:histogram()) do assert.is_true(n > 20) end
        ds:close()
    end)
end)

describe("sagan-lua pack", function()
    local pack
    local function run(...)
        local errors, real = {}, io.stderr
        io.stderr = { write = function(_, ...) errors[#errors + 1] = table.concat({ ... }) end, flush = function() end } -- luacheck: ignore
        local ok, code = pcall(pack.main, { ... })
        io.stderr = real -- luacheck: ignore
        return ok and code or error(code), table.concat(errors)
    end
    setup(function()
        if core.system then pack = require "sagan.commands.pack" end
    end)

    it("writes a pack, and does not replace one unasked", function()
        if not pack then return pending("core.system is not in this build") end
        local path = os.tmpname()
        os.remove(path)
        assert.equal(0, (run("quadrupeds:20", "-o", path, "--resolution=8", "--quiet")))
        local ds <close> = open("pack:" .. path)
        assert.equal(20, ds.count)
        assert.equal(8, ds.width)
        local code, errors = run("quadrupeds:20", "-o", path, "-q")
        assert.equal(1, code)
        assert.matches("--force", errors, 1, true)
        assert.equal(0, (run("quadrupeds:10", "-o", path, "-q", "--force")))
        local smaller <close> = open("pack:" .. path)
        assert.equal(10, smaller.count)
        os.remove(path)
    end)

    it("says what is wrong with its arguments", function()
        if not pack then return pending("core.system is not in this build") end
        for _, case in ipairs {
            { "SOURCE" }, { "-o", "quadrupeds" }, { "needs a value", "quadrupeds", "-o" },
            { "--resolution", "quadrupeds", "-o", "x", "--resoluton", "3" }, { "'0'", "quadrupeds", "-o", "x", "--limit", "0" },
            { "two sources", "a", "b", "-o", "x" }, { "train or test", "a", "-o", "x", "--split", "val" },
        } do
            local code, errors = run(table.unpack(case, 2))
            assert.equal(2, code)
            assert.matches(case[1], errors, 1, true)
        end
        local code, errors = run("folder:/no/such/place", "-o", "/tmp/never", "-q")
        assert.equal(1, code)
        assert.matches("/no/such/place", errors, 1, true)
    end)
end)
