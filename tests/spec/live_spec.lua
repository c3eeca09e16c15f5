-- Fields that are changed while a run goes on: what changes, what is written down, and that a continued run keeps them.

local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"
local live = require "sagan.live"
local control_client = require "sagan.control_client"
local driver = require "driver"

local d = driver.new "live"

local function folder(root) return root .. "/tiny/seed-5" end
local function file(root, step) return ("%s/checkpoints/step-%08d.safetensors"):format(folder(root), step) end

--- A run that a client holds, soon after its beginning.
local function held(root, words)
    d:start(root, ("tiny.lua --runs %s %s"):format(root, words or "train.steps=1000"))
    d:await("the socket of " .. root, function() return system.stat(d:at(folder(root) .. "/control.sock")) end)
    local client = assert(control_client.connect(d:at(folder(root))))
    assert(client:ask [[pause "stay"]])
    return client, math.tointeger(tonumber((client:ask "run.step")))
end

local function ask(client, code)
    local value, failure = client:ask(code)
    return value or error(("%s: %s"):format(code, failure), 2)
end

local function events(root)
    local out = {}
    for _, row in ipairs(system.stat(d:at(folder(root) .. "/log.jsonl")) and d:log(folder(root)) or {}) do
        if row.event then out[#out + 1] = row end
    end
    return out
end

describe("live fields", function()
    setup(function()
        d:experiment("tiny", [[train = { steps = 1000, batch = 2, ema_start = 3 }, log = { every = 2 }, threads = 1,
            sample = { every = 0, rows = 1, columns = 2, attention = false }, checkpoint = { every = 0, keep = 9 }]])
        -- the same rates at the same steps, without a client
        d:write("by_hand.lua", [[
            local Trainer = require "sagan.trainer"
            local iterate, change = Trainer.iterate, math.tointeger(os.getenv "CHANGE")
            function Trainer:iterate()
                if self.step == change then self.adam_d:set_rate(2e-3) end
                if self.step == change + 2 then self.adam_g:set_rate(0.0) end
                return iterate(self)
            end
            return dofile "tiny.lua"]])
    end)
    teardown(function()
        d:shell "for p in *.pid; do kill -9 $(cat $p); done"
        d:remove()
    end)

    it("take effect at the next step, are written down, and outlive the process", function()
        local client, step = held "a"
        assert.equal(("optimizer.lr_d: 0.0004 -> 0.002 from step %d on"):format(step + 1),
            ask(client, [[set("optimizer.lr_d", 2e-3)]]))
        assert.equal("no change", ask(client, [[run:set("optimizer.lr_d", 0.002)]]))
        ask(client, "step(2)")
        ask(client, "set{ optimizer = { lr_g = 0 }, ['checkpoint.keep'] = 8 }")
        ask(client, "step(2)")
        ask(client, "checkpoint()")
        -- after the checkpoint: lost with the process
        ask(client, [[set("optimizer.lr_d", 3e-3)]])
        assert.equal(4, #events "a")
        d:signal("a", "KILL")
        d:finish "a"
        d:shell(("CHANGE=%d \"$SAGAN\" by_hand.lua --runs b train.steps=%d > b.out 2>&1"):format(step, step + 4))
        assert.equal("", d:differing(file("a", step + 4), file("b", step + 4)))
        d:succeeds(("tiny.lua --runs c train.steps=%d"):format(step + 4))
        assert.not_equal("", d:differing(file("c", step + 4), file("b", step + 4)))

        -- the command that started it continues it, with the changed rates
        local text = d:succeeds(("tiny.lua --runs a train.steps=%d"):format(step + 8))
        assert.matches(("kept     optimizer.lr_d = 0.002, changed at step %d (the command says 0.0004)"):format(step), text, 1,
            true)
        assert.matches("kept     optimizer.lr_g = 0.0, changed at step " .. step + 2, text, 1, true)
        assert.matches("rates D 0.002 / G 0", text, 1, true)
        d:shell(("CHANGE=%d \"$SAGAN\" by_hand.lua --runs d train.steps=%d > d.out 2>&1"):format(step, step + 8))
        assert.equal("", d:differing(file("a", step + 8), file("d", step + 8)))
        assert.same({
            { event = "set", step = step, field = "optimizer.lr_d", old = 0.0004, new = 0.002 },
            { event = "set", step = step + 2, field = "optimizer.lr_g", old = 0.0001, new = 0.0 },
            { event = "set", step = step + 2, field = "checkpoint.keep", old = 9, new = 8 },
        }, events "a")
        -- and again, from a checkpoint that the continued run wrote
        text = d:succeeds(("tiny.lua --runs a train.steps=%d checkpoint.keep=5"):format(step + 10))
        assert.matches("kept     optimizer.lr_d = 0.002", text, 1, true)
        assert.is_nil(text:find("checkpoint.keep", 1, true)) -- the command asked for something else
        assert.same({ event = "set", step = step + 8, field = "checkpoint.keep", old = 8, new = 5 }, events "a"[4])

        -- the folder is still that of the experiment
        assert.equal(0.0004, require("sagan.run_folder").at(d:at(folder "a")):config().optimizer.lr_d)
        d:refuses("tiny.lua --runs a optimizer.lr_d=2e-3", { "optimizer.lr_d was 0.0004, now 0.002" })
        local info = assert(require("sagan.checkpoint").info(d:at(file("a", step + 10))))
        assert.equal(0.002, info.config.optimizer.lr_d)
        assert.equal(4, #info.changes)
        -- nothing that reads measurements takes them for one
        for _, row in ipairs(d:log(folder "a")) do assert(row.event or row["loss/d"], json.encode(row)) end
    end)

    it("say how long, how often and how loudly a run goes on", function()
        local client, step = held "long"
        local narrow = tonumber(ask(client, ("samples %q"):format(d:at "x.png")):match(": (%d+)x"))
        ask(client, "set{ log = { every = 1 }, checkpoint = { every = 1, keep = 2 }, sample = { every = 1, columns = 3 } }")
        ask(client, "step(3)")
        assert.matches("of 1000", ask(client, "status()"))
        assert.matches("train.steps = 1: step %d+ is done already", (select(2, client:ask("set('train.steps', 1)"))))
        ask(client, ("set('train.steps', %d)"):format(step + 5))
        ask(client, "resume()")
        local code, text = d:finish "long"
        assert.equal(0, code, text)
        assert.matches(("done     step %d after"):format(step + 5), text, 1, true)
        assert.same({ ("step-%08d.safetensors"):format(step + 4), ("step-%08d.safetensors"):format(step + 5) },
            d:list(folder "long" .. "/checkpoints"))
        for s = step + 1, step + 5 do
            assert.is_truthy(system.stat(d:at(("%s/samples/raw-%08d.png"):format(folder "long", s))))
        end
        local wide = assert(core.image.read(d:at(("%s/samples/raw-%08d.png"):format(folder "long", step + 5)))):size(2)
        assert.equal(64 + 2, wide - narrow)
        -- a run that reached its end may be given more, live or by the command
        assert.matches("done", d:succeeds("tiny.lua --runs long"))
        assert.matches(("reached step %d already"):format(step + 5), d:succeeds "tiny.lua --runs long", 1, true)
        text = d:succeeds(("tiny.lua --runs long train.steps=%d"):format(step + 6))
        assert.matches(("done     step %d after"):format(step + 6), text, 1, true)
    end)

    it("are few; the others are refused with the reason", function()
        local client = held "few"
        local function refused(code, wanted)
            local value, failure = client:ask(code)
            assert.is_nil(value)
            assert.matches(wanted, failure, 1, true)
        end
        refused("set('model.width', 8)", "model.width says what a step computes; changed, it is another experiment")
        refused("set('optimizer.beta1', 0.5)", "another experiment")
        refused("set('attention', 16)", "another experiment")
        refused("set('log.tensorboard', false)", "is read when a run starts")
        refused("set('optimizer.lr', 1)", "did you mean 'optimizer.lr_d'?")
        refused("set('optimizer.lr_d', 2)", "it must be a number from 0 to 1")
        refused("set('optimizer.lr_d')", "it must be a number from 0 to 1")
        refused("set('log.every', 3)", "the losses of 2 steps are kept at most")
        refused("set{ optimizer = 3 }", "optimizer is a group of fields")
        refused("set{ optimizer = { lr_g = 0.5, lr_d = 2 } }", "it must be a number from 0 to 1")
        assert.equal("0.0001", (client:ask "run.config.optimizer.lr_g")) -- all or nothing
        assert.same({}, events "few")
        -- a change that cannot be written down is not made
        d:shell(("rm -f %s/log.jsonl; mkdir %s/log.jsonl"):format(folder "few", folder "few"))
        refused("set('optimizer.lr_d', 0.1)", "log.jsonl: cannot open for appending")
        assert.equal("0.0004", (client:ask "run.config.optimizer.lr_d"))
        d:signal("few", "KILL")
        d:finish "few"
        for _, f in ipairs(live.list()) do assert.is_true(f.free or f.key:find("^optimizer.lr_") ~= nil, f.key) end
    end)

    it("do not mix with a decay of the rates towards the last step", function()
        local client = held("decay", "train.lr_decay=1 train.steps=1000")
        local value, failure = client:ask "set('train.steps', 2000)"
        assert.is_nil(value)
        assert.matches("train.lr_decay", failure, 1, true)
        -- a changed rate decays as the first one would have
        ask(client, "set('optimizer.lr_d', 0.008)")
        ask(client, "step()")
        local step, rate = ask(client, "run.step, run.trainer.adam_d.hyper:totable()[1]"):match("(%d+)\t(.+)")
        assert.near(0.008 * (1000 - (step - 1)) / 1000, tonumber(rate), 1e-8)
        ask(client, "stop()")
        d:finish "decay"
    end)

    it("of a checkpoint that make no sense are refused", function()
        local trainer = { config = require("sagan.config").defaults(), changes = {}, step = 3 }
        local kept, message = live.adopt(trainer, { { step = 1, field = "loss", old = "hinge", new = "bce" } })
        assert.is_nil(kept)
        assert.matches("loss was changed", message)
        kept = live.adopt(trainer, { { step = 1, field = "sample.every", old = 1000, new = "x" } })
        assert.is_nil(kept)
        assert.same({ "sample.every = 5, changed at step 2 (the command says 1000)" }, live.adopt(trainer, {
            { step = 1, field = "sample.every", old = 1000, new = 9 }, { step = 2, field = "sample.every", old = 9, new = 5 } }))
        assert.equal(5, trainer.config.sample.every)
    end)
end)
