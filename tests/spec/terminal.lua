--- Drives a program in a terminal (tmux), as hands and eyes would: keys go in, the screen is looked at until it shows what is
--- waited for. No test sleeps for a fixed time.
local core = require "sagan.core"
local system, socket = core.system, core.socket

local terminal = {}
terminal.__index = terminal

local PATIENCE <const> = 60 -- seconds; only a test that fails waits so long
local PAUSE <const> = 0.03

--- Whether there is a tmux on this machine.
function terminal.is_here() return (os.execute("command -v tmux >/dev/null 2>&1")) == true end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function run(command)
    local pipe = assert(io.popen(command .. " 2>&1"))
    local text = pipe:read("a")
    local ok = pipe:close()
    if not ok then error(("%s\n%s"):format(command, text), 3) end
    return text
end

local count = 0

--- A terminal of 100 x 40 cells that runs a line of shell in a folder. env: variables for it, "NAME=value".
---@param folder string
---@param line string
---@param env string[]?
function terminal.open(folder, line, env)
    count = count + 1
    local self = setmetatable({ socket = ("%s/tmux-%d"):format(folder, count) }, terminal)
    local variables = {}
    for _, variable in ipairs(env or {}) do variables[#variables + 1] = quote(variable) end
    -- Its own server: nothing of the user's tmux is touched. A sanitizer that lua5.4 was given is not for the others.
    local script = ("cd %s; unset LD_PRELOAD; exec env -u STY TERM=screen-256color COLORTERM=truecolor %s sh -c %s"):format(
        quote(folder), table.concat(variables, " "), quote(line))
    run(("env -u LD_PRELOAD -u TMUX tmux -u -S %s -f /dev/null new-session -d -x 100 -y 40 %s"):format(quote(self.socket),
        quote(script)))
    return self
end

function terminal:tmux(words) return run(("env -u LD_PRELOAD tmux -u -S %s %s"):format(quote(self.socket), words)) end

--- Types text as it is.
function terminal:type(text) self:tmux("send-keys -l -- " .. quote(text)) end

--- Presses keys: "Enter", "Tab", "Up", "C-c".
function terminal:press(...)
    for _, key in ipairs { ... } do self:tmux("send-keys " .. key) end
end

--- Types a line and presses Enter.
function terminal:enter(text)
    self:type(text)
    self:press "Enter"
end

--- Pastes text, marked as pasted if the program asked for that.
function terminal:paste(text)
    self:tmux("set-buffer -- " .. quote(text))
    self:tmux "paste-buffer -p"
end

--- What was shown so far, line after line without blanks at their ends; colors: with the sequences that colour it.
function terminal:screen(colors)
    local text = self:tmux(("capture-pane -p -S - %s"):format(colors and "-e -N" or ""))
    return "\n" .. (text:gsub("%s+$", "")) .. "\n"
end

--- Tabs as a terminal shows them.
local function expand(text)
    return (text:gsub("[^\n]*", function(line)
        return line:gsub("([^\t]*)\t", function(part)
            return part .. (" "):rep(8 - #part % 8)
        end)
    end))
end

--- Waits until the screen holds the text, as a whole line or lines if it begins with a newline. Returns the screen.
function terminal:shows(text)
    text = expand(text)
    local stop = system.now() + PATIENCE
    while true do
        local screen = self:screen()
        if screen:find(text, 1, true) then return screen end
        if system.now() > stop then error(("'%s' is not shown after %d s:%s"):format(text, PATIENCE, screen), 2) end
        socket.wait({}, PAUSE)
    end
end

function terminal:close()
    pcall(terminal.tmux, self, "kill-server")
    os.remove(self.socket)
end
terminal.__close = terminal.close

return terminal
