--- gpu_check.lua - proves the CUDA backend on the card that is here and measures it: what gpu_check.sh runs after building.
--- Each check is a process of its own with a time limit, so that one that hangs or crashes costs its line and no other.
local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"
local options = require "sagan.options"

local HELP = [[
gpu_check.sh [--no-build] [options]

Checks, in this order; each prints its verdict and goes into gpu_check.json and gpu_check.md:

  device       the card, its memory, its driver; without one nothing else is tried
  conformance  every kernel against references and against the CPU backend (the C tests, on the card)
  graphs       20 steps one kernel at a time and as recorded graphs: the same losses, to the bit
  devices      a CPU's checkpoint continues on CUDA and the other way round: losses within 1e-3 over 10 steps
  memory       a batch that cannot fit is refused with words, and the checkpoint before it stays usable
  sanitizer    compute-sanitizer on two steps
  training     200 steps on the data, finite losses, pictures
  bench        ms a step by attention and precision, beside PyTorch where python3 has it
  profile      time of each kernel against what the card's own matrix product and copy would allow

Options
  --only a,b       these checks alone              --skip a,b    all but these
  --data SPEC      data to train on (quadrupeds)   --out DIR     results (build/gpu_check)
  --tests DIR      the C tests (build/release/tests)
  --res N --width N --batch N   of bench and profile (128, 64, 256)
  --attention A,B  of bench (none,32,64)           --precision P,Q (f32,tf32,bf16)
  --steps N        timed steps of a line (10)      --python P    interpreter of the peer (python3)

Example
  scripts/dev/gpu_check.sh --data pack:cifar10.safetensors]]

local OPTIONS <const> = {
    ["--only"] = { "only", "text" }, ["--skip"] = { "skip", "text" }, ["--data"] = { "data", "text" }, ["--out"] = { "out", "text" },
    ["--tests"] = { "tests", "text" }, ["--res"] = { "res", "count" }, ["--width"] = { "width", "count" },
    ["--batch"] = { "batch", "count" }, ["--attention"] = { "attention", "text" }, ["--precision"] = { "precision", "text" },
    ["--steps"] = { "steps", "count" }, ["--python"] = { "python", "text" },
}

local o, complaint = options.parse(arg, OPTIONS)
if not o or o[1] then
    io.stderr:write("gpu_check: ", complaint or ("unknown word '%s' (--help lists the options)"):format(o[1]), "\n")
    os.exit(2)
end
if o.help then
    print(HELP)
    os.exit(0)
end
local out = o.out or "build/gpu_check"
local data = o.data or "quadrupeds"
local program = os.getenv("SAGAN_LUA") or "build/release/sagan-lua"
assert(system.mkdir(out))

local function quoted(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

--- Runs a command line with a time limit; what it printed, its exit code, the seconds it took.
local function run(limit, line)
    local before = system.now()
    local pipe = assert(io.popen(("timeout -k 5 %d bash -c %s 2>&1"):format(limit, quoted(line))))
    local text = pipe:read("a")
    local _, _, code = pipe:close()
    if code == 124 or code == 137 then text = ("%s\nstopped after %d s, its limit\n"):format(text, limit) end
    return text, code, system.now() - before
end

local function words_of(text)
    local list = {}
    for word in text:gmatch("[^,]+") do list[#list + 1] = word end
    return list
end

--- The end of a text, for a report.
local function tail(text, lines)
    local all = {}
    for line in text:gmatch("[^\n]+") do all[#all + 1] = line end
    return table.concat(all, "\n", math.max(1, #all - lines + 1))
end

--- A small run: the words of its command line, and its folder.
local function train(name, steps, more, environment)
    local folder = ("%s/runs"):format(out)
    local words = ("%s experiments/feat32.lua name=%s profile=quick model.resolution=32 attention=16 model.width=8 train.batch=8 "
        .. "seed=0 data=quadrupeds:256 control=false log.every=1 sample.every=0 checkpoint.every=0 train.steps=%d %s --runs %s"):format(
        quoted(program), name, steps, more, quoted(folder))
    return (environment or "") .. " " .. words, ("%s/%s/seed-0"):format(folder, name)
end

local function remove(name) os.execute(("rm -rf %s"):format(quoted(("%s/runs/%s"):format(out, name)))) end

--- The losses of a log: {step, loss/d, loss/g} of each row that has them.
local function losses(folder)
    local rows = {}
    for line in (system.read(folder .. "/log.jsonl") or ""):gmatch("[^\n]+") do
        local row = json.decode(line)
        if row and row["loss/d"] then rows[#rows + 1] = { row.step, row["loss/d"], row["loss/g"] } end
    end
    return rows
end

--- The largest relative difference between two lists of losses; nil if they are not of the same steps.
local function difference(a, b)
    if #a == 0 or #a ~= #b then return nil end
    local most = 0
    for i, row in ipairs(a) do
        if row[1] ~= b[i][1] then return nil end
        for k = 2, 3 do
            local scale = math.max(1, math.abs(row[k]))
            local d = math.abs(row[k] - b[i][k]) / scale
            if d ~= d then return math.huge end
            most = math.max(most, d)
        end
    end
    return most
end

-- A check returns "passed", "failed" or "skipped", one line of words, and figures for the JSON file.
local checks = {}

function checks.device()
    local there, reason = core.cuda.is_available()
    if not there then return "skipped", "no card: " .. reason end
    return "passed", core.cuda.name(), { name = core.cuda.name() }
end

function checks.conformance()
    local folder = o.tests or "build/release/tests"
    local names = {}
    for _, file in ipairs(system.list("kernels/cuda") or {}) do
        local family = file:match("^([%w_]+)%.cu$")
        if family then names["test_" .. family] = true end
    end
    for _, file in ipairs(system.list(folder) or {}) do
        if file == "test_conformance" or file:match("^test_[%w_]+_cuda$") then names[file] = true end
    end
    local list, failed, ran, skipped, words = {}, {}, 0, 0, {}
    for name in pairs(names) do
        if system.stat(folder .. "/" .. name) then list[#list + 1] = name end
    end
    table.sort(list)
    for _, name in ipairs(list) do
        local text, code, seconds = run(120, "SAGAN_TEST_DEVICE=cuda " .. quoted(folder .. "/" .. name))
        ran = ran + 1
        words[name] = { code = code, seconds = seconds }
        if code == 77 then
            skipped = skipped + 1
        elseif code ~= 0 then
            failed[#failed + 1] = name
            print(tail(text, 12))
        end
    end
    if ran == skipped then return "skipped", "no C test in " .. folder .. " that ran on a card" end
    return #failed == 0 and "passed" or "failed",
        ("%d test programs%s"):format(ran - skipped, #failed > 0 and "; failed: " .. table.concat(failed, ", ") or ""), words
end

function checks.graphs()
    local found, modes = {}, { "f32", "tf32", "bf16" }
    for _, precision in ipairs(modes) do
        local lists = {}
        for i, graph in ipairs { "0", "1" } do
            local name = ("graph%s-%s"):format(graph, precision)
            remove(name)
            local line, folder = train(name, 20, "device=cuda precision=" .. precision, "SAGAN_GRAPH=" .. graph)
            local text, code = run(120, line)
            if code ~= 0 then return "failed", ("%s: %s"):format(name, tail(text, 4)) end
            lists[i] = losses(folder)
        end
        found[precision] = difference(lists[1], lists[2])
        if found[precision] ~= 0 then
            return "failed", ("%s: losses differ by %s"):format(precision, tostring(found[precision])), found
        end
    end
    return "passed", "20 steps in " .. table.concat(modes, ", ") .. ": equal bits", found
end

function checks.devices()
    local most = 0
    for _, way in ipairs { { "cpu", "cuda" }, { "cuda", "cpu" } } do
        local lists = {}
        for i, second in ipairs { way[1], way[2] } do
            local name = ("%s-%s"):format(way[1], second)
            remove(name)
            for k, device in ipairs { way[1], second } do
                local line = train(name, 10 * k, "device=" .. device)
                local text, code = run(180, line)
                if code ~= 0 then return "failed", ("%s on %s: %s"):format(name, device, tail(text, 4)) end
            end
            local _, folder = train(name, 20, "")
            lists[i] = losses(folder)
        end
        local d = difference(lists[1], lists[2])
        if not d or #lists[1] ~= 20 then return "failed", ("%s to %s: logs of other steps"):format(way[1], way[2]) end
        most = math.max(most, d)
    end
    return most <= 1e-3 and "passed" or "failed", ("largest difference of losses %.2g (bound 1e-3)"):format(most), { difference = most }
end

function checks.memory()
    local name = "too-large"
    remove(name)
    local line, folder = train(name, 5, "device=cuda")
    local text, code = run(120, line)
    if code ~= 0 then return "failed", tail(text, 4) end
    text, code = run(120, ("%s bench --device cuda --res 256 --width 64 --batch 100000 --attention 64 --steps 1"):format(quoted(program)))
    if code ~= 1 or not text:find("memory", 1, true) or not text:find("batch", 1, true) then
        return "failed", ("a batch of 100000 ended with code %d: %s"):format(code, tail(text, 3))
    end
    local words = tail(text, 1)
    text, code = run(120, ("%s sample %s -o %s"):format(quoted(program), quoted(folder), quoted(out .. "/after.png")))
    if code ~= 0 then return "failed", "the checkpoint does not draw: " .. tail(text, 3) end
    return "passed", words
end

function checks.sanitizer()
    local _, code = run(10, "command -v compute-sanitizer")
    if code ~= 0 then return "skipped", "compute-sanitizer is not installed" end
    remove "sanitized"
    local line = train("sanitized", 2, "device=cuda precision=bf16", "SAGAN_GRAPH=0")
    local text
    text, code = run(240, (line:gsub("^SAGAN_GRAPH=0 ", "SAGAN_GRAPH=0 compute-sanitizer --error-exitcode 99 --print-limit 5 ")))
    return code == 0 and "passed" or "failed", tail(text, code == 0 and 1 or 12)
end

function checks.training()
    remove "training"
    local line = ("%s experiments/feat32.lua name=training seed=0 profile=quick device=cuda data=%s train.steps=200 control=false log.every=20 "
        .. "sample.every=200 checkpoint.every=0 --runs %s/runs"):format(quoted(program), quoted(data), quoted(out))
    local text, code, seconds = run(240, line)
    if code ~= 0 then return "failed", tail(text, 6) end
    local folder = out .. "/runs/training/seed-0"
    local rows = losses(folder)
    local last = rows[#rows]
    if not last or last[1] ~= 200 or last[2] ~= last[2] or last[3] ~= last[3] then return "failed", "no finite loss at step 200" end
    return "passed", ("losses d %.3f g %.3f after 200 steps, %.0f s with start and pictures (%s/samples)"):format(last[2], last[3],
        seconds, folder), { loss_d = last[2], loss_g = last[3], seconds = seconds }
end

local function decode_line(text)
    for line in text:gmatch("[^\n]+") do
        local row = line:sub(1, 1) == "{" and json.decode(line)
        if row then return row end
    end
end

--- Ours and the peer's medians for one line, in one go: ours, the peer, ours, the peer.
local function bench_line(attention, precision, peer)
    local shape = ("--res %d --width %d --batch %d --attention %s --precision %s --device cuda --steps %d"):format(o.res or 128,
        o.width or 64, o.batch or 256, attention, precision, o.steps or 10)
    local row = { attention = attention, precision = precision, ms = {}, peer_ms = {} }
    for _ = 1, peer and 2 or 1 do
        local text, code = run(180, ("%s bench %s --json -"):format(quoted(program), shape))
        local figures = code == 0 and decode_line(text)
        if not figures then
            row.problem = tail(text, 2)
            return row
        end
        row.ms[#row.ms + 1], row.peak_mib = figures.cases[1].ms_per_step, figures.cases[1].peak_mib
        if peer then
            text, code = run(240, ("%s tests/bench/peer_torch.py %s --compile --json"):format(quoted(o.python or "python3"), shape))
            figures = code == 0 and decode_line(text)
            if figures then
                row.peer_ms[#row.peer_ms + 1], row.peer_peak_mib = figures.ms_per_step, figures.peak_mib
            else
                row.peer_problem, peer = tail(text, 1), false
            end
        end
    end
    row.best_ms, row.best_peer_ms = math.min(table.unpack(row.ms)), row.peer_ms[1] and math.min(table.unpack(row.peer_ms)) or nil
    return row
end

function checks.bench()
    local _, code = run(60, quoted(o.python or "python3") .. ' -c "import torch; assert torch.cuda.is_available()"')
    local peer = code == 0
    local rows, failed = {}, 0
    print(("         %-10s %-10s %10s %10s %8s %12s %12s"):format("attention", "precision", "ms a step", "PyTorch", "times", "peak MiB", "PyTorch"))
    for _, attention in ipairs(words_of(o.attention or "none,32,64")) do
        for _, precision in ipairs(words_of(o.precision or "f32,tf32,bf16")) do
            local row = bench_line(attention, precision, peer)
            rows[#rows + 1] = row
            if row.problem then failed = failed + 1 end
            local function number(x, form) return x and form:format(x) or "-" end
            print(("         %-10s %-10s %10s %10s %8s %12s %12s %s"):format(attention, precision, number(row.best_ms, "%.2f"),
                number(row.best_peer_ms, "%.2f"), number(row.best_peer_ms and row.best_peer_ms / row.best_ms, "%.2f"),
                number(row.peak_mib, "%.0f"), number(row.peer_peak_mib, "%.0f"), row.problem or row.peer_problem or ""))
        end
    end
    return failed == 0 and "passed" or "failed",
        ("%d lines%s"):format(#rows, peer and "" or "; the peer was not measured: python3 has no torch with CUDA here"), rows
end

function checks.profile()
    local lines = {}
    for _, precision in ipairs(words_of(o.precision or "bf16")) do
        local text, code = run(180, ("%s bench --res %d --width %d --batch %d --attention %s --precision %s --device cuda --steps 3 --profile")
            :format(quoted(program), o.res or 128, o.width or 64, o.batch or 256, words_of(o.attention or "64")[1], precision))
        if code ~= 0 then return "failed", tail(text, 3) end
        print(text)
        lines[precision] = text
    end
    return "passed", "time of each kernel, above", lines
end

-- ------------------------------------------------------------------------------------------------ the run

local ORDER <const> = { "device", "conformance", "graphs", "devices", "memory", "sanitizer", "training", "bench", "profile" }
local chosen = {}
for _, name in ipairs(ORDER) do chosen[name] = not o.only end
for field, value in pairs { only = true, skip = false } do
    for _, name in ipairs(words_of(o[field] or "")) do
        if chosen[name] == nil then
            io.stderr:write(("gpu_check: there is no check '%s' (%s)\n"):format(name, table.concat(ORDER, ", ")))
            os.exit(2)
        end
        chosen[name] = value
    end
end

local result = { time = os.date("!%Y-%m-%dT%H:%M:%SZ"), version = core.version, checks = {} }
result.commit = (run(10, "git rev-parse --short HEAD") or ""):match("^%x+")
local table_lines = { "| check | verdict | seconds | |", "|---|---|---|---|" }
local bad = 0
for _, name in ipairs(ORDER) do
    if chosen[name] and (name == "device" or core.cuda.is_available()) then
        local before = system.now()
        local ok, verdict, words, figures = pcall(checks[name])
        if not ok then verdict, words, figures = "failed", tostring(verdict), nil end
        local seconds = system.now() - before
        if verdict == "failed" then bad = bad + 1 end
        result.checks[#result.checks + 1] = { name = name, verdict = verdict, words = words, seconds = seconds, figures = figures }
        print(("%-8s %-12s %6.1f s  %s"):format(verdict, name, seconds, words))
        table_lines[#table_lines + 1] = ("| %s | %s | %.1f | %s |"):format(name, verdict, seconds, (words:gsub("%s*\n%s*", "; ")))
        -- after each, so that a run that is cut short leaves what it found
        assert(system.write_atomic(out .. "/gpu_check.json", json.encode(result) .. "\n"))
        assert(system.write_atomic(out .. "/gpu_check.md", table.concat(table_lines, "\n") .. "\n"))
    end
end
if not core.cuda.is_available() then
    print("nothing was checked: " .. select(2, core.cuda.is_available()))
    os.exit(3)
end
print(("%s; %s/gpu_check.json, %s/gpu_check.md"):format(bad == 0 and "all passed or skipped" or bad .. " failed", out, out))
os.exit(bad == 0 and 0 or 1)
