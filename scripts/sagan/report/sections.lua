--- sections.lua - the sections of one group, top to bottom: the verdict in words, the table, the differences, the curves, the
--- pictures, how the arms were set up, and on what they ran.
local html = require "sagan.report.html"
local format = require "sagan.report.format"
local results = require "sagan.report.results"
local verdict = require "sagan.report.verdict"
local score_table = require "sagan.report.score_table"
local setup_table = require "sagan.report.setup_table"
local class_table = require "sagan.report.class_table"
local forest = require "sagan.report.forest"
local scatter = require "sagan.report.scatter"
local is_share = require("sagan.score_table").is_share
local curves = require "sagan.report.curves"
local series = require "sagan.report.series"
local pictures = require "sagan.report.pictures"
local marks = require "sagan.report.marks"
local fingerprint = require "sagan.fingerprint"

local e = html.element

local sections = {}

---@class sagan.report.State  what the groups of one page share
---@field budget sagan.report.Budget
---@field band "range"|"sd"|"interval"|nil
---@field next_id fun(): string
---@field prints {key: string, letter: string, text: string, notes: table<string, boolean>}[]  fingerprints, as they are met

local function aside(...) return e("p", { class = "aside" }, ...) end
local function lead(...) return e("p", { class = "lead" }, ...) end
local function missing(...) return e("p", { class = "missing" }, ...) end
local function fold(title, ...) return e("details", {}, e("summary", {}, title), ...) end
local function charts_of(list) return e("div", { class = "charts" }, list) end

-- How something was measured, with a link to the footnote that says all of it.
local function measured(state, m)
    if m.kind == "losses" then return "Means over the last tenth of the log." end
    if m.kind == "unknown" then return "Measured by the study's own score function, which leaves no fingerprint." end
    local key, found = fingerprint.key(m.fingerprint), nil
    for _, print_ in ipairs(state.prints) do found = print_.key == key and print_ or found end
    if not found then
        local letter = #state.prints < 26 and string.char(65 + #state.prints) or "A" .. #state.prints
        found = { key = key, letter = letter, text = fingerprint.text(m.fingerprint), notes = {} }
        table.insert(state.prints, found)
    end
    for _, note in ipairs(m.notes) do found.notes[note] = true end
    return { "Measured as ", e("a", { href = "#print-" .. found.letter }, "fingerprint " .. found.letter), ": ",
        fingerprint.short(m.fingerprint), "." }
end

local function final_rows(m)
    local out = {}
    for _, row in ipairs(m.rows) do
        if row.final then out[#out + 1] = row end
    end
    return out
end

local function is_compared(group) return group.kind == "study" and #group.arms > 1 end

------------------------------------------------------------------------------------------------- the first words

-- What data=auto found, as the ledger of a run has it.
local function data_of(group)
    for _, cell in ipairs(group.cells) do
        local entry = cell.run and cell.run.ledger[1]
        if entry and type(entry.fingerprint.data) == "string" then return entry.fingerprint.data end
    end
end

--- One line of what a group is.
---@param group sagan.report.Group
---@return sagan.report.Node
function sections.kicker(group)
    local parts = {}
    local function add(...) parts[#parts + 1] = string.format(...) end
    add("%s", group.kind == "study" and "Study" or "Runs")
    add("%s × %s", format.count(#group.arms, "arm"), format.count(#group.seeds, "seed"))
    local c
    for _, arm in ipairs(group.arms) do c = c or setup_table.config(group, arm.name) end
    if c then
        add("%s at %dx%d", data_of(group) or "data " .. c.data, c.model.resolution, c.model.resolution)
        add("%s steps, batch %s", format.number(c.train.steps), format.number(c.train.batch))
        add("profile %s", c.profile)
        add("recipe %s", c.recipe)
    elseif group.study then
        add("%s steps", format.number(group.study.steps))
    end
    return e("p", { class = "kicker" }, table.concat(parts, " · "))
end

local function notice(title, text, items)
    return #items > 0 and e("div", { class = "notice" }, e("p", {}, e("b", {}, title), text), e("ul", {}, items))
end

-- Runs that did not come to their end, and what could not be read.
local function notices(group)
    local early, problems = {}, {}
    for _, cell in ipairs(group.cells) do
        if cell.outcome ~= "done" then
            local reason = cell.reason:gsub("\n.*", "")
            early[#early + 1] = e("li", {}, e("b", {}, cell.arm), (", seed %d: %s"):format(cell.seed, reason))
        end
    end
    for _, text in ipairs(group.problems) do problems[#problems + 1] = e("li", {}, text) end
    for _, text in ipairs(setup_table.unlike_seeds(group)) do problems[#problems + 1] = e("li", {}, text) end
    return {
        notice(("%s of %d not at the end."):format(format.count(#early, "run"), #group.cells),
            " No number below stands for a run that has none.", early),
        notice("To be known when reading.", nil, problems),
    }
end

local function verdicts(group, measurements)
    local first
    for i = #measurements, 1, -1 do first = #measurements[i].rows > 0 and measurements[i] or first end
    if not first then return lead("Nothing was scored where scores are compared yet, so there is no verdict.") end
    local out, more, count = {}, {}, 0
    if first.kind == "losses" then
        out[1] = lead("There is no quality score: losses say whether a training is alive, not how good its pictures are.")
    end
    if not is_compared(group) then
        out[#out + 1] = lead(#group.arms < 2 and "One arm: there is nothing to compare it with."
            or "These runs are no study: they stand beside each other, and no comparison is made.")
        return out
    end
    local decisive = final_rows(first)[1]
    out[#out + 1] = lead(verdict.sentence(group, decisive))
    for _, m in ipairs(measurements) do
        for _, row in ipairs(m.rows) do
            local list = row == decisive and out or more
            list[#list + 1] = verdict.list(group, row)
            count = count + #group.arms - 1
        end
    end
    if #more > 0 then out[#out + 1] = fold(("The other %d: further scores and steps"):format(#more), more) end
    out[#out + 1] = aside(("Differences are taken seed by seed: in brackets the 95 %% interval (paired t). %s in all, none "
        .. "corrected for their number: of twenty comparisons of equals about one looks decided."):format(
        format.count(count, "comparison")))
    return out
end

----------------------------------------------------------------------------------------- tables and differences

local MOST_ROWS <const> = 12

local function caption_of(state, group, m, rows)
    local step, bold = rows[1] and rows[1].step, false
    for _, row in ipairs(rows) do
        step = step == row.step and step
        bold = bold or row.better ~= nil and #group.arms > 1
    end
    local seeds = #group.seeds > 1 and ("Mean ± standard deviation over seeds %s. "):format(format.list(group.seeds))
        or ("Seed %d. "):format(group.seeds[1])
    return { e("b", {}, seeds), step and ("At step %s. "):format(format.number(step)),
        bold and "Bold: the best mean of a row, which is no verdict. ", measured(state, m) }, step
end

local function scores(state, group, measurements)
    local out = {}
    for _, m in ipairs(measurements) do
        local rows = #m.rows > MOST_ROWS and final_rows(m) or m.rows
        local caption, step = caption_of(state, group, m, rows)
        out[#out + 1] = #rows > 0 and score_table.of(group, m, rows, caption, step)
            or missing("Scored at other steps than those that the study compares: see the curves. ", measured(state, m))
        if rows ~= m.rows then
            caption, step = caption_of(state, group, m, m.rows)
            out[#out + 1] = fold("At every step that was scored", score_table.of(group, m, m.rows, caption, step))
        end
        local by_class, names = {}, {}
        for _, row in ipairs(final_rows(m)) do
            local node = class_table.of(group, m, row)
            if node then by_class[#by_class + 1], names[#names + 1] = node, row.score end
        end
        if #by_class > 0 then out[#out + 1] = fold(("By class: %s"):format(format.list(names)), by_class) end
    end
    if #out == 0 then out[1] = missing("No score: nothing was scored yet.") end
    if #measurements > 1 then out[#out + 1] = aside("Tables with unlike fingerprints cannot be compared with each other.") end
    return { out, score_table.published(group) }
end

local function plot_of(state, group, row)
    local lines, any = {}, false
    for i = 2, #group.arms do
        local arm = group.arms[i]
        local c = row.arms[arm.name].comparison
        any = any or c.mean
        lines[#lines + 1] = { name = arm.name, index = arm.index, against = c.against, comparison = c, verdict = c.verdict }
    end
    local title = row.final and row.score or ("%s at step %s"):format(row.score, format.number(row.step))
    return any and forest.plot { id = state.next_id(), title = title, better = row.better, lines = lines }
end

local function differences(state, group, measurements)
    local out = {}
    for _, m in ipairs(is_compared(group) and measurements or {}) do
        local plots, earlier = {}, {}
        for _, row in ipairs(m.rows) do
            local list = row.final and plots or earlier
            list[#list + 1] = plot_of(state, group, row) or nil
        end
        if #plots > 0 then
            out[#out + 1] = aside(("At step %s. "):format(format.number(final_rows(m)[1].step)), measured(state, m),
                " Filled: no difference (0) lies outside the 95 % interval; hollow: inside.")
            out[#out + 1] = charts_of(plots)
        end
        if #earlier > 0 then out[#out + 1] = fold("At earlier steps", charts_of(earlier)) end
    end
    return #out > 0 and out
end

-- Scores against the time of a step, where the arms' differ.
local function against_time(state, group, measurements)
    local out = {}
    for _, m in ipairs(measurements) do
        local charts = {}
        for _, row in ipairs(m.kind ~= "losses" and final_rows(m) or {}) do
            local points = scatter.points(group, row)
            if points then
                charts[#charts + 1] = scatter.plot { id = state.next_id(), title = row.score, better = row.better, points = points,
                    share = is_share(row.score) }
            end
        end
        if #charts > 0 then
            out[#out + 1] = aside(measured(state, m))
            out[#out + 1] = charts_of(charts)
        end
    end
    return #out > 0 and { e("p", {}, "Means over seeds; the bar: one standard deviation of the score. The time of a step is that of the "
        .. "training, as the logs have it: of arms that trained beside each other or on unlike machines it is no comparison."), out }
end

-------------------------------------------------------------------------------------------------------- curves

-- How curves are to be read.
local function reading(group, band)
    if #group.seeds == 1 then return "One seed: lines without a band. ×: a run that ended early." end
    return ("Line: mean over seeds. Band: %s. ×: a run that ended early; beyond it the mean is of the others."):format(
        series.words[band])
end

local function score_curves(state, group, measurements)
    local out, band = {}, state.band or "interval"
    for _, m in ipairs(measurements) do
        local charts = m.kind ~= "losses" and curves.of_scores(group, m, { next_id = state.next_id, band = band }) or {}
        if #charts > 0 then
            out[#out + 1] = aside(measured(state, m))
            out[#out + 1] = charts_of(charts)
        end
    end
    return #out > 0 and { e("p", {}, reading(group, band)), marks.legend(group.arms), out }
end

local function log_curves(state, group)
    local out, band = {}, state.band or "range"
    for _, part in ipairs(curves.of_logs(group, { next_id = state.next_id, band = band })) do
        out[#out + 1] = e("h3", {}, part.title)
        out[#out + 1] = charts_of(part.charts)
    end
    if #out == 0 then return missing("No log: nothing was logged yet.") end
    local averaged = (" A log of more than %d rows is averaged to so many points."):format(series.most)
    return { e("p", {}, reading(group, band), averaged), marks.legend(group.arms), out }
end

------------------------------------------------------------------------------------------------------ pictures

local function samples(state, group)
    local list, lacking, seed, kind = pictures.samples(group)
    if not seed then return missing("No samples: nothing was drawn yet.") end
    local o = { budget = state.budget, next_id = state.next_id }
    local unlike, items, data = pictures.unlike_z(group), {}, nil
    for i, m in ipairs(lacking) do
        items[i] = e("li", {}, e("b", {}, m.arm), ": no samples of this seed: ", score_table.short(m.reason))
    end
    for _, arm in ipairs(group.arms) do
        local cell = (group.by[arm.name] or {})[seed]
        data = data or cell and cell.run and cell.run.data_picture
    end
    local text = ("Seed %d, %s; one row a class, one column a z.%s"):format(seed,
        kind == "ema" and "the generator's moving average" or "the generator itself",
        #group.arms > 1 and " The same place is the same class and z in every arm." or "")
    if #unlike > 0 then
        text = ("Seed %d. z or its place differs between these arms, as %s %s not the same: compare styles, not single pictures.")
            :format(seed, format.list(unlike), #unlike == 1 and "is" or "are")
    end
    local grids = pictures.figures(list, { budget = o.budget, next_id = o.next_id, by_class = #unlike == 0 })
    local real = data and { path = data, caption = { e("b", {}, "data"), ", real pictures" },
        alt = "Real pictures of the data, one row a class." }
    return { e("p", {}, text), grids, #items > 0 and e("ul", {}, items),
        real and fold("What the data look like", pictures.figures({ real }, o)) }, seed
end

local function attention(state, group, seed)
    local list = pictures.attention(group, seed)
    return #list > 0 and {
        e("p", {}, "Each row is a sample with five query points, then where each of them looks: the brighter, the more weight."),
        pictures.figures(list, { budget = state.budget, next_id = state.next_id }),
    }
end

--- The sections of a group, and links to them.
---@param state sagan.report.State
---@param group sagan.report.Group
---@param prefix string  of their ids
---@return sagan.report.Node[] parts
---@return sagan.report.Node[] links
function sections.of(state, group, prefix)
    local measurements = results.of(group)
    local parts, links = {}, {}
    local function add(name, title, ...)
        if not (...) then return end
        parts[#parts + 1] = e("section", { id = prefix .. name }, e("h2", {}, title), ...)
        links[#links + 1] = e("li", {}, e("a", { href = "#" .. prefix .. name }, title))
    end
    add("verdict", "Verdict", verdicts(group, measurements), notices(group))
    add("scores", "Scores", scores(state, group, measurements))
    add("differences", "Differences between arms", differences(state, group, measurements))
    add("curves", "Scores over steps", score_curves(state, group, measurements))
    add("time", "Scores against time", against_time(state, group, measurements))
    add("training", "Training over steps", log_curves(state, group))
    local grids, seed = samples(state, group)
    add("samples", "Samples", grids)
    add("attention", "Attention", attention(state, group, seed))
    if #group.arms > 1 then
        add("configuration", "Configuration", setup_table.differences(group)
            or e("p", {}, "No field differs between these arms."))
    end
    add("machine", "Machine and time", setup_table.machines(group))
    return parts, links
end

return sections
