-- A run that is killed again and again, and continued with other thread counts, ends in the very bits of one left alone.

local core = require "sagan.core"
local system = core.system
local program = os.getenv("SAGAN_LUA") or "build/release/sagan-lua"

local root = ("%s/sagan-resume-%d"):format(os.getenv("TMPDIR") or "/tmp", system.getpid())
local script = root .. "/tiny.lua"

local function write_script()
    assert(system.mkdir(root))
    assert(system.write_atomic(script, [[
return require("sagan").experiment {
    name = "tiny", recipe = "paper", profile = "quick", data = "quadrupeds:64", attention = 16, seed = 5,
    model = { resolution = 32, width = 4 },
    train = { steps = 24, batch = 4, ema_start = 3, flip = true },
    log = { every = 4 }, sample = { every = 0 }, checkpoint = { every = 2, keep = 3 },
}]]))
end

local function run(folder, words, prefix)
    local command = ("%s '%s' '%s' --runs '%s/%s' %s > '%s/out' 2>&1"):format(prefix or "", program, script, root, folder, words or "", root)
    return os.execute(command)
end

local function output() return system.read(root .. "/out") end

local function final(folder)
    local path = ("%s/%s/tiny/seed-5/checkpoints/step-%08d.safetensors"):format(root, folder, 24)
    local tensors, metadata = core.safetensors.load(path)
    assert(tensors, metadata)
    return tensors, metadata
end

local function differing(a, b)
    local names = {}
    for name, tensor in pairs(a) do
        if not b[name] or tensor:bytes() ~= b[name]:bytes() then names[#names + 1] = name end
    end
    for name in pairs(b) do
        if not a[name] then names[#names + 1] = name end
    end
    table.sort(names)
    return table.concat(names, " ")
end

describe("a run", function()
    setup(function()
        write_script()
        assert(run("whole"), output())
    end)
    teardown(function() os.execute(("rm -rf '%s'"):format(root)) end)

    it("is the same for every thread count", function()
        assert(run("one", "threads=1"), output())
        assert.equal("", differing(final "whole", final "one"))
        assert(run("three", "threads=3"), output())
        assert.equal("", differing(final "whole", final "three"))
    end)

    it("killed at random moments and continued equals one left alone", function()
        local seed = os.time()
        math.randomseed(seed)
        local kills, began = 0, system.now()
        assert(run("timed"), output())
        local whole_run = system.now() - began
        for _ = 1, 60 do
            -- a delay that lets a few steps pass, in a process group of its own; later ones get further
            local delay = whole_run * (0.1 + 0.4 * math.random() + kills * 0.05)
            local done = run("killed", ("threads=%d"):format(math.random(1, 3)), ("timeout -s KILL %.3f"):format(delay))
            if not done then
                kills = kills + 1
            elseif kills > 0 then
                break
            else
                os.execute(("rm -rf '%s/killed'"):format(root)) -- it came through at once: the machine was busy when it was timed
                whole_run = whole_run / 2
            end
        end
        assert(run("killed"), output()) -- whatever is left, and "done" if nothing is
        assert.is_true(kills > 0)
        assert.equal("", differing(final "whole", final "killed"), ("random seed %d, %d kills"):format(seed, kills))
    end)

    it("with another seed has other bits, so the comparison can fail", function()
        assert(run("other", "seed=6 name=tiny"), output())
        local path = root .. "/other/tiny/seed-6/checkpoints/step-00000024.safetensors"
        local tensors = assert(core.safetensors.load(path))
        assert.not_equal("", differing(final "whole", tensors))
    end)

    it("refuses a folder of another configuration and names the field", function()
        assert.is_falsy(run("whole", "optimizer.lr_d=1e-3"))
        assert.matches("optimizer.lr_d", output(), 1, true)
        assert.matches("--fresh", output(), 1, true)
    end)

    it("falls back to an older checkpoint when the newest is damaged", function()
        assert(run("damaged", "train.steps=12"), output())
        local path = root .. "/damaged/tiny/seed-5/checkpoints/step-00000012.safetensors"
        local bytes = assert(system.read(path))
        assert(system.write_atomic(path, bytes:sub(1, #bytes // 2)))
        assert(run("damaged", "train.steps=24"), output())
        assert.matches("resume   from step 10", output(), 1, true)
        assert.equal("", differing(final "whole", final "damaged"))
    end)

    it("has one log line for every logged step, even after kills", function()
        local seen = {}
        for line in io.lines(root .. "/killed/tiny/seed-5/log.jsonl") do
            local row = assert(require("sagan.json").decode(line))
            assert.is_nil(seen[row.step], "step " .. row.step .. " twice")
            seen[row.step] = true
        end
        for step = 4, 24, 4 do assert.is_true(seen[step] or false, "step " .. step .. " is missing") end
    end)
end)
