--- control_cost.lua - what listening for sagan-lua attach costs a run to which nobody speaks: short steps with control=false,
--- with control=true, and with one client attached that says nothing, in turn, in one process.
---   sagan-lua tests/bench/control_cost.lua [rounds] [steps] [experiment.lua [key=value ...]]      default 200 rounds of 15 steps
--- Steps are the smallest that a run has (32x32, width 4, batch 2), so that the cost shows at its largest. Each line is a median
--- over the rounds, which are many and short, as a machine is seldom still for long; a ratio is the median of the ratios to
--- control=false in the same round. Below it the poll itself, alone.
local sagan = require "sagan"
local core = require "sagan.core"
local control = require "sagan.control"
local control_client = require "sagan.control_client"
local experiment = require "sagan.experiment"
local run_folder = require "sagan.run_folder"
local run_setup = require "sagan.run_setup"
local Trainer = require "sagan.trainer"
local system = core.system

local rounds, steps = tonumber(arg[1]) or 200, tonumber(arg[2]) or 15
local what = arg[3] and dofile(arg[3]) or sagan.experiment {
    name = "cost", recipe = "paper", profile = "quick", data = "quadrupeds:64", attention = 16, threads = 1,
    model = { resolution = 32, width = 4 }, train = { batch = 2 },
}
local config = assert(experiment.resolve(what, table.move(arg, 4, #arg, 1, {})))[1]
config.control = true
core.device(assert(run_setup.device(config)))
core.threads(config.threads)
local data = assert(run_setup.data(config))
config.model.classes, config.model.channels = data.classes, data.channels
local root = ("%s/control-cost-%d"):format(os.getenv "TMPDIR" or "/tmp", system.getpid())
local trainer = Trainer.new(config, data)
trainer.folder = assert(run_folder.create(config, { root = root }))
trainer.loader = data.set:loader { batch = config.train.batch, seed = config.seed }
local listening = assert(control.open(trainer))

local client
local arms = {
    { name = "control=false", control = control.none },
    { name = "control=true", control = listening },
    {
        name = "one idle client", control = listening,
        begin = function()
            client = assert(control_client.connect(trainer.folder.path))
            while not client:greeting(0) do listening:poll(trainer) end
        end,
        finish = function()
            client:close()
            while #listening.clients > 0 do listening:poll(trainer) end
        end,
    },
}

local function measure(arm)
    if arm.begin then arm.begin() end
    collectgarbage()
    local wall, cpu = system.now(), os.clock()
    for _ = 1, steps do
        trainer:iterate()
        arm.control:poll(trainer)
    end
    wall, cpu = system.now() - wall, os.clock() - cpu
    if arm.finish then arm.finish() end
    return { wall = wall / steps, cpu = cpu / steps }
end

local function median(list)
    local sorted = table.move(list, 1, #list, 1, {})
    table.sort(sorted)
    return (sorted[(#sorted + 1) // 2] + sorted[#sorted // 2 + 1]) / 2
end

for _, arm in ipairs(arms) do
    measure(arm) -- warm
    arm.wall, arm.cpu, arm.wall_ratio, arm.cpu_ratio = {}, {}, {}, {}
end
for round = 1, rounds do
    local times = {}
    for i = 0, #arms - 1 do -- another one first each time
        local k = (round + i) % #arms + 1
        times[k] = measure(arms[k])
    end
    for k, arm in ipairs(arms) do
        table.insert(arm.wall, times[k].wall)
        table.insert(arm.cpu, times[k].cpu)
        table.insert(arm.wall_ratio, times[k].wall / times[1].wall)
        table.insert(arm.cpu_ratio, times[k].cpu / times[1].cpu)
    end
end
print(("%d rounds of %d steps, %dx%d, width %d, batch %d, threads %d"):format(rounds, steps, config.model.resolution,
    config.model.resolution, config.model.width, config.train.batch, config.threads))
print(("%-16s %9s %9s %9s %9s %9s"):format("", "steps/s", "ms", "ratio", "CPU ms", "CPU ratio"))
for _, arm in ipairs(arms) do
    print(("%-16s %9.1f %9.3f %9.4f %9.3f %9.4f"):format(arm.name, 1 / median(arm.wall), 1e3 * median(arm.wall),
        median(arm.wall_ratio), 1e3 * median(arm.cpu), median(arm.cpu_ratio)))
end

local POLLS <const> = 100000
for _, arm in ipairs(arms) do
    if arm.begin then arm.begin() end
    local began = system.now()
    for _ = 1, POLLS do arm.control:poll(trainer) end
    local each = (system.now() - began) / POLLS
    print(("poll, %-16s %6.2f us, %.4f %% of a step"):format(arm.name, 1e6 * each, 100 * each / median(arms[1].wall)))
    if arm.finish then arm.finish() end
end

listening:close()
trainer.loader:close()
data.set:close()
os.execute(("rm -rf '%s'"):format(root))
