-- A run folder opened for looking: what is in it, what is said of one that is damaged or not ours, and that nothing changes.

local core = require "sagan.core"
local sagan = require "sagan"
local driver = require "driver"
local helper = require "helper"

local d = driver.new "run"
local message_of = helper.message_of

local function same_bytes(a, b) assert(a:bytes() == b:bytes(), "the numbers differ") end

describe("sagan.open", function()
    local run, before
    setup(function()
        d:experiment("tiny", [[train = { steps = 6, batch = 4, ema_start = 2 }, log = { every = 2, tensorboard = false },
            sample = { every = 0, rows = 2, columns = 2, attention = false }, checkpoint = { every = 2, keep = 3 }]])
        d:succeeds("tiny.lua model.attention.generator={8,16}")
        before = d:snapshot "runs/tiny"
        run = assert(sagan.open(d:at "runs/tiny"))
    end)
    teardown(function()
        run = nil
        d:remove()
    end)

    it("by folder, seed folder or checkpoint file, with its fields", function()
        assert.equal(d:at "runs/tiny/seed-5", run.path)
        assert.equal(6, run.step)
        assert.equal(5, run.config.seed)
        assert.equal(8, #run.class_names)
        assert.same({ 6, 4, 2 }, { run.checkpoints[1].step, run.checkpoints[2].step, run.checkpoints[3].step })
        assert.equal(6, assert(sagan.open(run.path .. "/")).step)
        local file = assert(sagan.open(run.checkpoints[2].path))
        assert.equal(4, file.step)
        same_bytes(run:net("G", { step = 4 }):attention().output, file.G:attention().output)
        assert.matches("step 6 of 6, 3 checkpoints, 8 classes", tostring(run), 1, true)
        assert.matches("G at step 6 (EMA): Generator, 8 classes, 32x32, attention at feat8, feat16", tostring(run.G), 1, true)
    end)

    it("with the networks of the checkpoint: the average, the raw one, another step", function()
        local state = assert(core.safetensors.load(run.checkpoints[1].path))
        local old = assert(core.safetensors.load(run.checkpoints[3].path))
        local function weight(view) return view.net.conv.weight:bytes() end
        assert.equal(state["ema.conv.weight"]:bytes(), weight(run.G))
        assert.equal("EMA", run.G.weights)
        assert.equal(state["G.conv.weight"]:bytes(), weight(run:net("G", { raw = true })))
        assert.equal(old["ema.conv.weight"]:bytes(), weight(run:net("G", { step = 2 })))
        assert.equal(old["G.conv.weight"]:bytes(), weight(assert(sagan.open(run.path, { raw = true, step = 2 })).G))
        same_bytes(state["D.linear.weight"], run.D.net.linear.weight)
        run.G:forget()
        assert.equal(state["ema.conv.weight"]:bytes(), weight(run.G))
    end)

    it("or says why not", function()
        local function refused(wanted, ...)
            local got, message = sagan.open(...)
            assert.is_nil(got)
            assert.matches(wanted, message, 1, true)
        end
        refused("nowhere: no such run folder", d:at "nowhere")
        d:shell "mkdir -p void early/seed-1 && cp runs/tiny/seed-5/config.lua early/seed-1/"
        refused("void: not a run folder", d:at "void")
        refused("early/seed-1: no checkpoint yet", d:at "early")
        refused("no checkpoint of step 3; there are 2, 4, 6", run.path, { step = 3 })
        refused("tiny.lua: ", d:at "tiny.lua")
        d:shell "cp -r runs/tiny broken && echo '}' > broken/seed-5/config.lua"
        refused("broken/seed-5/config.lua", d:at "broken")
        assert.matches("sagan.open: no option 'stepp'; did you mean 'step'?",
            message_of(sagan.open, run.path, { stepp = 3 }), 1, true)
        assert.matches("no checkpoint of step 5; there are 2, 4, 6", message_of(run.net, run, "G", { step = 5 }), 1, true)
        assert.matches("networks G and D, no E", message_of(run.net, run, "E"), 1, true)
    end)

    it("passes over damaged checkpoints, names them, and changes nothing", function()
        d:shell "cp -r runs/tiny damaged"
        d:write("damaged/seed-5/checkpoints/step-00000006.safetensors", "damaged")
        local was = d:snapshot "damaged"
        local other = assert(sagan.open(d:at "damaged"))
        assert.equal(4, other.step)
        assert.matches("step-00000006.safetensors", other.damaged[1], 1, true)
        assert.matches("not usable: .*step%-00000006", tostring(other))
        same_bytes(run:net("G", { step = 4 }):attention().output, other.G:attention().output)
        local rollout = assert(other.G:attention():rollout())
        assert.equal(2, #rollout)
        assert.matches("step-00000006.safetensors", rollout.skipped[1], 1, true)
        assert.matches("not usable: .*step%-00000006", tostring(rollout))
        assert.is_nil((other.G:attention():rollout { from = 6 }))
        assert.equal(was, d:snapshot "damaged")
        for _, step in ipairs { 2, 4 } do
            d:write(("damaged/seed-5/checkpoints/step-%08d.safetensors"):format(step), "")
        end
        local none, message = sagan.open(d:at "damaged")
        assert.is_nil(none)
        for _, step in ipairs { 2, 4, 6 } do assert.matches(("step-%08d"):format(step), message, 1, true) end
    end)

    it("of another version only as far as it can, and says so", function()
        local tensors, metadata = assert(core.safetensors.load(run.checkpoints[1].path))
        local path = d:at "other.safetensors"
        local function with(changes)
            local m = {}
            for k, v in pairs(metadata) do m[k] = changes[k] or v end
            assert(core.safetensors.save(path, tensors, m))
            return sagan.open(path)
        end
        local none, message = with { format = "sagan-lua checkpoint 99" }
        assert.is_nil(none)
        assert.matches("sagan-lua checkpoint 99", message, 1, true)
        none, message = with { config = metadata.config:gsub("width = 4", "widht = 4") }
        assert.is_nil(none)
        assert.matches("widht", message, 1, true)
        assert.matches("Another version may have written it; this is " .. core.version, message, 1, true)
        local other = assert(with { version = "9.9.9", config = metadata.config:gsub("width = 4", "width = 8") })
        local text = message_of(function() return other.G:attention() end)
        assert.matches("other.safetensors: G: the state does not fit", text, 1, true)
        assert.matches("version 9.9.9 wrote it, this is " .. core.version, text, 1, true)
    end)

    it("has changed nothing in the run's folder", function() assert.equal(before, d:snapshot "runs/tiny") end)
end)
