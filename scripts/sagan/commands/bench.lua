--- sagan-lua bench - how fast a training step is on this machine, and how much memory it takes.
local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"
local profile_table = require "sagan.profile_table"
local experiment = require "sagan.experiment"
local options = require "sagan.options"
local run_setup = require "sagan.run_setup"

local HELP = [[
sagan-lua bench [options]

Times whole training steps (one D step, one G step, hinge, Adam) on random pictures, after warm-up, and prints the median.

  --res N --width N --batch N --attention SIZE|none   one case instead of the standard three
  --steps N       timed steps a case (default 5)
  --threads N     (default: all cores)
  --device NAME   cpu or cuda (default: cuda where there is one)
  --precision P   f32, tf32 or bf16; the last two on cuda only (default f32)
  --recompute W   train.recompute: none, norms or blocks, from least time to least memory (default norms)
  --profile       also time, arithmetic and memory traffic by kernel, beside what this machine does at best
  --memory        peak memory of one attention step at N = 1024, 4096 and 16384 positions
  --json FILE     write the figures there as well; - for standard output alone
  -h, --help

Standard cases: res 32 width 64 batch 64 attention 16; res 64 width 32 batch 16 attention 32; res 128 width 16 batch 8
attention 32.

Examples
  sagan-lua bench
  sagan-lua bench --res 64 --width 32 --batch 16 --attention none --steps 20 --json bench.json
  sagan-lua bench --res 128 --width 64 --batch 256 --attention 64 --precision bf16 --profile]]

local STANDARD = {
    { res = 32, width = 64, batch = 64, attention = 16 },
    { res = 64, width = 32, batch = 16, attention = 32 },
    { res = 128, width = 16, batch = 8, attention = 32 },
}

local bench = {}

local function fail(message)
    io.stderr:write("sagan-lua bench: ", message, "\n")
    return 1
end

local OPTIONS = {
    ["--res"] = { "res", "count" }, ["--width"] = { "width", "count" }, ["--batch"] = { "batch", "count" },
    ["--attention"] = { "attention", "text" }, ["--steps"] = { "steps", "count" }, ["--threads"] = { "threads", "count" },
    ["--device"] = { "device", "text" }, ["--precision"] = { "precision", "text" },
    ["--json"] = { "json", "text" }, ["--profile"] = { "profile" }, ["--recompute"] = { "recompute", "text" }, ["--memory"] = { "memory" },
}

local function parse(args)
    local o, message = options.parse(args, OPTIONS)
    if not o then return nil, message end
    if o[1] then return nil, ("unknown word '%s' (--help lists the options)"):format(o[1]) end
    o.steps = o.steps or 5
    if o.attention and o.attention ~= "none" then
        local size = math.tointeger(tonumber(o.attention))
        if not size or size < 1 then return nil, ("--attention needs a size or none, not '%s'"):format(o.attention) end
        o.attention = size
    end
    local configs, wrong = experiment.resolve({ name = "bench", recipe = "paper", device = o.device, precision = o.precision }, {})
    if not configs then return nil, wrong end
    o.precision = configs[1].precision
    o.device, wrong = run_setup.device(configs[1])
    if not o.device then return nil, wrong end
    return o
end

local function median(list)
    local sorted = table.move(list, 1, #list, 1, {})
    table.sort(sorted)
    local n = #sorted
    return n % 2 == 1 and sorted[n // 2 + 1] or (sorted[n // 2] + sorted[n // 2 + 1]) / 2
end

--- The configuration of a case; nil and a message if there is no such network.
local function config_of(case)
    local sizes = case.attention == "none" and {} or { case.attention }
    local configs, message = experiment.resolve({
        name = "bench", recipe = "paper", profile = "quick",
        model = { resolution = case.res, width = case.width, attention = { generator = sizes, discriminator = sizes } },
        train = { batch = case.batch, recompute = case.recompute or "norms" },
        precision = case.precision,
    }, {})
    if not configs then return nil, message end
    local config = configs[1]
    config.model.classes, config.model.channels = 10, 3
    return config
end

--- Highest resident memory of this process so far in MiB, where the system tells; what other programs can be compared with.
local function resident_peak()
    local status = system.read("/proc/self/status")
    local kib = status and status:match("VmHWM:%s*(%d+)")
    return kib and tonumber(kib) / 1024
end

--- Times one case.
---@param case {res: integer, width: integer, batch: integer, attention: integer|"none", recompute: string?, precision: string?}
---@param steps integer
---@param profile boolean?
---@return table? figures ms_per_step (median), images_per_s, peak_mib and the case
---@return string? message
function bench.run_case(case, steps, profile)
    local config, message = config_of(case)
    if not config then return nil, message end
    local data = { classes = 10, channels = 3, class_names = {}, hash = "random" }
    local trainer = require "sagan.trainer".new(config, data)
    local noise = core.empty { case.batch, case.res, case.res, 3 }
    core.ops.uniform(noise, core.zeros({ 2 }, { dtype = "i32" }), 1, require "sagan.streams".bench, -1, 1)
    local picture = core.ops.float_to_pixels(noise)
    noise:release()
    trainer.loader = { fill = function(_, _, images, labels)
        images:copy_(picture)
        labels:fill_(3)
    end }
    if profile then -- a recorded step is one launch: its kernels can be told apart only one by one
        trainer.d_step = function() trainer:discriminator_step() end
        trainer.g_step = function() trainer:generator_step() end
    end
    core.reset_peak()
    for _ = 1, 3 do trainer:iterate() end -- the third replays, where steps are recorded: a graph keeps what its step took
    if profile then core.profile(true) end
    local times = {}
    for i = 1, steps do
        local before = system.now()
        trainer:iterate()
        core.synchronize()
        times[i] = system.now() - before
    end
    local rows = profile and core.profile_rows()
    if profile then core.profile(false) end
    local ms = median(times) * 1000
    return {
        res = case.res, width = case.width, batch = case.batch, attention = case.attention, recompute = case.recompute,
        precision = case.precision,
        steps = steps, ms_per_step = ms, images_per_s = case.batch * 1000 / ms, peak_mib = core.memory().bytes_peak / 2 ^ 20,
        rss_peak_mib = resident_peak(),
        times_ms = (function()
            local list = {}
            for i, t in ipairs(times) do list[i] = t * 1000 end
            return list
        end)(), profile = rows or nil,
    }
end

--- Peak memory of one forward and backward pass of attention with N positions (batch 1, C = 64).
---@param n integer
---@return table figures
function bench.attention_memory(n)
    local d, e = 8, 64
    local leaf = function(last)
        local t = core.empty { 1, n, last }
        core.ops.normal(t, core.zeros({ 2 }, { dtype = "i32" }), 1, require "sagan.streams".bench)
        return t:requires_grad_()
    end
    local q, k, v = leaf(d), leaf(d), leaf(e)
    core.reset_peak()
    local before = core.memory().bytes_in_use
    local started = system.now()
    core.scope(function() core.ops.attention(q, k, v):sum():backward() end)
    core.synchronize()
    return { n = n, peak_mib = (core.memory().bytes_peak - before) / 2 ^ 20, map_mib = n * n * 4 / 2 ^ 20,
        ms = (system.now() - started) * 1000 }
end

---@param args string[]
---@return integer exit code
function bench.main(args)
    local o, message = parse(args)
    if not o then return fail(message) end
    if o.help then
        print(HELP)
        return 0
    end
    if o.threads then core.threads(o.threads) end
    core.device(o.device)
    run_setup.precision(o.precision)
    local quiet = o.json == "-"
    local function say(...)
        if not quiet then print(string.format(...)) end
    end
    local result = { machine = { device = core.device(), detail = run_setup.device_name(core.device()), threads = core.threads(),
        precision = o.precision, version = core.version }, cases = {} }
    say("device %s, %s, %d threads, %s", core.device(), result.machine.detail, core.threads(), o.precision)
    local machine = o.profile and profile_table.machine()
    if machine then
        result.machine.gflops, result.machine.gbytes = machine.gflops, machine.gbytes
        say("matrix product %.1f GFLOP/s (sgemm), copy %.1f GB/s", machine.gflops, machine.gbytes)
    end
    if o.memory then
        result.attention_memory = {}
        say("%8s %12s %16s %10s", "N", "peak MiB", "one map MiB", "ms")
        for _, n in ipairs { 1024, 4096, 16384 } do
            local row = bench.attention_memory(n)
            result.attention_memory[#result.attention_memory + 1] = row
            say("%8d %12.1f %16.1f %10.1f", n, row.peak_mib, row.map_mib, row.ms)
        end
    else
        local cases = STANDARD
        if o.res or o.width or o.batch or o.attention then
            cases = { { res = o.res or 64, width = o.width or 32, batch = o.batch or 16, attention = o.attention or "none" } }
        end
        say("%5s %6s %6s %10s %12s %12s %10s", "res", "width", "batch", "attention", "ms a step", "images/s", "peak MiB")
        for _, case in ipairs(cases) do
            case.recompute, case.precision = o.recompute, o.precision
            local row, why = bench.run_case(case, o.steps, o.profile)
            if not row then return fail(why) end
            collectgarbage()
            result.cases[#result.cases + 1] = row
            say("%5d %6d %6d %10s %12.1f %12.2f %10.1f", row.res, row.width, row.batch, tostring(row.attention), row.ms_per_step,
                row.images_per_s, row.peak_mib)
            if row.profile then
                local seconds = 0
                for _, ms in ipairs(row.times_ms) do seconds = seconds + ms / 1000 end
                for _, line in ipairs(profile_table.lines(row.profile, seconds, row.steps, machine)) do say("      %s", line) end
            end
        end
    end
    local text = json.encode(result)
    if quiet then
        print(text)
    elseif o.json then
        local ok, why = system.write_atomic(o.json, text .. "\n")
        if not ok then return fail(why) end
    end
    return 0
end

return bench
