--- sagan-lua sample - draws from a checkpoint alone; needs no data set and trains nothing.
local core = require "sagan.core"
local run_folder = require "sagan.run_folder"
local checkpoint = require "sagan.checkpoint"
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
  -h, --help

Examples
  sagan-lua sample runs/feat32
  sagan-lua sample runs/feat32 --seed 7 --truncation 1.5 -o clean.png
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
}

local function parse(args)
    local o, message = options.parse(args, OPTIONS)
    if not o then return nil, message end
    if o[2] then return nil, ("one run at a time: '%s' is a second one"):format(o[2]) end
    o.what, o.out, o.seed, o.columns, o.rows = o[1], o.out or "samples.png", o.seed or 0, o.columns or 10, o.rows or 10
    if not o.out:lower():find("%.png$") then
        return nil, ("-o: '%s' does not end in .png, the form that is written"):format(o.out)
    end
    return o
end

--- The generator in a checkpoint file, or in the newest checkpoint of a run that can be read.
local function load_generator(what, wanted)
    local kind = core.system.stat(what)
    if kind and kind.type == "file" then return checkpoint.generator(what, wanted) end
    local folder, message = run_folder.open(what)
    if not folder then return nil, message end
    local all = folder:checkpoints()
    for i, candidate in ipairs(all) do
        local G, info = checkpoint.generator(candidate.path, wanted)
        if G or i == #all then return G, info end
        io.stderr:write(info, ": not usable, trying an older one\n")
    end
    return nil, folder.path .. ": no checkpoint yet"
end

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
    local G, info = load_generator(o.what, { raw = o.raw })
    if not G then return fail("%s", info) end
    local picture
    if o.attention then
        if not next(G.attention) then return fail("%s: this generator has no attention", o.what) end
        picture = pictures.attention_sheet(G, info.config, info.class_names, { seed = o.seed, rows = o.rows })
    else
        picture = pictures.class_grid(G, info.config, info.class_names, o)
    end
    local ok, broken = core.image.write(o.out, picture)
    if not ok then return fail("%s", broken) end
    print(("%s: %dx%d, %s generator at step %d, seed %d"):format(o.out, picture:size(2), picture:size(1), info.weights, info.step, o.seed))
    return 0
end

return sample
