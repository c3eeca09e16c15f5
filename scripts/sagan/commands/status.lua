--- sagan-lua status - which runs there are, and how each of them is: step, speed, losses, gamma, health, time left.
local system = require("sagan.core").system
local json = require "sagan.json"
local options = require "sagan.options"
local progress = require "sagan.progress"
local run_folder = require "sagan.run_folder"
local run_status = require "sagan.run_status"
local control_client = require "sagan.control_client"

local HELP = [[
sagan-lua status [FOLDER] [options]

A line for each run below a folder (default: $SAGAN_RUNS, else runs), or for one run.

  state     training, paused (somebody holds it, sagan-lua attach), finished, interrupted (the command that started it
            continues it), diverged, new (nothing done yet), damaged (its configuration cannot be read)
  health    ok, or what is wrong: numbers that are not finite, a loss of D that is 0, singular values that grow, a log
            that is silent, a checkpoint that is damaged

  --json    the same as a JSON array
  -h, --help

Examples
  sagan-lua status
  sagan-lua status runs/stability
  sagan-lua status runs --json]]

local status = {}

local ANSWER_TIME <const> = 0.3 -- seconds that all runs together have to say how far they are; one that trains is in a step

local function fail(message)
    io.stderr:write("sagan-lua status: ", message, "\n")
    return 1
end

--- Asks the processes that train in these folders. Silence is no fault: the folder tells almost as much.
local function ask(paths)
    local asked, hellos = {}, {}
    for _, path in ipairs(paths) do
        local client = system.lock_held(path .. "/lock") and control_client.connect(path)
        if client then asked[#asked + 1] = client end
    end
    local until_ = system.now() + ANSWER_TIME
    for _, client in ipairs(asked) do
        hellos[client.path] = client:greeting(math.max(0, until_ - system.now()))
        client:close()
    end
    return hellos
end

local function gamma_text(gamma)
    local names = {}
    for name in pairs(gamma or {}) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do names[i] = ("%s %.3f"):format(name:gsub("feat", ""), gamma[name]) end
    return table.concat(names, " ")
end

local HEADS = { "run", "state", "step", "img/s", "loss d", "loss g", "gamma", "left", "health" }

local function cells(s)
    local function number(form, value) return value and form:format(value) or "" end
    return {
        s.path, s.state, s.steps and ("%d/%d"):format(s.step, s.steps) or "", number("%.1f", s.images_per_second),
        number("%.3f", s.losses and s.losses.d), number("%.3f", s.losses and s.losses.g), gamma_text(s.gamma),
        s.left and progress.duration(s.left) or "", s.health,
    }
end

local function print_table(list)
    local rows, width = { HEADS }, {}
    for _, s in ipairs(list) do rows[#rows + 1] = cells(s) end
    for _, row in ipairs(rows) do
        for i, cell in ipairs(row) do width[i] = math.max(width[i] or 0, #cell) end
    end
    for _, row in ipairs(rows) do
        local line = {}
        for i, cell in ipairs(row) do line[i] = cell .. (" "):rep(width[i] - #cell) end
        print((table.concat(line, "  "):gsub("%s+$", "")))
    end
end

---@param args string[]
---@return integer exit code
function status.main(args)
    local o, message = options.parse(args, { ["--json"] = { "json" } })
    if not o then return fail(message) end
    if o.help then
        print(HELP)
        return 0
    end
    if o[2] then return fail(("one folder at a time: '%s' is a second one"):format(o[2])) end
    local root = run_folder.root(o[1])
    local paths, why = run_status.find(root)
    if not paths then return fail(why) end
    local hellos, list = ask(paths), {}
    for i, path in ipairs(paths) do list[i] = run_status.read(path, hellos[path]) end
    if o.json then
        print(json.encode(json.array(list)))
    elseif #list == 0 then
        print("no runs in " .. root)
    else
        print_table(list)
    end
    return 0
end

return status
