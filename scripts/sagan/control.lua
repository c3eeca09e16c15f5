--- control.lua - lets other processes talk to a run between two steps. It listens at a private socket in the run folder; the
--- trainer calls poll() once a step, which costs one system call while nobody asks for anything. A command is a piece of Lua
--- (control_commands.lua has what it finds there). It runs in this process, one at a time, and ends with an error when it
--- takes too long, when its client asks for that or is gone, and at Ctrl-C. The networks are put back as they were, so
--- looking at them changes nothing (undisturbed.lua); what it changes on purpose goes through live.lua.
---
--- Nothing that a client does or leaves undone ends the run: what is no message ends the connection, and so does not reading.
local core = require "sagan.core"
local system, socket = core.system, core.socket
local base64 = require "sagan.base64"
local protocol = require "sagan.control_protocol"
local undisturbed = require "sagan.undisturbed"
local traceback = require "sagan.traceback"
local repl = require "sagan.repl"
local show = require "sagan.show"

local control = {}

local MOST_CLIENTS <const> = 32
local TIME_LIMIT <const> = 60     -- seconds that one command may take, if its client does not ask for more
local LINGER <const> = 0.002      -- seconds to wait, after an answer, for what the client asks next ...
local SHARE <const> = 0.05        -- ... so that a script of short commands sees one step, for at most so long a step
local NAP <const> = 0.5           -- between two looks for Ctrl-C in a pause; a signal ends it at once too
local GREETING <const> = 10       -- seconds that a new client has to say who it is
local UNREAD <const> = 3 << 20    -- bytes that a client may leave unread before print fails; a reply still fits
local READ_TIME <const> = 1       -- seconds that a command waits, in all, for its client to read

local Refusal = { __tostring = function(refusal) return refusal.words end }

--- Ends a command with these words, and no traceback.
---@param words string  for string.format
---@param ... any
function control.refuse(words, ...) error(setmetatable({ words = words:format(...) }, Refusal)) end

--- In place of a connection, where nobody listens.
control.none = setmetatable({
    poll = function() return system.interrupted(), 0 end,
    close = function() end,
}, { __close = function() end })

---@class sagan.ControlClient
---@field socket sagan.Socket
---@field env table?      globals of its commands; nil before it has said who it is
---@field folder string   where its file names begin
---@field limit number    seconds for one command
---@field queue table[]   messages that came while a command ran
---@field pauses boolean  it holds the run
---@field steps integer?  id of the command that waits for the end of step(n)
---@field asked integer?  id of the command that runs
---@field stall number?   when that has waited long enough for its client to read

---@class sagan.Control
---@field trainer sagan.Trainer
---@field clients sagan.ControlClient[]
---@field stays boolean     paused, whoever is there
---@field left integer      steps to do before the pause goes on
---@field leaving boolean   a client or Ctrl-C asked the run to stop
---@field critical boolean  what runs now must not be broken off
---@field behind boolean    messages that were read wait for the next step
local Control = {}
Control.__index = Control

--- Listens for clients of a run whose folder this process holds the lock of. Without the field `control` it does not.
---@param trainer sagan.Trainer
---@return sagan.Control control  to be closed
---@return string? message        why nobody can be heard, if that is not what was asked for
function control.open(trainer)
    if not trainer.config.control then return control.none end
    local listener, message = socket.listen(protocol.path(trainer.folder.path))
    if not listener then return control.none, message end
    return setmetatable({ trainer = trainer, listener = listener, sockets = { listener }, clients = {}, stays = false, left = 0,
        leaving = false, critical = false, behind = false }, Control)
end

------------------------------------------------------------------------------------------------------ clients

local function drop(self, client)
    local critical <const> = self.critical
    self.critical = true -- a command may be running; what ends it must not leave a closed socket in the lists
    client.gone, client.pauses = true, false
    client.socket:close()
    for i, other in ipairs(self.clients) do
        if other == client then
            table.remove(self.clients, i)
            table.remove(self.sockets, i + 1)
        end
    end
    self.critical = critical
end

--- Sends a message; a client that cannot be told an answer is dropped.
local function tell(self, client, message)
    if not client.gone and not client.socket:send(protocol.encode(message)) then drop(self, client) end
end

local function turn_away(self, client, reason)
    tell(self, client, { protocol = protocol.name, version = protocol.version, error = reason })
    drop(self, client)
end

local function accept(self)
    local peer = self.listener:accept()
    if not peer then return end
    local client = { socket = peer, limit = TIME_LIMIT, queue = {}, pauses = false, since = system.now() }
    self.clients[#self.clients + 1] = client
    self.sockets[#self.sockets + 1] = peer
    for _, other in ipairs { table.unpack(self.clients) } do
        if not other.env and client.since - other.since > GREETING then drop(self, other) end
    end
    if #self.clients > MOST_CLIENTS then turn_away(self, client, ("%d clients are there already"):format(MOST_CLIENTS)) end
end

local function greet(self, client, message)
    local reason = protocol.mismatch(message)
    if reason then return turn_away(self, client, "a client was turned away: " .. reason) end
    local config = self.trainer.config
    client.folder = type(message.folder) == "string" and message.folder or "."
    client.env = require "sagan.control_commands" (self, client, control.refuse)
    tell(self, client, {
        protocol = protocol.name, version = protocol.version, name = config.name, seed = config.seed, pid = system.getpid(),
        step = self.trainer.step, steps = self.trainer.last or config.train.steps, paused = self:is_paused(),
    })
end

----------------------------------------------------------------------------------------------------- commands

--- Sends a part of the answer to the command that runs, which is `size` bytes large.
local function deliver(self, client, message, size)
    while not client.gone and client.socket:unsent() > UNREAD // 2 and system.now() < client.stall do
        socket.wait({ client.socket }, 0.05)
    end
    if client.gone then control.refuse "its client is gone" end
    if size + client.socket:unsent() > UNREAD then
        control.refuse("more than %d MiB of text or pictures that its client has not read", UNREAD >> 20)
    end
    message.id = client.asked
    tell(self, client, message)
end

--- Shows a picture where the client is.
---@param client sagan.ControlClient  whose command runs
---@param value sagan.Tensor|string   what show() takes
---@param options? sagan.PictureOptions
function Control:show(client, value, options)
    local picture, text = show.picture(value)
    if not picture then control.refuse("%s", text) end
    local png = base64.encode(core.image.encode_png(picture))
    deliver(self, client, { picture = png, text = text, options = options }, #png)
end

--- What prints, reads the keyboard or ends the process, for the time of a command: its client sees what is printed.
local function redirect(self, client, id)
    client.asked, client.stall = id, system.now() + READ_TIME
    local function out(text) deliver(self, client, { out = text }, #text) end
    local replaced = {
        { _G, "print", function(...)
            local words = table.pack(...)
            for i = 1, words.n do words[i] = tostring(words[i]) end
            out(table.concat(words, "\t") .. "\n")
        end },
        { io, "write", function(...)
            out(table.concat({ ... }))
            return io.stdout
        end },
        { io, "read", function() control.refuse "the keyboard is the run's; a command cannot read it" end },
        { os, "exit", function() control.refuse "stop() ends the run; Ctrl-D leaves it" end },
    }
    for _, r in ipairs(replaced) do
        r.before = r[1][r[2]]
        r[1][r[2]] = r[3]
    end
    return setmetatable({}, { __close = function()
        for _, r in ipairs(replaced) do r[1][r[2]] = r.before end
    end })
end

--- Takes what a client says while its command runs. Returns why the command should end.
local function listen(client)
    if client.gone then return "its client is gone" end
    local text, message = client.socket:receive()
    if message then return "its client is gone" end
    if not text then return nil end
    local said = protocol.decode(text)
    if said and said.interrupt then return "interrupted" end
    if #client.queue < 100 then client.queue[#client.queue + 1] = said or {} end
end

--- A refusal of a command is its words alone, wherever it was raised. The tail call keeps traceback's levels.
local function explain(err)
    if getmetatable(err) == Refusal then return err.words end
    return traceback(err)
end

--- Runs f for a client, then last with what f returned. Returns true and what last returns, or false and a message.
local function guarded(self, client, id, f, last)
    local began = system.now()
    local function check()
        if self.critical then return end
        if system.interrupted() then self.leaving, self.broken_off = true, true end
        local reason = self.broken_off and "interrupted: the run stops" or listen(client)
        if reason then error(reason, 0) end
        if system.now() > began + client.limit then -- which the command itself may change
            error(("it took more than %g s and was ended; time_limit(seconds) allows more"):format(client.limit), 0)
        end
    end
    local trainer = self.trainer
    local nets = { trainer.G, trainer.D, trainer.average and trainer.average.net }
    local ok, value = undisturbed(nets, function()
        local _ <close> = redirect(self, client, id)
        return xpcall(function()
            local call = core.watch -- by this name a traceback knows where the library's own calls begin
            local results = table.pack(call(check, f))
            return (call(check, last, results))
        end, explain)
    end)
    core.clear_tape() -- a command may look at gradients; the next step makes its own
    for _, net in ipairs(nets) do net:release_grad() end
    return ok, value
end

--- Answers with values: pictures are shown, the text of what follows the last one is returned.
local function answer(self, client, results)
    if results.n > 0 then client.env._ = results[1] end
    local texts = { n = 0 }
    for i = 1, results.n do
        if show.is_picture(results[i]) then
            if texts.n > 0 then print(repl.render(texts)) end -- to the client
            texts = { n = 0 }
            self:show(client, results[i])
        else
            texts.n = texts.n + 1
            texts[texts.n] = results[i]
        end
    end
    return repl.render(texts)
end

local function run(self, client, message)
    local env, id = client.env, message.id
    client.refresh()
    local chunk, syntax = repl.compile(message.run, env)
    if not chunk then return tell(self, client, { id = id, done = true, error = syntax }) end
    local ok, text = guarded(self, client, id, chunk, function(results) return answer(self, client, results) end)
    if ok and self.left > 0 and client.asked_steps then
        client.steps = id -- answered when they are done
    else
        tell(self, client, { id = id, done = true, value = ok and text or nil, error = not ok and tostring(text) or nil })
    end
    client.asked_steps = false
end

local function complete(self, client, message)
    local function names() return repl.complete(message.complete, client.env) end
    local ok, found = guarded(self, client, message.id, names, function(results) return results end)
    tell(self, client, { id = message.id, done = true, insert = ok and found[1] or nil, list = ok and found[2] or nil })
end

--- Serves one message of a client. Returns whether there was one.
local function serve(self, client)
    local message = table.remove(client.queue, 1)
    if not message then
        local text, failure = client.socket:receive()
        if failure then drop(self, client) end
        if not text then return false end
        message = protocol.decode(text)
    end
    if not client.env then
        greet(self, client, message)
    elseif message and math.type(message.id) and type(message.run) == "string" then
        run(self, client, message)
    elseif message and math.type(message.id) and type(message.complete) == "string" then
        complete(self, client, message)
    elseif message and message.interrupt then
        if client.steps then self.left = 0 end
    else
        drop(self, client)
    end
    return true
end

------------------------------------------------------------------------------------------------- the boundary

--- Whether somebody holds the run; it may have steps left to do all the same.
---@return boolean
function Control:is_paused()
    if self.stays then return true end
    for _, client in ipairs(self.clients) do
        if client.pauses then return true end
    end
    return false
end

--- Answers those who wait for the end of step(n).
local function answer_steps(self)
    for _, client in ipairs { table.unpack(self.clients) } do
        if client.steps then
            tell(self, client, { id = client.steps, done = true, value = self:describe() })
            client.steps = nil
        end
    end
end

--- Between two steps: serves whoever asks for something, and waits while the run is paused.
---@param trainer sagan.Trainer
---@return boolean stop     a client or Ctrl-C wants the run to end here
---@return number  seconds  that this took from training
function Control:poll(trainer)
    self.trainer = trainer
    if system.interrupted() then self.leaving = true end
    if self.left > 0 then
        self.left = self.left - 1
        if self.left == 0 then answer_steps(self) end
    end
    local holds = self:is_paused() and self.left == 0
    if not holds and not self.behind and socket.wait(self.sockets, 0) == 0 then return self.leaving, 0 end

    local began = system.now()
    repeat
        local served = false
        accept(self)
        for _, client in ipairs { table.unpack(self.clients) } do
            if not client.gone then served = serve(self, client) or served end
        end
        if self.left == 0 then answer_steps(self) end
        if system.interrupted() then self.leaving = true end
        holds = self:is_paused() and self.left == 0
        local goes_on = holds or served and system.now() - began < SHARE
        if goes_on and not self.leaving then socket.wait(self.sockets, holds and not served and NAP or LINGER) end
    until self.leaving or not goes_on
    self.behind = false
    for _, client in ipairs(self.clients) do self.behind = self.behind or #client.queue > 0 end
    return self.leaving, system.now() - began
end

--- One line about where the run is.
---@return string
function Control:describe()
    local trainer = self.trainer
    local steps = trainer.last or trainer.config.train.steps
    local row = trainer.row
    return ("step %d of %d (%d %%)%s%s"):format(trainer.step, steps, 100 * trainer.step // steps,
        row and (", loss d %.3f g %.3f, %.1f images/s"):format(row["loss/d"], row["loss/g"], row["images_per_second"]) or "",
        self:is_paused() and ", paused" or "")
end

--- Ends all connections.
---@param words string?  how the run ended
function Control:close(words)
    if not self.listener then return end
    for _, client in ipairs { table.unpack(self.clients) } do
        tell(self, client, { ended = words or "it ended with an error" })
    end
    local until_ = system.now() + 0.2
    for _, client in ipairs(self.clients) do
        while client.socket:unsent() > 0 and system.now() < until_ do socket.wait({ client.socket }, 0.05) end
        client.socket:close()
    end
    self.listener:close()
    self.listener, self.clients, self.sockets = nil, {}, {}
end

function Control:__close() self:close() end

return control
