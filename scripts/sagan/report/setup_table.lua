--- setup_table.lua - what the arms were: the fields in which their configurations differ, and machines and time.
local config = require "sagan.config"
local fields = require "sagan.fields"
local html = require "sagan.report.html"
local data_table = require "sagan.report.data_table"
local format = require "sagan.report.format"

local e = html.element

local setup_table = {}

-- They name a run or say how it was launched, and tell nothing about it.
local NAMES <const> = { name = true, seed = true, question = true, profile_reason = true }

local function literal(value) return value == nil and "none" or config.literal(value) end

--- The configuration of an arm: that of its first seed that has one.
---@param group sagan.report.Group
---@param arm string
---@return sagan.Config?
function setup_table.config(group, arm)
    for _, seed in ipairs(group.seeds) do
        local cell = (group.by[arm] or {})[seed]
        if cell and cell.run and cell.run.config then return cell.run.config end
    end
end

--- Sentences about seeds of one arm that were not configured alike.
---@param group sagan.report.Group
---@return string[]
function setup_table.unlike_seeds(group)
    local out = {}
    for _, cell in ipairs(group.cells) do
        local first = setup_table.config(group, cell.arm)
        if first and cell.run and cell.run.config then
            local names = {}
            for _, d in ipairs(config.diff(first, cell.run.config)) do
                if not NAMES[d.field] and not d.free then names[#names + 1] = d.field end
            end
            if #names > 0 then
                out[#out + 1] = ("%s: seed %d was configured unlike the others of its arm (%s)"):format(cell.arm, cell.seed,
                    format.list(names))
            end
        end
    end
    return out
end

--- The fields in which arms differ; nil if there are none.
---@param group sagan.report.Group
---@return sagan.report.Node?
function setup_table.differences(group)
    local configs, head = {}, { "field" }
    for i, arm in ipairs(group.arms) do
        configs[i] = setup_table.config(group, arm.name) or false
        head[i + 1] = arm.name
    end
    local first
    for i = #configs, 1, -1 do first = configs[i] or first end
    if not first then return nil end
    local body = {}
    for _, f in ipairs(fields.list) do
        local differs = false
        for _, c in ipairs(configs) do
            differs = differs or c and literal(config.get(c, f.key)) ~= literal(config.get(first, f.key))
        end
        if differs and not NAMES[f.key] then
            local cells = {}
            for i, c in ipairs(configs) do
                local text = c and literal(config.get(c, f.key))
                cells[i] = text and e("td", { class = text ~= literal(config.get(first, f.key)) and "changed" or false },
                    e("code", {}, text)) or e("td", { class = "missing" }, "no configuration")
            end
            body[#body + 1] = e("tr", {}, e("th", { scope = "row" }, e("code", {}, f.key), e("small", {}, f.doc)), cells)
        end
    end
    if #body == 0 then return nil end
    return data_table { class = "setup", head = head, rows = body,
        caption = ("Fields in which these arms differ; marked where unlike %s."):format(group.arms[1].name) }
end

local function machine_text(m)
    local parts = {}
    local function add(...) parts[#parts + 1] = string.format(...) end
    if type(m.cpu) == "string" then add("%s", m.cpu) end
    if math.type(m.cores) then add("%d cores", m.cores) end
    if math.type(m.memory_gib) then add("%.4g GiB", m.memory_gib) end
    if type(m.isa) == "string" then add("SIMD %s", m.isa) end
    if type(m.system) == "string" then add("%s", m.system) end
    local program = {}
    if type(m.device) == "string" then program[#program + 1] = "on " .. m.device end
    if math.type(m.threads) then program[#program + 1] = format.count(m.threads, "thread") end
    program[#program + 1] = "sagan-lua " .. tostring(m.version)
    if type(m.lua) == "string" then program[#program + 1] = m.lua end
    return table.concat(parts, ", ") .. "; " .. table.concat(program, ", ")
end

local function outcomes(cells)
    local counts, order = {}, {}
    for _, cell in ipairs(cells) do
        if not counts[cell.outcome] then
            counts[cell.outcome] = 0
            order[#order + 1] = cell.outcome
        end
        counts[cell.outcome] = counts[cell.outcome] + 1
    end
    local words = { done = "done", diverged = "diverged", failed = "failed", open = "not at its end", none = "missing" }
    for i, outcome in ipairs(order) do order[i] = ("%d %s"):format(counts[outcome], words[outcome]) end
    return format.list(order)
end

--- Machines and time: what each arm took, and on what.
---@param group sagan.report.Group
---@return sagan.report.Node
function setup_table.machines(group)
    local body, texts, letters = {}, {}, {}
    for i, arm in ipairs(group.arms) do
        local cells, training, scoring, speeds, steps, used, on = {}, 0, 0, {}, 0, {}, {}
        for _, seed in ipairs(group.seeds) do
            local cell = (group.by[arm.name] or {})[seed]
            if cell then cells[#cells + 1] = cell end
            if cell and cell.run then
                training = training + (cell.run.seconds or 0)
                steps = steps + cell.run.last
                if cell.run.speed then speeds[#speeds + 1] = cell.run.speed end
                for _, entry in ipairs(cell.run.ledger) do
                    scoring = scoring + (format.is_finite(entry.seconds) and entry.seconds or 0)
                end
                for _, m in ipairs(cell.run.machines) do
                    local text = machine_text(m)
                    if not letters[text] then
                        texts[#texts + 1] = text
                        letters[text] = #texts
                    end
                    if not used[text] then
                        used[text] = true
                        on[#on + 1] = tostring(letters[text])
                    end
                end
            end
        end
        local sum = 0
        for _, speed in ipairs(speeds) do sum = sum + speed end
        local function cell_or(known, text, class)
            return known and e("td", { class = class }, text) or e("td", { class = "missing" }, "not recorded")
        end
        body[i] = e("tr", {}, e("th", { scope = "row" }, arm.name), e("td", {}, outcomes(cells)),
            e("td", { class = "num" }, format.number(steps)), cell_or(training > 0, format.duration(training), "num"),
            cell_or(scoring > 0, format.duration(scoring), "num"),
            cell_or(#speeds > 0, format.number(sum / math.max(1, #speeds)), "num"), cell_or(#on > 0, format.list(on)))
    end
    local list = {}
    for i, text in ipairs(texts) do list[i] = e("li", {}, text) end
    return e("div", {}, data_table {
        class = "machines", rows = body,
        head = { "arm", "runs", { "steps", "num" }, { "training", "num" }, { "scoring", "num" }, { "images/s", "num" },
            "machine" },
        caption = "Steps and time of all seeds of an arm together, as their logs and ledgers have it; the median speed of a "
            .. "run, averaged over seeds.",
    },
        #list > 0 and e("ol", { class = "plain numbered" }, list),
        #list > 1 and e("p", { class = "aside" }, "Times of unlike machines are no comparison of arms."))
end

return setup_table
