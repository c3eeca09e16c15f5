--- control_protocol.lua - what a run and its clients say to each other over the socket in the run folder: messages that are
--- one JSON object each.
---
---     client: {"protocol":"sagan-lua control","version":1,"folder":"/home/me"}     first; file names are taken from there
---     run:    {"protocol":"sagan-lua control","version":1,"name":"feat32","seed":1,"pid":77,"step":12,"steps":3750,
---              "paused":false}
---             the same with "error" and nothing more, if the run does not take the client
---     client: {"id":1,"run":"status()"}       a piece of Lua
---     client: {"id":2,"complete":"run.G:su"}  names that may follow
---     client: {"interrupt":true}              ends what runs for this client
---     run:    {"id":1,"out":"text"}           printed; any number of times
---     run:    {"id":1,"picture":"...","text":"picture 64 x 64 grey","options":{"rows":20}}  a PNG in base64, to be shown
---     run:    {"id":1,"done":true,"value":"text"}  or "error" in place of "value": the end of it
---     run:    {"id":2,"done":true,"insert":"mmary","list":"names"}
---     run:    {"ended":"it ended at step 3750: done"}  the run, and with it the connection
local json = require "sagan.json"

local protocol = {}

protocol.name = "sagan-lua control"
protocol.version = 1

--- The socket of a run folder.
---@param folder string
---@return string
function protocol.path(folder) return folder .. "/control.sock" end

---@param message table
---@return string
function protocol.encode(message) return json.encode(message) end

---@param text string
---@return table? message  nil for what is none
function protocol.decode(text)
    local message = json.decode(text)
    return type(message) == "table" and message or nil
end

--- Why two sides cannot talk; nil if they can.
---@param greeting table?  the first message of the other side
---@return string?
function protocol.mismatch(greeting)
    if not greeting or greeting.protocol ~= protocol.name then return "that is no part of sagan-lua" end
    if greeting.version ~= protocol.version then
        return ("it speaks version %s of the protocol, this program version %d: use the sagan-lua that trains the run"):format(
            tostring(greeting.version), protocol.version)
    end
end

return protocol
