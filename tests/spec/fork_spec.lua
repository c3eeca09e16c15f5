-- run:fork: one state continued in two ways. Without a change it goes on to the bits of the run; with one it differs from
-- there on; what cannot change is named; a fork that lost its checkpoint is not started over.

local core = require "sagan.core"
local json = require "sagan.json"
local sagan = require "sagan"
local driver = require "driver"
local helper = require "helper"

local d = driver.new "fork"
local LAST = "/seed-5/checkpoints/step-00000006.safetensors"

describe("a fork", function()
    local run
    local function at(name) return "runs/" .. name .. LAST end
    setup(function()
        d:experiment("run", [[train = { steps = 6, batch = 4, ema_start = 2, flip = true },
            log = { every = 1, tensorboard = false },
            sample = { every = 0, rows = 2, columns = 2, attention = false }, checkpoint = { every = 2, keep = 9 }]])
        d:succeeds("run.lua")
        run = assert(sagan.open(d:at "runs/run"))
    end)
    teardown(function()
        run = nil
        d:remove()
    end)

    it("without a change goes on to the bits of the run, from a checkpoint, between two, and from the seed", function()
        local before = d:snapshot "runs/run"
        for name, step in pairs { same = 2, between = 3, first = 0 } do
            local fork = assert(run:fork { at = step, name = name })
            assert.equal(("%s/runs/%s/seed-5"):format(d.root, name), fork.path)
            assert.matches(("from step %d on: sagan-lua %s/config.lua --runs"):format(step, fork.path), tostring(fork), 1, true)
            local text = d:succeeds(("runs/%s/seed-5/config.lua"):format(name))
            if step > 0 then assert.matches("resume   from step " .. step, text, 1, true) end
            assert.equal("", d:differing(at(name), at "run"))
            -- the whole curve, each step once
            local rows, old = d:log("runs/" .. name .. "/seed-5"), d:log "runs/run/seed-5"
            assert.equal(6, #rows)
            for i, row in ipairs(rows) do
                row["images_per_second"], old[i]["images_per_second"] = nil, nil
                assert.same(old[i], row)
            end
        end
        assert.equal(before, d:snapshot "runs/run")
    end)

    it("with changes goes another way, and says where it came from", function()
        local fork = assert(run:fork { at = 4, name = "other", ["optimizer.lr_d"] = 5e-5, loss = "bce",
            train = { batch = 8, ema_decay = 0 } })
        assert.equal(5e-5, fork.config.optimizer.lr_d)
        local story = assert(json.decode(d:read "runs/other/seed-5/fork.json"))
        assert.equal(run.path, story.from)
        assert.equal(4, story.at)
        local fields = {}
        for i, change in ipairs(story.changes) do fields[i] = change.field end
        assert.same({ "loss", "optimizer.lr_d", "train.batch", "train.ema_decay" }, fields)
        assert.equal("hinge", story.changes[1].old)
        d:succeeds("runs/other/seed-5/config.lua")
        local other = d:differing(at "other", at "run")
        assert.matches("D.linear.weight", other, 1, true)
        assert.matches("ema.linear.weight", other, 1, true) -- it keeps none
        -- and is replayed from where it began, not from the seed
        local opened = assert(sagan.open(d:at "runs/other"))
        local r <close> = assert(opened:replay(5))
        assert.equal(4, r.from)
        os.remove(d:at "runs/other/seed-5/checkpoints/step-00000004.safetensors")
        local none, message = opened:replay(5)
        assert.is_nil(none)
        assert.matches("is a fork at step 4 of", message, 1, true)
    end)

    it("of a run without average begins one", function()
        assert(run:fork { at = 4, name = "none", ["train.ema_decay"] = 0 })
        d:succeeds "runs/none/seed-5/config.lua train.steps=6"
        local none = assert(sagan.open(d:at "runs/none"))
        local fork = assert(none:fork { at = 5, name = "again", train = { ema_decay = 0.9 } })
        local state = assert(core.safetensors.load(fork.path .. "/checkpoints/step-00000005.safetensors"))
        assert.equal(state["G.linear.weight"]:bytes(), state["ema.linear.weight"]:bytes())
        d:succeeds "runs/again/seed-5/config.lua"
    end)

    it("names what cannot change", function()
        local function refused(wanted, fields)
            fields.at, fields.name = fields.at or 4, fields.name or "wrong"
            local message = helper.message_of(run.fork, run, fields)
            assert.matches(wanted, message, 1, true)
        end
        refused("model.width cannot change in a fork: D.attention16.f.weight is {1, 1, 1, 8}, normalised, and would be {2, 1,",
            { ["model.width"] = 8 })
        refused("model.attention.generator cannot change in a fork: G.attention8.f.weight is not there",
            { model = { attention = { generator = { 8, 16 } } } })
        refused("model.spectral_norm.generator cannot change in a fork", { ["model.spectral_norm.generator"] = false })
        refused("train.steps = 4: the fork is at step 4 already", { ["train.steps"] = 4 })
        refused("there is no field 'optimizer.lr'", { ["optimizer.lr"] = 1 })
        refused("does not divide train.batch", { ["train.accumulate"] = 3 })
        refused("at is a step from 0 to 6", { at = 7 })
        assert.is_nil((core.system.stat(d:at "runs/wrong")))
        local none, message = run:fork { at = 4, name = "run" }
        assert.is_nil(none)
        assert.matches("there is a run already", message, 1, true)
    end)

    it("that lost its checkpoint is not started over unasked", function()
        assert(run:fork { at = 2, name = "lost" })
        os.remove(d:at "runs/lost/seed-5/checkpoints/step-00000002.safetensors")
        d:refuses("runs/lost/seed-5/config.lua", { "is a fork at step 2", "its checkpoint is gone", "--fresh" })
        d:succeeds "runs/lost/seed-5/config.lua --fresh"
        assert.equal("", d:differing(at "lost", at "run"))
        assert.is_nil((core.system.stat(d:at "runs/lost/seed-5/fork.json")))
    end)
end)
