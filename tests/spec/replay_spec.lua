-- run:replay: the state after a step is the run's to the bit, from a checkpoint and from the seed, with fields that were
-- changed on the way; what is kept of a step agrees with what it was computed from; the folder stays as it was.

local core = require "sagan.core"
local ops = core.ops
local sagan = require "sagan"
local driver = require "driver"
local helper = require "helper"

local d = driver.new "replay"

local function differing(state, file)
    local saved, names = assert(core.safetensors.load(file)), {}
    for name, tensor in pairs(state) do
        if not saved[name] or tensor:bytes() ~= saved[name]:bytes() then names[#names + 1] = name end
    end
    for name in pairs(saved) do
        if not state[name] then names[#names + 1] = name end
    end
    table.sort(names)
    return table.concat(names, " ")
end

local function step_file(folder, step) return d:at(("%s/checkpoints/step-%08d.safetensors"):format(folder, step)) end

local function sum_of(t) return core.no_grad(ops.sum, t):item() end

describe("a replay", function()
    local run
    setup(function()
        local more = [[train = { steps = 6, batch = 4, ema_start = 2, flip = true, %s }, log = { every = 1, tensorboard = false },
            sample = { every = 0, rows = 2, columns = 2, attention = false }, checkpoint = { every = %d, keep = 9 }]]
        d:experiment("run", more:format("", 2))
        d:succeeds("run.lua")
        d:succeeds("run.lua name=whole checkpoint.every=1")
        d:experiment("parts", more:format('accumulate = 2, d_steps = 2, d_forward = "separate", order = "g_first"', 1))
        d:succeeds("parts.lua train.steps=2 train.recompute=blocks")
        run = assert(sagan.open(d:at "runs/run"))
    end)
    teardown(function()
        run = nil
        d:remove()
    end)

    it("ends in the bits of the run, from a checkpoint and from the seed, and leaves the folder alone", function()
        local before = d:snapshot "runs/run"
        for step, from in pairs { [5] = 4, [2] = 0, [3] = 2 } do
            local r <close> = assert(run:replay(step))
            assert.equal(from, r.from)
            assert.equal("", differing(r:state(), step_file("runs/whole/seed-5", step)))
        end
        local r <close> = assert(run:replay(5))
        assert.not_equal("", differing(r.before, step_file("runs/whole/seed-5", 5)))
        assert.equal("", differing(r.before, step_file("runs/whole/seed-5", 4)))
        assert.equal(before, d:snapshot "runs/run")
        assert.equal(d:at "five.safetensors", assert(r:save(d:at "five.safetensors")))
        assert.equal("", d:differing("five.safetensors", "runs/whole/seed-5/checkpoints/step-00000005.safetensors"))
        assert.matches("nothing into the folder", helper.message_of(r.save, r, run.path .. "/x.safetensors"))
    end)

    it("has the numbers that the log has", function()
        local r <close> = assert(run:replay(3))
        for _, row in ipairs(d:log "runs/whole/seed-5") do
            if row.step == 3 then
                row.step, row["images_per_second"] = nil, nil
                assert.same(row, r.row)
            end
        end
        local text = tostring(r)
        assert.matches("step 3 of " .. run.path, text, 1, true)
        assert.matches("rebuilt from checkpoint 2", text, 1, true)
        assert.matches("D's step  loss", text, 1, true)
    end)

    it("shows what passed through the networks, by path", function()
        local r <close> = assert(run:replay(5))
        local weights = r.before
        -- the last layers, computed again from what they were given: tanh of the convolution; the linear part of D
        assert.same({ 4, 32, 32, 3 }, r:activation("G").shape)
        assert.equal(r:activation("G"):bytes(), ops.tanh(r:activation "G.conv"):bytes())
        assert.same({ 8, 1 }, r:activation("D").shape)
        assert.same({ 4, 1 }, r.g:activation("D").shape)
        assert.same(weights["G.conv.weight"].shape, r:gradient("G.conv.weight").shape)
        -- hinge: dL/dlogit of D is -1/n or 0 for reals, 1/n or 0 for fakes; of G it is -1/n
        local logits, gradient = r:activation("D"):totable(), r:gradient("D"):totable()
        for i = 1, 8 do
            local slope = i <= 4 and (logits[i][1] < 1 and -0.25 or 0) or (logits[i][1] > -1 and 0.25 or 0)
            assert.equal(slope, gradient[i][1])
        end
        assert.same({ { -0.25 }, { -0.25 }, { -0.25 }, { -0.25 } }, r.g:gradient("D"):totable())
        -- the bias of a layer sums the gradients of what it put out
        local expected = core.no_grad(function() return r:gradient("G.conv"):reshape(-1, 3) end):totable()
        local got = r:gradient("G.conv.bias"):totable()
        for c = 1, 3 do
            local sum = 0
            for _, pixel in ipairs(expected) do sum = sum + pixel[c] end
            assert.near(sum, got[c], 1e-5 * math.max(1, math.abs(sum)))
        end
        -- the norm that the log has, from the parts
        local square = 0
        for _, path in ipairs(r:paths "^D%.") do
            if weights[path] then square = square + sum_of(core.no_grad(ops.square, r:gradient(path))) end
        end
        assert.near(r.row["grad/d"], math.sqrt(square), 1e-4 * r.row["grad/d"])
        -- nothing flows into G when D learns, but images pass
        assert.is_nil(r.d:gradient "G.block1")
        assert.same({ 4, 32, 32, 3 }, r.d:activation("G").shape)
    end)

    it("lists its paths, prints them, and says what is nearest to a wrong one", function()
        local r <close> = assert(run:replay(1))
        assert.same({ "G.block1.conv1", "G.block2.conv1", "G.block3.conv1", "G.block1.conv1.weight", "G.block1.conv1.bias" },
            table.move(r:paths "^G%.block%d%.conv1", 1, 5, 1, {}))
        assert.same({ "D.block1.conv1" }, r:paths "^D%.block1%.conv1$")
        assert.matches("G.block1.conv1%s+4x8x8x%d+%s+[%d.e-]+%s+[%d.e-]+", tostring(r.g))
        assert.matches("did you mean 'G.block1.conv1'", helper.message_of(r.activation, r, "G.block1.cnv1"), 1, true)
        assert.matches("is a parameter", helper.message_of(r.activation, r, "D.linear.weight"), 1, true)
        assert.matches("a step from 1 to 6", helper.message_of(run.replay, run, 7), 1, true)
        assert.matches("a step from 1 to 6", helper.message_of(run.replay, run, 0), 1, true)
    end)

    it("does the step again, otherwise or not", function()
        local r <close> = assert(run:replay(4))
        local saved = step_file("runs/whole/seed-5", 4)
        local same = r:step_again()
        assert.equal("", differing(same:state(), saved))
        local other = r:step_again { optimizer = { lr_d = 1e-5 } }
        local names = differing(other:state(), saved)
        assert.matches("D.linear.weight", names, 1, true)
        assert.equal(r.row["loss/d"], other.row["loss/d"])
        assert.not_equal(r.row["loss/g"], other.row["loss/g"]) -- against the other D
        assert.equal("", differing(r:step_again():state(), saved))
        assert.matches("optimizer.lr_g and optimizer.lr_d, not train.batch",
            helper.message_of(r.step_again, r, { ["train.batch"] = 8 }), 1, true)
        assert.matches("step_again has moved the state on", helper.message_of(r.state, r), 1, true)
    end)

    it("of a step in parts, with several D steps and recomputed blocks", function()
        local parts = assert(sagan.open(d:at "runs/parts"))
        local r <close> = assert(parts:replay(2))
        assert.equal("", differing(r:state(), step_file("runs/parts/seed-5", 2)))
        assert.equal(2, #r.d_steps)
        assert.equal(r.d, r.d_steps[2])
        assert.same({ 8, 1 }, r.d:activation("D").shape) -- two parts of real 2, fake 2, in calls of their own
        assert.same({ 4, 32, 32, 3 }, r.g:gradient("G").shape)
        local per_call = core.no_grad(function() return r:gradient("D.block1"):abs():mean() end):item()
        assert.is_true(per_call > 0)
    end)

    it("with the fields that were changed while the run went on", function()
        d:write("change.lua", [[
local run_setup, logger, run_folder = require "sagan.run_setup", require "sagan.logger", require "sagan.run_folder"
local experiment, live, Trainer = require "sagan.experiment", require "sagan.live", require "sagan.trainer"
local core = require "sagan.core"
local config = assert(experiment.resolve(dofile "run.lua", { "name=changed", "checkpoint.every=2" }))[1]
core.winograd(config.winograd)
local data = assert(run_setup.data(config))
config.model.classes, config.model.channels = data.classes, data.channels
local trainer = Trainer.new(config, data)
trainer.folder = assert(run_folder.create(config, { root = "runs" }))
trainer.log = assert(logger.open(trainer.folder, config.log))
trainer.loader = data.set:loader { batch = config.train.batch, seed = config.seed }
for step = 1, 6 do
    if step == 3 then live.set(trainer, { { key = "optimizer.lr_d", value = 5e-5 } }) end
    if step == 5 then live.set(trainer, { { key = "optimizer.lr_g", value = 5e-3 } }) end
    trainer:iterate()
    if step ~= 2 and step ~= 3 then assert(trainer:save()) end -- none between the first change and step 4
end
]])
        assert.equal("", (d:shell '"$SAGAN" change.lua'))
        local changed = assert(sagan.open(d:at "runs/changed"))
        os.remove(step_file("runs/changed/seed-5", 5))
        for step, from in pairs { [4] = 1, [6] = 4 } do
            local r <close> = assert(changed:replay(step))
            assert.equal(from, r.from)
            assert.equal("", differing(r:state(), step_file("runs/changed/seed-5", step)))
        end
        os.remove(step_file("runs/changed/seed-5", 1))
        local r <close> = assert(changed:replay(4))
        assert.equal(0, r.from)
        assert.equal("", differing(r:state(), step_file("runs/changed/seed-5", 4)))
    end)
end)
