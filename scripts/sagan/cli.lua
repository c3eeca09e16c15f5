--- The command line of sagan-lua: options, scripts, experiments, commands, the prompt.
--
-- A command is a file scripts/sagan/commands/<word>.lua that returns { main = function(args) ... return exit_code end } and
-- answers --help itself. Its first line, "--- sagan-lua word - what it does", is its line in the help here.
local program = require "sagan.program"
local traceback = require "sagan.traceback"

local cli = {}

local usage = [[
usage: sagan-lua [options] [script.lua | command] [arguments]

  script.lua [key=value ...]   runs a script; an experiment or a study that it returns is trained, with these fields changed
  command [arguments]          one of the commands below; `sagan-lua help COMMAND` tells more
  (nothing)                    a prompt: Lua 5.4 with the engine loaded

options
  -e CODE         runs CODE (may be repeated)
  -i              goes to the prompt afterwards
  -               reads the script from standard input
  -v, --version   prints the version
  -h, --help      prints this text
  --              ends the options
]]

local examples = [[
examples
  sagan-lua experiments/feat32.lua
  sagan-lua experiments/feat32.lua optimizer.lr_d=2e-4 seed=3 profile=small
  sagan-lua -e 'print(sagan.ones(2, 3) * 2)'
]]

local function complain(message)
    io.stdout:flush()
    io.stderr:write("sagan-lua: ", message, "\n")
end

--- Runs f so that Ctrl-C stops it. Returns true and its results, or false and an exit code; the error is printed.
local function guarded(f, ...)
    local results = table.pack(program.call(traceback, f, ...))
    if results[1] then return table.unpack(results, 1, results.n) end
    if program.interrupted() then
        io.stdout:flush()
        io.stderr:write("sagan-lua: interrupted\n")
        return false, 130
    end
    complain(tostring(results[2]))
    return false, 1
end

--- The module that runs what a script returned: an experiment or a study; nil for anything else.
local function runner_of(value)
    local meta = type(value) == "table" and getmetatable(value)
    local name = type(meta) == "table" and rawget(meta, "__name")
    return name == "sagan.experiment" and "sagan.runner" or name == "sagan.ablation" and "sagan.ablation" or nil
end

--------------------------------------------------------------------------------------------------- commands

local function command_file(word)
    if not word:find("^[%a_][%w_]*$") then return nil end
    return package.searchpath("sagan.commands." .. word, package.path)
end

function cli.commands()
    local names = {}
    local core = require "sagan.core"
    local files = core.system and core.system.list(program.scripts .. "/sagan/commands") or {}
    for _, file in ipairs(files) do
        local name = file:match("^(.*)%.lua$")
        if name then names[#names + 1] = name end
    end
    table.sort(names)
    return names
end

local function print_help()
    io.write(usage, "\n")
    local names = cli.commands()
    if #names > 0 then io.write("commands\n") end
    for _, name in ipairs(names) do
        local file = io.open(command_file(name))
        local first = file and file:read("l") or ""
        if file then file:close() end
        io.write(("  %-15s %s\n"):format(name, first:match("^%-+ sagan%-lua %w+ +%- +(.-)%.?$") or ""))
    end
    io.write(#names > 0 and "\n" or "", examples)
    return 0
end

local function run_command(word, args)
    local ok, code = guarded(function()
        local command = require("sagan.commands." .. word)
        return command.main(args)
    end)
    if not ok then return code end
    return math.type(code) == "integer" and code or code == false and 1 or 0
end

---------------------------------------------------------------------------------------------------- scripts

--- `return sagan.experiment{...}` would be a tail call, which takes away the frame that errors point to; a variable that is
--- to be closed forbids tail calls.
local KEEP_FRAME = "local _ <close> = nil "

local function load_script(path)
    local file, message = io.stdin, nil
    if path ~= "-" then
        file, message = io.open(path, "rb")
        if not file then return nil, message end
    end
    local text = file:read("a")
    if path ~= "-" then file:close() end
    if not text then return nil, path .. ": cannot be read" end
    if text:sub(1, 1) == "\27" then return nil, path .. ": compiled Lua is not run; give the source" end
    text = text:gsub("^\xef\xbb\xbf", ""):gsub("^#[^\n]*", "")
    return load(KEEP_FRAME .. text, path == "-" and "=stdin" or "@" .. path, "t")
end

--- Sets the global `arg` as lua does: the script at 0, what follows from 1, what came before at negative places.
local function set_arg(argv, at)
    local shifted = {}
    for i, value in pairs(argv) do shifted[i - at] = value end
    _G.arg = shifted
end

local function run_script(path, args)
    local chunk, message = load_script(path)
    if not chunk then
        complain(message)
        return 1
    end
    local ok, value = guarded(chunk, table.unpack(args))
    if not ok then return value end
    local module = runner_of(value)
    if not module then return 0 end
    local done, code = guarded(function() return require(module).run(value, args) end)
    if not done then return code end
    return math.type(code) == "integer" and code or code == false and 1 or 0
end

local function unknown(word)
    local candidates = cli.commands()
    candidates[#candidates + 1] = "help"
    local near = require "sagan.nearest"(word, candidates)
    complain(("'%s' is neither a command nor a file that can be read%s"):format(word,
        near and (" (did you mean '%s'?)"):format(near) or ""))
    io.stderr:write("`sagan-lua --help` lists the commands\n")
    return 2
end

local function readable(path)
    local file = io.open(path, "r")
    if not file then return false end
    local is_file = file:read(0) ~= nil or file:seek("end") == 0 -- a folder opens, but cannot be read
    file:close()
    return is_file
end

------------------------------------------------------------------------------------------------------- main

--- What the options ask for; nil and a message when they are wrong.
local function parse(argv)
    local request = { code = {}, rest = #argv + 1 }
    local i = 1
    while argv[i] do
        local word = argv[i]
        if word == "-e" or word:find("^%-e.") then
            local code = word:sub(3)
            if code == "" then
                i = i + 1
                code = argv[i]
            end
            if not code then return nil, "-e needs a piece of Lua after it" end
            table.insert(request.code, code)
        elseif word == "-i" then
            request.prompt = true
        elseif word == "-v" or word == "--version" then
            request.version = true
        elseif word == "-h" or word == "--help" then
            request.help = true
        elseif word == "--" then
            request.rest = i + 1
            break
        elseif word ~= "-" and word:sub(1, 1) == "-" then
            local near = require "sagan.nearest"(word, { "--help", "--version" })
            return nil, ("unknown option '%s'%s"):format(word, near and (" (did you mean '%s'?)"):format(near) or "")
        else
            request.rest = i
            break
        end
        i = i + 1
    end
    return request
end

--- `sagan` is a global in the program; loaded when first touched, so that a script without it starts at once.
local function set_globals()
    local meta = getmetatable(_G) or {}
    setmetatable(_G, meta)
    meta.__names = function() return { "sagan" } end -- for completion
    meta.__index = function(_, name)
        if name ~= "sagan" then return nil end
        local sagan = require "sagan"
        rawset(_G, "sagan", sagan)
        return sagan
    end
end

local function version()
    local core = require "sagan.core"
    return ("sagan-lua %s (%s, cpu %s)"):format(core.version, _VERSION, core.isa())
end

function cli.main(argv)
    local request, message = parse(argv)
    if not request then
        complain(message)
        io.stderr:write("`sagan-lua --help` lists the options\n")
        return 2
    end
    if request.help then return print_help() end
    set_globals()
    if request.version then print(version()) end

    set_arg(argv, request.rest <= #argv and request.rest or 0)
    for _, code in ipairs(request.code) do
        local chunk, syntax = load(code, "=(command line)")
        if not chunk then
            complain(syntax)
            return 1
        end
        local ok, exit_code = guarded(chunk)
        if not ok then return exit_code end
    end

    local word = argv[request.rest]
    local args = table.move(argv, request.rest + 1, #argv, 1, {})
    local code = 0
    if word == "help" and not readable(word) then
        if not args[1] then return print_help() end
        if not command_file(args[1]) then return unknown(args[1]) end
        return run_command(args[1], { "--help" })
    elseif word and command_file(word) then
        code = run_command(word, args)
    elseif word == "-" or (word and readable(word)) then
        code = run_script(word, args)
    elseif word then
        return unknown(word)
    elseif #request.code == 0 and not request.version and not request.prompt then
        if not program.isatty(0) then return run_script("-", args) end
        request.prompt = true
    end
    if request.prompt then
        print(version())
        require("sagan.repl").run()
    end
    return code
end

return cli
