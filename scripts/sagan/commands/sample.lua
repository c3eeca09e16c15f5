--- sagan-lua sample - draws from a checkpoint alone; needs no data set and trains nothing.
local core = require "sagan.core"
local run = require "sagan.run"
local microscope = require "sagan.microscope"
local options = require "sagan.options"
local pictures = require "sagan.pictures"

local HELP = [[
sagan-lua sample RUN|CHECKPOINT [options]

Draws a grid of samples, one row for each class, from the newest checkpoint of a run (or from the file named).

  -o FILE             where to write (default: samples.png)
  --columns N         samples a class (default 10, at most 64)
  --rows N            classes at most (default 10, at most 64)
  --seed N            which z (default 0)
  --truncation X      draw z from a normal cut off at +-X; smaller: cleaner and less varied (default: none)
  --raw               the raw generator instead of its moving average
  --attention         a sheet of attention maps instead of a grid
  --query Y,X         one query point instead, large: where that row and column of G's attention map looks
  --class NAME        the class for --attention and --query, a name or a number from 1 (default: several; the first)
  -h, --help

Examples
  sagan-lua sample runs/feat32
  sagan-lua sample runs/feat32 --seed 7 --truncation 1.5 -o clean.png
  sagan-lua sample runs/feat32 --query 10,12 --class Sandal -o look.png
  sagan-lua sample runs/feat32/seed-0/checkpoints/step-00002000.safetensors --raw]]

local sample = {}

local function fail(...)
    io.stderr:write("sagan-lua sample: ", string.format(...), "\n")
    return 1
end

local OPTIONS = {
    ["-o"] = { "out", "text" }, ["--out"] = { "out", "text" }, ["--columns"] = { "columns", "count", 64 },
    ["--rows"] = { "rows", "count", 64 }, ["--seed"] = { "seed", "whole" }, ["--truncation"] = { "truncation", "positive" },
    ["--raw"] = { "raw" }, ["--attention"] = { "attention" },
    ["--query"] = { "query", "text" }, ["--class"] = { "class", "text" },
}

local function parse(args)
    local o, message = options.parse(args, OPTIONS)
    if not o then return nil, message end
    if o[2] then return nil, ("one run at a time: '%s' is a second one"):format(o[2]) end
    o.what, o.out, o.seed, o.columns, o.rows = o[1], o.out or "samples.png", o.seed or 0, o.columns or 10, o.rows or 10
    if not o.out:lower():find("%.png$") then
        return nil, ("-o: '%s' does not end in .png, the form that is written"):format(o.out)
    end
    if o.query then
        local y, x = o.query:match("^(%d+),(%d+)$")
        if not y then return nil, ("--query needs a row and a column of the map, such as 10,12, not '%s'"):format(o.query) end
        o.query = { y = tonumber(y), x = tonumber(x) }
    elseif o.class and not o.attention then
        return nil, "--class goes with --attention or --query; a grid has a row for every class"
    end
    return o
end

--- What --attention and --query show.
local function look(G, o)
    local class = math.tointeger(tonumber(o.class)) or o.class
    if o.query then return G:attention({ class = class, seed = o.seed }):show(o.query) end
    if not class then return microscope.class_sheet(G, { seed = o.seed, rows = o.rows }) end
    return G:attention({ class = class, seed = o.seed, count = o.rows }):sheet()
end

--- The words of an error that is raised, without the line of ours that raised it.
local function words_of(message) return (tostring(message):gsub("^%S+%.lua:%d+: ", "")) end

---@param args string[]
---@return integer exit code
function sample.main(args)
    local o, message = parse(args)
    if not o then return fail("%s", message) end
    if o.help then
        print(HELP)
        return 0
    end
    if not o.what then return fail("which run? sagan-lua sample runs/feat32 (--help for more)") end
    local opened
    opened, message = run.open(o.what, { raw = o.raw })
    if not opened then return fail("%s", message) end
    for _, why in ipairs(opened.damaged) do io.stderr:write(why, ": not usable, an older one is taken\n") end
    local G = opened.G
    local read, why = pcall(function() return G.net end)
    if not read then return fail("%s", words_of(why)) end
    local picture
    if o.attention or o.query then
        if not next(G.net.attention) then return fail("%s: this generator has no attention", o.what) end
        local ok
        ok, picture = pcall(look, G, o)
        if not ok then return fail("%s", words_of(picture)) end
    else
        picture = pictures.class_grid(G.net, G.config, G.class_names, o)
    end
    local ok, broken = core.image.write(o.out, picture)
    if not ok then return fail("%s", broken) end
    print(("%s: %dx%d, %s generator at step %d, seed %d"):format(o.out, picture:size(2), picture:size(1), G.weights, G.step, o.seed))
    return 0
end

return sample
