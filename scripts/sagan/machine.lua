--- machine.lua - what computes here, and machine.jsonl of a run folder: one line for each time that a process went at the
--- run, so that a report can say what its times were measured on.
local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"

local machine = {}

---@class sagan.Machine
---@field version string    of this program
---@field lua string
---@field device string
---@field isa string        SIMD level of the CPU kernels
---@field cpu string?       as the kernel of the operating system names it
---@field cores integer
---@field threads integer   of the CPU kernels
---@field memory_gib number?
---@field system string?    the operating system's kernel
---@field time string?      UTC, in machine.jsonl
---@field step integer?     G steps done then, in machine.jsonl

--- The machine and the program, as they are now. No host name: reports are shown to others.
---@return sagan.Machine
function machine.describe()
    local cpu = (system.read("/proc/cpuinfo") or ""):match("model name%s*:%s*([^\n]+)")
    local kib = tonumber((system.read("/proc/meminfo") or ""):match("MemTotal:%s*(%d+)"))
    local kernel = (system.read("/proc/sys/kernel/osrelease") or ""):match("%S+")
    return {
        version = core.version, lua = _VERSION, device = core.device(), isa = core.isa(), cpu = cpu,
        cores = system.cpu_count(), threads = core.threads(), memory_gib = kib and math.floor(kib / 2 ^ 20 * 10 + 0.5) / 10,
        system = kernel and "Linux " .. kernel:match("^%d+%.%d+") or nil,
    }
end

--- Writes down who goes at a run from this step on.
---@param folder string
---@param step integer
---@return boolean? ok, string? message
function machine.record(folder, step)
    local line = machine.describe()
    line.time, line.step = os.date("!%Y-%m-%dT%H:%M:%SZ"), step
    return system.append(folder .. "/machine.jsonl", json.encode(line) .. "\n")
end

return machine
