-- The parts of a report that draw: numbers, escaping, axes, curves with bands and gaps, forest plots. What is drawn is read
-- back from the SVG and compared with the data.
local html = require "sagan.report.html"
local format = require "sagan.report.format"
local axis = require "sagan.report.axis"
local series = require "sagan.report.series"
local chart = require "sagan.report.chart"
local forest = require "sagan.report.forest"
local base64 = require "sagan.base64"
local html_tree = require "html_tree"

local nan = 0 / 0

local function parse(node)
    return html_tree.parse(html.document(html.element("html", {}, node)))
end

-- { {x, y}, ... } of the pieces of a path of M, L.
local function pieces(d)
    local out = {}
    for piece in d:gmatch("M[^M]*") do
        local points = {}
        for x, y in piece:gmatch("[ML]([%d.-]+) ([%d.-]+)") do points[#points + 1] = { tonumber(x), tonumber(y) } end
        out[#out + 1] = points
    end
    return out
end

-- The pixels of a value on the y axis, by two of its labels; and of x.
local function scales(svg)
    local xs, ys = {}, {}
    for _, text in ipairs(html_tree.all(svg, "text")) do
        local value = tonumber((html_tree.text(text):gsub("−", "-")))
        local a = text.attributes
        if value and a["text-anchor"] == "end" and tonumber(a.y) < chart.height - 30 then
            ys[#ys + 1] = { value, tonumber(a.y) - 3.8 }
        elseif value then
            xs[#xs + 1] = { value, tonumber(a.x) }
        end
    end
    local function line(list)
        local a, b = list[1], list[#list]
        return function(v) return a[2] + (v - a[1]) / (b[1] - a[1]) * (b[2] - a[2]) end
    end
    return line(xs), line(ys)
end

local function draw(curves, more)
    local o = { id = "x1", title = "Loss", x_label = "step", last = 100, curves = curves }
    for key, value in pairs(more or {}) do o[key] = value end
    local tree = parse(chart.line(o))
    return html_tree.all(tree, "svg")[1], tree
end

local function points_of(values, last)
    local steps = {}
    for i = 1, #values do steps[i] = 10 * i end
    return (series.of({ { steps = steps, values = values } }, last or 100, "range"))
end

describe("numbers", function()
    it("have the digits that they are known to", function()
        local cases = {
            { { format.mean_sd(18.2834, 0.3571) }, { "18.28", "± 0.36" } },
            { { format.mean_sd(123.4, 12.34) }, { "123", "± 12" } },
            { { format.mean_sd(0.5, 0.0996) }, { "0.50", "± 0.10" } },
            { { format.mean_sd(1.32e8, 1.44e8) }, { "1.3 × 10⁸", "± 1.4 × 10⁸" } },
            { { format.mean_sd(42.123456) }, { "42.12" } },
            { { format.difference(-3.21, -5.08, -1.21) }, { "−3.2 [−5.1, −1.2]" } },
            { { format.difference(0.001, -0.002, 0.004) }, { "+0.0010 [−0.0020, +0.0040]" } },
            { { format.range(22.96, 22.1, 23.8) }, { "22.96 [22.10, 23.80]" } },
            { { format.number(1234567), format.number(9999), format.number(-3) }, { "1,234,567", "9999", "−3" } },
            { { format.number(0.0000123), format.number(-1e-9 + 1e-9) }, { "1.230 × 10⁻⁵", "0.000" } },
            { { format.tick(1500000, 500000, 2000000), format.tick(0, 1, 5), format.tick(12500, 500, 20000) },
                { "1.5M", "0", "12.5k" } },
            { { format.list { "a", "b", "c" }, format.count(1, "seed"), format.count(2, "seed") },
                { "a, b and c", "1 seed", "2 seeds" } },
        }
        for _, case in ipairs(cases) do assert.same(case[2], case[1]) end
    end)

    it("that are none are told from those that are", function()
        for _, x in ipairs { nan, 1 / 0, -1 / 0, "nan", "3", false, {} } do assert.is_false(format.is_finite(x)) end
        assert.is_true(format.is_finite(0) and format.is_finite(-1.5))
    end)
end)

describe("elements", function()
    it("escape every text and attribute, and close every tag", function()
        local hostile = [[</p><script>alert("x")</script> & 'quoted' <!-- --> ]] .. "\0\27\xff\xc3"
        local text = html.document(html.element("html", { title = hostile }, hostile, html.element("br", {}),
            { hostile, { 1, false, "b" } }, nil, html.element("p", { hidden = true, lang = false })))
        local tree = html_tree.parse(text)
        assert.is_nil(text:find("<script", 1, true))
        local shown = hostile:gsub("[%z\27\xff\xc3]", "\u{FFFD}")
        local root = tree[1]
        assert.equal(shown, root.attributes.title)
        assert.equal(shown .. shown .. "1b", html_tree.text(root))
        assert.same({ hidden = true }, html_tree.all(root, "p")[1].attributes)
    end)

    it("refuse what is no text, and style that closes itself", function()
        assert.error(function() html.render(html.element("p", {}, print)) end)
        assert.error(function() html.render(html.element("style", {}, "</style>")) end)
    end)

    it("are checked by a reader that notices", function()
        for _, bad in ipairs { "<p>", "<p></b></p>", "</p>", "<p a=b></p>", "<p>a & b</p>", "<p>a < b</p>", '<p a="1" a="2"></p>',
            '<p a="&x;"></p>', "<p>&nope;</p>" } do
            assert.error(function() html_tree.parse("<!doctype html>\n" .. bad) end)
        end
    end)
end)

describe("base64", function()
    it("is RFC 4648's", function()
        local vectors = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=",
            foobar = "Zm9vYmFy" }
        for plain, coded in pairs(vectors) do assert.equal(coded, base64.encode(plain)) end
    end)

    it("agrees with a bit by bit encoder at every length", function()
        local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        local function slow(s)
            local bits = s:gsub(".", function(c)
                local b = ""
                for i = 7, 0, -1 do b = b .. (c:byte() >> i & 1) end
                return b
            end)
            local out = (bits .. ("0"):rep(-#bits % 6)):gsub("......", function(six)
                local n = tonumber(six, 2)
                return alphabet:sub(n + 1, n + 1)
            end)
            return out .. ("="):rep(-#s % 3)
        end
        local bytes = {}
        for i = 1, 64 do bytes[i] = string.char((i * 167 + 89) % 256) end
        local all = table.concat(bytes)
        for n = 0, 64 do assert.equal(slow(all:sub(1, n)), base64.encode(all:sub(1, n))) end
        for n = 0, 64 do assert.equal(all:sub(1, n), base64.decode(slow(all:sub(1, n)))) end
        assert.equal(all, base64.decode(slow(all)))
        for _, text in ipairs { "A", "AB", "ABC", "AB=", "A===", "====", "AB=C", "AB!=", "ABCD ", "AB\0=" } do
            assert.is_nil(base64.decode(text), text)
        end
    end)
end)

describe("axes", function()
    it("map their ends to the ends of the frame, and ticks between", function()
        for _, kind in ipairs { "linear", "log" } do
            local a = axis.new(kind, 2, 300)
            assert.equal(100.0, axis.position(a, 2, 100, 20))
            assert.near(20, axis.position(a, 300, 100, 20), 1e-9)
            assert.is_true(#a.ticks >= 2)
            for i, t in ipairs(a.ticks) do
                assert.is_true(t.at >= 2 * (1 - 1e-9) and t.at <= 300 * (1 + 1e-9))
                assert.is_true(i == 1 or t.at > a.ticks[i - 1].at)
            end
        end
        assert.near(60, axis.position(axis.new("log", 1, 100), 10, 100, 20), 1e-9)
    end)

    it("have room for all values, but for a series that explodes", function()
        local tame, tamer = { 1, 2, 3, 2.5 }, { -1, 0.5, 2, 1 }
        local kind, lo, hi, wild = axis.limits { tame, tamer }
        assert.equal("linear", kind)
        assert.is_true(lo <= -1 and hi >= 3 and next(wild) == nil)
        kind, lo, hi, wild = axis.limits { tame, { 1e6, 2e8, 3 }, tamer }
        assert.equal("linear", kind)
        assert.is_true(lo <= -1 and hi >= 3 and hi < 10)
        assert.same({ [2] = true }, wild)
        -- of two nobody knows which is the odd one
        local two = table.pack(axis.limits { tamer, { 1e6, 2e8 } })
        assert.is_true(two[3] >= 2e8 and next(two[4]) == nil)
    end)

    it("are logarithmic where positive values span decades, and hold 0 where asked", function()
        assert.equal("log", (axis.limits { { 0.01, 1, 30 } }))
        local kind, lo = axis.limits({ { 0.01, 1, 30 } }, true)
        assert.equal("linear", kind)
        assert.equal(0.0, lo)
        local _, low, high = axis.limits { { 5, 5 } }
        assert.is_true(low < 5 and high > 5)
        _, low, high = axis.limits { {}, {} }
        assert.is_true(low < high)
    end)
end)

describe("curves", function()
    it("are means over seeds with their range, deviation or interval", function()
        local runs = { { steps = { 1, 2 }, values = { 1, 10 } }, { steps = { 1, 2 }, values = { 3, 14 } },
            { steps = { 1, 2 }, values = { 5, 12 } } }
        local p = series.of(runs, 2, "range")
        assert.same({ { x = 1, mean = 3.0, low = 1.0, high = 5.0, n = 3 },
            { x = 2, mean = 12.0, low = 10.0, high = 14.0, n = 3 } }, p)
        p = series.of(runs, 2, "sd")
        assert.near(3 - 2, p[1].low, 1e-12) -- the deviation of 1, 3, 5 is 2
        p = series.of(runs, 2, "interval")
        assert.near(3 + 4.302652729911275 * 2 / math.sqrt(3), p[1].high, 1e-9) -- t at 97.5 % with 2 degrees of freedom
        p = series.of({ runs[1], runs[2] }, 2, "interval")
        assert.same({ 1.0, 3.0 }, { p[1].low, p[1].high })
    end)

    it("have a gap where no seed has a finite number, and the others' mean where one has none", function()
        local points, ends = series.of({ { steps = { 1, 2, 3 }, values = { 1, nan, 3 } },
            { steps = { 1, 2 }, values = { 3, "inf" } } }, 3, "range")
        assert.same({ 2.0, 0, 1 }, { points[1].mean, points[2].n, points[3].n })
        assert.is_nil(points[2].mean)
        assert.equal(3.0, points[3].mean)
        assert.same({ { x = 3, y = 3.0 }, { x = 1, y = 3.0 } }, ends)
    end)

    it("of long logs are averaged, and keep the mean of all", function()
        local steps, values, sum = {}, {}, 0
        for i = 1, 5000 do
            steps[i], values[i] = 2 * i, (i * 7919) % 1000
            sum = sum + values[i]
        end
        local points = series.of({ { steps = steps, values = values } }, 10000, "range")
        assert.equal(series.most, #points)
        local mean = 0
        for _, p in ipairs(points) do mean = mean + p.mean / #points end
        assert.near(sum / 5000, mean, 1e-9)
        assert.is_true(points[1].x > 0 and points[#points].x <= 10000)
    end)

    it("are drawn where their data are", function()
        local values = { 3.5, -1, 2, 8, 4, 4, 0.5, 6, 7, 5 }
        local svg = draw { { name = "a", index = 1, points = points_of(values) } }
        local x, y = scales(svg)
        local path = pieces(html_tree.all(svg, "path", "line")[1].attributes.d)
        assert.equal(1, #path)
        assert.equal(10, #path[1])
        local highest = math.huge
        for i, point in ipairs(path[1]) do
            assert.near(x(10 * i), point[1], 0.15)
            assert.near(y(values[i]), point[2], 0.15)
            highest = math.min(highest, point[2])
        end
        assert.equal(highest, path[1][4][2]) -- the largest value is at the top
        assert.is_true(highest >= 10 and highest < 30)
    end)

    it("break at a gap; a lonely point still shows", function()
        local svg = draw { { name = "a", index = 1, points = points_of { 1, 2, nan, 3, nan, 5, 6 } } }
        local path = pieces(html_tree.all(svg, "path", "line")[1].attributes.d)
        assert.same({ 2, 1, 2 }, { #path[1], #path[2], #path[3] })
    end)

    it("have a band between the lowest and the highest seed", function()
        local runs = { { steps = { 20, 60 }, values = { 1, 10 } }, { steps = { 20, 60 }, values = { 3, 14 } } }
        local svg = draw { { name = "a", index = 1, points = (series.of(runs, 100, "range")) } }
        local x, y = scales(svg)
        local band = pieces(html_tree.all(svg, "path", "band")[1].attributes.d)[1]
        for i, corner in ipairs { { 20, 3 }, { 60, 14 }, { 60, 10 }, { 20, 1 } } do
            assert.near(x(corner[1]), band[i][1], 0.15)
            assert.near(y(corner[2]), band[i][2], 0.15)
        end
    end)

    it("of shares stand between 0 and 1, never on a logarithmic axis", function()
        local values = { 0.001, 0.02, 0.4, 0.9 } -- more than a factor of 50
        local curves = { { name = "a", index = 1, points = points_of(values, 40) } }
        local svg, tree = draw(curves, { last = 40 })
        assert.matches("logarithmic", html_tree.text(tree))
        svg, tree = draw(curves, { last = 40, share = true })
        assert.is_nil(html_tree.text(tree):find("logarithmic", 1, true))
        local x, y = scales(svg)
        assert.near(10, y(1), 0.06) -- the frame: chart.lua's TOP, and BOTTOM from the lower edge
        assert.near(chart.height - 34, y(0), 0.06)
        for i, point in ipairs(pieces(html_tree.all(svg, "path", "line")[1].attributes.d)[1]) do
            assert.near(x(10 * i), point[1], 0.15)
            assert.near(y(values[i]), point[2], 0.15)
        end
    end)

    it("that explode leave the frame and are named; their end is marked at its edge", function()
        local svg, tree = draw {
            { name = "calm", index = 0, points = points_of { 1, 2, 1, 2 } },
            { name = "tame", index = 1, points = points_of { 2, 1, 2, 1 } },
            { name = "wild", index = 2, points = points_of { 1e6, 1e7, 1e8, 1e9 },
                ends = { { x = 40, y = 1e9, text = "diverged" } } },
        }
        assert.matches("Outside the frame: wild (to 1.000 × 10⁹).", html_tree.text(tree), 1, true)
        local last = html_tree.all(svg, "path", "line")[3].attributes.d
        assert.equal("", last)
        local mark = html_tree.all(svg, "path", "end")[1]
        local y = tonumber(mark.attributes.transform:match(" ([%d.]+)%)"))
        assert.is_true(y >= 10 and y < 20)
        assert.equal("wild, diverged", html_tree.text(mark))
        assert.is_nil(html_tree.text(tree):find("nan", 1, true))
    end)

    it("have a title, a description and a table of their numbers", function()
        local _, tree = draw { { name = "a <b>", index = 1, points = points_of { 1.25, nan, 2.5 } } }
        local svg = html_tree.all(tree, "svg")[1]
        assert.equal("img", svg.attributes.role)
        for id in svg.attributes["aria-labelledby"]:gmatch("%S+") do
            assert.is_true(#html_tree.text(html_tree.by_id(tree, id)) > 0)
        end
        assert.matches("a <b> ends at 2.500 at step 30", html_tree.text(html_tree.all(svg, "desc")[1]), 1, true)
        local cells = {}
        for _, td in ipairs(html_tree.all(tree, "td")) do cells[#cells + 1] = html_tree.text(td) end
        assert.same({ "1.250", "–", "2.500" }, cells)
        assert.is_true(#html_tree.all(tree, "caption") == 1)
        for _, th in ipairs(html_tree.all(tree, "th")) do assert.is_truthy(th.attributes.scope) end
    end)
end)

describe("a forest plot", function()
    local function line(name, index, mean, low, high, decided)
        return { name = name, index = index, against = "base", verdict = "v",
            comparison = { n = 3, mean = mean, low = low, high = high, decided = decided } }
    end

    it("draws each interval around its difference, on one scale with 0", function()
        local tree = parse(forest.plot { id = "x1", title = "FD", better = "lower",
            lines = { line("a", 1, -3, -5, -1, true), line("b", 2, 1, -2, 4, false) } })
        local svg = html_tree.all(tree, "svg")[1]
        local zero = tonumber(html_tree.all(svg, "path", "zero")[1].attributes.d:match("^M([%d.]+)"))
        local bars = {}
        for _, path in ipairs(html_tree.all(svg, "path", "bar")) do
            local from, to = path.attributes.d:match("^M([%d.]+) [%d.]+H([%d.]+)$")
            if from then bars[#bars + 1] = { tonumber(from), tonumber(to) } end
        end
        local unit = (bars[1][2] - bars[1][1]) / 4
        assert.near(zero - 5 * unit, bars[1][1], 0.2)
        assert.near(zero - 2 * unit, bars[2][1], 0.2)
        assert.near(zero + 4 * unit, bars[2][2], 0.2)
        assert.equal(1, #html_tree.all(svg, "path", "decided"))
        local open = html_tree.all(svg, "path", "open")[1].attributes.transform
        assert.near(zero + unit, tonumber(open:match("%(([%d.]+)")), 0.2)
        assert.matches("← better", html_tree.text(svg), 1, true)
    end)

    it("shows an arrow for what lies far outside, and words where there is no pair", function()
        local none = line("d", 4)
        none.comparison = { n = 0, decided = false }
        local tree = parse(forest.plot { id = "x1", title = "FD", better = "lower",
            lines = { line("a", 1, -3, -5, -1, true), line("b", 2, 1, -2, 4, false), line("c", 3, 5e6, 4e6, 6e6, true), none } })
        assert.equal(1, #html_tree.all(tree, "path", "arrow"))
        assert.matches("no seed in common", html_tree.text(html_tree.all(tree, "svg")[1]), 1, true)
    end)
end)
