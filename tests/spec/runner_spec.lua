-- Runs from outside: sweeps, run folders, locks, Ctrl-C, a full disk, divergence, and what each field of `train` does.
-- "The same bits" are those of a run with the same configuration that nothing disturbed.

local core = require "sagan.core"
local system = core.system
local driver = require "driver"

local d = driver.new "runner"
local sanitized = (os.getenv("LD_PRELOAD") or ""):find("san", 1, true)

local LAST = "step-00000008.safetensors"

--- The checkpoint folder of a run of tiny.lua under this root.
local function checkpoints(root) return root .. "/tiny/seed-5/checkpoints/" end

describe("runs", function()
    setup(function()
        d:experiment("tiny", [[train = { steps = 8, batch = 4, ema_start = 3 }, log = { every = 2 },
            sample = { every = 0, rows = 2, columns = 2, attention = false }, checkpoint = { every = 2, keep = 2 }]])
        d:succeeds "tiny.lua --runs whole"
    end)
    teardown(function() d:remove() end)

    local function same_as_whole(root)
        assert.equal("", d:differing(checkpoints "whole" .. LAST, checkpoints(root) .. LAST))
    end

    describe("log", function()
        it("has one row for each logged step, with finite numbers under documented names", function()
            local rows = d:log "whole/tiny/seed-5"
            assert.equal(4, #rows)
            for i, row in ipairs(rows) do
                assert.equal(2 * i, row.step)
                for _, name in ipairs { "loss/d", "loss/g", "logit/real", "logit/fake", "grad/d", "grad/g", "gamma/G.feat16",
                    "gamma/D.feat16", "attention/G.feat16.entropy", "attention/G.feat16.distance", "attention/G.feat16.share",
                    "attention/D.feat16.entropy", "attention/D.feat16.distance", "attention/D.feat16.share", "sigma/G", "sigma/D", "images_per_second" } do
                    local value = row[name]
                    assert(math.type(value), name .. " is missing")
                    assert(value == value and math.abs(value) < math.huge, name)
                    row[name] = nil
                end
                row.step = nil
                assert.same({}, row)
            end
        end)

        it("is trimmed to the checkpoint that a run continues from, whatever is in it", function()
            d:shell "mkdir -p log/tiny && cp -r whole/tiny/seed-5 log/tiny/"
            local path = "log/tiny/seed-5/log.jsonl"
            local whole = d:read(path)
            os.remove(d:at(checkpoints "log" .. LAST))
            d:write(path, whole .. '{"step":9}\n5\n"text"\n[1]\n{"loss/d":1}\n{"step":"x"}\n\0\1\2\n{"step":')
            assert.matches("resume   from step 6", d:succeeds "tiny.lua --runs log", 1, true)
            same_as_whole "log"
            local rows = d:log "log/tiny/seed-5"
            assert.equal(4, #rows)
            assert.equal(8, rows[4].step)
            assert.equal(whole:match("^(.*\n).-\n$"), d:read(path):match("^(.*\n).-\n$"))
            -- each start says on what
            local starts = {}
            for line in d:read("log/tiny/seed-5/machine.jsonl"):gmatch("[^\n]+") do
                starts[#starts + 1] = assert(require("sagan.json").decode(line))
            end
            assert.equal(2, #starts)
            assert.same({ 0, 6 }, { starts[1].step, starts[2].step })
            assert.same({ core.version, core.isa(), "cpu", system.cpu_count() },
                { starts[2].version, starts[2].isa, starts[2].device, starts[2].cores })
            assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$", starts[2].time)
        end)
    end)

    describe("sweeps", function()
        it("print and run nothing with --dry-run", function()
            local text = d:succeeds "tiny.lua 'seed={1,2}' 'loss={hinge,bce}' --runs dry --dry-run"
            assert.matches("-- 1 of 4: dry/tiny-loss=hinge/seed-1", text, 1, true)
            assert.matches("-- 4 of 4: dry/tiny-loss=bce/seed-2", text, 1, true)
            assert.is_nil(system.stat(d:at "dry"))
            -- what is printed is a script
            d:write("again.lua", text:match("(return require.-\n}\n)"))
            assert.matches("-- 1 of 1: runs/tiny-loss=hinge/seed-1", d:succeeds "again.lua --dry-run", 1, true)
        end)

        it("run one after another, each in its folder; the shell may expand the braces", function()
            d:succeeds "tiny.lua 'seed={5,6}' --runs quoted"
            d:succeeds "tiny.lua seed={5,6} --runs expanded"
            same_as_whole "quoted"
            for _, seed in ipairs { 5, 6 } do
                local path = ("/tiny/seed-%d/checkpoints/%s"):format(seed, LAST)
                assert.equal("", d:differing("quoted" .. path, "expanded" .. path))
            end
            assert.not_equal("", d:differing("quoted/tiny/seed-5/checkpoints/" .. LAST,
                "quoted/tiny/seed-6/checkpoints/" .. LAST))
            local text = d:succeeds "tiny.lua attention={8,16} data=quadrupeds:16 data=quadrupeds:32 --dry-run"
            assert.matches("-- 2 of 2", text, 1, true)
            assert.matches("generator = { 8, 16 }", text, 1, true)
        end)

        it("go on after an arm that fails, and end with exit code 1", function()
            local line, text = d:refuses("tiny.lua 'data={\"folder:/nowhere\",\"quadrupeds:64\"}' train.steps=1 --runs arms",
                { "tiny-data=folder_nowhere: ", "/nowhere does not exist" })
            assert.is_string(line)
            assert.matches("(2 of 2)", text, 1, true)
            assert.equal(1, #d:list "arms/tiny-data=quadrupeds_64/seed-5/checkpoints")
            -- an error that is raised, not returned
            d:write("raises.lua", [[
                local trainer, new, calls = require "sagan.trainer", require("sagan.trainer").new, 0
                trainer.new = function(...)
                    calls = calls + 1
                    if calls == 1 then error("no luck", 0) end
                    return new(...)
                end
                return dofile "tiny.lua"]])
            local code
            text, code = d:run "raises.lua seed={1,2} train.steps=1 --runs raises"
            assert.equal(1, code)
            assert.matches("\nsagan-lua: tiny: raises.lua:4: no luck\n", text, 1, true)
            assert.equal(1, #d:list "raises/tiny/seed-2/checkpoints")
        end)
    end)

    describe("folders", function()
        it("of another configuration are refused, naming the field", function()
            local before = d:shell "find whole -type f | sort | xargs md5sum"
            d:refuses("tiny.lua optimizer.lr_d=1e-3 --runs whole", { "whole/tiny/seed-5",
                "optimizer.lr_d was 0.0004, now 0.001",
                "name=", "--fresh" })
            d:refuses("tiny.lua data=quadrupeds:32 --runs whole", { "data was", "quadrupeds:64", "quadrupeds:32" })
            assert.equal(before, (d:shell "find whole -type f | sort | xargs md5sum"))
            assert.matches("has reached step 8 already", d:succeeds "tiny.lua --runs whole log.every=4 threads=1", 1, true)
        end)

        it("with a damaged configuration are refused", function()
            d:write("odd/tiny/seed-5/config.lua", "return = 3")
            d:refuses("tiny.lua --runs odd", { "odd/tiny/seed-5/config.lua:1:", "--fresh" })
            d:write("odd/tiny/seed-5/config.lua", "return { widht = 3 }")
            d:refuses("tiny.lua --runs odd", { "odd/tiny/seed-5/config.lua", "widht", "--fresh" })
        end)

        it("are emptied by --fresh, of what a run wrote and nothing else", function()
            d:shell "mkdir -p fresh/tiny && cp -r whole/tiny/seed-5 fresh/tiny/ && echo mine > fresh/tiny/seed-5/notes.txt"
            local text = d:succeeds "tiny.lua seed=5 train.steps=2 train.batch=2 --runs fresh --fresh"
            assert.is_nil(text:find("resume", 1, true))
            assert.same({ "step-00000002.safetensors" }, d:list(checkpoints "fresh"))
            assert.equal(1, #d:log "fresh/tiny/seed-5")
            assert.equal("mine\n", d:read "fresh/tiny/seed-5/notes.txt")
            -- data that cannot be opened must not cost the old run
            d:refuses("tiny.lua data=folder:/nowhere --runs fresh --fresh", { "/nowhere" })
            assert.same({ "step-00000002.safetensors" }, d:list(checkpoints "fresh"))
        end)

        it("are locked while a process trains in them; a dead process holds no lock", function()
            local text = d:shell [[
                "$SAGAN" tiny.lua --runs locked train.steps=100000 checkpoint.every=100000 > first.out 2>&1 &
                for i in $(seq 200); do grep -q train first.out && break; sleep 0.05; done
                "$SAGAN" tiny.lua --runs locked; echo "code $?"
                "$SAGAN" tiny.lua --runs locked --fresh; echo "code $?"
                "$SAGAN" tiny.lua --runs locked seed=6 train.steps=1 > other.out 2>&1; echo "other $?"
                kill -9 $!; wait $! 2>/dev/null
                "$SAGAN" tiny.lua --runs locked > last.out 2>&1; echo "last $?"]]
            local refused = "sagan-lua: tiny: locked/tiny/seed-5: another process is training in this folder; wait until it "
                .. "ends, talk to it (sagan-lua attach), or choose another name=..."
            local _, times = text:gsub(refused:gsub("%p", "%%%0") .. "\ncode 1", "")
            assert.equal(2, times, text)
            assert.matches("other 0", text, 1, true)
            assert.matches("last 0", text, 1, true)
            same_as_whole "locked"
        end)

        it("lose the temporary files of writers that were killed", function()
            d:write("temp/tiny/seed-5/checkpoints/.step-00000002.safetensors.tmp-123-4", "half")
            d:write("temp/tiny/seed-5/samples/.raw-00000002.png.tmp-123-5", "half")
            d:write("temp/tiny/seed-5/.config.lua.tmp-99-0", "half")
            d:write("temp/tiny/seed-5/.mine", "")
            d:succeeds "tiny.lua train.steps=1 --runs temp"
            assert.equal("", d:leftovers())
            assert.equal("", d:read "temp/tiny/seed-5/.mine")
        end)
    end)

    it("stop at Ctrl-C after the step, save, and continue to the same bits", function()
        -- background jobs of a shell ignore SIGINT; timeout gives it back
        local text = d:shell [[
            for pause in 0.5 1 2 4 8; do
                rm -rf stopped
                timeout --preserve-status -k 20 -s INT $pause \
                    "$SAGAN" tiny.lua --runs stopped train.steps=100000 checkpoint.every=100000
                echo "code $?"
                ls stopped/tiny/seed-5/checkpoints/*.safetensors 2>/dev/null && break
            done]]
        assert.matches("stopped at step %d+ after", text)
        assert.matches("the same command continues from here", text, 1, true)
        assert.matches("code 130", text, 1, true)
        local names = d:list(checkpoints "stopped")
        assert.equal(1, #names)
        local step = tonumber(names[1]:match("%d+"))
        local rows = d:log "stopped/tiny/seed-5"
        assert.equal(step, rows[#rows].step)
        -- one run without a break to two steps further, and the stopped one continued to there
        if step > 400 then return pending("the machine did " .. step .. " steps before the signal") end
        local steps = ("train.steps=%d checkpoint.every=0"):format(step + 2)
        d:succeeds("tiny.lua --runs unbroken " .. steps)
        assert.matches("resume   from step " .. step, d:succeeds("tiny.lua --runs stopped " .. steps), 1, true)
        local last = ("step-%08d.safetensors"):format(step + 2)
        assert.equal("", d:differing(checkpoints "unbroken" .. last, checkpoints "stopped" .. last))
    end)

    describe("on a full disk", function()
        -- RLIMIT_FSIZE stands in for it: writes beyond so many KiB of one file fail. Checkpoints here have about 880 KiB.
        local function limited(kib, words)
            return d:shell(("trap '' XFSZ; ulimit -f %d; exec \"$SAGAN\" %s"):format(kib, words))
        end

        local function fails(kib, words, wanted)
            local text, code = limited(kib, words)
            assert.equal(1, code, text)
            local line = text:match("\nsagan%-lua: [^\n]*") or ""
            for _, part in ipairs(wanted) do assert(line:find(part, 1, true), part .. " is missing in: " .. text) end
            assert.is_nil(text:find("\n    ", 1, true), text)
            assert.equal("", d:leftovers())
        end

        it("a checkpoint that cannot be written leaves the older ones, and the run continues to the same bits", function()
            d:succeeds "tiny.lua --runs full train.steps=4"
            local before = d:list(checkpoints "full")
            assert.same({ "step-00000002.safetensors", "step-00000004.safetensors" }, before)
            fails(500, "tiny.lua --runs full log.tensorboard=false", { "step-00000006.safetensors", "File too large",
                "continues from step 4" })
            assert.same(before, d:list(checkpoints "full"))
            d:succeeds "tiny.lua --runs full"
            same_as_whole "full"
        end)

        it("neither a log line, nor an event, nor a picture, nor the configuration is lost in silence", function()
            fails(0, "tiny.lua --runs full-0", { "full-0/tiny/seed-5/config.lua", "File too large" })
            fails(3, "tiny.lua --runs full-1 sample.every=2 log.tensorboard=false", { "full-1/tiny/seed-5/samples/data.png",
                "File too large" })
            -- a log that is nearly at the limit already, of older steps
            d:shell "mkdir -p full-2/tiny && cp -r whole/tiny/seed-5 full-2/tiny/"
            os.remove(d:at(checkpoints "full-2" .. LAST))
            d:write("full-2/tiny/seed-5/log.jsonl", '{"filler":"' .. ("x"):rep(2 ^ 20 - 600) .. '","step":1}\n')
            fails(1024, "tiny.lua --runs full-2 train.steps=12", { "full-2/tiny/seed-5/log.jsonl", "cannot append" })
            for _, r in ipairs(d:log "full-2/tiny/seed-5") do assert.is_number(r.step) end -- no half line
            d:succeeds "tiny.lua --runs full-2"
            same_as_whole "full-2"
            -- events: the pictures fill the file
            fails(60, "tiny.lua --runs full-3 sample.every=1 sample.rows=1 sample.columns=1 checkpoint.every=0 train.steps=60",
                { "full-3/tiny/seed-5/events/events.out", "File too large" })
        end)
    end)

    describe("that diverge", function()
        local function finite(path)
            for name, tensor in pairs(assert(core.safetensors.load(d:at(path)))) do
                if tensor.dtype == "f32" and tensor:numel() > 0 then
                    local sum = tensor:sum():item()
                    assert(sum == sum and math.abs(sum) < math.huge, name .. " in " .. path)
                end
            end
        end

        it("stop, say where, and keep the last good checkpoint", function()
            -- step 6 makes G's weights infinite; the losses of that step are still good
            d:write("wild.lua", [[
                local Trainer = require "sagan.trainer"
                local iterate = Trainer.iterate
                function Trainer:iterate()
                    if self.step >= 5 then self.adam_g:set_rate(math.huge) end
                    return iterate(self)
                end
                return dofile "tiny.lua"]])
            local words = "wild.lua name=wild checkpoint.every=1 log.every=4 model.spectral_norm.discriminator=false --runs wild"
            local line = d:refuses(words, { "step 6: a weight of G is not finite", "optimizer.lr_d",
                "is the last good checkpoint" })
            local path = line:match("(wild/wild/seed%-5/checkpoints/step%-%d+%.safetensors)")
            local names = d:list "wild/wild/seed-5/checkpoints"
            assert.equal("step-00000005.safetensors", path:match("[^/]+$"))
            assert.equal(names[#names], path:match("[^/]+$"))
            for _, name in ipairs(names) do finite("wild/wild/seed-5/checkpoints/" .. name) end
            d:refuses(words, { "is not finite" }) -- and again from there
            d:refuses("wild.lua name=wild checkpoint.every=0 model.spectral_norm.discriminator=false --runs wild-2",
                { "is not finite", "there is no checkpoint yet" })
            assert.same({}, d:list "wild-2/wild/seed-5/checkpoints")
        end)
    end)

    describe("fields of train:", function()
        --- The last checkpoint of a run of four steps with these words.
        local count = 0
        local function last(words)
            count = count + 1
            d:succeeds(("tiny.lua --runs f%d train.steps=4 %s"):format(count, words))
            local path = ("f%d/tiny/seed-5/checkpoints/step-00000004.safetensors"):format(count)
            local tensors = assert(core.safetensors.load(d:at(path)))
            local clocks = {}
            for _, name in ipairs { "clock.d", "clock.g", "adam.D.count", "adam.G.count" } do
                clocks[#clocks + 1] = tensors[name]:totable()[1]
            end
            return path, tensors, table.concat(clocks, " ")
        end

        it("d_steps, order, d_forward, g_batch, accumulate, ema_decay count and keep what they say", function()
            local plain, tensors, clocks = last ""
            assert.equal("4 4 4 4", clocks)
            assert.is_truthy(tensors["ema.conv.weight"])
            local function differs(words, wanted)
                local path, all, counted = last(words)
                assert.equal(wanted or "4 4 4 4", counted)
                local names = d:differing(plain, path)
                assert(names:find("G.", 1, true), words .. " changes nothing")
                return all, names
            end
            differs("train.d_steps=2", "8 4 8 4")
            differs "train.order=g_first"
            differs "train.d_forward=separate"
            differs "train.g_batch=2"
            differs "train.accumulate=2"
            differs "train.flip=true"
            differs "train.dequantize=0.01"
            -- without the average, everything else has the same bits
            local path, all = last "train.ema_decay=0"
            for name in pairs(all) do assert.is_nil(name:find("^ema%."), name) end
            for name in d:differing(plain, path):gmatch("%S+") do assert.matches("^ema%.", name) end
        end)

        it("recompute changes no bit, and a run may go on with another one", function()
            for _, words in ipairs { "", "train.accumulate=2 train.d_forward=separate train.g_batch=2" } do
                local plain = last(words .. " train.recompute=none")
                assert.equal("", d:differing(plain, (last(words .. " train.recompute=norms"))))
                local path = last(words .. " train.recompute=blocks")
                assert.equal("", d:differing(plain, path))
                local folder = path:match("^[^/]+")
                os.remove(d:at(path))
                os.remove(d:at((path:gsub("4%.safe", "3.safe"))))
                d:succeeds(("tiny.lua --runs %s train.steps=4 %s"):format(folder, words))
                assert.equal("", d:differing(plain, path))
            end
        end)

        it("how often a run logs, draws and saves changes nothing else", function()
            local plain = last ""
            for _, words in ipairs { "sample.every=1 sample.attention=true", "log.every=1 log.tensorboard=false",
                "checkpoint.every=1 checkpoint.keep=1" } do
                local path = last(words)
                assert.equal("", d:differing(plain, path))
                if not words:find "keep" then -- the last step is drawn in all runs, so look at one before it too
                    assert.equal("", d:differing((plain:gsub("4%.safe", "2.safe")), (path:gsub("4%.safe", "2.safe"))))
                end
            end
        end)

        it("lr_decay lets the rates fall linearly to 0, also in a continued run", function()
            d:write("rates.lua", [[
                local optimizer = require "sagan.optimizer"
                local adam = optimizer.adam
                function optimizer.adam(net, options)
                    local it = adam(net, options)
                    local step = it.step
                    function it.step(self)
                        print(("rate %s %.9g"):format(options.lr == 4e-4 and "D" or "G",
                            self.hyper:totable()[1] / options.lr))
                        return step(self)
                    end
                    return it
                end
                return dofile "tiny.lua"]])
            local function rates(words)
                local text, seen = d:succeeds("rates.lua " .. words), { D = {}, G = {} }
                for letter, rate in text:gmatch("rate (%u) (%S+)") do table.insert(seen[letter], tonumber(rate)) end
                return seen
            end
            local function near(wanted, seen)
                assert.equal(#wanted, #seen)
                for i, rate in ipairs(wanted) do assert.near(rate, seen[i], 1e-6) end
            end
            local whole = rates "train.lr_decay=0.5 --runs decay"
            for _, letter in ipairs { "D", "G" } do near({ 1, 1, 1, 1, 1, 0.75, 0.5, 0.25 }, whole[letter]) end
            os.remove(d:at("decay/tiny/seed-5/checkpoints/" .. LAST))
            near({ 0.5, 0.25 }, rates("train.lr_decay=0.5 --runs decay").G)
            near({ 1, 0.875 }, table.pack(table.unpack(rates("train.lr_decay=1 --runs decay-2").G, 1, 2)))
            d:refuses("tiny.lua train.lr_decay=0.5 train.steps=9 --runs decay", { "train.steps was 8, now 9" })
        end)

        it("accumulate gives the gradients of the whole batch", function()
            -- D's gradient and logged values, where nothing in between looks at the whole batch: G is replaced by a function
            -- of z alone (its batch norm sees the parts) and D is without spectral norm (its power iteration moves with
            -- every pass).
            local experiment, Trainer = require "sagan.experiment", require "sagan.trainer"
            local data = assert(core.dataset.open("quadrupeds:16", { resolution = 32 }))
            local function gradient(accumulate, d_forward)
                local config = assert(experiment.resolve(dofile(d:at "tiny.lua"), {
                    "train.accumulate=" .. accumulate, "train.d_forward=" .. d_forward,
                        "model.spectral_norm.discriminator=false",
                    "log.every=1" }))[1]
                config.model.classes, config.model.channels = data.classes, data.channels
                local trainer = Trainer.new(config, { classes = data.classes, set = data })
                local loader <close> = data:loader { batch = 4, seed = 1 }
                loader:fill(0, trainer.images, trainer.real_labels)
                local weight = core.empty { 32 * 32 * 3, config.model.z_dim }
                core.ops.normal(weight, core.zeros({ 2 }, { dtype = "i32" }), 3, 99, 0, 0.1)
                trainer.G = setmetatable({}, { __call = function(_, z)
                    return core.ops.linear(z, weight):tanh():reshape(z:size(1), 32, 32, 3)
                end })
                trainer.D.release_grad = function() end -- to look at it after the step
                core.scope(function() trainer:discriminator_step() end)
                return trainer.D.slab.grad, trainer.d_ring:totable()[1], trainer.D.slab
            end
            local helper = require "helper"
            for _, d_forward in ipairs { "together", "separate" } do
                local one, one_row, one_weights = gradient(1, d_forward)
                assert(one:norm():item() > 1e-3)
                for _, parts in ipairs { 2, 4 } do
                    local many, many_row, many_weights = gradient(parts, d_forward)
                    local distance = helper.distance(many, one)
                    assert(distance < 1e-5, ("gradient: %g"):format(distance))
                    assert(helper.distance(many_row, one_row) < 1e-5, "logged values")
                    -- Adam's first step is the sign of the gradient: where that is nearly 0, rounding decides
                    assert(helper.distance(many_weights, one_weights) < 1e-4, "weights")
                end
            end
        end)
    end)
end)
