-- sagan-lua report: whole pages of studies and runs that are written here file by file, read back with a strict reader; and one
-- of a real run. Numbers are computed again from the cells.
local core = require "sagan.core"
local system = core.system
local format = require "sagan.report.format"
local style = require "sagan.report.style"
local base64 = require "sagan.base64"
local html_tree = require "html_tree"
local folders = require "report_folders"
local driver = require "driver"

local d = driver.new "report"
local fingerprint, write_run, write_study = folders.fingerprint, folders.write_run, folders.write_study
local text_of, all = html_tree.text, html_tree.all

local function page(words)
    d:succeeds("report " .. words .. " -o out.html")
    local text = d:read "out.html"
    return html_tree.parse(text), text
end

-- { [row of the head] = { [column] = cell } } of a table of scores
local function cells_of(node)
    local head, out = {}, {}
    for i, th in ipairs(all(all(node, "thead")[1], "th")) do head[i] = text_of(th) end
    for _, tr in ipairs(all(all(node, "tbody")[1], "tr")) do
        local score = all(tr, "th")[1][1]
        out[score] = {}
        for i, td in ipairs(all(tr, "td")) do out[score][head[i + 1]] = td end
    end
    return out
end

local function exact(td) return tonumber(all(td, "data")[1].attributes.value) end

-- Everything that a browser would fetch stands in the page.
local function assert_self_contained(tree, text)
    for _, node in ipairs(all(tree)) do
        for _, key in ipairs { "src", "href", "xlink:href", "action", "data", "poster", "srcset" } do
            local value = node.attributes[key]
            assert.is_truthy(not value or value:find("^data:") or value:find("^#"), node.name .. " " .. tostring(value))
        end
        for key in pairs(node.attributes) do assert.is_nil(key:find("^on"), key) end
        for _, name in ipairs { "script", "iframe", "object", "embed", "base", "form" } do assert.not_equal(name, node.name) end
    end
    assert.is_nil(text:find("@import", 1, true))
    assert.is_nil(text:find("url(", 1, true))
    local ids = {}
    for _, node in ipairs(all(tree)) do
        local id = node.attributes.id
        if id then
            assert.is_nil(ids[id], "id twice: " .. id)
            ids[id] = true
        end
    end
    for _, node in ipairs(all(tree)) do
        local target = (node.attributes.href or ""):match("^#(.+)$")
        if target then assert.is_true(ids[target], "a link to nothing: " .. target) end
    end
end

local HOSTILE <const> = [["><img src=x onerror=alert(1)>&amp;]]
local QUESTION <const> = [[</title><script src="http://example.org/x.js">alert('1')</script>]]

-- base, an arm that is better, one of which seed 3 diverged, one that was measured otherwise, and hostile names
local ARMS <const> = { "base", "good", "ill", "unlike", HOSTILE, "a/b" }
local function score(arm, seed)
    if arm == "a/b" then return nil, "another </td> failure", "failed" end
    if arm == "ill" and seed == 3 then return nil, "step 40: grad/d is not finite; the run stops", "diverged" end
    local fd = ({ base = 30, good = 20, ill = 31, unlike = 5 })[arm] or 40
    local wobble = ({ 0.31, -0.17, 0.05 })[seed] * (arm == "good" and 1.5 or 1)
    return { ["FD-cnn"] = fd + seed + wobble, ["IS-cnn"] = 5 + seed / 10 - wobble },
        fingerprint(arm == "unlike" and { n_fake = 999 } or nil)
end

describe("report", function()
    local study, raw, tree, text
    setup(function()
        study, raw = write_study(d, "runs/s", "s", QUESTION, ARMS, score, "paper.attention_placement")
        tree, text = page "runs/s"
    end)
    teardown(function() d:remove() end)

    it("is one well-formed page that needs nothing from outside, whatever the names in it", function()
        assert_self_contained(tree, text)
        assert.is_nil(text:find("<script", 1, true))
        assert.is_nil(text:find("<img", 1, true))
        assert.equal("s", text_of(all(tree, "h1")[1]))
        assert.equal(QUESTION, text_of(all(tree, "p", "question")[1]))
        local names = {}
        for _, th in ipairs(all(all(tree, "table", "scores")[1], "th")) do names[text_of(th)] = true end
        assert.is_true(names[HOSTILE] and names["a/b"])
    end)

    it("reads in light, dark, on a phone and on paper, and aloud", function()
        for _, words in ipairs { "prefers-color-scheme: dark", "max-width: 40rem", "@media print", "tabular-nums" } do
            assert.is_truthy(style:find(words, 1, true), words)
        end
        local metas = {}
        for _, m in ipairs(all(tree, "meta")) do
            metas[m.attributes.name or m.attributes["http-equiv"] or "charset"] = m.attributes.content
        end
        assert.matches("width=device-width", metas.viewport, 1, true)
        assert.matches("default-src 'none'", metas["Content-Security-Policy"], 1, true)
        for _, node in ipairs(all(tree, "table")) do
            assert.equal(1, #all(node, "caption"))
            for _, th in ipairs(all(node, "th")) do assert.is_truthy(th.attributes.scope) end
        end
        for _, svg in ipairs(all(tree, "svg")) do
            if svg.attributes.role == "img" then
                local label = svg.attributes["aria-label"] or svg.attributes["aria-labelledby"]
                assert.is_true(type(label) == "string" and #label > 0)
            end
        end
        assert.equal("en", all(tree, "html")[1].attributes.lang)
    end)

    it("has every colour of an arm at a contrast of 3 to 1 with its page", function()
        local function luminance(hex)
            local sum = 0
            for i, weight in ipairs { 0.2126, 0.7152, 0.0722 } do
                local x = tonumber(hex:sub(2 * i - 1, 2 * i), 16) / 255
                sum = sum + weight * (x <= 0.04045 and x / 12.92 or ((x + 0.055) / 1.055) ^ 2.4)
            end
            return sum
        end
        local light, dark = style:match("^(.-)@media screen and %(prefers%-color%-scheme: dark%)(.-)\n}\n")
        for _, scheme in ipairs { light, dark } do
            local paper, seen = luminance(scheme:match("%-%-page: #(%x+)")), 0
            for hex in scheme:gmatch("%-%-[ks]%w+: #(%x+)") do
                local a, b = math.max(paper, luminance(hex)), math.min(paper, luminance(hex))
                assert.is_true((a + 0.05) / (b + 0.05) >= 3, hex)
                seen = seen + 1
            end
            assert.equal(10, seen) -- k0 to k8 and the soft ink
        end
    end)

    describe("table", function()
        it("has the numbers of study.json, which are those of the cells", function()
            local cells = cells_of(all(tree, "table", "scores")[1])
            for _, name in ipairs { "FD-cnn", "IS-cnn" } do
                local row
                for _, r in ipairs(study.rows) do row = r.score == name and r or row end
                for _, arm in ipairs { "base", "good", "ill", HOSTILE } do
                    local list = {}
                    for seed = 1, 3 do list[#list + 1] = raw[arm][seed] and raw[arm][seed][name] end
                    local sum, squares = 0, 0
                    for _, x in ipairs(list) do sum = sum + x end
                    for _, x in ipairs(list) do squares = squares + (x - sum / #list) ^ 2 end
                    local mean, sd = sum / #list, math.sqrt(squares / (#list - 1))
                    local td = cells[name][arm]
                    assert.near(mean, exact(td), 1e-12)
                    assert.near(row.arms[arm].mean, exact(td), 1e-12)
                    local first, second = format.mean_sd(mean, sd)
                    assert.equal(first .. second .. (#list < 3 and "2 of 3 seeds" or ""), text_of(td))
                end
            end
            assert.equal("num best", cells["FD-cnn"]["good"].attributes.class)
        end)

        it("shows what is missing with its reason, and no number for it", function()
            local cells = cells_of(all(tree, "table", "scores")[1])
            assert.equal("missinganother </td> failure", text_of(cells["FD-cnn"]["a/b"]))
            assert.equal("missing", cells["FD-cnn"]["a/b"].attributes.class)
            local scores = text_of(html_tree.by_id(tree, "scores"))
            assert.matches("Missing: ill, seed 3: step 40: grad/d is not finite", scores, 1, true)
            local notice = text_of(all(html_tree.by_id(tree, "verdict"), "div", "notice")[1])
            assert.matches("4 runs of 18 not at the end.", notice, 1, true)
            assert.matches("ill, seed 3: step 40: grad/d is not finite; the run stops", notice, 1, true)
        end)

        it("never has scores of unlike fingerprints in it", function()
            local tables = all(html_tree.by_id(tree, "scores"), "table", "scores")
            assert.equal(2, #tables) -- a table for each measurement
            local a, b = cells_of(tables[1])["FD-cnn"], cells_of(tables[2])["FD-cnn"]
            assert.matches("not measured in this way at step 100", text_of(a["unlike"]), 1, true)
            local sum = raw.unlike[1]["FD-cnn"] + raw.unlike[2]["FD-cnn"] + raw.unlike[3]["FD-cnn"]
            assert.near(sum / 3, exact(b["unlike"]), 1e-12)
            for _, arm in ipairs { "base", "good", "ill", HOSTILE } do
                assert.matches("missing", text_of(b[arm]), 1, true)
                assert.equal(0, #all(b[arm], "data"))
            end
            local captions = {}
            for i, node in ipairs(tables) do captions[i] = text_of(all(node, "caption")[1]) end
            assert.matches("fingerprint A: cnn, weights 3fa1b2c4, resizer none, quadrupeds, train split, 32x32, 640 real, "
                .. "1,000 generated", captions[1], 1, true)
            assert.matches("fingerprint B: .*999 generated", captions[2])
            assert.matches("n_fake 999, .*version 1", text_of(html_tree.by_id(tree, "print-B")))
            -- nor are they compared: the arm that was measured otherwise has no difference, in words or in a plot
            local verdict = text_of(html_tree.by_id(tree, "verdict"))
            assert.matches("unlike − base: no seed in common yet", verdict, 1, true)
            for _, figure in ipairs(all(html_tree.by_id(tree, "differences"), "figure")) do
                for _, tr in ipairs(all(all(figure, "tbody")[1], "tr")) do
                    local name = text_of(all(tr, "th")[1])
                    if name:find("^unlike") then assert.equal("no seed in common", text_of(all(tr, "td")[1])) end
                end
            end
        end)

        it("has published numbers apart, and no cell where nothing was published", function()
            assert.equal(0, #all(tree, "table", "published")) -- of these arms nobody published anything
            local other = write_study(d, "runs/p", "p", "", { "none", "feat32", "mine" }, function()
                return { ["FD-cnn"] = 3 }, fingerprint()
            end, "paper.attention_placement")
            assert.equal("paper.attention_placement", other.published)
            local tables = all(page "runs/p", "table", "scores")
            assert.equal(2, #tables)
            assert.matches("Published, another scale of run: arXiv 1805.08318", text_of(all(tables[2], "caption")[1]), 1, true)
            local cells = cells_of(tables[2])
            assert.equal(22.96, exact(cells.FID.none))
            assert.equal(51.43, exact(cells.IS.feat32))
            assert.equal("not published", text_of(cells.FID.mine))
            -- a record that something else damaged costs its own number
            local record = d:read "runs/p/mine/seed-3/cell.json":gsub('"FD%-cnn":3', '"FD-cnn":"nan"')
            d:write("runs/p/mine/seed-3/cell.json", record)
            d:shell "rm runs/p/mine/seed-3/scores.jsonl"
            assert.equal("3.000± 0.0002 of 3 seeds", text_of(cells_of(all(page "runs/p", "table", "scores")[1])["FD-cnn"].mine))
        end)
    end)

    it("says the verdict of study.json in words, with its interval", function()
        local row
        for _, r in ipairs(study.rows) do row = r.score == "FD-cnn" and r or row end
        local c = row.arms.good.comparison
        assert.equal("better", c.verdict)
        local verdict = html_tree.by_id(tree, "verdict")
        assert.matches("By FD-cnn at step 100: good is better than base; ", text_of(verdict), 1, true)
        local difference = format.difference(c.mean, c.low, c.high)
        assert.matches(("good − base: %s, better (3 pairs)"):format(difference), text_of(verdict), 1, true)
        assert.matches("a/b − base: no seed in common yet", text_of(verdict), 1, true)
        -- independent: the paired interval of three differences, t = 4.30265 at 97.5 % with 2 degrees of freedom
        local sum, squares = 0, 0
        for seed = 1, 3 do sum = sum + raw.good[seed]["FD-cnn"] - raw.base[seed]["FD-cnn"] end
        for seed = 1, 3 do squares = squares + (raw.good[seed]["FD-cnn"] - raw.base[seed]["FD-cnn"] - sum / 3) ^ 2 end
        assert.near(sum / 3 + 4.302652729911275 * math.sqrt(squares / 2) / math.sqrt(3), c.high, 1e-9)
    end)

    it("shows samples of one seed and the newest step, inside the page, and class by class", function()
        local samples = html_tree.by_id(tree, "samples")
        local images = all(samples, "image")
        assert.equal(6, #images) -- five arms have runs, and the data
        for i, arm in ipairs { "base", "good", "ill" } do
            local bytes = d:read(("runs/s/%s/seed-1/samples/ema-00000100.png"):format(arm))
            assert.equal("data:image/png;base64," .. base64.encode(bytes), images[i].attributes.href)
        end
        assert.matches("a/b: no samples of this seed: another </td> failure", text_of(samples), 1, true)
        local strips = all(samples, "div", "strips")
        assert.equal(3, #strips) -- a row a class
        assert.equal(5, #all(strips[1], "use"))
        for _, figure in ipairs(all(samples, "figure")) do
            assert.is_true(#all(figure, "svg")[1].attributes["aria-label"] > 10)
        end
    end)

    it("leaves pictures out whole when they need more room than they may have, and says which", function()
        local size = #d:read "runs/s/base/seed-1/samples/ema-00000100.png"
        d:succeeds(("report runs/s --megabytes %.6f -o small.html"):format(2.5 * (size + 2) // 3 * 4 / 1e6))
        local small = html_tree.parse(d:read "small.html")
        assert.is_true(#all(small, "image") > 0 and #all(small, "image") < 6)
        assert.matches("left out, for the size of the page", text_of(all(small, "footer")[1]), 1, true)
        assert.matches("runs/s/unlike/seed-1/samples/ema-00000100.png", text_of(all(small, "footer")[1]), 1, true)
    end)

    it("tells what the arms changed, on what and how long they ran", function()
        local changed = {}
        for i, th in ipairs(all(all(html_tree.by_id(tree, "configuration"), "tbody")[1], "th")) do changed[i] = text_of(th[1]) end
        assert.same({ "model.attention.generator", "model.attention.discriminator" }, changed)
        local machine = html_tree.by_id(tree, "machine")
        assert.matches("Testing 9000, 4 cores, SIMD avx2; on cpu, 2 threads, sagan-lua 0.1.0", text_of(machine), 1, true)
        local row = all(all(machine, "tbody")[1], "tr")[1]
        local cells = {}
        for i, td in ipairs(all(row, "td")) do cells[i] = text_of(td) end
        -- 100 steps of 16 pictures at 160 a second are 10 seconds, three times
        assert.same({ "3 done", "300", "30.0 s", "15.0 s", "160.0", "1" }, cells)
    end)

    it("draws scores and logs over steps, with gaps where a value is no number", function()
        local titles = {}
        for _, figure in ipairs(all(html_tree.by_id(tree, "training"), "figure")) do
            titles[text_of(all(figure, "b")[1])] = figure
        end
        for _, title in ipairs { "Loss of D", "Loss of G", "Norm of D's gradient", "Gamma of attention in G",
            "Images a second" } do
            assert.is_truthy(titles[title], title)
        end
        assert.equal(2, #all(html_tree.by_id(tree, "curves"), "figure")) -- FD of both measurements; IS has one step
        write_run(d, "runs/broken/seed-7", 7, { last = 60, broken = "nan" })
        local broken, words = page "runs/broken"
        local notice = text_of(all(broken, "div", "notice")[1])
        assert.matches("seed 7: step 60: grad/d is nan; the run stopped there", notice, 1, true)
        assert.is_nil(words:gsub("grad/d is nan", ""):find("[^%w]nan[^%w]"))
        for _, figure in ipairs(all(broken, "figure")) do
            if text_of(all(figure, "b")[1] or {}) == "Norm of D's gradient" then
                local d_of = all(figure, "path", "line")[1].attributes.d
                assert.equal(5, select(2, d_of:gsub("[ML]", ""))) -- ten to fifty: the sixth is no number
            end
        end
    end)

    describe("of runs that are no study", function()
        it("puts them beside each other at a step that both were scored at, and compares nothing", function()
            write_run(d, "loose/one/seed-1", 1, { attention = 16, scores = { { 50, fingerprint(), { ["FD-cnn"] = 9 } },
                { 100, fingerprint(), { ["FD-cnn"] = 7, ["IS-cnn"] = "nan" }, intervals = { ["FD-cnn"] = { 6.5, 7.5 } },
                    notes = { "a note" } } } })
            write_run(d, "loose/two/seed-1", 1, { last = 50, scores = { { 50, fingerprint(), { ["FD-cnn"] = 8 } } } })
            local two = page "loose"
            local cells = cells_of(all(two, "table", "scores")[1])
            assert.same({ 9, 8 }, { exact(cells["FD-cnn"].one), exact(cells["FD-cnn"].two) })
            assert.matches("no comparison is made", text_of(html_tree.by_id(two, "verdict")), 1, true)
            assert.matches("two, seed 1: stands at step 50 of 100: it is still training, or was stopped",
                text_of(html_tree.by_id(two, "verdict")), 1, true)
            assert.is_nil(html_tree.by_id(two, "differences"))
            assert.matches("Note: a note", text_of(html_tree.by_id(two, "print-A")), 1, true)
            -- one run alone: its newest score, with the evaluation's own interval
            local one = page "loose/one/seed-1"
            cells = cells_of(all(one, "table", "scores")[1])
            assert.equal("7.00 [6.50, 7.50]", text_of(cells["FD-cnn"].one))
            assert.equal("missingit is nan", text_of(cells["IS-cnn"].one))
        end)

        it("warns where z is not the same", function()
            write_run(d, "other_z/one/seed-1", 1, {})
            write_run(d, "other_z/two/seed-1", 1, { columns = 5 })
            local samples = html_tree.by_id(page "other_z", "samples")
            assert.matches("as sample.columns is not the same", text_of(samples), 1, true)
            assert.equal(0, #all(samples, "use"))
        end)

        it("holds several groups, a damaged study among them, and says what is damaged", function()
            d:shell "mkdir all && cp -r runs/s loose all/ && cp -r runs/p all/p && echo '{\"study\":1' > all/p/study.json"
            d:write("all/loose/one/seed-1/log.jsonl", d:read "loose/one/seed-1/log.jsonl" .. "{broken\n")
            local several, words = page "all"
            assert_self_contained(several, words)
            assert.same({ "s", "loose", "p" }, { text_of(all(several, "article")[1][1]), text_of(all(several, "article")[2][1]),
                text_of(all(several, "article")[3][1]) })
            assert.matches("all/p/study.json is damaged", words, 1, true)
            assert.matches("one, seed 1: 1 line of log.jsonl cannot be read", words, 1, true)
        end)
    end)

    it("shows scores of other steps than the study's as curves alone", function()
        local dir = "runs/q"
        write_study(d, dir, "q", "", { "base", "arm" }, function() return { ["FD-cnn"] = 3 }, fingerprint() end)
        d:shell([[cd runs/q; for f in */*; do head -1 $f/scores.jsonl > s; mv s $f/scores.jsonl; rm $f/cell.json; done
            sed -i 's/"cells":.*,"data"/"cells":[],"data"/' study.json]])
        local q = page(dir)
        assert.matches("Nothing was scored where scores are compared yet", text_of(html_tree.by_id(q, "verdict")), 1, true)
        assert.matches("trained to its end, but not yet scored", text_of(html_tree.by_id(q, "verdict")), 1, true)
        assert.equal(0, #all(q, "table", "scores"))
        assert.matches("Scored at other steps than those that the study compares", text_of(html_tree.by_id(q, "scores")), 1, true)
    end)

    it("is written beside what it is about, and of a real run has everything", function()
        d:experiment("tiny", [[train = { steps = 8, batch = 4, ema_start = 3 }, log = { every = 2 },
            sample = { every = 0, rows = 2, columns = 2 }, checkpoint = { every = 0 }]])
        d:succeeds "tiny.lua seed=1,2 --runs real"
        assert.matches("^real/tiny/report.html: 0.%d MB, %d pictures\n$", d:succeeds "report real/tiny/")
        local real = html_tree.parse(d:read "real/tiny/report.html")
        assert_self_contained(real, d:read "real/tiny/report.html")
        assert.equal(3, #all(real, "image")) -- samples, data, attention
        for _, id in ipairs { "verdict", "scores", "training", "samples", "attention", "machine" } do
            assert.is_truthy(html_tree.by_id(real, id), id)
        end
        assert.matches("nothing was scored yet", text_of(real), 1, true)
        assert.is_truthy(text_of(html_tree.by_id(real, "machine")):find("sagan-lua " .. core.version, 1, true))
        d:succeeds "tiny.lua seed=1 --runs real --fresh" -- a report is part of what a run wrote
        assert.is_nil(system.stat(d:at "real/tiny/seed-1/report.html"))
    end)

    it("refuses what it cannot report, and helps", function()
        d:shell "mkdir -p empty/inside"
        d:refuses("report empty", { "empty: nothing to report: there is no run (config.lua) and no study (study.json) in it" })
        d:refuses("report nowhere", { "nowhere: no such folder" })
        d:refuses("report runs/s empty", { "empty: nothing to report" })
        d:refuses("report", { "which folders?", "--help" })
        d:refuses("report runs/s --band wide", { "range, sd or interval" })
        d:refuses("report runs/s --ot x", { "--out" })
        d:refuses("report runs/s -o nowhere/at/all.html", { "nowhere/at/all.html" })
        assert.matches("sagan-lua report runs -o all.html", d:succeeds "report --help", 1, true)
    end)
end)
