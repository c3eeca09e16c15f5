--- sagan-lua pack - decodes a data set once and writes it as one file that training maps into memory.
local core = require "sagan.core"
local progress = require "sagan.progress"
local options = require "sagan.options"

local HELP = [[
sagan-lua pack SOURCE -o FILE [options]

Decodes the pictures of SOURCE once and writes them, cropped and resized, into one safetensors file. Training from
pack:FILE starts at once and decodes nothing. SOURCE may hold more than memory does; writing then needs twice the
file's size of free disk. FILE appears when it is complete, never half.

SOURCE: fashion-mnist, idx:PATH, cifar10:PATH, folder:PATH (a folder or .tar/.tar.gz with class folders), quadrupeds[:COUNT],
or a path of one of these kinds.

  -o, --out FILE       where to write
  --resolution N       side of the pictures (default: as found)
  --channels 1|3       grey or colour (default: as found)
  --split train|test   (default: train)
  --limit N            only N pictures, evenly spaced over the source
  --threads N          decoding threads (default: all cores)
  --force              replace FILE if it is there
  -q, --quiet          say nothing unless it fails
  -h, --help

Examples
  sagan-lua pack folder:imagenet/ --resolution 128 -o imagenet-128.safetensors
  sagan-lua pack folder:tiny-imagenet.tar.gz --resolution 64 -o tiny-64.safetensors
  sagan-lua pack cifar10:cifar-10-binary.tar.gz --split test -o cifar10-test.safetensors
  sagan-lua experiments/feat32.lua data=pack:tiny-64.safetensors]]

local OPTIONS = {
    ["-o"] = { "out", "text" }, ["--out"] = { "out", "text" }, ["--resolution"] = { "resolution", "count", 16384 },
    ["--channels"] = { "channels", "count", 3 }, ["--split"] = { "split", "text" }, ["--limit"] = { "limit", "count", 2 ^ 31 | 0 },
    ["--threads"] = { "threads", "count", 1024 }, ["--force"] = { "force" }, ["-q"] = { "quiet" }, ["--quiet"] = { "quiet" },
}

local pack = {}

local function parse(args)
    local o, message = options.parse(args, OPTIONS)
    if not o then return nil, message end
    if o.help then return o end
    o.source = o[1]
    if o[2] then return nil, ("two sources: '%s' and '%s'"):format(o[1], o[2]) end
    if o.channels == 2 then return nil, "--channels: 1 (grey) or 3 (colour), not 2" end
    if o.split and o.split ~= "train" and o.split ~= "test" then return nil, "--split: train or test, not '" .. o.split .. "'" end
    if not o.source then return nil, "which SOURCE? as in: sagan-lua pack folder:pictures/ -o pictures.safetensors" end
    if not o.out then return nil, "where to? give -o FILE" end
    return o
end

--- A function for the engine's progress calls. Decoding and writing each run from 0 to the total; drawn images (quadrupeds)
-- are only written.
local function show_progress(source)
    local bar, last, phase = nil, math.huge, source:find("^quadrupeds") and 1 or 0
    return function(done, total)
        if done < last then
            if bar then bar:finish() end
            phase = phase + 1
            bar = progress.new { total = total }
        end
        last = done
        bar:show(done, phase == 1 and "reading" or "writing", false)
    end, function()
        if bar then bar:finish() end
    end
end

local function fail(code, message)
    io.stderr:write("sagan-lua pack: ", message, "\n")
    return code
end

---@param args string[]
---@return integer exit code: 0 written, 1 failed, 2 wrong arguments
function pack.main(args)
    local o, wrong = parse(args)
    if not o then return fail(2, wrong .. "\n`sagan-lua pack --help` lists the options") end
    if o.help then
        print(HELP)
        return 0
    end
    if core.system.stat(o.out) and not o.force then
        return fail(1, o.out .. " is there already; --force replaces it")
    end
    local step, finish
    if not o.quiet then step, finish = show_progress(o.source) end
    local count, message = core.dataset.pack(o.source, o.out, {
        resolution = o.resolution, channels = o.channels, split = o.split, limit = o.limit, threads = o.threads,
        progress = step,
    })
    if finish then finish() end
    if not count then return fail(1, message) end
    local ds <close> = assert(core.dataset.open("pack:" .. o.out, { split = o.split }))
    local trouble = ds:check()
    if trouble then io.stderr:write("sagan-lua pack: warning: ", trouble, "\n") end
    if not o.quiet then
        local size = core.system.stat(o.out).size
        print(("%s: %d images %dx%dx%d, %d classes, %.1f MB%s; train with data=pack:%s"):format(o.out, count, ds.height,
            ds.width, ds.channels, ds.classes, size / 1e6,
            ds.skipped > 0 and (", %d unreadable left out"):format(ds.skipped) or "", o.out))
    end
    return 0
end

pack.summary = "decode a data set once into one file that training maps"
pack.help = HELP

return pack
