-- sagan-lua recipe: list, show, diff, and a bisect of a few steps whose score is known beforehand.
local bisect = require "sagan.bisect"
local config = require "sagan.config"
local fields = require "sagan.fields"
local recipes = require "sagan.recipes"
local json = require "sagan.json"
local driver = require "driver"

local d = driver.new "recipe"

local function has(text, words) assert.is_truthy(text:find(words, 1, true), words .. " is missing in:\n" .. text) end

describe("recipe", function()
    teardown(function() d:remove() end)

    it("list names every recipe", function()
        local text = "\n" .. d:succeeds "recipe list"
        for _, name in ipairs(recipes.names) do has(text, "\n" .. name .. " ") end
    end)

    it("show has every field, and a star where it is not the paper's", function()
        local text = d:succeeds "recipe show tf_official"
        local starred = {}
        for _, f in ipairs(fields.list) do
            if bisect.is_science(f) then has(text, " " .. f.key .. " ") end
        end
        for key in text:gmatch("\n%* (%S+)") do starred[#starred + 1] = key end
        assert.same({ "model.attention.form", "model.spectral_norm.u_init", "model.spectral_norm.through",
            "model.spectral_norm.update", "model.batch_norm.momentum", "model.batch_norm.last_momentum", "optimizer.beta2",
            "optimizer.tf_eps", "train.steps", "train.accumulate", "train.d_forward", "train.order", "train.ema_decay" }, starred)
        assert.is_nil(text:find("log.every", 1, true))
    end)

    it("diff lists the differing fields with both values", function()
        local text = d:succeeds "recipe diff studiogan biggan_pytorch"
        local rows = {}
        for key, a, b in text:gmatch("\n(%S+)%s+(%S+)%s+(%S+)") do rows[key] = a .. " " .. b end
        assert.equal("true false", rows["model.inplace_shortcut"])
        assert.equal('"orthogonal" "xavier"', rows["model.init.weights"])
        assert.equal("1000000 500000", rows["train.steps"])
        assert.is_nil(rows["model.attention.form"])
        assert.is_nil(d:succeeds("recipe diff studiogan biggan_pytorch profile=quick"):find("train.steps", 1, true))
        has(d:succeeds "recipe diff paper paper", "are the same")
    end)

    it("refuses what it does not know, and helps", function()
        d:refuses("recipe diff paper stdiogan", { "did you mean 'studiogan'" })
        d:refuses("recipe dif paper gan", { "did you mean 'diff'" })
        d:refuses("recipe show", { "takes one recipe" })
        d:refuses("recipe diff paper gan recipe=paper", { "the recipes are those that are named" })
        d:refuses("recipe bisect paper gan --score /nowhere.lua", { "/nowhere.lua" })
        d:refuses("recipe bisect paper paper", { "are the same at this scale" })
        has(d:succeeds "recipe --help", "recipe bisect studiogan biggan_pytorch")
        has(d:succeeds "help recipe", "Examples")
    end)
end)

describe("the way between two recipes", function()
    it("changes one field or group at a time and ends at the other", function()
        local configs = assert(bisect.resolve({ "studiogan", "tf_official" }, {}, "quick"))
        local steps = bisect.steps(configs[1], configs[2])
        local changed = {}
        for _, step in ipairs(steps) do
            for _, f in ipairs(step.fields) do
                assert.is_nil(changed[f.field], f.field .. " changes twice")
                changed[f.field] = true
            end
        end
        for _, f in ipairs(bisect.differences(configs[1], configs[2])) do assert.is_true(changed[f.field]) end
        local study = assert(bisect.study("studiogan", "tf_official", {}))
        local plan = assert(require("sagan.ablation").plan(study, {}, "r", { cuda = false }))
        assert.equal(#steps + 1, #plan.arms)
        for i = 2, #plan.arms do
            assert.is_true(#plan.arms[i].changes >= 1)
            local got, want = {}, {}
            for _, c in ipairs(plan.arms[i].changes) do got[#got + 1] = c.field end
            for _, c in ipairs(steps[i - 1].fields) do want[#want + 1] = c.field end
            assert.same(want, got)
        end
        assert.same({}, bisect.differences(plan.arms[#plan.arms].config, configs[2]))
        assert.same({}, bisect.differences(plan.arms[1].config, configs[1]))
    end)

    it("has groups of fields that exist, each in one", function()
        local seen = {}
        for _, keys in pairs(bisect.groups) do
            for _, key in ipairs(keys) do
                assert.is_table(config.field(key))
                assert.is_nil(seen[key], key)
                seen[key] = true
            end
        end
    end)

    it("is trained step by step, and the step that moved the score is named", function()
        -- paper and gan differ in attention, spectral norm (two fields) and losses, rates; the score knows the loss only, with
        -- a little of the seed and of the weights' noise
        d:write("score.lua", [[return function(run)
            return { FID = 10 * run.seed + (run.config.loss == "bce" and 5 or 0) + 0.001 * run.log[#run.log]["loss/g"] }
        end]])
        local words = "recipe bisect paper gan data=quadrupeds:64 model.resolution=32 model.width=2 attention=none train.steps=2 "
            .. "train.batch=4 sample.every=0 sample.rows=1 sample.columns=1 sample.attention=false log.tensorboard=false "
            .. "log.every=1 checkpoint.every=0 --score score.lua --seeds 2 --runs found"
        local text = d:succeeds(words .. " --dry-run")
        has(text, "5 arms x 2 seeds (1, 2) = 10 runs in found/bisect-paper-gan")
        has(text, "03-loss")
        assert.is_nil(require("sagan.core").system.stat(d:at "found"))
        text = d:succeeds(words)
        has(text, "left     ")
        local moved = text:match("\nmoved    FID: ([^\n]+)")
        assert.matches("^loss %+%S+ %(worse%)", moved)
        assert.is_nil(moved:find("spectral_norm", 1, true))
        has(text, "[3 of 4 steps not distinguishable]")
        local t = assert(json.decode(d:read "found/bisect-paper-gan/study.json"))
        assert.equal("02-spectral_norm.discriminator", t.rows[1].arms["03-loss"].comparison.against)
        -- again: nothing is trained
        assert.is_nil(("\n" .. d:succeeds(words)):find("\nrun      ", 1, true))
        has(d:succeeds(words .. " --print-commands --fresh"),
            "--seeds=2 seed=1 --only 00-paper --runs found --score score.lua --fresh")
    end)
end)
