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
  --grid KIND         another grid:
                        interpolate   from one class to the next, a row a pair, at one z; with --class from one z to
                                      the next within it (--columns pictures a row)
                        truncation    z cut off ever farther out, a row a cut
                        neighbours    a sample a class, and the training images that are nearest in the features of
                                      the scores' classifier
                        progress      the sheets that the run drew, as an animation (default: progress.gif)
  --query Y,X         one query point instead, large: where that row and column of G's attention map looks
  --class NAME        the class for --attention, --query and --grid, a name or a number from 1 (default: several; the first)
  -h, --help

Examples
  sagan-lua sample runs/feat32
  sagan-lua sample runs/feat32 --seed 7 --truncation 1.5 -o clean.png
  sagan-lua sample runs/feat32 --grid interpolate -o between.png
  sagan-lua sample runs/feat32 --grid interpolate --class Sandal --rows 4 --columns 12
  sagan-lua sample runs/feat32 --grid truncation --class Bag
  sagan-lua sample runs/feat32 --grid neighbours --columns 8 -o nearest.png
  sagan-lua sample runs/feat32 --grid progress -o training.gif
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
    ["--raw"] = { "raw" }, ["--grid"] = { "grid", "text" }, ["--attention"] = { "attention" },
    ["--query"] = { "query", "text" }, ["--class"] = { "class", "text" },
}

local function class_of(o) return math.tointeger(tonumber(o.class)) or o.class end

--- Classes for rows, counted from 1: as the usual grid has them.
local function chosen(G, most)
    if G.config.model.conditional == false then return {} end
    local list = pictures.choose_classes(G.config.model.classes, most)
    for i, class in ipairs(list) do list[i] = class + 1 end
    return list
end

--- What --grid shows: pictures, or what was written.
local grids = {}

function grids.interpolate(G, o)
    local parts, names, class = {}, {}, class_of(o)
    local classes = chosen(G, o.rows)
    for row = 1, #classes > 0 and not class and #classes or o.rows do
        local from, to
        if class or #classes == 0 then
            from, to = { seed = o.seed + row - 1, class = class }, { seed = o.seed + row }
        else
            from, to = { seed = o.seed, class = classes[row] }, { class = classes[row % #classes + 1] }
            names[row] = G.class_names[classes[row]] or tostring(classes[row])
        end
        parts[row] = G:interpolate({ from = from, to = to, steps = math.max(2, o.columns) }).images
    end
    return pictures.sheet(pictures.join(parts), math.max(2, o.columns), names)
end

function grids.truncation(G, o)
    return G:truncation_sweep({ seed = o.seed, class = class_of(o), columns = o.columns }).picture
end

function grids.neighbours(G, o)
    local class, classes = class_of(o), chosen(G, o.rows)
    if not class and #classes > 0 then class = classes end
    local near, message = G:neighbours { class = class, seed = o.seed, count = math.max(1, o.columns - 1),
        samples = type(class) == "table" and #class or o.rows }
    if not near then error(message, 0) end
    return near.picture
end

function grids.progress(G, o)
    local frames, message = require "sagan.film".write(G.run.path, o.out, { raw = o.raw })
    if not frames then error(message, 0) end
    print(("%s: %d sheets of %s"):format(o.out, frames, G.run.path))
end

local function parse(args)
    local o, message = options.parse(args, OPTIONS)
    if not o then return nil, message end
    if o[2] then return nil, ("one run at a time: '%s' is a second one"):format(o[2]) end
    if o.grid and not grids[o.grid] then
        local names = { "interpolate", "truncation", "neighbours", "progress" }
        local near = require "sagan.nearest"(o.grid, names)
        return nil, ("--grid: there is no '%s' (%s)%s"):format(o.grid, table.concat(names, ", "),
            near and ("; did you mean %s?"):format(near) or "")
    end
    local form = o.grid == "progress" and "gif" or "png"
    o.what, o.out = o[1], o.out or (form == "gif" and "progress.gif" or "samples.png")
    o.seed, o.columns, o.rows = o.seed or 0, o.columns or 10, o.rows or 10
    if not o.out:lower():find("%." .. form .. "$") then
        return nil, ("-o: '%s' does not end in .%s, the form that is written"):format(o.out, form)
    end
    if o.query then
        local y, x = o.query:match("^(%d+),(%d+)$")
        if not y then return nil, ("--query needs a row and a column of the map, such as 10,12, not '%s'"):format(o.query) end
        o.query = { y = tonumber(y), x = tonumber(x) }
    elseif o.class and not o.attention and not o.grid then
        return nil, "--class goes with --attention or --query, or with --grid; the usual grid has a row for every class"
    end
    return o
end

--- What --attention and --query show.
local function look(G, o)
    local class = class_of(o)
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
    if o.grid then
        local ok
        ok, picture = pcall(grids[o.grid], G, o)
        if not ok then return fail("%s", words_of(picture)) end
        if o.grid == "progress" then return 0 end
    elseif o.attention or o.query then
        if not next(G.net.attention) then return fail("%s: this generator has no attention", o.what) end
        local ok
        ok, picture = pcall(look, G, o)
        if not ok then return fail("%s", words_of(picture)) end
    else
        picture = pictures.class_grid(G.net, G.config, G.class_names, o)
    end
    local ok, broken = core.image.write(o.out, picture)
    if not ok then return fail("%s", broken) end
    print(("%s: %dx%d, %s generator at step %d, seed %d"):format(o.out, picture:size(2), picture:size(1), G.weights, G.step,
        o.seed))
    return 0
end

return sample
