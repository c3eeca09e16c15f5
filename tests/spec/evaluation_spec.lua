-- Scoring from a checkpoint to the ledger: fingerprints, the pictures that are asked for, feature sets against plain loops,
-- names of scores, and the program `sagan-lua eval` on runs of a few steps, good and bad.
local core = require "sagan.core"
local fingerprint = require "sagan.fingerprint"
local ledger = require "sagan.ledger"
local feature_set = require "sagan.feature_set"
local generated = require "sagan.generated"
local metrics = require "sagan.metrics"
local scores = require "sagan.scores"
local score_table = require "sagan.score_table"
local json = require "sagan.json"
local nn = require "sagan.nn"
local helper = require "helper"
local driver = require "driver"

local CNN <const> = { name = "cnn", suffix = "-cnn", hash = "0", width = 8 }
function CNN:score_name(score) return score .. self.suffix end -- luacheck: ignore self

local function random_rows(n, width, seed, shift)
    local x, clock = core.empty { n, width }, core.zeros({ 2 }, { dtype = "i32" })
    core.ops.normal(x, clock, seed, 99, shift or 0, 1)
    clock:release()
    return x
end

local function labels_of(n, classes)
    local list = {}
    for i = 1, n do list[i] = (i - 1) % classes end
    return list
end

local function print_of(more)
    local f = { network = "cnn", weights = "ab", n_real = 10, n_fake = 20, generator = "ema", is_bias = false }
    for key, value in pairs(more or {}) do f[key] = value end
    return f
end

describe("fingerprints", function()
    it("name the field in which two differ", function()
        assert.is_nil(fingerprint.difference(print_of(), print_of()))
        assert.is_true(fingerprint.check(print_of(), print_of()))
        local ok, message = fingerprint.check(print_of(), print_of { n_fake = 30 }, "a and b")
        assert.is_nil(ok)
        assert.equal("a and b cannot be compared: n_fake is 20 for one and 30 for the other", message)
        assert.not_equal(fingerprint.key(print_of()), fingerprint.key(print_of { is_bias = true }))
        assert.equal(fingerprint.key(print_of()), fingerprint.key(print_of()))
    end)
end)

describe("the ledger", function()
    local d = driver.new "ledger"
    teardown(function() d:remove() end)

    it("keeps lines, survives a cut one, and puts only equal fingerprints together", function()
        local a, b = d:at "a", d:at "b"
        assert(core.system.mkdir(a))
        assert(core.system.mkdir(b))
        local function entry(step, fd, more) return { step = step, scores = { ["FD-cnn"] = fd }, fingerprint = print_of(more) } end
        assert(ledger.append(a, entry(1, 5)))
        assert(core.system.append(a .. "/scores.jsonl", '{"step":2,"scores":{"FD-c')) -- as a full disk leaves it
        assert(ledger.append(a, entry(3, 4)))
        assert(ledger.append(a, entry(3, 3.5))) -- scored again
        assert(ledger.append(b, entry(3, 9, { n_fake = 7 })))
        local entries, broken = ledger.read(a)
        assert.same({ 3, 1 }, { #entries, broken })
        assert.equal(3.5, ledger.find(a, 3, { n_fake = 20 }).scores["FD-cnn"])
        assert.is_nil(ledger.find(a, 3, { n_fake = 7 }))
        local groups = ledger.groups { { name = "a", folder = a }, { name = "b", folder = b } }
        assert.equal(2, #groups)
        assert.equal(2, #groups[1].entries) -- the newer of the two of step 3
        assert.equal(3.5, groups[1].entries[2].entry.scores["FD-cnn"])
        local text = table.concat(score_table.comparison_lines { { name = "a", folder = a }, { name = "b", folder = b } }, "\n")
        assert.matches("n_fake is 20 for one and 7 for the other", text, 1, true)
    end)
end)

describe("feature sets", function()
    setup(helper.start)
    teardown(helper.finish)

    it("hold the moments of all and of each class, however they were cut into batches", function()
        local rows = random_rows(60, 8, 1)
        local set = feature_set.new { capacity = 60, width = 8, logits = 8, classes = 3 }
        for first = 1, 60, 25 do
            local n = math.min(25, 60 - first + 1)
            local part = rows:rows(first, n)
            local labels = {}
            for i = 1, n do labels[i] = (first + i - 2) % 3 end
            assert(set:add(part, part, labels))
            part:release()
        end
        local table_ = rows:totable()
        for class = 1, 3 do
            local mine = {}
            for i = class, 60, 3 do mine[#mine + 1] = table_[i] end
            local m <close> = metrics.moments()
            local t = core.tensor(mine)
            assert(m:add(t))
            t:release()
            assert.equal(20, set.by_class[class]:count())
            assert.is_true(math.abs(assert(metrics.frechet(m, set.by_class[class]))) < 1e-10)
        end
        assert.equal(rows:bytes(), set:kept():bytes())
        assert.equal(rows:bytes(), set.logits:bytes())
        set:close()
        rows:release()
    end)

    it("refuse features that are not finite", function()
        local set = feature_set.new { capacity = 4, width = 8 }
        local bad = core.full({ 4, 8 }, 0 / 0)
        local ok, message = set:add(bad, nil, labels_of(4, 1))
        assert.is_nil(ok)
        assert.matches("NaN in row 1", message, 1, true)
        bad:release()
        set:close()
    end)

    it("are the same after a file, and a cut file is refused", function()
        local d = driver.new "features"
        local rows = random_rows(40, 8, 2)
        local set = feature_set.new { capacity = 40, width = 8, classes = 2 }
        assert(set:add(rows, nil, labels_of(40, 2)))
        assert(set:save(d:at "f.safetensors"))
        local again = assert(feature_set.load(d:at "f.safetensors"))
        assert.same({ 40, 2, 8 }, { again.count, again.classes, again.width })
        assert.is_true(math.abs(assert(metrics.frechet(set.moments, again.moments))) < 1e-10)
        assert.is_true(math.abs(assert(metrics.frechet(set.by_class[2], again.by_class[2]))) < 1e-10)
        assert.equal(rows:bytes(), again.rows:bytes())
        local bytes = d:read "f.safetensors"
        d:write("cut.safetensors", bytes:sub(1, #bytes // 2))
        local none, message = feature_set.load(d:at "cut.safetensors")
        assert.is_nil(none)
        assert.matches("cut.safetensors", message, 1, true)
        again:close()
        set:close()
        rows:release()
        d:remove()
    end)
end)

describe("scores", function()
    setup(helper.start)
    teardown(helper.finish)

    local function filled(rows, classes)
        local set = feature_set.new { capacity = rows:size(1), width = rows:size(2), logits = rows:size(2), classes = classes }
        assert(set:add(rows, rows, labels_of(rows:size(1), classes or 1)))
        return set
    end

    it("bear the network's name, and are those of the plain functions", function()
        local x, y = random_rows(400, 8, 3), random_rows(300, 8, 4, 0.5)
        local real, fake = filled(x, 4), filled(y, 4)
        local r = scores.of(CNN, real, fake, { bootstrap = 50, splits = 3 })
        assert.same({ "FD-cnn", "IS-cnn", "KID-cnn", "precision-cnn", "recall-cnn", "density-cnn", "coverage-cnn", "intra-FD-cnn" },
            score_table.names(r.scores))
        assert.same({}, r.missing)
        -- |mu - mu'|^2 is 8 * 0.25 in the limit
        assert.is_true(math.abs(r.scores["FD-cnn"] - 2) < 0.5, tostring(r.scores["FD-cnn"]))
        local low, high = table.unpack(r.intervals["FD-cnn"])
        assert.is_true(low < r.scores["FD-cnn"] and r.scores["FD-cnn"] < high and high - low < 1.5)
        local prdc = assert(metrics.prdc(x, y, { k = 5 }))
        assert.equal(prdc.coverage, r.scores["coverage-cnn"])
        assert.equal(assert(metrics.inception_score(y, { splits = 3 })), r.scores["IS-cnn"])
        assert.equal(4, #r.per_class["intra-FD-cnn"])
        for _, set in ipairs { real, fake } do set:close() end
        x:release()
        y:release()
    end)

    it("that cannot be computed are missing with a reason, never made up", function()
        local x, y = random_rows(50, 8, 3), core.zeros { 50, 8 }
        local real, fake = filled(x, 2), filled(y, 2) -- one picture, fifty times
        local r = scores.of(CNN, real, fake, { splits = 60 })
        assert.matches("split", r.missing["IS-cnn"])
        assert.is_nil(r.scores["IS-cnn"])
        for name, value in pairs(r.scores) do assert.is_true(value == value and math.abs(value) < math.huge, name) end
        assert.matches("same features", table.concat(r.notes, " "))
        fake.by_class[2]:close()
        fake.by_class[2] = nil
        r = scores.of(CNN, real, fake, { only = { intra = true } })
        assert.matches("no fake images of", r.missing["intra-FD-cnn"])
        for _, set in ipairs { real, fake } do set:close() end
        x:release()
        y:release()
    end)

    it("warn where there are too few pictures for the features", function()
        local x, y = random_rows(6, 8, 3), random_rows(6, 8, 4)
        local real, fake = filled(x), filled(y)
        local r = scores.of(CNN, real, fake, { only = { FD = true, intra = true } })
        assert.matches("comes out too large", table.concat(r.notes, " "))
        assert.equal("there are no classes", r.missing["intra-FD-cnn"])
        for _, set in ipairs { real, fake } do set:close() end
        x:release()
        y:release()
    end)
end)

describe("generated pictures", function()
    local G
    setup(function()
        helper.start()
        G = require "sagan.models.generator" { resolution = 32, width = 2, channels = 1, classes = 3, z_dim = 16 }
        G:build { seed = 4, grad = false }
        -- running statistics unlike the batch's and the identity
        core.no_grad(function()
            for _, m in G:modules() do
                if m.running_var then
                    m.running_var:fill_(0.5)
                    m.running_mean:fill_(0.1)
                end
            end
        end)
        G:eval()
    end)
    teardown(function()
        G = nil
        collectgarbage()
        helper.finish()
    end)

    local function ask(count, mode)
        local bytes, labels = {}, {}
        assert(generated.each(G, { count = count, batch_norm = mode }, function(images, some)
            bytes[#bytes + 1] = images:bytes()
            for _, label in ipairs(some) do labels[#labels + 1] = label end
            return true
        end))
        return table.concat(bytes), labels
    end

    it("do not depend on how many are asked for, and have every class as often", function()
        for _, mode in ipairs(generated.modes) do
            local some, labels = ask(130, mode)
            local more = ask(200, mode)
            assert.equal(130 * 32 * 32, #some)
            assert.is_true(more:sub(1, #some) == some, mode)
            assert.same({ 0, 1, 2, 0 }, table.move(labels, 1, 4, 1, {}))
        end
    end)

    it("are normalised as the mode says, and leave the network as it was", function()
        local before = G.buffer_slab:bytes()
        local by_mode = {}
        for _, mode in ipairs(generated.modes) do
            by_mode[mode] = ask(100, mode)
            assert.is_true(before == G.buffer_slab:bytes(), mode)
            assert.is_false(G.training)
            assert.is_true(G.update_statistics and G.update_spectral)
        end
        assert.is_true(by_mode.moving ~= by_mode.batch and by_mode.moving ~= by_mode.standing and by_mode.batch ~= by_mode.standing)
        -- the same by hand
        local z, clock, labels = core.empty { 100, 16 }, core.zeros({ 2 }, { dtype = "i32" }), labels_of(100, 3)
        core.ops.normal(z, clock, 0, require("sagan.streams").score_noise)
        local y = core.tensor(labels, { dtype = "i32" })
        local function draw() return core.scope(core.no_grad, function() return core.ops.float_to_pixels(G(z, y)):bytes() end) end
        assert.is_true(by_mode.moving == draw())
        local kept = core.no_grad(G.buffer_slab.clone, G.buffer_slab)
        G:train()
        assert.is_true(by_mode.batch == draw())
        core.no_grad(function() G.buffer_slab:copy_(kept) end)
        nn.standing_statistics(G:eval())
        assert.is_true(by_mode.standing == draw())
        core.no_grad(function() G.buffer_slab:copy_(kept) end)
        for _, t in ipairs { kept, z, y, clock } do t:release() end
    end)
end)

describe("sagan-lua eval", function()
    local d = driver.new "eval"
    setup(function()
        d:experiment("tiny", [[train = { steps = 3, batch = 4 }, log = { every = 1, tensorboard = false },
            sample = { every = 0, rows = 1, columns = 1, attention = false }, checkpoint = { every = 2, keep = 3 },
            score = { n_fake = 120, n_real = 0, splits = 2 },]])
        d:succeeds "tiny.lua"
    end)
    teardown(function() d:remove() end)

    local function run(words) return d:shell(('export SAGAN_CACHE="$PWD/cache"; exec "$SAGAN" %s'):format(words)) end
    local function entries() return (ledger.read(d:at "runs/tiny/seed-5")) end

    it("scores with a classifier, which is trained once, and writes the ledger", function()
        local text, code = run "eval runs/tiny"
        assert.equal(0, code, text)
        for _, words in ipairs { "held-out accuracy", "FD-cnn", "IS-cnn", "intra-FD-cnn", "n_fake 120", "scores.jsonl" } do
            assert.is_truthy(text:find(words, 1, true), words .. " is missing in:\n" .. text)
        end
        assert.is_nil(text:find("FID", 1, true))
        local first = entries()[1]
        assert.same({ 3, "cnn", "ema", "moving", "none", "quadrupeds", 64, 120 }, { first.step, first.fingerprint.network,
            first.fingerprint.generator, first.fingerprint.batch_norm, first.fingerprint.resizer, first.fingerprint.data,
            first.fingerprint.n_real, first.fingerprint.n_fake })
        text = run "eval runs/tiny --step 2"
        assert.is_nil(text:find("features of real pictures", 1, true), "the reference was computed again")
        local second = entries()[2]
        assert.same({ 2, true }, { second.step, fingerprint.check(first.fingerprint, second.fingerprint) })
        assert.not_equal(first.scores["FD-cnn"], second.scores["FD-cnn"])
        text = run "eval runs/tiny" -- the same numbers again
        assert.same(first.scores, entries()[3].scores, text)
    end)

    it("fills the matrix, and refuses to put unlike numbers side by side", function()
        local before = #entries()
        local text, code = run "eval runs/tiny --matrix"
        assert.equal(0, code, text)
        local seen = {}
        for i, entry in ipairs(entries()) do
            if i > before then seen[#seen + 1] = entry.fingerprint.generator .. " " .. entry.fingerprint.batch_norm end
        end
        table.sort(seen)
        assert.same({ "ema batch of 100", "ema moving", "ema standing", "raw batch of 100", "raw moving", "raw standing" }, seen)
        text = run "eval runs/tiny --compare"
        assert.matches("cannot be compared: batch_norm is moving for one and standing for the other", text, 1, true)
        assert.matches("cannot be compared: generator is ema for one and raw for the other", text, 1, true)
    end)

    it("says how good real pictures would be", function()
        local text, code = run "eval runs/tiny --real"
        assert.equal(0, code, text)
        assert.matches("real generator", text, 1, true)
    end)

    it("scores in training where a run asks for it, and the run goes on as if it had not", function()
        local fields = [[train = { steps = 4, batch = 4 }, log = { every = 4, tensorboard = false },
            sample = { every = 0, rows = 1, columns = 1, attention = false }, checkpoint = { every = 0 },
            score = { every = %d, n_fake = 100, n_real = 0, splits = 1 },]]
        d:experiment("with", fields:format(3))
        d:experiment("without", fields:format(0))
        for _, name in ipairs { "with", "without" } do
            local text, code = run(name .. ".lua")
            assert.equal(0, code, text)
        end
        local steps = {}
        for i, entry in ipairs((ledger.read(d:at "runs/with/seed-5"))) do steps[i] = entry.step end
        assert.same({ 3, 4 }, steps)
        assert.same({}, (ledger.read(d:at "runs/without/seed-5")))
        local rows = {}
        for _, row in ipairs(d:log "runs/with/seed-5") do
            if row["score/FD-cnn"] then rows[#rows + 1] = row.step end
        end
        assert.same({ 3, 4 }, rows)
        local last = "/seed-5/checkpoints/step-00000004.safetensors"
        assert.equal("", d:differing("runs/with" .. last, "runs/without" .. last))
    end)

    it("is what a knock-out scores with", function()
        d:write("knockout.lua", [[
            local run = assert(sagan.open "runs/tiny")
            run.G.net.attention[16].gamma:fill_(2)
            local k = run.G:attention { class = 1 }:knockout { "gamma0", score = true }
            local change = k.scores["FD-cnn"]
            print(change.plain ~= change.altered, change.change == change.altered - change.plain)
            local classes = 0
            for _, values in pairs(k.class_scores) do classes = classes + (values["FD-cnn"].plain > 0 and 1 or 0) end
            print(classes == #run.class_names)]])
        -- nothing is cached: the classifier is trained on the way
        local text, code = d:shell 'export SAGAN_CACHE="$PWD/fresh"; exec "$SAGAN" knockout.lua'
        assert.equal(0, code, text)
        assert.matches("true\ttrue\ntrue\n", text)
    end)

    it("says what is wrong", function()
        d:write("cut.pth", "PK\3\4 and no more")
        for words, wanted in pairs {
            ["eval"] = "which run?", ["eval runs/tiny --step 77"] = "no checkpoint of step 77 (there are: 3, 2",
            ["eval runs/tiny --batch-norm movin"] = "did you mean 'moving'", ["eval nowhere"] = "no such run folder",
            ["eval runs/tiny --weights nowhere.pth"] = "there is no file nowhere.pth",
            ["eval runs/tiny --weights cut.pth"] = "cut.pth", ["eval runs/tiny --resizr tf1"] = "did you mean --resizer",
            ["eval runs/tiny --data folder:/nowhere"] = "/nowhere does not exist",
            ["eval runs/tiny --splits 500"] = nil,
        } do
            d:refuses(words, { wanted })
        end
        local text = run "eval runs/tiny --splits 500"
        assert.matches("IS%-cnn%s+missing", text)
    end)
end)

describe("a study without a score function", function()
    local d = driver.new "study-score"
    teardown(function() d:remove() end)

    it("is scored by its fields, and cells of another protocol are left out by name", function()
        d:write("s.lua", [[
            return require("sagan").ablation {
                name = "s", seeds = 1,
                base = { name = "none", recipe = "paper", profile = "quick", data = "quadrupeds:64", attention = "none",
                    model = { resolution = 32, width = 2 }, train = { steps = 2, batch = 4 },
                    log = { every = 1, tensorboard = false }, sample = { every = 0, rows = 1, columns = 1, attention = false },
                    score = { n_fake = 100, n_real = 0, splits = 1 } },
                arms = { { name = "feat8", attention = 8 } },
            }]])
        local function run(words) return d:shell(('export SAGAN_CACHE="$PWD/cache"; exec "$SAGAN" %s'):format(words)) end
        local text, code = run "s.lua"
        assert.equal(0, code, text)
        local result = assert(json.decode(d:read "runs/s/study.json"))
        assert.equal("FD-cnn", result.rows[1].score)
        assert.equal("lower", result.rows[1].better)
        assert.equal(100, result.fingerprint.n_fake)
        assert.is_number(result.rows[1].arms.feat8.mean)
        assert.matches("measured by network cnn", text, 1, true)
        text = run "s.lua --only feat8 score.n_fake=110 --rescore"
        text = run "s.lua --table"
        assert.matches("feat8, seed 1: at 100 %: its scores and those of none, seed 1, cannot be compared: n_fake is 100", text, 1, true)
    end)
end)
