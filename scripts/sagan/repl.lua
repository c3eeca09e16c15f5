--- repl.lua - the prompt: reads lines, runs them, prints the values of expressions, goes on after errors.
---
--- Its two sides are apart, so that lines can be run somewhere else. read_loop reads: line editing, history, completion, inputs
--- of several lines. evaluate runs one input here and prints what comes of it.
---
---     repl.read_loop { prompt = "run> ", evaluate = function(text) print(ask_server(text)) end }

local program = package.preload["sagan.program"] and require "sagan.program" -- a stock lua5.4 has none: nothing is read there
local traceback = require "sagan.traceback"
local values = require "sagan.prompt.values"
local complete = require "sagan.prompt.complete"
local history = require "sagan.prompt.history"
local commands = require "sagan.prompt.commands"

local repl = {}

local function complain(message)
    io.stdout:flush()
    io.stderr:write(message, "\n")
end

----------------------------------------------------------------------------------------------------------- reading

--- The text of a value as the prompt prints it.
---@param value any
---@return string
function repl.show(value) return values.text(value) end

--- The texts of values: short ones beside each other, those of several lines below each other.
---@param results table packed
---@return string? text nil for no values
function repl.render(results)
    local lines, line = {}, {}
    for i = 1, results.n do
        local ok, text = pcall(values.text, results[i])
        if not ok then text = ("(cannot be shown: %s)"):format(tostring(text)) end
        local alone = text:find("\n", 1, true)
        if alone and #line > 0 then
            lines[#lines + 1] = table.concat(line, "\t")
            line = {}
        end
        table.insert(alone and lines or line, text)
    end
    if #line > 0 then lines[#lines + 1] = table.concat(line, "\t") end
    return results.n > 0 and table.concat(lines, "\n") or nil
end

--- What Tab offers after a text.
---@param text string everything up to the cursor
---@param globals table? where names are looked for; the program's own if absent
---@return string? insert
---@return string? list
function repl.complete(text, globals) return complete.text(text, globals, not globals and commands.names() or nil) end

--- `return f()` would be a tail call, which takes away the frame that errors point to; a variable that is to be closed forbids
--- tail calls.
local KEEP_FRAME <const> = "local KEEP_FRAME <close> = nil "

--- The chunk for what has been typed: as an expression if it is one.
---@param text string
---@param globals table? the program's own if absent
---@return function? chunk
---@return string? message
---@return boolean? unfinished more lines would make it a chunk
function repl.compile(text, globals)
    globals = globals or _G
    local function unfinished(message) return message:find("<eof>'?$") ~= nil end
    local expression, complaint = load(KEEP_FRAME .. "return " .. text:gsub("^%s*=", ""), "=prompt", "t", globals)
    if expression then return expression end
    local statement, message = load(text, "=prompt", "t", globals)
    if statement then return statement end
    return nil, message, unfinished(message) or unfinished(complaint)
end

--- Whether what has been typed goes on in the next line.
---@param text string
---@return boolean
function repl.unfinished(text)
    local command, rest = commands.parse(text)
    if command then
        if command ~= "time" then return false end
        text = rest
    end
    local _, _, unfinished = repl.compile(text)
    return unfinished == true
end

--- One input of as many lines as it takes; nil at the end of input; false for nothing to run.
local function read_input(options)
    local text = program.read_line(options.prompt or "> ")
    if not text then return text end
    if text:find("^%s*$") then return false end
    local unfinished = options.unfinished or repl.unfinished
    while unfinished(text) do
        local more = program.read_line(options.more or ">> ")
        if more == false then return false end
        if not more then break end
        text = text .. "\n" .. more
    end
    return text
end

--- On a terminal, takes the history of earlier sessions over and returns what adds to it.
local function open_history(path)
    if not path or not program.isatty(0) then return function() end end
    for _, entry in ipairs(history.load(path)) do program.add_history(entry) end
    return function(text)
        program.add_history(text)
        local kept, message = history.add(path, text)
        if not kept and path then
            complain("the history is not kept: " .. message)
            path = nil
        end
    end
end

---@class sagan.ReadLoop
---@field evaluate fun(text: string): boolean?  gets each input; false ends the loop
---@field prompt? string                        "> "
---@field more? string                          ">> ", before the further lines of an input
---@field unfinished? fun(text: string): boolean  repl.unfinished
---@field complete? fun(text: string): string?, string?  repl.complete
---@field history? string|false                 a file; the user's own if absent; false: none is kept

--- Reads inputs until the end of input (Ctrl-D) or until evaluate returns false. On a terminal Ctrl-C clears the line, and
--- never ends the program; evaluate has to see to it that it stops what runs (repl.evaluate does).
---@param options sagan.ReadLoop
function repl.read_loop(options)
    program.stay_alive(program.isatty(0))
    program.set_completer(options.complete or repl.complete)
    local path = options.history
    if path == nil then path = history.path() end
    local remember = open_history(path)
    repeat
        local text = read_input(options)
        local go_on = text ~= nil
        if text then
            remember(text)
            go_on = options.evaluate(text) ~= false
        end
    until not go_on
    program.stay_alive(false)
end

-------------------------------------------------------------------------------------------------------- evaluating

--- Runs f so that Ctrl-C stops it; prints the error. true and the results, or false.
local function call(f, ...)
    local results = table.pack(program.call(traceback, f, ...))
    if not results[1] then
        local after_echo = program.interrupted() and program.isatty(2) and "\n" or "" -- behind "^C"
        complain(after_echo .. tostring(results[2]))
    end
    return table.unpack(results, 1, results[1] and results.n or 1)
end

--- Prints values, pictures as pictures.
local function print_values(...)
    local show = require "sagan.show"
    local texts = { n = 0 }
    local function flush()
        if texts.n > 0 then print(repl.render(texts)) end
        texts = { n = 0 }
    end
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        if show.is_picture(value) then
            flush()
            show(value)
        else
            texts.n = texts.n + 1
            texts[texts.n] = value
        end
    end
    flush()
end

local tools = {}

function tools.picture(expression)
    local chunk, syntax = repl.compile("return " .. expression)
    if not chunk then return nil, syntax end
    local ok, value = call(chunk)
    if not ok then return nil end
    return require "sagan.show".picture(value)
end

--- Runs one input and prints its values, or its error with a traceback. `_` is the first value afterwards.
---@param text string Lua, or one of the prompt's commands
---@return boolean? go_on false after :quit
function repl.evaluate(text)
    local command, rest = commands.parse(text)
    if command then return commands.run(command, rest, tools) end
    local chunk, message = repl.compile(text)
    if not chunk then return complain(message) end
    local results = table.pack(call(chunk))
    if results.n > 1 then
        _G._ = results[2]
        call(print_values, table.unpack(results, 2, results.n))
    end
end

tools.evaluate = repl.evaluate

--- The prompt of the program sagan-lua, until the end of input. A session talks to something else: what it leaves out is as
--- at the program's own prompt.
---@param session? sagan.ReadLoop
function repl.run(session)
    for _, name in ipairs { "help", "show" } do
        if rawget(_G, name) == nil then _G[name] = require("sagan." .. name) end
    end
    if program.isatty(0) then
        print "help() explains, :help lists the commands, Ctrl-D leaves"
    end
    local options = { evaluate = repl.evaluate }
    for name, value in pairs(session or {}) do options[name] = value end
    repl.read_loop(options)
end

return repl
