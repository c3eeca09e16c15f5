--- profile_table.lua - the engine's profile as a table to read: where a step's time goes, and how near each kernel comes
--- to what this machine does at its best, measured here: multiply-adds by the matrix product, memory by a copy.
local core = require "sagan.core"
local ops, system = core.ops, core.system

local profile_table = {}

---@class sagan.MachineRates
---@field gflops number  matrix product 1024 x 1024 x 1024
---@field gbytes number  copy of 64 MiB, bytes read plus bytes written, in GB/s

local function best_seconds(times, fn)
    local best = math.huge
    for _ = 1, times do
        local before = system.now()
        fn()
        core.synchronize()
        best = math.min(best, system.now() - before)
    end
    return best
end

--- Measures the two rates; about a fifth of a second.
---@return sagan.MachineRates
function profile_table.machine()
    return core.scope(core.no_grad, function()
        local side, floats <const> = 1024, 1 << 24
        local a, b = core.ones { side, side }, core.ones { side, side }
        local x, y = core.zeros { floats }, core.zeros { floats }
        local product = best_seconds(8, function() ops.matmul(a, b):release() end)
        local copy = best_seconds(8, function() ops.assign(y, x) end)
        return { gflops = 2 * side ^ 3 / product / 1e9, gbytes = 8 * floats / copy / 1e9 }
    end)
end

--- What bounds a kernel and how near it comes: the time that the machine's rates would allow over the time it took.
local function of_machine(row, machine)
    local products, traffic = row.done / machine.gflops / 1e9, row.bytes / machine.gbytes / 1e9
    local most = math.max(products, traffic)
    if most == 0 or row.seconds == 0 then return "" end
    return ("%3.0f %% %s"):format(100 * most / row.seconds, products >= traffic and "sgemm" or "copy")
end

--- Lines to print, the slowest kernel first; what the step spends outside kernels is the last but one. GFLOP/s counts the
--- multiplies of the direct method, `done` those that were really done, by which a kernel is judged.
---@param rows sagan.ProfileRow[]
---@param seconds number  wall time of all profiled steps
---@param steps integer
---@param machine sagan.MachineRates
---@return string[]
function profile_table.lines(rows, seconds, steps, machine)
    rows = table.move(rows, 1, #rows, 1, {})
    table.sort(rows, function(a, b) return a.seconds > b.seconds end)
    local inside = { seconds = 0, flops = 0, done = 0, bytes = 0 }
    for _, row in ipairs(rows) do
        for key in pairs(inside) do inside[key] = inside[key] + row[key] end
    end
    local lines = { ("%-22s %8s %10s %7s %9s %9s %8s  %s"):format("kernel", "calls", "ms a step", "share", "GFLOP/s", "done",
        "GB/s", "of the machine") }
    local function line(name, calls, row, rates)
        local function rate(amount) return rates and ("%.1f"):format(amount / row.seconds / 1e9) or "" end
        lines[#lines + 1] = ("%-22s %8s %10.2f %5.1f %% %9s %9s %8s  %s"):format(name, calls, row.seconds * 1000 / steps,
            100 * row.seconds / seconds, rate(row.flops), rate(row.done), rate(row.bytes),
            rates and of_machine(row, machine) or "")
    end
    for _, row in ipairs(rows) do line(row.kernel, row.calls, row, row.seconds > 0) end
    line("outside kernels", "", { seconds = math.max(0, seconds - inside.seconds) }) -- Lua, the tape, allocation
    inside.seconds = seconds
    line("whole step", "", inside, true)
    for i, text in ipairs(lines) do lines[i] = (text:gsub("%s+$", "")) end
    return lines
end

return profile_table
