--- sagan-lua doctor - what this machine offers, what is missing, what each missing part would bring and how to get it.
local core = require "sagan.core"
local system = core.system

local HELP = [[
sagan-lua doctor

Prints devices, SIMD level, threads, memory, data sources and optional parts: what is there, and for what is not, what it
would bring and how to get it. Exit code 0 if training can begin.

Example
  sagan-lua doctor]]

local doctor = {}

local function line(mark, name, text) print(("%-4s %-18s %s"):format(mark, name, text)) end

local function check_devices()
    line("ok", "cpu", ("%d cores, SIMD level %s"):format(system.cpu_count(), core.isa()))
    local there, reason = core.cuda.is_available()
    if there then
        line("ok", "cuda", core.cuda.name())
    else
        line("--", "cuda", ("not available (%s): everything runs on the CPU. A build with CUDA 12 or newer and an NVIDIA card "
            .. "bring larger nets"):format(reason))
    end
    line("ok", "matrix products", "own kernels (no BLAS library needed)")
end

local function check_data()
    local fashion = "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"
    if system.stat(fashion) then
        line("ok", "fashion-mnist", "60,000 pictures of clothing, found by itself")
    else
        line("--", "fashion-mnist", "real pictures to train on: apt-get install dataset-fashion-mnist")
    end
    line("ok", "quadrupeds", "drawn by the program, any size; used where nothing else is there")
    line("ok", "own pictures", "data=folder:DIR (class sub-folders), a .tar.gz of that, cifar10:, idx:, pack:")
end

local function check_memory()
    local text = system.read("/proc/meminfo")
    local free = text and text:match("MemAvailable:%s*(%d+)")
    if free then line("ok", "memory", ("%.1f GiB available"):format(tonumber(free) / 2 ^ 20)) end
    local disk = system.free_disk(".")
    if disk then
        line(disk > 2 ^ 30 and "ok" or "!!", "disk", ("%.1f GiB free here; a quick run writes about 50 MiB"):format(disk / 2 ^ 30))
    end
end

local function check_parts()
    -- whether this build has the library, not whether the machine does
    local edit = (system.read("/proc/self/maps") or ""):find("libedit", 1, true)
    line(edit and "ok" or "--", "prompt", edit and "line editing, completion and history (libedit)"
        or "plain; line editing and history: apt-get install libedit-dev and build again")
    local pictures = core.terminal_picture.detect()
    line(pictures.library and "ok" or "--", "terminal pictures", ("%s here, by %s"):format(pictures.mode, pictures.library
        or "the program itself; sixel, kitty and finer symbols: apt-get install libchafa-dev libglib2.0-dev and build again"))
end

---@param args string[]
---@return integer exit code
function doctor.main(args)
    if args[1] == "-h" or args[1] == "--help" then
        print(HELP)
        return 0
    elseif args[1] then
        io.stderr:write(("sagan-lua doctor: unknown word '%s'; it takes none\n"):format(args[1]))
        return 1
    end
    print(("sagan-lua %s, %s"):format(core.version, _VERSION))
    check_devices()
    check_memory()
    check_data()
    check_parts()
    local ok, message = pcall(function()
        local x = core.ones { 4, 8, 8, 3 }
        local y = core.ops.conv2d(x, core.ones { 2, 3, 3, 3 }, { pad_h = 1, pad_w = 1 })
        assert(y:get(1, 2, 2, 1) == 27, "a convolution gave a wrong number")
    end)
    line(ok and "ok" or "!!", "self-check", ok and "a convolution gives the right number" or tostring(message))
    return ok and 0 or 1
end

return doctor
