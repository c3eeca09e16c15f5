--- Drives the program sagan-lua in a folder of its own, as a user would.
local core = require "sagan.core"
local system, socket = core.system, core.socket

local PATIENCE <const> = 120 -- seconds; only a test that fails waits so long

local driver = {}
driver.__index = driver

driver.program = os.getenv("SAGAN_LUA") or "build/release/sagan-lua"

--- A folder for one spec file; remove() takes it away.
function driver.new(tag)
    local root = ("%s/sagan-%s-%d"):format(os.getenv("TMPDIR") or "/tmp", tag, system.getpid())
    assert(system.mkdir(root))
    return setmetatable({ root = root }, driver)
end

function driver:remove() os.execute(("rm -rf '%s'"):format(self.root)) end

function driver:at(name) return self.root .. "/" .. name end

--- Writes a file, with the folders above it.
function driver:write(name, text)
    local path = self:at(name)
    assert(system.mkdir(path:match("^(.*)/")))
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
end

function driver:read(name) return assert(system.read(self:at(name))) end

--- Runs a line of bash in the folder, in which $SAGAN is the program: all that is printed, exit code; 124 after minutes. A
--- sanitizer that lua5.4 had to be given is taken away again: the program has its own, and bash and tar are not ours to check.
function driver:shell(line)
    local script = self:write("line.sh", ("cd '%s'; SAGAN='%s'\n%s\n"):format(self.root, driver.program, line))
    local pipe = assert(io.popen(("unset LD_PRELOAD; exec timeout --foreground -k 9 %d bash '%s' 2>&1"):format(
        2 * PATIENCE, script)))
    local text = pipe:read("a")
    local _, _, code = pipe:close()
    if code == 124 then text = ("%s\nended after %d s: %s"):format(text, 2 * PATIENCE, line) end
    return text, code
end

--- Runs the program with these words.
function driver:run(words) return self:shell('exec "$SAGAN" ' .. words) end

--- Runs the program in the background, under a name; what it prints is in <name>.out. That file and the process's number are
--- there, whole, when this returns. Ctrl-C reaches it once it trains.
function driver:start(name, words)
    self:shell(([[: > NAME.out
        ( "$SAGAN" WORDS >> NAME.out 2>&1 &
          echo $! > NAME.pid.new; mv NAME.pid.new NAME.pid; wait $!; echo $? > NAME.code.new; mv NAME.code.new NAME.code
        ) > /dev/null 2>&1 &]]):gsub("NAME", name):gsub("WORDS", (words:gsub("%%", "%%%%"))))
    self:await(name .. ".pid", function() return system.stat(self:at(name .. ".pid")) end)
end

--- Waits until f returns something true, and returns that; `what` for the message when that takes minutes.
function driver:await(what, f)
    local stop = system.now() + PATIENCE
    while true do
        local value = f()
        if value then return value end
        if system.now() > stop then error(("waited %d s in vain for %s"):format(PATIENCE, what), 2) end
        socket.wait({}, 0.02)
    end
end

--- Waits for the end of what start began: exit code, all that it printed.
function driver:finish(name)
    self:await("the end of " .. name, function() return system.stat(self:at(name .. ".code")) end)
    return math.tointeger(tonumber(self:read(name .. ".code"))), self:read(name .. ".out")
end

--- Sends a signal to it, if it still runs.
function driver:signal(name, signal) self:shell(("kill -%s $(cat %s.pid)"):format(signal, name)) end

--- Runs the program, which must succeed.
function driver:succeeds(words)
    local text, code = self:run(words)
    if code ~= 0 then error(("exit code %d: %s\n%s"):format(code, words, text), 2) end
    return text
end

--- The error line, the one that starts with "sagan-lua", of a run that must fail with exit code 1. It holds all the words
--- of `wanted`; nothing but a script's own traceback may follow it.
function driver:refuses(words, wanted, traceback)
    local text, code = self:run(words)
    local line = ("\n" .. text):match("\n(sagan%-lua[ :][^\n]*)")
    if code ~= 1 or not line then error(("exit code %s: %s\n%s"):format(code, words, text), 2) end
    for _, part in ipairs(wanted) do
        if not line:find(part, 1, true) then error(("'%s' is missing in: %s\n%s"):format(part, line, text), 2) end
    end
    if text:find("stack traceback", 1, true) or (not traceback and text:find("\n    ", 1, true)) then
        error("a traceback where the line says it all:\n" .. text, 2)
    end
    return line, text
end

--- A small experiment as a script. `more` is Lua text of further fields.
function driver:experiment(name, more)
    return self:write(name .. ".lua", ([[
return require("sagan").experiment {
    name = %q, recipe = "paper", profile = "quick", data = "quadrupeds:64", attention = 16, seed = 5,
    model = { resolution = 32, width = 4 }, optimizer = { rate_factor = 1 },
    %s
}
]]):format(name, more or ""))
end

--- The names in a folder; {} if there is none.
function driver:list(name) return system.list(self:at(name)) or {} end

--- Names, sizes, times and contents of all that is in a folder, as one text to compare.
function driver:snapshot(folder)
    local line = "cd '%s' && find . -printf '%%p %%s %%T@\\n' | sort && find . -type f | sort | xargs cat | cksum"
    return (self:shell(line:format(folder)))
end

--- The names of temporary files anywhere below.
function driver:leftovers()
    return (self:shell([[find . -name '*.tmp-*']]))
end

--- Names of the tensors in which two safetensors files differ, in one string.
function driver:differing(a, b)
    local x, y = assert(core.safetensors.load(self:at(a))), assert(core.safetensors.load(self:at(b)))
    local names = {}
    for name, tensor in pairs(x) do
        if not y[name] or tensor:bytes() ~= y[name]:bytes() then names[#names + 1] = name end
    end
    for name in pairs(y) do
        if not x[name] then names[#names + 1] = name end
    end
    table.sort(names)
    return table.concat(names, " ")
end

--- Rows of a log.
function driver:log(folder)
    local rows = {}
    for line in self:read(folder .. "/log.jsonl"):gmatch("[^\n]+") do
        rows[#rows + 1] = assert(require("sagan.json").decode(line))
    end
    return rows
end

return driver
