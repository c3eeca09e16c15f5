--- run_status.lua - how a run is, told from its folder alone, whether a process trains in it or not. Reads little: the end of
--- the log, one row from its middle, the head of the newest checkpoint.
local system = require("sagan.core").system
local json = require "sagan.json"
local checkpoint = require "sagan.checkpoint"
local live = require "sagan.live"
local run_folder = require "sagan.run_folder"

local run_status = {}

local TAIL <const> = 1 << 15      -- bytes of the log
local DEPTH <const> = 4           -- folders below the root: a study's cells lie at three
local D_WINS <const> = 0.01       -- a loss of D below this, over the last rows, leaves G nothing to learn from
local SIGMA_GROWTH <const> = 3    -- times the largest singular value half way through the log
local SILENCE <const> = { 120, 20 } -- seconds without a row, and in units of the usual pause between rows

---@class sagan.RunStatus
---@field path string
---@field name string?      nil where the configuration cannot be read
---@field seed integer?
---@field state "training"|"paused"|"finished"|"interrupted"|"diverged"|"new"|"damaged"
---@field step integer      done, as far as is known
---@field steps integer?
---@field images_per_second number?
---@field losses {d: number, g: number}?
---@field gamma table<string, number>?  "G.feat32"
---@field left number?      seconds, of a run that trains
---@field health string     "ok", "-" before anything was logged, else what is wrong

--- Run folders below a folder, or the folder itself.
---@param root string
---@return string[]? paths, string? message
function run_status.find(root)
    root = root:gsub("(.)/+$", "%1")
    if not system.stat(root) then return nil, root .. ": no such folder" end
    local found = {}
    local function walk(path, depth)
        if system.stat(path .. "/config.lua") then
            found[#found + 1] = path
        elseif depth > 0 then
            for _, name in ipairs(system.list(path) or {}) do
                local below = path .. "/" .. name
                local stat = not name:find("^%.") and system.stat(below)
                if stat and stat.type == "folder" then walk(below, depth - 1) end
            end
        end
    end
    walk(root, DEPTH)
    return found
end

--- Rows in a part of a log: the lines that are whole.
local function rows_at(file, from, bytes)
    file:seek("set", from)
    local text = file:read(bytes) or ""
    if from > 0 then text = text:match("\n(.*)$") or "" end
    local rows = {}
    for line in text:gmatch("([^\n]*)\n") do
        local row = json.decode(line)
        if type(row) == "table" and math.type(row.step) then rows[#rows + 1] = row end
    end
    return rows
end

--- The last measured rows of a log, one from its middle, and the last event.
local function read_log(path)
    local file = io.open(path .. "/log.jsonl", "rb")
    if not file then return {}, nil, nil end
    local size = file:seek("end")
    local measured, event = {}, nil
    for _, row in ipairs(rows_at(file, math.max(0, size - TAIL), TAIL)) do
        if row.event then event = row else measured[#measured + 1] = row end
    end
    local middle
    for _, row in ipairs(rows_at(file, size // 2, TAIL)) do
        if not row.event then middle = middle or row end
    end
    file:close()
    return measured, middle, event
end

--- What is wrong with the last rows of a log, or nil.
local function complaint(rows, middle)
    local row = rows[#rows]
    for name, value in pairs(row) do
        if value == "nan" or value == "inf" or value == "-inf" then return name .. " is not finite" end
    end
    local sum, n = 0, math.min(5, #rows)
    for i = #rows - n + 1, #rows do sum = sum + math.abs(tonumber(rows[i]["loss/d"]) or math.huge) end
    if sum / n < D_WINS then return "D's loss is 0: G learns nothing" end
    for _, name in ipairs { "sigma/D", "sigma/G" } do
        local now, then_ = row[name], middle and middle[name]
        if math.type(now) and math.type(then_) and now > SIGMA_GROWTH * then_ then
            return ("%s grows: %.3g, %.3g half way"):format(name, now, then_)
        end
    end
end

local function silence(path, config, row)
    local stat = system.stat(path .. "/log.jsonl")
    local age = stat and system.time() - stat.mtime or 0
    local pause = config.log.every * config.train.batch / row["images_per_second"]
    if age > math.max(SILENCE[1], SILENCE[2] * pause) then
        return ("nothing logged for %s"):format(require("sagan.progress").duration(age))
    end
end

local function describe_rows(status, rows, batch)
    local row = rows[#rows]
    status.step = math.max(status.step, math.tointeger(row.step) or 0)
    if math.type(row["loss/d"]) and math.type(row["loss/g"]) then status.losses = { d = row["loss/d"], g = row["loss/g"] } end
    status.gamma = {}
    for name, value in pairs(row) do
        local place = name:match("^gamma/(.+)$")
        if place and math.type(value) then status.gamma[place] = value end
    end
    local speed = row["images_per_second"]
    if not math.type(speed) or speed <= 0 then return end
    status.images_per_second = speed
    if status.state == "training" then status.left = (status.steps - status.step) * batch / speed end
end

--- How the run in a folder is.
---@param path string
---@param hello table?  what its process says about itself, if it was asked (control_client.lua)
---@return sagan.RunStatus
function run_status.read(path, hello)
    local folder = run_folder.at(path)
    local status = { path = path, step = 0, health = "-", state = "new" }
    local training = system.lock_held(path .. "/lock")
    local config, message = folder:config()
    if not config then
        status.state, status.health = "damaged", message
        return status
    end
    status.name, status.seed, status.steps = config.name, config.seed, config.train.steps
    local rows, middle, event = read_log(path)
    local newest = folder:checkpoints()[1]
    local info, damage
    if newest then info, damage = checkpoint.info(newest.path) end
    if info then status.step, status.steps = info.step, live.value(config, info.changes, "train.steps") end
    if hello then status.step, status.steps = hello.step, hello.steps end

    local last = rows[#rows]
    local diverged = event and event.event == "diverged" and event.step >= status.step and event.step >= (last and last.step or 0)
    if training then
        status.state = hello and hello.paused and "paused" or "training"
    elseif diverged then
        status.state = "diverged"
    elseif info and info.step >= status.steps then
        status.state = "finished"
    elseif last or newest then
        status.state = "interrupted"
    end
    if last then
        describe_rows(status, rows, config.train.batch)
        status.health = complaint(rows, middle) or "ok"
        if status.state == "training" and status.health == "ok" and status.images_per_second then
            status.health = silence(path, config, last) or "ok"
        end
    end
    if diverged and not training then
        status.step, status.health = event.step, tostring(event.what) .. " is not finite"
    elseif newest and not info then
        status.health = damage
    end
    return status
end

return run_status
