-- The classifier behind the -cnn scores: trained the same every time, kept, found again, and distrusted when its file is odd.
local core = require "sagan.core"
local system = core.system
local helper = require "helper"
local classifier = require "sagan.classifier"

local DATA <const>, COUNT <const>, STEPS <const> = "quadrupeds:400", 400, 40 -- steps: where accuracy is looked at

describe("classifier", function()
    local folder, lines, threads
    local function get(o)
        lines = {}
        local given = { data = DATA, resolution = 32, channels = 3, steps = 2, cache = folder .. "/cache",
            say = function(text) lines[#lines + 1] = text end }
        for key, value in pairs(o or {}) do given[key] = value end
        return classifier.get(given)
    end
    local function pictures(n)
        local set <close> = assert(core.dataset.open(DATA, { resolution = 32, channels = 3, split = "test" }))
        local list = {}
        for i = 1, n do list[i] = i end
        return (set:batch(list))
    end
    local function remove(path)
        local kind = system.stat(path)
        if kind and kind.type == "folder" then
            for _, name in ipairs(system.list(path)) do remove(path .. "/" .. name) end
        end
        if kind then assert(system.remove(path)) end
    end

    setup(function()
        helper.start()
        threads = core.threads()
        folder = os.tmpname()
        os.remove(folder)
        assert(system.mkdir(folder))
    end)
    teardown(function()
        core.threads(threads)
        remove(folder)
        helper.finish()
    end)

    it("learns the data set, says how well, and is found again", function()
        core.threads(2)
        local net = assert(get { steps = STEPS })
        assert.equal("cnn", net.name)
        assert.equal(128, net.feature_count)
        assert.equal(COUNT, net.tested)
        assert.is_true(net.accuracy > 0.5, ("accuracy %.3f of 8 classes"):format(net.accuracy))
        assert.truthy(lines[1]:find("^classifier quadrupeds 32x32: held%-out accuracy %d+%.%d %% %(400 images%), %d+ s, cached in "))
        assert.equal("file", system.stat(net.path).type)

        local again = assert(get { steps = STEPS })
        assert.equal(net.hash, again.hash)
        assert.equal(net.accuracy, again.accuracy)
        assert.equal(net.path, again.path)
        assert.equal(1, #lines)
        assert.truthy(lines[1]:find("(400 images), from " .. net.path, 1, true))
        local images <close> = pictures(7)
        local f, l = net:features(images)
        local g, m = again:features(images)
        assert.is_true(f:bytes() == g:bytes())
        assert.is_true(l:bytes() == m:bytes())
    end)

    it("has the same bits with another number of threads, and whatever a run chose for its convolutions", function()
        core.threads(1)
        core.winograd(true)
        local net = assert(get { cache = folder .. "/other" })
        assert.is_true(core.winograd())
        core.winograd(false)
        local kept = assert(get { fresh = true })
        assert.is_false(core.winograd())
        core.winograd(true)
        core.threads(2)
        assert.equal(kept.hash, net.hash)
        assert.is_true(assert(system.read(kept.path)) == assert(system.read(net.path)))
    end)

    it("gives each picture the same features in any batch and with any number of threads", function()
        local net = assert(get())
        local images <close> = pictures(9)
        core.threads(2)
        local f, l = net:features(images)
        assert.same({ 9, 128 }, f.shape)
        assert.same({ 9, 8 }, l.shape)
        local seen = {}
        core.threads(1)
        local g, m = net:features(images, { batch = 2, progress = function(done, total) seen[#seen + 1] = done .. "/" .. total end })
        assert.is_true(f:bytes() == g:bytes())
        assert.is_true(l:bytes() == m:bytes())
        assert.same({ "2/9", "4/9", "6/9", "8/9", "9/9" }, seen)
        local none, message = net:features(images, { progress = function() return false end })
        assert.is_nil(none)
        assert.equal("stopped on request", message)
        assert.is_false(f.requires_grad)
    end)

    it("trains anew where its file is cut off, changed, or another's", function()
        local net = assert(get())
        local hash, path = net.hash, net.path
        local bytes = assert(system.read(path))
        local function retrained(contents, reason)
            assert(system.write_atomic(path, contents))
            assert.equal(hash, assert(get()).hash)
            assert.equal(2, #lines)
            assert.truthy(lines[1]:find(reason, 1, true), lines[1])
            assert.truthy(lines[1]:find("; a new one is trained", 1, true))
            assert.is_true(bytes == assert(system.read(path)))
        end
        retrained(bytes:sub(1, #bytes // 2), "")
        retrained("", "")
        local changed = bytes:sub(1, -3) .. string.char(bytes:byte(-2) ~ 1) .. bytes:sub(-1)
        retrained(changed, "damaged: its numbers are not those that were written")
        retrained((bytes:gsub('"accuracy":"[%d.e-]+"', function(s) return s:gsub("%d", "7") end)), "does not say how accurate")
        retrained((bytes:gsub("sagan%-lua classifier 1", "sagan-lua classifier 0")), "its format is sagan-lua classifier 0")
        local other = folder .. "/other.safetensors"
        local t <close> = core.zeros(3)
        assert(core.safetensors.save(other, { t = t }))
        retrained(assert(system.read(other)), "lacks")
    end)

    it("is another one for other steps and trained again when asked", function()
        local net = assert(get())
        local short = assert(get { steps = 1 })
        assert.not_equal(net.path, short.path)
        assert.not_equal(net.hash, short.hash)
        assert.equal(short.hash, assert(get { steps = 1, fresh = true }).hash)
        assert.truthy(lines[1]:find("cached in", 1, true))
    end)

    it("serves without being kept where the folder cannot be written", function()
        assert(system.write_atomic(folder .. "/file", "no folder"))
        local net = assert(get { cache = folder .. "/file/cache" })
        assert.is_nil(net.path)
        assert.truthy(lines[1]:find("not cached: ", 1, true))
    end)

    it("may be trained by two processes at the same time", function()
        local script = folder .. "/twice.lua"
        assert(system.write_atomic(script, ([[
            local net = assert(require "sagan.classifier".get { data = %q, resolution = 32, channels = 3, steps = 2, cache = %q })
            print(net.hash)]]):format(DATA, folder .. "/shared")))
        local command = ("%s %s 2>/dev/null"):format(os.getenv "SAGAN_LUA", script)
        local processes = { assert(io.popen(command)), assert(io.popen(command)) }
        local hashes = {}
        for i, process in ipairs(processes) do
            hashes[i] = process:read "a":match "(%x+)%s*$"
            assert.is_true(process:close())
        end
        assert.equal(64, #hashes[1])
        assert.equal(hashes[1], hashes[2])
        assert.equal(hashes[1], assert(get { cache = folder .. "/shared" }).hash)
        assert.equal(1, #lines)
        assert.equal(1, #system.list(folder .. "/shared"))
    end)

    it("holds a tenth of each class out where there is no test split", function()
        local pack = folder .. "/figures.safetensors"
        assert(core.dataset.pack(DATA, pack, { resolution = 32, channels = 1 }))
        local set <close> = assert(core.dataset.open("pack:" .. pack))
        local expected = 0
        for _, count in ipairs(set:histogram()) do expected = expected + (count + 8) // 10 end
        local net = assert(get { data = set, channels = 1, steps = STEPS })
        assert.equal(expected, net.tested)
        assert.is_true(net.accuracy > 0.3, ("accuracy %.3f of 8 classes"):format(net.accuracy))
        assert.equal(net.hash, assert(get { data = "pack:" .. pack, channels = 1, steps = STEPS }).hash)

        local data = assert(require "sagan.classifier_data".divide(set))
        assert.equal(set.count, #data.kept + #data.test_list)
        local held = {}
        for _, i in ipairs(data.test_list) do held[i] = true end
        local pixels <close> = core.zeros({ #data.kept, 32, 32, 1 }, { dtype = "u8" })
        local labels <close> = core.zeros({ #data.kept }, { dtype = "i32" })
        data:batches(#data.kept).fill(1, pixels, labels) -- the second epoch: every image that is kept, once
        local seen = {}
        for i = 1, #data.kept do
            local bytes = pixels:rows(i, 1):bytes()
            seen[bytes] = (seen[bytes] or 0) + 1
        end
        for i = 1, set.count do
            local image <close> = set:get(i)
            assert.equal(held[i] and 0 or 1, seen[image:bytes()] or 0)
        end
    end)

    it("says so where a data set has one class, or is not there", function()
        for _, name in ipairs { "a", "b", "c" } do
            local image <close> = core.zeros({ 32, 32, 3 }, { dtype = "u8" })
            image:fill_(name:byte())
            assert(system.mkdir(folder .. "/pictures/only"))
            assert(core.image.write(folder .. "/pictures/only/" .. name .. ".png", image))
        end
        local net, message = get { data = "folder:" .. folder .. "/pictures" }
        assert.is_nil(net)
        assert.truthy(message:find("all images are of one class", 1, true), message)
        assert.truthy(message:find("no -cnn scores", 1, true))
        net, message = get { data = "folder:" .. folder .. "/nothing" }
        assert.is_nil(net)
        assert.truthy(message:find("nothing", 1, true), message)
    end)

    it("names what is wrong with an argument", function()
        assert.truthy(helper.message_of(get, { resolutoin = 32 }):find("did you mean 'resolution'?", 1, true))
        assert.truthy(helper.message_of(get, { channels = 2 }):find("channels is 1 or 3", 1, true))
        assert.truthy(helper.message_of(get, { steps = 0 }):find("steps is a whole number from 1", 1, true))
        local net = assert(get())
        local wrong <close> = core.zeros({ 1, 16, 16, 3 }, { dtype = "u8" })
        local message = helper.message_of(net.features, net, wrong)
        assert.truthy(message:find("u8 {N, 32, 32, 3}, got u8 {1, 16, 16, 3}", 1, true), message)
        assert.truthy(helper.message_of(net.features, net, wrong, { resizer = "tf1" }):find("no option 'resizer'", 1, true))
    end)

    it("keeps its files where the environment says", function()
        local env = system.env
        local values = {}
        system.env = function(name) return values[name] end -- luacheck: ignore
        local function cache(t)
            values = t
            return classifier.cache_folder()
        end
        local ok, why = pcall(function()
            assert.equal("/c", cache { SAGAN_CACHE = "/c", XDG_CACHE_HOME = "/x", HOME = "/h" })
            assert.equal("/x/sagan-lua", cache { SAGAN_CACHE = "", XDG_CACHE_HOME = "/x", HOME = "/h" })
            assert.equal("/h/.cache/sagan-lua", cache { HOME = "/h" })
        end)
        system.env = env -- luacheck: ignore
        assert(ok, why)
    end)
end)
