--- sagan-lua attach - a prompt inside a run that trains: looks at it, changes it, holds it, saves it.
local system = require("sagan.core").system
local options = require "sagan.options"
local show = require "sagan.show"
local commands = require "sagan.prompt.commands"
local complete = require "sagan.prompt.complete"
local control_client = require "sagan.control_client"

local HELP = [[
sagan-lua attach RUN [options]

A prompt in the training process of a run: Lua 5.4 with the engine, the live networks and commands to look at and change
the run. What is typed runs between two steps; training goes on, and goes on when you leave (Ctrl-D). help() at the prompt
lists the commands. Pictures are shown in your terminal. Several may be attached at once. Ctrl-C ends what was asked; a
second one leaves.

RUN is a run folder: runs/feat32, or one seed of it, runs/feat32/seed-1. The run must be your own, on this machine, and
not have control=false.

  -e CODE      runs CODE and leaves; may be repeated. Exit code 1 if it fails
  -h, --help

Examples
  sagan-lua attach runs/feat32
  sagan-lua attach runs/feat32 -e 'status()'
  sagan-lua attach runs/feat32 -e 'set("optimizer.lr_d", 2e-4)' -e 'checkpoint()'
  sagan-lua attach runs/feat32 -e 'samples("now.png", { seed = 7 })'
  echo 'run.G.slab:norm():item()' | sagan-lua attach runs/feat32]]

local attach = {}

local function fail(message)
    io.stdout:flush()
    io.stderr:write("sagan-lua attach: ", message, "\n")
    return 1
end

local function print_text(text)
    io.stdout:write(text)
    io.stdout:flush()
end

local function print_picture(...)
    show.print(...)
    io.stdout:flush()
end

local function greeting(client)
    local hello, failure = client:greeting(1)
    if not hello and not failure then
        io.stderr:write("waiting for the end of a step\n")
        hello, failure = client:greeting(-1)
    end
    return hello, failure
end

--- Runs pieces of Lua one after another, up to the first that fails.
local function run_all(client, pieces)
    for _, code in ipairs(pieces) do
        local value, failure = client:ask(code, print_text, print_picture)
        if not value then return fail(failure) end
        if value ~= "" then print(value) end
    end
    return 0
end

--- What the prompt does with a line: Ctrl-C is passed on to the run, which then answers; the second one leaves. The commands
--- that begin with a colon are the prompt's own.
local function session(client)
    local program = require "sagan.program"
    local traceback = require "sagan.traceback"
    local function guarded(method, ...)
        local results = table.pack(program.call(traceback, method, client, ...))
        if results[1] then return "answered", results[2], results[3] end
        return program.interrupted() and "interrupted" or "failed", nil, results[2]
    end
    --- Asks, and prints the answer. true; false: the session is over; nil: that failed.
    local function ask(text, picture)
        local outcome, value, failure = guarded(client.ask, text, print_text, picture)
        if outcome == "interrupted" then
            client:interrupt()
            outcome, value, failure = guarded(client.result, print_text, picture)
            if outcome == "interrupted" then
                io.stderr:write("left; the run goes on\n")
                return false
            end
        end
        if value and value ~= "" then print(value) end
        io.stdout:flush()
        if not value then io.stderr:write(failure, "\n") end
        if client.ended then return false end
        return value and true
    end
    local tools = {}
    function tools.evaluate(text) return ask(text, print_picture) end
    function tools.picture(expression)
        local picture
        local went = ask(("show(%s)"):format(expression), function(shown) picture = shown end)
        return picture, went and not picture and "that shows no picture" or nil
    end
    return {
        evaluate = function(text)
            local command, rest = commands.parse(text)
            if command then return commands.run(command, rest, tools) ~= false and not client.ended end
            return ask(text, print_picture)
        end,
        complete = function(text)
            if text:find("^%s*:%a*$") then return complete.text(text, nil, commands.names()) end
            return client:complete(text, 2)
        end,
    }
end

---@param args string[]
---@return integer exit code
function attach.main(args)
    local o, message = options.parse(args, { ["-e"] = { "code", "texts" } })
    if not o then return fail(message) end
    if o.help then
        print(HELP)
        return 0
    end
    if not o[1] then return fail("which run? sagan-lua attach runs/feat32 (--help for more)") end
    if o[2] then return fail(("one run at a time: '%s' is a second one"):format(o[2])) end
    local client <close>, why = control_client.connect(o[1])
    if not client then return fail(why) end
    local hello, failure = greeting(client)
    if not hello then return fail(failure) end
    if o.code then return run_all(client, o.code) end
    if system.isatty(0) then
        print(("%s, seed %d: step %d of %d%s; %s"):format(hello.name, hello.seed, hello.step, hello.steps,
            hello.paused and ", paused" or "", client.path))
    end
    require("sagan.repl").run(session(client))
    return client.ended and 1 or 0
end

return attach
