--- sagan-lua report - one HTML page of studies and runs: verdict, table, curves, samples, attention.
local core = require "sagan.core"
local system = core.system
local options = require "sagan.options"

local HELP = [[
sagan-lua report FOLDER... [options]

Writes one HTML page about studies and runs: the verdict in words, the table, paired differences with their intervals, curves
with bands, samples at equal z, attention sheets, what differs between the arms, machine and time. It holds everything in
itself, needs no network, and reads in light and dark, on a phone and on paper.

FOLDER is a study (runs/stability), an experiment (runs/feat32), one run (runs/feat32/seed-1) or a folder of any of these
(runs). Runs that are still training may be reported too.

Options
  -o, --out FILE    where to write (default: report.html in FOLDER; of several folders, report.html here)
  --band KIND       what the bands show: range (lowest to highest seed), sd (one standard deviation) or interval (95 % of the
                    mean); default: interval for scores, range for what is logged
  --megabytes N     room for pictures in the page (default 8); those without room are left out whole, and named
  -h, --help

Examples
  sagan-lua report runs/stability
  sagan-lua report runs -o all.html
  sagan-lua report runs/feat32/seed-1 runs/feat16/seed-1 -o two.html
  sagan-lua report runs/attention_placement --band sd --megabytes 30]]

local report = {}

local OPTIONS = {
    ["-o"] = { "out", "text" }, ["--out"] = { "out", "text" }, ["--band"] = { "band", "text" },
    ["--megabytes"] = { "megabytes", "positive", 1000 },
}

local function fail(...)
    io.stderr:write("sagan-lua report: ", string.format(...), "\n")
    return 1
end

---@param args string[]
---@return integer exit code
function report.main(args)
    local o, message = options.parse(args, OPTIONS)
    if not o then return fail("%s", message) end
    if o.help then
        print(HELP)
        return 0
    end
    if #o == 0 then return fail("which folders? sagan-lua report runs (--help for more)") end
    if o.band and not ({ range = true, sd = true, interval = true })[o.band] then
        return fail("--band is range, sd or interval, not '%s'", o.band)
    end
    local groups
    groups, message = require("sagan.report.collect").groups(table.move(o, 1, #o, 1, {}))
    if not groups then return fail("%s", message) end
    local out = o.out or (#o == 1 and o[1]:gsub("/+$", "") .. "/report.html") or "report.html"
    local text, info = require("sagan.report.page").render(groups, {
        bytes = (o.megabytes or 8) * 1e6, band = o.band, title = #o == 1 and o[1]:match("([^/]+)/*$") or nil,
        made = ("Made by sagan-lua %s on %s."):format(core.version, os.date("!%Y-%m-%d")),
    })
    local ok, why = system.write_atomic(out, text)
    if not ok then return fail("%s", why) end
    local early = 0
    for _, group in ipairs(groups) do
        for _, cell in ipairs(group.cells) do early = early + (cell.outcome ~= "done" and 1 or 0) end
    end
    print(("%s: %.1f MB, %d pictures%s%s"):format(out, #text / 1e6, info.pictures,
        #info.left_out > 0 and (", %d left out (--megabytes)"):format(#info.left_out) or "",
        early > 0 and (", %d runs not at their end"):format(early) or ""))
    return 0
end

return report
