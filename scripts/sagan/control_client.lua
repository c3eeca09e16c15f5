--- control_client.lua - the other end of control.lua: finds the run that trains in a folder and asks it for things.
---
---     local client <close> = assert(control_client.connect "runs/feat32")
---     print(client:ask "run.step")
local core = require "sagan.core"
local base64 = require "sagan.base64"
local system, socket = core.system, core.socket
local protocol = require "sagan.control_protocol"

local control_client = {}

---@class sagan.ControlConnection
---@field path string     the run folder
---@field hello table?    what the run said about itself: name, seed, step, steps, paused, pid
---@field ended string?   how the run ended, once it has
local Client = {}
Client.__index = Client

local function is_run(path) return system.stat(path .. "/config.lua") ~= nil or system.stat(protocol.path(path)) ~= nil end

local function is_training(path) return system.lock_held(path .. "/lock") == true end

--- The folder of the run that is meant: the path itself, or the one of its seeds in which a process trains.
---@param path string
---@return string? folder, string? message
function control_client.find(path)
    path = path:gsub("(.)/+$", "%1")
    if is_run(path) then return path end
    if not system.stat(path) then return nil, path .. ": no such run folder" end
    local seeds, training = {}, {}
    for _, name in ipairs(system.list(path) or {}) do
        local seed = path .. "/" .. name
        if name:match("^seed%-") and is_run(seed) then
            seeds[#seeds + 1] = seed
            if is_training(seed) then training[#training + 1] = seed end
        end
    end
    if #training > 1 then
        return nil, ("%s: %d seeds train here; name one: %s"):format(path, #training, table.concat(training, ", "))
    end
    if #seeds == 0 then return nil, path .. ": not a run folder (no config.lua in it)" end
    return training[1] or seeds[1]
end

--- Why nobody answers in a run folder.
local function silence(path, message, code)
    if is_training(path) then
        return ("%s: the run does not listen: it begins just now, or has control=false (%s)"):format(path, message)
    end
    if code == "state" then
        return path .. ": no process trains here any more; the one that did left its socket behind. The command that "
            .. "started the run continues it"
    end
    return path .. ": no process trains here (sagan-lua status shows what does)"
end

--- Connects to the run in a folder, without waiting for it to answer.
---@param path string  runs/feat32, or one seed of it
---@return sagan.ControlConnection? client  to be closed
---@return string? message
function control_client.connect(path)
    local folder, message = control_client.find(path)
    if not folder then return nil, message end
    local peer, why, code = socket.connect(protocol.path(folder))
    if not peer then return nil, silence(folder, why, code) end
    local self = setmetatable({ path = folder, socket = peer, id = 0 }, Client)
    local ok, failure = peer:send(protocol.encode { protocol = protocol.name, version = protocol.version,
        folder = system.working_folder() })
    if not ok then
        peer:close()
        return nil, ("%s: %s"):format(folder, failure)
    end
    return self
end

--- The next message of the run.
---@param seconds number  to wait at most; below 0: without end
---@return table? message, string? failure  nil and nil: none came in that time
function Client:receive(seconds)
    if self.ended then return nil, self.ended end
    local until_ = system.now() + seconds
    while true do
        local text, failure = self.socket:receive()
        if text then
            local message = protocol.decode(text)
            if not message then return nil, self.path .. ": what answers at its socket is no run of sagan-lua" end
            if not message.ended then return message end
            self.ended = ("%s: %s"):format(self.path, message.ended)
            return nil, self.ended
        end
        if failure then
            self.ended = ("%s: the run ended the connection (%s)"):format(self.path, failure)
            return nil, self.ended
        end
        local left = until_ - system.now()
        if seconds >= 0 and left <= 0 then return nil end
        socket.wait({ self.socket }, seconds < 0 and 1 or math.min(1, left))
    end
end

--- Waits until the run has answered the greeting, which it does at the end of a step.
---@param seconds number  as in receive
---@return table? hello, string? failure  nil and nil: not yet
function Client:greeting(seconds)
    if self.hello then return self.hello end
    local message, failure = self:receive(seconds)
    if not message then return nil, failure end
    local reason = protocol.mismatch(message)
    if reason then return nil, ("%s: %s"):format(self.path, reason) end
    if message.error then return nil, ("%s: %s"):format(self.path, message.error) end
    self.hello = message
    return message
end

--- A picture that the run sent.
local function picture_of(message)
    local bytes = type(message.picture) == "string" and base64.decode(message.picture)
    local picture = bytes and core.image.decode(bytes)
    return picture, tostring(message.text), type(message.options) == "table" and message.options or nil
end

--- Waits for the end of what was asked last.
---@param output? fun(text: string)  gets what is printed meanwhile
---@param seconds? number            as in receive
---@param show? fun(picture: sagan.Tensor, text: string, options: table?)  gets pictures
---@return table? answer, string? failure
function Client:answer(output, seconds, show)
    while true do
        local message, failure = self:receive(seconds or -1)
        if not message then return nil, failure end
        if message.id == self.id then
            if message.done then return message end
            if message.out and output then output(message.out) end
            if message.picture and show then
                local picture, text, options = picture_of(message)
                if picture then show(picture, text, options) end
            end
        end
    end
end

local function send(self, message)
    local ok, failure = self.socket:send(protocol.encode(message))
    if not ok then
        while self:receive(0) do end -- its last words may say why
        self.ended = self.ended or ("%s: the run ended the connection (%s)"):format(self.path, failure)
        return nil, self.ended
    end
    return true
end

--- Runs a piece of Lua in the run.
---@param code string
---@param output? fun(text: string)  gets what it prints
---@param show? fun(picture: sagan.Tensor, text: string, options: table?)  gets pictures that it shows, or that are its values
---@return string? value    its other values as text; "" for none
---@return string? failure  its error, or why the connection ended
function Client:ask(code, output, show)
    local hello, why = self:greeting(-1)
    if not hello then return nil, why end
    self.id = self.id + 1
    local ok, failure = send(self, { id = self.id, run = code })
    if not ok then return nil, failure end
    return self:result(output, show)
end

--- The end of what ask began and Ctrl-C took it away from.
---@param output? fun(text: string)
---@param show? fun(picture: sagan.Tensor, text: string, options: table?)
---@return string? value, string? failure
function Client:result(output, show)
    local answer, failure = self:answer(output, -1, show)
    if not answer then return nil, failure end
    if answer.error then return nil, answer.error end
    return answer.value or ""
end

--- Asks the run to end what it does for this client; result() tells of the end.
function Client:interrupt() send(self, { interrupt = true }) end

--- Names that may follow a text, if the run says so soon.
---@param text string
---@param seconds number
---@return string? insert, string? list
function Client:complete(text, seconds)
    self.id = self.id + 1
    if not send(self, { id = self.id, complete = text }) then return nil end
    local answer = self:answer(nil, seconds)
    if answer then return answer.insert, answer.list end
end

function Client:close() self.socket:close() end
Client.__close = Client.close

return control_client
