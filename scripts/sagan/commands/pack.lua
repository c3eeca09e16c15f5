--- sagan-lua pack - decodes a data set once and writes it as one file that training maps into memory.
local core = require "sagan.core"
local progress = require "sagan.progress"
local nearest = require "sagan.nearest"

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

local VALUES = { ["-o"] = "out", ["--out"] = "out", ["--resolution"] = "resolution", ["--channels"] = "channels",
    ["--split"] = "split", ["--limit"] = "limit", ["--threads"] = "threads" }
local FLAGS = { ["--force"] = "force", ["-q"] = "quiet", ["--quiet"] = "quiet", ["-h"] = "help", ["--help"] = "help" }
local NUMBERS = { resolution = 16384, channels = 3, limit = 2 ^ 31, threads = 1024 }

local pack = {}

local function check(o)
    for name, highest in pairs(NUMBERS) do
        if o[name] then
            local n = math.tointeger(tonumber(o[name]))
            if not n or n < 1 or n > highest or (name == "channels" and n == 2) then
                return ("--%s: '%s' is not a number that fits"):format(name, o[name])
            end
            o[name] = n
        end
    end
    if o.split and o.split ~= "train" and o.split ~= "test" then return "--split: train or test, not '" .. o.split .. "'" end
    if not o.source then return "which SOURCE? as in: sagan-lua pack folder:pictures/ -o pictures.safetensors" end
    if not o.out then return "where to? give -o FILE" end
end

local function parse(args)
    local o, i = {}, 1
    while i <= #args do
        local word, value = args[i]:match("^(%-%-[%w-]+)=(.*)$")
        word = word or args[i]
        if FLAGS[word] then
            o[FLAGS[word]] = true
        elseif VALUES[word] then
            if not value then
                i = i + 1
                value = args[i]
            end
            if not value then return nil, word .. " needs a value" end
            o[VALUES[word]] = value
        elseif word:sub(1, 1) == "-" then
            local near = nearest(word, { "--out", "--resolution", "--channels", "--split", "--limit", "--threads", "--force",
                "--quiet", "--help" })
            return nil, ("unknown option '%s'%s"):format(word, near and (" (did you mean '%s'?)"):format(near) or "")
        elseif o.source then
            return nil, ("two sources: '%s' and '%s'"):format(o.source, word)
        else
            o.source = word
        end
        i = i + 1
    end
    if o.help then return o end
    local wrong = check(o)
    if wrong then return nil, wrong end
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
