-- Studies: what a definition may say, the cells that it stands for, the table; then real ones at 32 pixels and a few steps:
-- resumed, with a failed and a diverged arm, in several processes, and with an architecture that varies under the same noise.
local ablation = require "sagan.ablation"
local study_table = require "sagan.study_table"
local published = require "sagan.published"
local core = require "sagan.core"
local json = require "sagan.json"
local helper = require "helper"
local driver = require "driver"

local CPU <const> = { cuda = false }

local function study(more)
    local t = {
        name = "s", base = { name = "none", recipe = "paper", profile = "quick", attention = "none" },
        arms = { { name = "a8", attention = 8 }, { name = "a32", attention = 32 } }, seeds = 2,
    }
    for key, value in pairs(more or {}) do t[key] = value end
    return ablation(t)
end

describe("a study", function()
    it("is checked where it is written", function()
        for words, more in pairs {
            ["did you mean 'seeds'"] = { seed = 3 },
            ["fields of runs belong into base or arms"] = { optimizer = {} },
            ["seeds: a whole number"] = { seeds = 0 },
            ["at: growing shares"] = { at = { 0.5, 0.5 } },
            ["above 0 and to 1"] = { at = { 2 } },
            ["score: a function"] = { score = 3 },
            ["two arms have the name 'none'"] = { arms = { { name = "none" } } },
            ["needs a name"] = { arms = { { attention = 8 } } },
            ["did you mean 'optimizer'"] = { arms = { { name = "x", optimiser = {} } } },
            ["an arm is one run"] = { arms = { { name = "x", loss = { "hinge", "bce" } } } },
            ["better.FID: lower or higher"] = { better = { FID = "less" } },
            ["did you mean 'paper.stability'"] = { published = "paper.stabilty" },
        } do
            local message = helper.message_of(study, more)
            assert.is_truthy(message:find(words, 1, true), words .. " is missing in: " .. message)
        end
    end)

    it("stands for every arm with every seed, at one scale", function()
        local plan = assert(ablation.plan(study(), {}, "r", CPU))
        local paths = {}
        for i, cell in ipairs(plan.cells) do
            paths[i] = cell.path
            assert.equal(64, cell.config.model.resolution)
            assert.same({ { share = 1, step = 3750 } }, cell.stages)
            assert.equal(cell.arm, cell.config.name)
            assert.equal(cell.seed, cell.config.seed)
        end
        assert.same({ "r/s/none/seed-1", "r/s/a8/seed-1", "r/s/a32/seed-1", "r/s/none/seed-2", "r/s/a8/seed-2",
            "r/s/a32/seed-2" }, paths)
        assert.same({}, plan.arms[1].changes)
        assert.equal("model.attention.generator", plan.arms[3].changes[1].field)
        assert.same({ {}, { 32 } }, { plan.arms[3].changes[1].a, plan.arms[3].changes[1].b })
    end)

    it("takes overrides for all arms, and seeds from them", function()
        local plan = assert(ablation.plan(study { at = { 0.25, 1 } }, { "seed=7,9,11", "train.steps=100" }, "r", CPU))
        assert.same({ 7, 9, 11 }, plan.seeds)
        assert.equal(9, #plan.cells)
        assert.same({ { share = 0.25, step = 25 }, { share = 1, step = 100 } }, plan.cells[9].stages)
        for overrides, words in pairs {
            ["loss=hinge,bce"] = "a list for seed only", ["name=x"] = "arms have their own",
            ["lr_d=1"] = "did you mean", ["train.steps=1"] = "are the same step",
        } do
            local none, message = ablation.plan(study { at = { 0.25, 1 } }, { overrides }, "r", CPU)
            assert.is_nil(none)
            assert.is_truthy(message:find(words, 1, true), message)
        end
    end)

    it("knows which way a score is better", function()
        local s = study { better = { odd = "lower" } }
        for name, want in pairs { FID = "lower", ["FD-cnn"] = "lower", KID = "lower", ["intra-FID"] = "lower", IS = "higher",
            ["IS-cnn"] = "higher", precision = "higher", odd = "lower" } do
            assert.equal(want, ablation.direction(s, name), name)
        end
        assert.is_nil(ablation.direction(s, "loss/d"))
    end)
end)

-- Records of cells as if they had run: value(arm, seed) or nil.
local function records(plan, value)
    local out = {}
    for i, cell in ipairs(plan.cells) do
        local v = value(cell.arm, cell.seed)
        out[i] = { arm = cell.arm, seed = cell.seed, outcome = v and "done" or "diverged",
            reason = not v and "step 3: gone" or nil,
            steps = 3750, seconds = 1, scores = json.array(v and { { share = 1, step = 3750, values = { FID = v } } } or {}) }
    end
    return out
end

describe("the table of a study", function()
    local plan = assert(ablation.plan(study { seeds = 4, published = "paper.attention_placement" }, {}, "r", CPU))

    it("has paired differences, which see what arms alone do not", function()
        -- seeds differ by far more than arms do
        local r = study_table.results(plan, records(plan, function(arm, seed)
            return 100 * seed + ({ none = 0, a8 = -2, a32 = 3 })[arm] + 0.1 * ((seed * 7) % 3)  * (arm == "none" and 0 or 1)
        end))
        local row = r.rows[1]
        assert.equal("FID", row.score)
        assert.near(250, row.arms.none.mean, 1e-9)
        assert.is_true(row.arms.none.sd > 100)
        assert.equal("better", row.arms.a8.comparison.verdict)
        assert.equal("worse", row.arms.a32.comparison.verdict)
        assert.same({}, r.missing)
    end)

    it("shows what is missing and why, and compares the seeds that are there", function()
        local found = records(plan, function(arm, seed) return not (arm == "a8" and seed > 1) and 10 * seed or nil end)
        local r = study_table.results(plan, found)
        assert.equal("one seed in common: no interval", r.rows[1].arms.a8.comparison.verdict)
        assert.equal("not distinguishable, no difference in sight", r.rows[1].arms.a32.comparison.verdict)
        assert.same({ arm = "a8", seed = 2, reason = "step 3: gone" }, r.missing[1])
        local text = table.concat(study_table.lines(plan, found), "\n")
        assert.is_truthy(text:find("9 of 12 runs done", 1, true))
        assert.is_truthy(text:find("a8, seed 2: step 3: gone", 1, true))
        assert.is_truthy(text:find("\nFID  25 ± 13       10  25 ± 13", 1, true), text)
        -- the paper's column beside it, under its own words
        assert.is_truthy(text:find("published, another scale of run: arXiv 1805.08318, table 1", 1, true))
        assert.is_truthy(text:find("\nFID  22.96", 1, true))
        assert.is_truthy(text:find("weights unknown", 1, true))
    end)

    it("says how many seeds more it would take", function()
        local r = study_table.results(plan, records(plan, function(arm, seed)
            return arm == "none" and 0 or seed -- differences 1, 2, 3, 4: mean 2.5, sd 1.29, interval 2.5 +- 2.05
        end))
        assert.equal("worse", r.rows[1].arms.a8.comparison.verdict)
        r = study_table.results(plan, records(plan, function(arm, seed) return arm == "none" and 0 or seed - 1.5 end))
        assert.is_truthy(r.rows[1].arms.a8.comparison.verdict:find("^not distinguishable yet, about %d+ more seeds$"))
    end)

    it("is the same in study.json", function()
        local found = records(plan, function(_, seed) return 10 * seed end)
        local t = assert(json.decode(study_table.json(plan, found)))
        assert.equal("s", t.study)
        assert.equal(25, t.rows[1].arms.a8.mean)
        assert.equal(12, #t.cells)
        assert.same({ from = "{}", to = "{ 8 }" }, t.arms[2].changes["model.attention.generator"])
    end)

    it("wraps columns that do not fit", function()
        local lines = study_table.lines(plan, records(plan, function(_, seed) return seed end), 20)
        local heads = 0
        for _, line in ipairs(lines) do
            local head = line:match("^ +(%S+)$")
            if head == "none" or head == "a8" or head == "a32" then heads = heads + 1 end
        end
        assert.equal(4, heads) -- three of ours; the published numbers are narrower: two, and one
    end)
end)

describe("published numbers", function()
    it("are those of the paper's table and have fingerprints of known fields", function()
        local t = published.get "paper.attention_placement"
        assert.same({ 18.28, 51.43 }, { t:entry("feat32").FID, t:entry("feat32").IS })
        assert.same({ 42.13, 23.17 }, { t:entry("residual_feat8").FID, t:entry("residual_feat8").IS })
        assert.equal(72.41, published.get("paper.stability"):entry("sn_gd", 0.26).FID)
        assert.is_nil(published.get("paper.stability"):entry("sn_d", 1))
        assert.equal(14.01, published.get("studiogan_02.cifar10"):entry("sagan").FID)
        assert.equal(10.35, published.get("studiogan_04.cifar10"):entry("sagan").FID)
        local known = {}
        for _, field in ipairs(published.fingerprint_fields) do known[field] = true end
        for _, name in ipairs(published.names()) do
            local p = published.get(name)
            assert.is_true(#p.source > 10 and #p.entries > 0 and #p.scores > 0, name)
            for field in pairs(p.fingerprint) do assert.is_true(known[field], name .. ": " .. field) end
            for _, entry in ipairs(p.entries) do
                local any = false
                for _, score in ipairs(p.scores) do any = any or math.type(entry[score]) ~= nil end
                assert.is_true(any, name .. ": " .. entry.arm)
            end
        end
    end)
end)

describe("common random numbers", function()
    it("reach arms of other architecture, loss and order of steps", function()
        local plan = assert(ablation.plan(ablation {
            name = "crn",
            base = { name = "none", recipe = "paper", profile = "quick", data = "quadrupeds:32", attention = "none",
                model = { resolution = 32, width = 2, channels = 1, classes = 16 }, train = { batch = 4 }, log = { every = 3 } },
            arms = {
                { name = "attention", attention = 16 },
                { name = "wide", model = { width = 3, d_hidden = "thin", upsample = "bilinear" } },
                { name = "acgan", model = { d_head = "auxiliary" } },
                { name = "g_first", train = { order = "g_first", d_forward = "separate", flip = true }, loss = "bce" },
                { name = "two_g", train = { g_batch = 2 } },
            },
            seeds = 1,
        }, {}, "r", CPU))
        local data <close> = assert(core.dataset.open("quadrupeds:32", { resolution = 32, channels = 1, split = "train" }))
        local Trainer = require "sagan.trainer"
        local function seen(config)
            local t = Trainer.new(config, { classes = data.classes })
            t.loader = data:loader { batch = 4, seed = config.seed }
            local out = {}
            for step = 1, 3 do
                t:iterate()
                for _, name in ipairs { "d_z", "g_z", "labels", "g_labels", "images" } do
                    -- of a larger batch the first rows
                    local rows = name == "labels" and 8 or 4
                    out[name .. step] = t[name]:rows(1, rows):bytes()
                end
            end
            t.loader:close()
            return out
        end
        local base = seen(plan.cells[1].config)
        assert.not_equal(base.d_z1, base.d_z2)
        assert.not_equal(base.d_z1, base.g_z1)
        for i = 2, #plan.cells do
            local other = seen(plan.cells[i].config)
            for name, bytes in pairs(base) do assert.is_true(bytes == other[name], plan.cells[i].arm .. ": " .. name) end
        end
        core.clear_tape()
    end)
end)

describe("running a study", function()
    local d = driver.new "ablation"
    teardown(function() d:remove() end)

    local function write(name, more)
        return d:write(name .. ".lua", ([[
            local function score(run)
                local last = run.log[#run.log]
                assert(last.step == run.step and io.open(run.checkpoint), "the state that is scored")
                return { gap = last["logit/real"] - last["logit/fake"] }
            end
            return require("sagan").ablation {
                name = %q, question = "Does it run?",
                base = { name = "none", recipe = "paper", profile = "quick", data = "quadrupeds:64", attention = "none",
                    model = { resolution = 32, width = 2 }, train = { steps = 4, batch = 4 },
                    log = { every = 1, tensorboard = false }, sample = { every = 0, rows = 1, columns = 1, attention = false },
                    checkpoint = { every = 0 } },
                arms = { { name = "feat8", attention = 8 }, %s },
                seeds = 2, score = score,
            }]]):format(name, more or ""))
    end
    local function result(name, root)
        return assert(json.decode(d:read((root or "runs") .. "/" .. name .. "/study.json")))
    end
    local function outcomes(name)
        local out = {}
        for i, cell in ipairs(result(name).cells) do out[i] = cell.arm .. cell.seed .. " " .. cell.outcome end
        return out
    end

    it("lists arms without running them, prints commands, and explains itself", function()
        write "dry"
        local text = d:succeeds "dry.lua --dry-run"
        assert.matches("2 arms x 2 seeds (1, 2) = 4 runs in runs/dry", text, 1, true)
        assert.matches("arm      feat8: changes model.attention.generator {} -> { 8 }", text, 1, true)
        local commands = d:succeeds "dry.lua train.batch=8 'question=a b' --print-commands"
        local lines = {}
        for line in commands:gmatch("[^\n]+") do lines[#lines + 1] = line:gsub("^%S+", "P") end
        assert.same({ "P dry.lua train.batch=8 'question=a b' seed=1 --only none",
            "P dry.lua train.batch=8 'question=a b' seed=1 --only feat8",
            "P dry.lua train.batch=8 'question=a b' seed=2 --only none",
            "P dry.lua train.batch=8 'question=a b' seed=2 --only feat8" }, lines)
        assert.is_nil(core.system.stat(d:at "runs"))
        assert.matches("--print-commands | parallel", d:succeeds "dry.lua --help", 1, true)
        d:refuses("dry.lua --only feet8", { "there is no arm 'feet8'", "did you mean 'feat8'" })
        d:refuses("dry.lua --jobs 0", { "--jobs needs a whole number" })
        d:refuses("dry.lua trian.steps=3", { "did you mean 'train.steps'" })
    end)

    it("goes on where it was interrupted, and repeats nothing", function()
        write("whole", [[{ name = "feat16", attention = 16 }]])
        d:succeeds "whole.lua --runs a"
        -- some cells first, then the rest; and one is taken up in its middle
        d:succeeds "whole.lua --runs b --only feat8 seed=2"
        assert.is_nil(core.system.stat(d:at "b/whole/study.json"))
        d:write("middle.lua", [[
            local trainer = require "sagan.trainer"
            local iterate = trainer.iterate
            function trainer:iterate()
                iterate(self)
                if self.step == 2 and self.config.name == "none" then io.popen("kill -INT " .. sagan.system.getpid()):close() end
            end
            return dofile "whole.lua"]])
        local text, code = d:run "middle.lua --runs b"
        assert.equal(130, code, text)
        text = d:succeeds "whole.lua --runs b"
        assert.matches("resume   from step 2", text, 1, true)
        assert.is_nil(text:find("run      feat8, seed 2", 1, true))
        local a, b = result("whole", "a"), result("whole", "b")
        assert.same(a.rows, b.rows)
        assert.equal("gap", a.rows[1].score)
        assert.equal(2, a.rows[1].arms.feat16.comparison.n)
        assert.is_nil(d:succeeds("whole.lua --runs b"):find("run      ", 1, true))
    end)

    it("survives an arm that fails and one that diverges, and says so in the table", function()
        write("rough", [[{ name = "wild", loss = "bce" }, { name = "lost", data = "folder:/nowhere" }]])
        d:write("wild.lua", [[
            local trainer = require "sagan.trainer"
            local iterate = trainer.iterate
            function trainer:iterate()
                iterate(self)
                if self.step == 2 and self.config.name == "wild" then self.G.slab:detach():fill_(math.huge) end
            end
            return dofile "rough.lua"]])
        local text, code = d:run "wild.lua"
        assert.equal(1, code)
        assert.matches("wild, seed 1: step %d+: .- not finite", text)
        assert.matches("lost, seed 2: .-/nowhere does not exist", text)
        assert.same({ "none1 done", "feat81 done", "wild1 diverged", "lost1 failed", "none2 done", "feat82 done",
            "wild2 diverged", "lost2 failed" }, outcomes "rough")
        assert.equal(0, result("rough").rows[1].arms.wild.n)
        -- again: the divergence is a result, the failure is tried again
        text = d:run "wild.lua"
        assert.is_nil(text:find("run      wild", 1, true))
        assert.is_truthy(text:find("run      lost, seed 1", 1, true))
    end)

    it("scores at shares of the steps and trains on as if it had not", function()
        local path = write "shares"
        local whole = d:read "shares.lua"
        d:succeeds "shares.lua --runs straight seed=1"
        d:write("shares.lua", (whole:gsub("seeds = 2,", "seeds = 1, at = { 0.25, 0.5, 1 },")))
        assert.is_string(path)
        local text = d:succeeds "shares.lua --runs staged"
        assert.matches("gap at 25 %", text, 1, true)
        local rows = result("shares", "staged").rows
        assert.same({ 0.25, 0.5, 1 }, { rows[1].share, rows[2].share, rows[3].share })
        local last = "/shares/feat8/seed-1/checkpoints/step-00000004.safetensors"
        assert.equal("", d:differing("straight" .. last, "staged" .. last))
    end)

    it("scores with another function, and finished runs again without training", function()
        write "again"
        d:succeeds "again.lua --runs again"
        d:write("score.lua", "return function(run) return { FID = run.step + run.seed + (run.arm == 'feat8' and 1 or 0) } end")
        local text = d:succeeds "again.lua --runs again --score score.lua --rescore"
        assert.is_nil(text:find("train    on", 1, true))
        local rows = result("again", "again").rows
        assert.equal(1, #rows)
        assert.same({ "FID", 5.5, "worse" }, { rows[1].score, rows[1].arms.none.mean, rows[1].arms.feat8.comparison.verdict })
        d:write("bad.lua", "return function(run) error('no weights', 0) end")
        local _, code = d:run "again.lua --runs again --score bad.lua --rescore"
        assert.equal(1, code)
        assert.matches("^score: .-no weights", result("again", "again").missing[1].reason)
        assert.same({}, result("again", "again").rows)
        d:succeeds "again.lua --runs again --score score.lua" -- a failure to score is tried again, not trained again
        assert.equal("worse", result("again", "again").rows[1].arms.feat8.comparison.verdict)
        d:write("bad.lua", "return 3")
        d:refuses("again.lua --score bad.lua", { "returns no function" })
    end)

    it("runs arms in several processes with the same result", function()
        write "jobs"
        d:succeeds "jobs.lua --runs one"
        local text = d:succeeds "jobs.lua --runs two --jobs 2"
        assert.matches("jobs     4 runs, 2 at a time", text, 1, true)
        assert.same(result("jobs", "one").rows, result("jobs", "two").rows)
        assert.matches("train    on", d:read "two/jobs/feat8/seed-2/output.txt", 1, true)
    end)
end)
