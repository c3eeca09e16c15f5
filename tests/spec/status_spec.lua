-- sagan-lua status: what a folder of runs tells about each of them, also while they are written and when they are damaged.

local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"
local run_status = require "sagan.run_status"
local driver = require "driver"

local d = driver.new "status"

local function row(step, values)
    local r = { step = step, ["loss/d"] = 1.5, ["loss/g"] = 0.5, ["sigma/D"] = 2.0, ["sigma/G"] = 2.0, ["gamma/G.feat16"] = 0.25,
        images_per_second = 50.0 }
    for name, value in pairs(values or {}) do r[name] = value end
    return json.encode(r) .. "\n"
end

--- A run folder made by hand, from a real configuration.
local function made(name, log)
    d:write(name .. "/config.lua", d:read "runs/tiny/seed-5/config.lua")
    if log then d:write(name .. "/log.jsonl", log) end
    return run_status.read(d:at(name))
end

describe("status", function()
    setup(function()
        d:experiment("tiny", [[train = { steps = 6, batch = 2 }, log = { every = 2 }, threads = 1,
            sample = { every = 0, rows = 1, columns = 2, attention = false }, checkpoint = { every = 2 }]])
        d:succeeds "tiny.lua"
    end)
    teardown(function()
        d:shell "for p in *.pid; do kill -9 $(cat $p); done"
        d:remove()
    end)

    it("of finished, interrupted and new runs", function()
        local s = run_status.read(d:at "runs/tiny/seed-5")
        assert.same({ "tiny", 5, "finished", 6, 6, "ok" }, { s.name, s.seed, s.state, s.step, s.steps, s.health })
        assert(s.images_per_second > 0 and s.losses.d and s.losses.g and s.gamma["G.feat16"] and s.gamma["D.feat16"])
        assert.is_nil(s.left)
        d:shell "cp -r runs/tiny/seed-5 more; rm more/checkpoints/*6.safetensors"
        s = run_status.read(d:at "more")
        assert.same({ "interrupted", 6, 6 }, { s.state, s.step, s.steps }) -- logged, though saved at 4
        assert.same({ "new", 0, "-" }, (function(n) return { n.state, n.step, n.health } end)(made "fresh"))
        assert.equal("interrupted", made("logged", row(2)).state)
    end)

    it("of damaged runs: says what is wrong", function()
        d:write("broken/config.lua", "return {")
        local s = run_status.read(d:at "broken")
        assert.equal("damaged", s.state)
        assert.matches("broken/config.lua:1:", s.health, 1, true)
        d:write("other/config.lua", 'return require("sagan").experiment { from_the_future = 1 }')
        assert.matches("from_the_future", run_status.read(d:at "other").health)
        d:shell "cp -r runs/tiny/seed-5 cut; truncate -s 1000 cut/checkpoints/*6.safetensors"
        s = run_status.read(d:at "cut")
        assert.equal("interrupted", s.state)
        assert.matches("step-00000006.safetensors", s.health, 1, true)
    end)

    it("of logs in any state", function()
        assert.equal("ok", made("half", row(2) .. row(4) .. '{"loss/d":1.2,"st').health) -- a line that is being written
        assert.equal(4, run_status.read(d:at "half").step)
        assert.equal("-", made("rubbish", "\0\1\2\n[1]\n5\n{}\nnull\n").health)
        assert.equal("loss/g is not finite", made("nan", row(2) .. row(4, { ["loss/g"] = 0 / 0 })).health)
        assert.matches("D's loss is 0", made("zero", row(2) .. (row(4, { ["loss/d"] = 0.001 })):rep(5)).health)
        assert.equal("ok", made("once", row(2) .. row(4, { ["loss/d"] = 0.001 })).health)
        local long = {}
        for i = 1, 2000 do long[i] = row(i, { ["sigma/D"] = 2.0 * 1.001 ^ i }) end
        local s = made("growing", table.concat(long))
        assert.equal(2000, s.step)
        assert.equal("ok", s.health) -- a factor of 2.7 since the middle
        for i = 1, 2000 do long[i] = row(i, { ["sigma/D"] = 2.0 * 1.002 ^ i }) end
        assert.matches("sigma/D grows: 109, 14.%d half way", made("growing", table.concat(long)).health)
        assert.equal("ok", made("events", row(2) .. '{"event":"set","step":3,"field":"a","old":1,"new":2}\n').health)
        s = made("gone", row(2) .. '{"event":"diverged","step":3,"what":"a weight of G"}\n')
        assert.same({ "diverged", 3, "a weight of G is not finite" }, { s.state, s.step, s.health })
    end)

    it("of runs that train, are paused, and have just diverged", function()
        d:start("on", "tiny.lua --runs on train.steps=100000 checkpoint.every=0")
        local socket = "on/tiny/seed-5/control.sock"
        d:await("the socket", function() return system.stat(d:at(socket)) end)
        d:succeeds "attach on/tiny -e 'step(4)' -e 'resume()'"
        local text = d:succeeds "status on"
        assert.matches("^run +state +step +img/s +loss d +loss g +gamma +left +health\n", text)
        local numbers = "%d+%.%d +[-%d.]+ +[-%d.]+ +D.16 [-%d.]+ G.16 [-%d.]+ +%d+:[%d:]+ +"
        assert.matches("on/tiny/seed%-5 +training +%d+/100000 +" .. numbers .. "ok\n", text)
        d:succeeds [[attach on/tiny -e 'pause "stay"']]
        local list = assert(json.decode(d:succeeds "status on --json"))
        assert.same({ 1, "paused", 100000, "tiny", 5 }, { #list, list[1].state, list[1].steps, list[1].name, list[1].seed })
        local now = tonumber((d:succeeds "attach on/tiny -e 'run.step'"))
        assert.equal(now, list[1].step)
        -- a log that nobody writes to any more, of a run whose process is there
        d:shell("touch -d '1 hour ago' on/tiny/seed-5/log.jsonl")
        local s = run_status.read(d:at "on/tiny/seed-5")
        assert.equal("training", s.state) -- not asked
        assert.matches("nothing logged for 1:00:", s.health, 1, true)
        -- looking never stands in the way of a process that wants the lock
        d:signal("on", "KILL")
        d:finish "on"
        d:shell "touch asking; (while [ -e asking ]; do \"$SAGAN\" status on; done) > /dev/null 2>&1 & echo $! > asker.pid"
        for _ = 1, 3 do d:succeeds "tiny.lua --runs on --fresh train.steps=1" end
        os.remove(d:at "asking")

        d:write("wild.lua", [[
            local Trainer = require "sagan.trainer"
            local iterate = Trainer.iterate
            function Trainer:iterate()
                if self.step >= 3 then self.adam_g:set_rate(math.huge) end
                return iterate(self)
            end
            return dofile "tiny.lua"]])
        d:run "wild.lua --runs wild checkpoint.every=1 model.spectral_norm.discriminator=false"
        s = run_status.read(d:at "wild/tiny/seed-5")
        assert.same({ "diverged", 4 }, { s.state, s.step })
        assert.matches("is not finite", s.health)
    end)

    it("finds runs at any depth, prints a table or JSON", function()
        d:shell "mkdir -p tree/study/arm tree/empty; cp -r runs/tiny/seed-5 tree/study/arm/seed-1; cp -r runs/tiny tree/plain"
        local text = d:succeeds "status tree"
        assert.matches("\ntree/plain/seed%-5 +finished +6/6 .*\ntree/study/arm/seed%-1 +finished +6/6 ", text)
        assert.equal(2, #assert(json.decode(d:succeeds "status tree --json")))
        assert.matches("^run .*\nruns/tiny/seed%-5 ", d:succeeds "status")
        assert.matches("\nruns/tiny/seed%-5 ", d:succeeds "status runs/tiny/seed-5")
        assert.equal("no runs in tree/empty\n", d:succeeds "status tree/empty")
        assert.equal("[]\n", d:succeeds "status tree/empty --json")
        d:refuses("status nowhere", { "nowhere: no such folder" })
        d:refuses("status a b", { "'b' is a second one" })
        d:refuses("status --jsno", { "did you mean --json?" })
        assert.matches("Examples\n  sagan%-lua status", d:succeeds "status --help")
    end)
end)
