--- commands.lua - the prompt's own commands: lines that begin with a colon.

local core = require "sagan.core"
local show = require "sagan.show"

local commands = {}

local function complain(message)
    io.stdout:flush()
    io.stderr:write(message, "\n")
end

---@class sagan.PromptCommand
---@field usage string
---@field doc string
---@field run fun(rest: string, prompt: sagan.PromptTools): boolean?  false leaves the prompt

---@class sagan.PromptTools
---@field picture fun(expression: string): sagan.Tensor?, string?  of a value; nil alone: an error was printed
---@field evaluate fun(text: string): boolean?           as if it had been typed

---@type table<string, sagan.PromptCommand>
commands.list = {}

commands.list.help = {
    usage = ":help", doc = "this list; help() tells about Lua's side",
    run = function()
        for _, name in ipairs(commands.names()) do
            local command = commands.list[name]
            print(("%-24s %s"):format(command.usage, command.doc))
        end
    end,
}

commands.list.quit = {
    usage = ":quit", doc = "leaves, as Ctrl-D does",
    run = function() return false end,
}

commands.list.save = {
    usage = ':save "x.png" [VALUE]', doc = "writes the last picture shown, or a value that show() takes",
    run = function(rest, prompt)
        local _, path, expression = rest:match("^([\"'])(.-)%1%s*(.*)$")
        if not path then path, expression = rest:match("^(%S+)%s*(.*)$") end
        if not path then return complain('the name of a file is missing: :save "x.png"') end
        if not path:find("%.png$") then return complain(path .. ": pictures are written as PNG, so the name ends in .png") end
        local picture, message = show.last, 'no picture has been shown yet; :save "x.png" VALUE writes a value'
        if expression ~= "" then picture, message = prompt.picture(expression) end
        if not picture then return message and complain(message) end
        local written, reason = core.image.write(path, picture)
        if not written then return complain(reason) end
        print(("wrote %s, %d x %d"):format(path, picture:size(2), picture:size(1)))
    end,
}

commands.list.time = {
    usage = ":time CODE", doc = "runs a piece of Lua and says how long it took",
    run = function(rest, prompt)
        local start = core.system.now()
        prompt.evaluate(rest)
        core.synchronize()
        print(("%.3g s"):format(core.system.now() - start))
    end,
}

--- Names of all commands, sorted.
---@return string[]
function commands.names()
    local names = {}
    for name in pairs(commands.list) do names[#names + 1] = name end
    table.sort(names)
    return names
end

--- The command that a text is, and what follows its name; nil for Lua. A label (::name::) is Lua.
---@param text string
---@return string? name
---@return string? rest
function commands.parse(text)
    local name, rest = text:match("^%s*:(%a+)%s*(.*)$")
    if name then return name, (rest:gsub("%s+$", "")) end
end

--- Runs a command by name.
---@param name string
---@param rest string
---@param prompt sagan.PromptTools
---@return boolean? go_on false leaves the prompt
function commands.run(name, rest, prompt)
    local command = commands.list[name]
    if command then return command.run(rest, prompt) end
    local near = require "sagan.nearest"(name, commands.names())
    complain((":%s is no command%s; :help lists them"):format(name, near and (" (did you mean :%s?)"):format(near) or ""))
end

return commands
