-- Checkpoints and the commands that read them: damaged files, `sample`; and the commands `bench` and `doctor`.

local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"
local driver = require "driver"

local d = driver.new "checkpoint"
local sanitized = (os.getenv("LD_PRELOAD") or ""):find("san", 1, true)
local FOLDER, LAST = "runs/tiny/seed-5/checkpoints/", "step-00000006.safetensors"

--- Width, height and channels that a PNG file says it has, after its signature has been checked.
local function png_size(name)
    local bytes = d:read(name)
    assert.equal("\137PNG\r\n\26\n\0\0\0\13IHDR", bytes:sub(1, 16))
    local width, height = string.unpack(">I4I4", bytes, 17)
    return width, height
end

describe("a checkpoint", function()
    setup(function()
        d:experiment("tiny", [[train = { steps = 6, batch = 4, ema_start = 2 }, log = { every = 2, tensorboard = false },
            sample = { every = 0, rows = 2, columns = 2, attention = false }, checkpoint = { every = 2, keep = 3 }]])
        d:succeeds "tiny.lua"
        d:succeeds "tiny.lua train.ema_decay=0 --runs raw"
    end)
    teardown(function() d:remove() end)

    --- The run with `text` in place of its newest checkpoint, under a new root.
    local function damaged(root, text)
        d:shell(("rm -rf %s; mkdir %s; cp -r runs/tiny %s/"):format(root, root, root))
        d:write(("%s/tiny/seed-5/checkpoints/%s"):format(root, LAST), text)
    end

    it("that is damaged is named, an older one is taken, and the bits are the same", function()
        local good = d:read(FOLDER .. LAST)
        math.randomseed(3)
        local noise = {}
        for i = 1, 5000 do noise[i] = string.char(math.random(0, 255)) end
        local header = string.unpack("<I8", good)
        for i, text in ipairs { "", good:sub(1, 7), good:sub(1, header // 2), good:sub(1, #good - 1), good .. "x",
            table.concat(noise),
            string.pack("<I8", header) .. ("{"):rep(#good - 8) } do
            damaged("damaged", text)
            local output, code = d:run "tiny.lua --runs damaged"
            assert.equal(0, code, output)
            assert(output:find(LAST .. ":", 1, true), i .. ": " .. output)
            assert.matches("trying an older one", output, 1, true)
            assert.matches("resume   from step 4", output, 1, true)
            assert.equal("", d:differing(FOLDER .. LAST, "damaged/tiny/seed-5/checkpoints/" .. LAST))
        end
    end)

    it("of later steps that is damaged does not push out the good ones", function()
        damaged("pushed", "damaged")
        d:succeeds "tiny.lua --runs pushed train.steps=5 checkpoint.keep=1"
        assert.same({ "step-00000005.safetensors", LAST }, d:list "pushed/tiny/seed-5/checkpoints")
    end)

    it("cannot be continued when all are damaged, and nothing is deleted", function()
        damaged("hopeless", "damaged")
        for _, step in ipairs { 2, 4 } do
            d:write(("hopeless/tiny/seed-5/checkpoints/step-%08d.safetensors"):format(step), "x")
        end
        d:refuses("tiny.lua --runs hopeless", { "step-00000006", "not usable" })
        assert.matches("no checkpoint can be read; --fresh starts over", (d:run "tiny.lua --runs hopeless"), 1, true)
        assert.equal(3, #d:list "hopeless/tiny/seed-5/checkpoints")
        d:succeeds "tiny.lua --runs hopeless --fresh"
    end)

    it("of something else is refused by name", function()
        local checkpoint = require "sagan.checkpoint"
        local path = d:at "other.safetensors"
        local good, metadata = assert(core.safetensors.load(d:at(FOLDER .. LAST)))
        local function refused(tensors, changes, wanted)
            local m = {}
            for k, v in pairs(metadata) do m[k] = v end
            for k, v in pairs(changes) do m[k] = v ~= "" and v or nil end
            assert(core.safetensors.save(path, tensors, m))
            d:refuses("sample other.safetensors -o none.png", { "other.safetensors" , wanted })
            assert.is_nil(system.stat(d:at "none.png"))
        end
        assert.equal(6, checkpoint.info(d:at(FOLDER .. LAST)).step)
        refused(good, { format = "" }, "not a checkpoint of this program")
        refused(good, { format = "sagan-lua checkpoint 99" }, "sagan-lua checkpoint 99")
        refused(good, { step = "many" }, "damaged")
        refused(good, { step = "-3" }, "damaged")
        refused(good, { class_names = "3" }, "damaged")
        refused(good, { config = "return {" }, "config")
        refused(good, { config = "return { widht = 3 }" }, "widht")
        refused(good, { config = "os.exit(0)" }, "config")
        refused(good, { config = metadata.config:gsub("width = 4", "width = 8") },
            "other.safetensors: G: the state does not fit")
        local part = {}
        for name, tensor in pairs(good) do if not name:find("ema.linear", 1, true) then part[name] = tensor end end
        refused(part, {}, "linear.weight")
        refused({ x = core.zeros(1) }, {}, "missing ")
    end)

    it("with random bytes changed is read, or refused with its name; never worse", function()
        local checkpoint = require "sagan.checkpoint"
        local good = d:read(FOLDER .. LAST)
        local header = string.unpack("<I8", good)
        local path = d:at "flipped.safetensors"
        math.randomseed(4)
        for _ = 1, sanitized and 40 or 150 do
            local text = good:sub(1, 8 + header)
            for _ = 1, math.random(1, 4) do
                local at = math.random(1, #text)
                text = text:sub(1, at - 1) .. string.char(math.random(0, 255)) .. text:sub(at + 1)
            end
            d:write("flipped.safetensors", text .. good:sub(9 + header))
            local G, message = checkpoint.generator(path)
            assert(G or message:find("flipped.safetensors", 1, true), message)
        end
    end)

    describe("sample", function()
        it("explains itself", function()
            for _, words in ipairs { "sample --help", "sample -h", "help sample" } do
                local text = d:succeeds(words)
                assert.matches("Examples\n  sagan%-lua sample runs/feat32", text)
                for _, option in ipairs { "-o FILE", "--columns", "--rows", "--seed", "--truncation", "--raw",
                    "--attention", "--query Y,X", "--class NAME" } do
                    assert(text:find(option, 1, true), option)
                end
            end
        end)

        it("refuses wrong words", function()
            d:refuses("sample", { "sagan-lua sample: which run?" })
            d:refuses("sample runs/tiny --colums 3", { "--colums", "did you mean --columns?" })
            d:refuses("sample runs/tiny --columns", { "--columns needs a value" })
            for _, words in ipairs { "--columns 0", "--columns -1", "--columns x", "--rows 1.5", "--seed -1",
                "--seed=x", "--truncation 0",
                "--truncation nan", "--truncation -2", "--columns 1e9", "--rows 1e9" } do
                d:refuses("sample runs/tiny " .. words, { words:match("^%-%-%a+"), words:match("[%w.-]+$"), "needs a" })
            end
            d:refuses("sample runs/tiny --query 4", { "--query needs a row and a column of the map, such as 10,12, not '4'" })
            d:refuses("sample runs/tiny --query 4,17", { "y = 4, x = 17 is outside of G.attention16's map, rows 1..16" })
            d:refuses("sample runs/tiny --class dog", { "--class goes with --attention or --query" })
            d:refuses("sample runs/tiny --attention --class dgo", { "there is no 'dgo'; did you mean 'dog'?" })
            d:refuses("sample runs/tiny runs/other", { "'runs/other'", "one run at a time" })
        end)

        it("refuses what is no run", function()
            d:refuses("sample nowhere", { "nowhere: no such run folder" })
            assert(system.mkdir(d:at "void"))
            d:refuses("sample void", { "void: not a run folder" })
            d:shell "mkdir -p early/seed-1 && cp runs/tiny/seed-5/config.lua early/seed-1/"
            d:refuses("sample early", { "early/seed-1: no checkpoint yet" })
            d:refuses("sample tiny.lua", { "tiny.lua" })
            damaged("sampled", "damaged")
            local text = d:succeeds "sample sampled/tiny -o older.png"
            assert.matches(LAST, text, 1, true) -- it says why
            assert.matches("at step 4", text, 1, true)
        end)

        it("writes pictures of the size it says, the same each time", function()
            local shown = {}
            for i, words in ipairs { "", "", "--columns 3", "--rows 2", "--raw", "--seed 3", "--truncation 0.5",
                "--truncation 0.001",
                "--attention", "--attention --class dog", "--query 4,13 --class 2", "--query 4,13 --class dog",
                "--rows 64 --columns 1" } do
                local name = ("sample-%d.png"):format(i)
                local text = d:succeeds(("sample runs/tiny -o %s %s"):format(name, words))
                local width, height = text:match(": (%d+)x(%d+), ")
                local w, h = png_size(name)
                assert.equal(("%sx%s"):format(width, height), ("%dx%d"):format(w, h))
                local picture = assert(core.image.read(d:at(name)))
                assert.same({ h, w, 3 }, picture.shape)
                assert.matches(words == "--raw" and "raw generator at step 6" or "EMA generator at step 6", text, 1, true)
                shown[i] = d:read(name)
            end
            assert.equal(shown[1], shown[2])
            for i = 3, #shown do
                for k = 2, i - 1 do assert(shown[i] ~= shown[k], i .. " is like " .. k) end
            end
            -- 32-pixel samples are shown doubled, with 2 pixels between them
            local w1, h1 = png_size "sample-1.png"
            assert.equal(7 * 66, w1 - (png_size "sample-3.png"))
            assert.equal(6 * 66, h1 - select(2, png_size "sample-4.png")) -- 8 classes against 2
        end)

        it("takes the raw generator where there is no average", function()
            assert.matches("raw generator", d:succeeds "sample raw/tiny -o a.png", 1, true)
            assert.matches("raw generator", d:succeeds "sample raw/tiny -o b.png --raw", 1, true)
            assert.equal(d:read "a.png", d:read "b.png")
        end)

        it("says when a picture cannot be written", function()
            d:refuses("sample runs/tiny -o x.jpg", { "'x.jpg'", ".png" })
            d:shell "ln -s /dev/full full.png"
            d:refuses("sample runs/tiny -o full.png", { "full.png: cannot write" })
            d:refuses("sample runs/tiny -o nowhere/x.png", { "nowhere/x.png" })
            d:refuses("sample runs/tiny -o /proc/x.png", { "/proc/x.png" })
            assert(system.mkdir(d:at "folder.png"))
            d:refuses("sample runs/tiny -o folder.png", { "folder.png: cannot write: a folder of that name is there" })
            d:write("old.png", "old")
            local text, code = d:shell [[trap '' XFSZ; ulimit -f 4; "$SAGAN" sample runs/tiny -o old.png]]
            assert.equal(1, code)
            assert.equal("sagan-lua sample: old.png: cannot write: File too large\n", text)
            assert.equal("old", d:read "old.png")
            assert.equal("", d:leftovers())
        end)
    end)

    describe("bench", function()
        it("explains itself and refuses wrong words", function()
            local text = d:succeeds "bench --help"
            assert.matches("Examples\n  sagan%-lua bench\n", text)
            d:refuses("bench --memroy", { "--memroy", "did you mean --memory?" })
            d:refuses("bench --res x", { "--res", "'x'" })
            d:refuses("bench --res 33 --steps 1", { "model.resolution", "33" })
            d:refuses("bench --res 32 --attention 64 --steps 1", { "attention" })
            d:refuses("bench --batch 0", { "--batch" })
            d:refuses("bench --res 32 --width 4 --batch 1000000000000 --steps 1", { "out of memory on cpu", "use a smaller batch" })
            d:refuses("bench --json", { "--json needs a value" })
            d:refuses("bench --width", { "--width needs a value" })
            d:refuses("bench more", { "more" })
            d:refuses("bench --res 32 --width 2 --batch 2 --steps 1 --json nowhere/x.json", { "nowhere/x.json" })
        end)

        it("writes JSON", function()
            local tiny = "bench --res 32 --width 2 --batch 2 --steps 3 --threads 1 --attention "
            local result = assert(json.decode(d:succeeds(tiny .. "16 --json - --profile")))
            assert.equal(1, result.machine.threads)
            local case = result.cases[1]
            assert.same({ 32, 2, 2, 16, 3 }, { case.res, case.width, case.batch, case.attention, case.steps })
            assert.equal(3, #case.times_ms)
            table.sort(case.times_ms)
            assert.near(case.times_ms[2], case.ms_per_step, 1e-6)
            assert.near(2000 / case.ms_per_step, case.images_per_s, 1e-6)
            assert(case.peak_mib > 0.1 and case.peak_mib < 100)
            assert(#case.profile > 5)
            assert.matches("ms a step", d:succeeds(tiny .. "none --json file.json"), 1, true)
            assert.equal("none", assert(json.decode(d:read "file.json")).cases[1].attention)
        end)

        it("shows that attention's memory grows with N, not with its square", function()
            local bench = require "sagan.commands.bench"
            local small, large = bench.attention_memory(1024), bench.attention_memory(4096)
            assert(small.peak_mib > 0.5) -- q, k, v and their gradients alone
            assert(large.peak_mib <= 6 * small.peak_mib, ("%g MiB, then %g"):format(small.peak_mib, large.peak_mib))
            assert.equal(64, large.map_mib)
        end)
    end)

    it("doctor says what there is", function()
        local text = d:succeeds "doctor"
        local pictures = core.terminal_picture.detect()
        assert.matches(pictures.library and "ok   terminal pictures +%l+ here, by chafa [%d.]+\n"
            or "%-%-   terminal pictures +half here, by the program itself; .*libchafa%-dev", text)
        for _, word in ipairs { "cpu", "memory", "disk", "quadrupeds",
            "self%-check +a convolution gives the right number" } do
            assert.matches(word, text)
        end
        assert.matches("Example\n  sagan%-lua doctor", d:succeeds "doctor --help")
        d:refuses("doctor --all", { "sagan-lua doctor: unknown word '--all'" })
    end)
end)
