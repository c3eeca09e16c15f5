-- A report's scores against time, its scores by class, and curves of shares: pages of runs that are written here, read back and
-- compared with what was written. And the row of minutes in a study's table.
local json = require "sagan.json"
local study_table = require "sagan.study_table"
local score_table = require "sagan.score_table"
local html_tree = require "html_tree"
local folders = require "report_folders"
local driver = require "driver"

local d = driver.new "report-cost"
local text_of, all = html_tree.text, html_tree.all

local function page(words)
    d:succeeds("report " .. words .. " -o out.html")
    return html_tree.parse(d:read "out.html")
end

local function add_to_ledger(path, more)
    local entry = assert(json.decode((d:read(path .. "/scores.jsonl"):match "[^\n]+\n$")))
    for key, value in pairs(more) do entry[key] = value end
    d:write(path .. "/scores.jsonl", json.encode(entry) .. "\n")
end

-- A run of arm and seed, scored at its end, whose log says so many images a second (of batches of 16).
local function run(folder, seed, speed, scores, more)
    folders.write_run(d, folder, seed, { scores = { { 100, folders.fingerprint(), scores } } })
    local log = d:read(folder .. "/log.jsonl"):gsub('"images_per_second":160', '"images_per_second":' .. speed)
    d:write(folder .. "/log.jsonl", log)
    if more then add_to_ledger(folder, more) end
end

local function figures(tree, id)
    local out = {}
    for _, figure in ipairs(all(html_tree.by_id(tree, id) or {}, "figure")) do out[text_of(all(figure, "b")[1])] = figure end
    return out
end

describe("a report", function()
    teardown(function() d:remove() end)

    it("draws scores against the time of a step where arms differ in it", function()
        run("r/fast/seed-1", 1, 320, { ["FD-cnn"] = 10, legs = 0.25 })
        run("r/fast/seed-2", 2, 160, { ["FD-cnn"] = 12, legs = 0.35 })
        run("r/slow/seed-1", 1, 80, { ["FD-cnn"] = 5, legs = 0.75 })
        local tree = page "r"
        local drawn = figures(tree, "time")
        local rows = all(all(drawn["FD-cnn"], "tbody")[1], "tr")
        local numbers = {}
        for i, tr in ipairs(rows) do
            local data = all(tr, "data")
            numbers[i] = { text_of(all(tr, "th")[1]), tonumber(data[1].attributes.value), tonumber(data[2].attributes.value) }
        end
        -- batches of 16: a step at 320 a second is 0.05 s, at 160 0.1 s, at 80 0.2 s
        assert.near(0.075, numbers[1][2], 1e-9)
        assert.near(0.2, numbers[2][2], 1e-9)
        assert.same({ "fast", "slow", 11.0, 5.0 }, { numbers[1][1], numbers[2][1], numbers[1][3], numbers[2][3] })
        -- the axis of a share ends at 1, and a mark stands where its numbers are: half way up is 0.5
        local marks = all(drawn.legs, "path", "mark")
        assert.equal(2, #marks)
        local x1, y1 = marks[1].attributes.transform:match "translate%(([%d.]+) ([%d.]+)%)"
        local x2, y2 = marks[2].attributes.transform:match "translate%(([%d.]+) ([%d.]+)%)"
        local top, bottom = 14, 240 - 34
        assert.near(bottom - 0.3 * (bottom - top), tonumber(y1), 0.06)
        assert.near(bottom - 0.75 * (bottom - top), tonumber(y2), 0.06)
        assert.is_true(tonumber(x2) > tonumber(x1))
        assert.matches("higher is better", text_of(drawn.legs), 1, true)
        assert.matches("lower is better", text_of(drawn["FD-cnn"]), 1, true)
    end)

    it("does not where they take as long, or none has a time", function()
        run("same/one/seed-1", 1, 160, { ["FD-cnn"] = 10 })
        run("same/two/seed-1", 1, 152, { ["FD-cnn"] = 12 })
        assert.is_nil(html_tree.by_id(page "same", "time"))
        run("same/two/seed-1", 1, '"nan"', { ["FD-cnn"] = 12 })
        assert.is_nil(html_tree.by_id(page "same", "time"))
    end)

    it("has scores by class where the ledger has them, and only there", function()
        run("c/one/seed-1", 1, 160, { legs = 0.5 }, { per_class = { legs = { 0.25, 0.75 } }, class_names = { "cow", "dog" } })
        run("c/one/seed-2", 2, 160, { legs = 0.5 }, { per_class = { legs = { 0.75, 0.25 } }, class_names = { "cow", "dog" } })
        run("c/two/seed-1", 1, 160, { legs = 1 }, { per_class = { legs = { 1, "nan" } } })
        local tree = page "c"
        local table_ = all(tree, "table", "by-class")[1]
        local cells = {}
        for i, tr in ipairs(all(all(table_, "tbody")[1], "tr")) do
            cells[i] = { text_of(all(tr, "th")[1]) }
            for _, td in ipairs(all(tr, "td")) do
                local data = all(td, "data")[1]
                table.insert(cells[i], data and tonumber(data.attributes.value) or text_of(td))
            end
        end
        assert.same({ { "cow", 0.5, 1.0 }, { "dog", 0.5, "missing" } }, cells)
        local long = {}
        for i, svg in ipairs(all(table_, "svg", "length")) do long[i] = all(svg, "path")[1].attributes.d end
        assert.same({ "M0 0H50.0V4H0Z", "M0 0H100.0V4H0Z", "M0 0H50.0V4H0Z" }, long)
        assert.equal(0, #all(page "same", "table", "by-class"))
    end)

    it("draws shares over steps from 0 to 1, and nothing else so", function()
        local f = folders.fingerprint()
        folders.write_run(d, "p/seed-1", 1, { scores = {
            { 50, f, { ["precision-cnn"] = 0.001, ["FD-cnn"] = 300 } },
            { 100, f, { ["precision-cnn"] = 0.4, ["FD-cnn"] = 2 } } } })
        local drawn = figures(page "p", "curves")
        assert.is_nil(text_of(drawn["precision-cnn"]):find("logarithmic", 1, true))
        assert.matches("logarithmic", text_of(drawn["FD-cnn"]), 1, true)
        for name, share in pairs { precision = true, ["recall-cnn"] = true, ["coverage-other"] = true, legs = true,
            ["density-cnn"] = false, FID = false, ["intra-FID"] = false, ["KID-cnn"] = false } do
            assert.equal(share, score_table.is_share(name), name)
        end
    end)
end)

describe("a study's table", function()
    local function lines(seconds)
        local config = { profile = "quick", recipe = "paper", data = "d", model = { resolution = 32, width = 4 },
            train = { steps = 9 } }
        local plan = { study = { name = "s", score = print }, seeds = { 1, 2 }, cells = {},
            arms = { { name = "a", config = config, changes = {} }, { name = "b", config = config, changes = {} } } }
        local records = {}
        for i, s in ipairs(seconds) do
            plan.cells[i] = { arm = i < 3 and "a" or "b", seed = (i - 1) % 2 + 1, config = config }
            records[i] = { outcome = s and "done" or "failed", reason = "why", seconds = s or 1e6,
                scores = { { share = 1, step = 9, values = { x = i } } } }
        end
        return table.concat(study_table.lines(plan, records), "\n")
    end

    it("has the minutes of a run where arms differ in them", function()
        assert.matches("minutes a run +1.5 ± 0.71 +4 ± 0\n", lines { 60, 120, 240, 240 })
        assert.matches("minutes a run +1.5 ± 0.71 +4\n", lines { 60, 120, 240, false }) -- a failed run has no time
        assert.is_nil(lines { 60, 60, 62, 62 }:find("minutes", 1, true))
        assert.is_nil(lines({ 60, 60, false, false }):find("minutes", 1, true))
    end)
end)
