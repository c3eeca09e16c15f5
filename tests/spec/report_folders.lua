--- Run folders and studies as the program writes them, made by hand for specs of what reads them. `d` is a driver.
local core = require "sagan.core"
local system = core.system
local json = require "sagan.json"
local config = require "sagan.config"
local experiment = require "sagan.experiment"
local study_table = require "sagan.study_table"

local folders = {}

local STEPS <const> = 100

local function lines(rows)
    for i, row in ipairs(rows) do rows[i] = json.encode(row) end
    return table.concat(rows, "\n") .. "\n"
end

-- A fingerprint in the ledger's form.
function folders.fingerprint(more)
    local f = { network = "cnn", weights = "3fa1b2c4d5e6f708", resizer = "none", data = "quadrupeds", data_hash = "9a8b",
        reference = "train", resolution = 32, n_real = 640, n_fake = 1000, generator = "ema", batch_norm = "moving",
        truncation = "none", is_splits = 1, version = "1" }
    for key, value in pairs(more or {}) do f[key] = value end
    return f
end

local function resolved(o)
    return assert(experiment.resolve({ name = "x", recipe = "paper", profile = "quick", data = "quadrupeds:64", seed = o.seed,
        attention = o.attention or "none", model = { resolution = 32, width = 4 } }, { "train.steps=" .. STEPS }))[1]
end

-- A run folder: o.last steps of STEPS, o.scores: { {step, fingerprint, scores} }.
function folders.write_run(d, folder, seed, o)
    local c = resolved { seed = seed, attention = o.attention }
    c.name, c.model.classes, c.model.channels = "run-" .. #folder, 3, 1
    c.sample.columns = o.columns or c.sample.columns
    d:write(folder .. "/config.lua", config.serialize(c))
    local rows = {}
    for step = 10, o.last or STEPS, 10 do
        rows[#rows + 1] = { step = step, ["loss/d"] = 1 + seed / 10 + step / 1000, ["loss/g"] = 0.5, ["logit/real"] = 1,
            ["grad/d"] = o.last == step and o.broken or 2, images_per_second = 160 }
        if o.attention then rows[#rows]["gamma/G.feat16"] = step / 1e4 end
    end
    d:write(folder .. "/log.jsonl", lines(rows))
    local ledger = {}
    for i, s in ipairs(o.scores or {}) do
        ledger[i] = { time = "2026-11-24T19:00:00Z", step = s[1], checkpoint = "checkpoints/x", seconds = 2.5,
            fingerprint = s[2], scores = s[3], intervals = s.intervals, notes = s.notes or json.array {} }
    end
    if #ledger > 0 then d:write(folder .. "/scores.jsonl", lines(ledger)) end
    if o.pictures ~= false then
        assert(system.mkdir(d:at(folder .. "/samples")))
        for i, name in ipairs { "ema-00000050.png", ("ema-%08d.png"):format(o.last or STEPS), "data.png" } do
            local picture = core.image.blank(3 * 66 + 2, 10 * 66 + 2, 3, { seed * 30, i, 9 })
            assert(core.image.write(d:at(folder .. "/samples/" .. name), picture))
        end
    end
    d:write(folder .. "/machine.jsonl", lines { { version = "0.1.0", cpu = "Testing 9000", cores = 4, threads = 2, device = "cpu",
        isa = "avx2", step = 0, time = "2026-11-24T19:00:00Z" } })
end

-- A study of these arms; score(arm, seed) -> values, fingerprint, or nil, reason, outcome. study.json is the program's own.
function folders.write_study(d, folder, name, question, arms, score, published)
    local study = { name = name, question = question, published = published, score = print }
    local plan = { study = study, arms = {}, seeds = { 1, 2, 3 }, cells = {} }
    local c = resolved {}
    local records, raw = {}, {}
    for i, arm in ipairs(arms) do
        plan.arms[i] = { name = arm, config = c, changes = {} }
        for seed = 1, 3 do
            local values, f, outcome = score(arm, seed)
            local record = { arm = arm, seed = seed, outcome = outcome or "done", steps = STEPS, seconds = 5,
                scores = json.array {} }
            local path = ("%s/%s/seed-%d"):format(folder, arm, seed)
            local o = { attention = i > 1 and 16 or nil }
            if values then
                raw[arm] = raw[arm] or {}
                raw[arm][seed] = values
                record.scores[1] = { share = 1, step = STEPS, values = values }
                o.scores = { { 50, f, { ["FD-cnn"] = 2 * values["FD-cnn"] } }, { STEPS, f, values } }
            else
                record.reason, o.last = f, 40
            end
            table.insert(plan.cells, { arm = arm, seed = seed, config = c })
            table.insert(records, record)
            if not arm:find("/", 1, true) then
                folders.write_run(d, path, seed, o)
                d:write(path .. "/cell.json", json.encode(record))
            end
        end
    end
    d:write(folder .. "/study.json", study_table.json(plan, records))
    return assert(json.decode(d:read(folder .. "/study.json"))), raw
end

return folders
