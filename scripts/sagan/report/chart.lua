--- chart.lua - a line chart as inline SVG: curves with bands, ends of runs, a table of the numbers under it.
local html = require "sagan.report.html"
local data_table = require "sagan.report.data_table"
local format = require "sagan.report.format"
local axis = require "sagan.report.axis"
local marks = require "sagan.report.marks"
local series = require "sagan.report.series"

local e = html.element

local chart = {}

-- About a phone's width, so that letters keep their size there.
chart.width, chart.height = 400, 224
local TOP <const>, RIGHT <const>, BOTTOM <const>, LETTER <const> = 10, 14, 34, 6.3

---@class sagan.report.Curve
---@field name string
---@field index integer           colour and shape
---@field points sagan.report.Point[]
---@field ends? {x: number, y: number, text: string}[]  where a run ended early

---@class sagan.report.LineChart
---@field id string               of the page, for its parts
---@field title string
---@field key? string             name in the log
---@field note? string
---@field x_label string
---@field last number             right end of the x axis
---@field curves sagan.report.Curve[]
---@field marked? boolean         a mark at each point
---@field zero? boolean           the y axis holds 0
---@field share? boolean          the y axis goes from 0 to 1, whatever the values: so charts of shares can be laid side by side

--- Marks on a long curve, spread evenly and shifted from curve to curve.
local MARKS <const> = 5

-- "M0 1L2 3": pieces of a path where points have a mean; what runs outside the frame from point to point is left out.
local function line_path(points, place)
    local parts, before, drawn = {}, nil, false
    local function is_outside(p)
        local y = place.y(p.mean)
        return y < place.box.top and -1 or y > place.box.bottom and 1 or 0
    end
    for i, p in ipairs(points) do
        if p.mean then
            local at = ("%.1f %.1f"):format(place.x(p.x), place.y(p.mean))
            local visible = before and (is_outside(before) == 0 or is_outside(p) == 0)
            if visible then
                if not drawn then parts[#parts + 1] = ("M%.1f %.1f"):format(place.x(before.x), place.y(before.mean)) end
                parts[#parts + 1] = "L" .. at
            elseif not before and not (points[i + 1] and points[i + 1].mean) then
                parts[#parts + 1] = "M" .. at .. "h.01" -- alone between gaps
            end
            drawn = visible
            before = p
        else
            before, drawn = nil, false
        end
    end
    return table.concat(parts)
end

local function band_path(points, x, y)
    local parts, upper, lower = {}, {}, {}
    local function close()
        if #upper > 0 then
            local back = {}
            for i = #lower, 1, -1 do back[#back + 1] = lower[i] end
            parts[#parts + 1] = "M" .. table.concat(upper, "L") .. "L" .. table.concat(back, "L") .. "Z"
        end
        upper, lower = {}, {}
    end
    for _, p in ipairs(points) do
        if p.low then
            upper[#upper + 1] = ("%.1f %.1f"):format(x(p.x), y(p.high))
            lower[#lower + 1] = ("%.1f %.1f"):format(x(p.x), y(p.low))
        else
            close()
        end
    end
    close()
    return table.concat(parts)
end

local function letters(x, y, anchor, text)
    return e("text", { x = ("%.1f"):format(x), y = ("%.1f"):format(y), ["text-anchor"] = anchor }, text)
end

local function frame(o, x_axis, y_axis, box)
    local parts = {}
    for _, t in ipairs(y_axis.ticks) do
        local y = axis.position(y_axis, t.at, box.bottom, box.top)
        local class = t.at == 0 and "zero" or "grid"
        parts[#parts + 1] = e("path", { class = class, d = ("M%.1f %.1fH%.1f"):format(box.left, y, box.right) })
        parts[#parts + 1] = letters(box.left - 6, y + 3.8, "end", t.text)
    end
    parts[#parts + 1] = e("path", { class = "axis", d = ("M%.1f %.1fH%.1f"):format(box.left, box.bottom, box.right) })
    for i, t in ipairs(x_axis.ticks) do
        local x = axis.position(x_axis, t.at, box.left, box.right)
        parts[#parts + 1] = e("path", { class = "axis", d = ("M%.1f %.1fv4"):format(x, box.bottom) })
        local wide = LETTER * (utf8.len(t.text) or 1) / 2
        local at_edge = i == #x_axis.ticks and x + wide > chart.width - 1
        parts[#parts + 1] = letters(at_edge and chart.width - 1 or x, box.bottom + 16, at_edge and "end" or "middle", t.text)
    end
    parts[#parts + 1] = letters((box.left + box.right) / 2, chart.height - 4, "middle", o.x_label)
    return parts
end

-- Where the marks of a curve stand: at each point, or at a few.
local function marked_points(o, curve, k)
    local seen = {}
    for _, p in ipairs(curve.points) do
        if p.mean then seen[#seen + 1] = p end
    end
    if o.marked or #seen <= MARKS then return seen end
    local chosen, shift = {}, (k - 0.5) / #o.curves
    for i = 0, MARKS - 1 do chosen[#chosen + 1] = seen[1 + math.floor((i + shift) / MARKS * #seen)] end
    return chosen
end

local function draw_curve(o, curve, k, place, wild)
    local x, y, box = place.x, place.y, place.box
    local inner = {}
    local band = wild and "" or band_path(curve.points, x, y) -- that of a wild curve would fill the frame
    if band ~= "" then inner[#inner + 1] = e("path", { class = "band", d = band }) end
    inner[#inner + 1] = e("path", { class = "line", d = line_path(curve.points, place) })
    local outer = {}
    local function inside(py) return py >= box.top - 0.5 and py <= box.bottom + 0.5 end
    for _, p in ipairs(marked_points(o, curve, k)) do
        if inside(y(p.mean)) then outer[#outer + 1] = marks.shape(curve.index, x(p.x), y(p.mean)) end
    end
    for _, stop in ipairs(curve.ends or {}) do
        -- an end outside is shown at the edge, so that no run vanishes without a trace
        local py = math.max(box.top + 4, math.min(box.bottom - 4, y(stop.y)))
        outer[#outer + 1] = e("path", { class = "end", d = "M-4 -4L4 4M-4 4L4 -4",
            transform = ("translate(%.1f %.1f)"):format(x(stop.x), py) }, e("title", {}, curve.name .. ", " .. stop.text))
    end
    local class = { class = marks.class(curve.index) }
    return e("g", class, e("title", {}, curve.name), inner), e("g", class, outer)
end

-- "fast leaves the frame, up to 1.1 × 10⁸": what the limits cut off.
local function outside(o, y_axis)
    local words = {}
    for _, curve in ipairs(o.curves) do
        local worst
        for _, p in ipairs(curve.points) do
            local off = p.mean and math.max(p.mean - y_axis.hi, y_axis.lo - p.mean) or 0
            if off > 1e-9 * (y_axis.hi - y_axis.lo) and (not worst or off > worst.off) then worst = { off = off, at = p.mean } end
        end
        if worst then words[#words + 1] = ("%s (to %s)"):format(curve.name, format.number(worst.at + 0.0)) end
    end
    if #words == 0 then return nil end
    return ("Outside the frame: %s."):format(format.list(words))
end

local ROWS <const> = 12

-- The numbers: at each point, or at about a dozen of them.
local function numbers(o)
    local xs, seen = {}, {}
    for _, curve in ipairs(o.curves) do
        for _, p in ipairs(curve.points) do
            if not seen[p.x] then
                seen[p.x] = true
                xs[#xs + 1] = p.x
            end
        end
    end
    table.sort(xs)
    local chosen = xs
    if #xs > ROWS then
        chosen = {}
        for i = 1, ROWS do chosen[i] = xs[1 + math.floor((i - 1) / (ROWS - 1) * (#xs - 1) + 0.5)] end
    end
    local head, rows, by_x = { { o.x_label, "num" } }, {}, {}
    for k, curve in ipairs(o.curves) do
        head[k + 1] = { curve.name, "num" }
        by_x[k] = {}
        for _, p in ipairs(curve.points) do by_x[k][p.x] = p end
    end
    for i, x in ipairs(chosen) do
        local cells = {}
        for k in ipairs(o.curves) do
            local p = by_x[k][x]
            cells[k] = e("td", { class = "num" }, p and p.mean and format.range(p.mean, p.low, p.high) or "–")
        end
        rows[i] = e("tr", {}, e("th", { scope = "row", class = "num" }, format.number(math.tointeger(x) or x)), cells)
    end
    local caption = ("%s: mean over seeds, in brackets the band%s"):format(o.title,
        #xs > ROWS and (", at %d of %d points"):format(ROWS, #xs) or "")
    return e("details", { class = "numbers" }, e("summary", {}, "Numbers"),
        data_table { caption = caption, head = head, rows = rows })
end

-- One sentence for those who hear the chart: where each curve ends.
local function describe(o)
    local words = {}
    for _, curve in ipairs(o.curves) do
        local last
        for _, p in ipairs(curve.points) do last = p.mean and p or last end
        words[#words + 1] = last and ("%s ends at %s at %s %s"):format(curve.name, format.number(last.mean + 0.0), o.x_label,
            format.number(math.tointeger(last.x) or last.x)) or curve.name .. " has no finite value"
    end
    return ("Line chart over %s. %s."):format(o.x_label, table.concat(words, "; "))
end

--- A chart with its caption, its numbers and what it leaves out.
---@param o sagan.report.LineChart
---@return sagan.report.Node
function chart.line(o)
    local lists = {}
    for k, curve in ipairs(o.curves) do lists[k] = series.numbers(curve.points) end
    local kind, least, most, wild = axis.limits(lists, o.zero)
    if o.share then kind, least, most, wild = "linear", 0.0, 1.0, {} end
    local y_axis = axis.new(kind, least, most)
    local x_axis = axis.new("linear", 0, math.max(o.last, 1), 5)
    local longest = 1
    for _, t in ipairs(y_axis.ticks) do longest = math.max(longest, utf8.len(t.text) or 1) end
    local box = { left = 12 + LETTER * longest, right = chart.width - RIGHT, top = TOP, bottom = chart.height - BOTTOM }
    local place = {
        box = box,
        x = function(v) return axis.position(x_axis, v, box.left, box.right) end,
        y = function(v) return axis.position(y_axis, v, box.bottom, box.top) end,
    }
    local lines, tops = {}, {}
    for k, curve in ipairs(o.curves) do lines[k], tops[k] = draw_curve(o, curve, k, place, wild[k]) end
    local cut = { x = ("%.1f"):format(box.left), y = ("%.1f"):format(box.top), width = ("%.1f"):format(box.right - box.left),
        height = ("%.1f"):format(box.bottom - box.top) }
    cut.viewBox = ("%s %s %s %s"):format(cut.x, cut.y, cut.width, cut.height)
    local note = outside(o, y_axis)
    return e("figure", { class = "chart" },
        e("figcaption", {}, e("b", {}, o.title), o.key and { " ", e("code", {}, o.key) },
            y_axis.kind == "log" and e("span", { class = "aside" }, " logarithmic")),
        e("svg", { viewBox = ("0 0 %d %d"):format(chart.width, chart.height), role = "img",
            ["aria-labelledby"] = ("%s-t %s-d"):format(o.id, o.id) },
            e("title", { id = o.id .. "-t" }, o.title), e("desc", { id = o.id .. "-d" }, describe(o)),
            frame(o, x_axis, y_axis, box), e("svg", cut, lines), tops),
        (note or o.note) and e("p", { class = "aside" }, note, note and o.note and " ", o.note), numbers(o))
end

return chart
