-- The alarm: quiet over trends and noise, awake for leaps and for what is not finite; what it writes down; seldom; and no
-- bit of a run depends on it.

local alarm = require "sagan.alarm"
local json = require "sagan.json"
local sagan = require "sagan"
local driver = require "driver"
local system = require("sagan.core").system

local d = driver.new "alarm"

local random do
    local state = 12345
    function random()
        state = (state * 1103515245 + 12345) % 2147483648
        return state / 2147483648
    end
end

--- Rows like a run's: noisy losses and gradients, gamma that grows, sigma that settles.
local function usual(step)
    return { step = step, ["loss/d"] = 1.5 + random(), ["loss/g"] = 2 * random() - 1, ["grad/d"] = 3 + 4 * random(),
        ["sigma/D"] = 1 + 2 / step,
        ["gamma/G.feat32"] = 0.002 * step, ["logit/real"] = random(), images_per_second = 100 * random() }
end

--- Feeds rows, without what is printed; the alarms that came.
local function feed(a, first, last, change)
    local events, stderr = {}, io.stderr
    io.stderr = setmetatable({}, { __index = { write = function() end, flush = function() end } }) -- luacheck: ignore
    for step = first, last do
        local row = usual(step)
        if change then change(row) end
        local ok, event = a:row(row)
        if not ok then
            io.stderr = stderr -- luacheck: ignore
            error(event)
        end
        events[#events + 1] = event
    end
    io.stderr = stderr -- luacheck: ignore
    return events
end

local function folder(name)
    local path = d:at(name)
    assert(system.mkdir(path))
    return path
end

local function lines_of(path)
    local rows = {}
    for line in assert(system.read(path)):gmatch("[^\n]+") do rows[#rows + 1] = assert(json.decode(line)) end
    return rows
end

describe("the alarm", function()
    teardown(function() d:remove() end)

    it("has a range from the median and the median deviation", function()
        local values = {}
        for i = 1, 21 do values[i] = (i * 8) % 21 + 1 end -- 1 to 21, in disorder
        local low, high = alarm.range(values, 0)
        assert.near(11 - 10 * 1.4826 * 5, low, 1e-9)
        assert.near(11 + 10 * 1.4826 * 5, high, 1e-9)
        low, high = alarm.range({ 4, 4, 4, 4 }, 0.01) -- does not move: a share of the median
        assert.near(4 - 0.8, low, 1e-9)
        assert.near(4 + 0.8, high, 1e-9)
        low, high = alarm.range({ 0, 0, 0 }, 0.01)
        assert.near(-0.1, low, 1e-9)
        assert.near(0.1, high, 1e-9)
    end)

    it("is quiet over noise and trends", function()
        local path = folder "quiet"
        assert.same({}, feed(alarm.new(path), 1, 400))
        assert.is_nil(system.list(path)[1])
    end)

    it("names what leapt, keeps the rows around it, and then is quiet for a while", function()
        for name, value in pairs { ["loss/d"] = 40, ["grad/d"] = 300, ["sigma/D"] = 2, ["gamma/G.feat32"] = -1 } do
            local path = folder("leap-" .. name:gsub("/", "-"))
            local a = alarm.new(path)
            assert.same({}, feed(a, 1, 99))
            local events = feed(a, 100, 104, function(row) row[name] = value end)
            assert.equal(1, #events)
            assert.equal("alarm", events[1].event)
            assert.equal(name, events[1].name)
            assert.equal(value, events[1].value)
            assert.is_true(value < events[1].low or value > events[1].high)
            feed(a, 105, 120)
            local rows = lines_of(path .. "/alarm-00000100.jsonl")
            assert.equal(name, rows[1].unusual[1].name)
            assert.equal(1 + 50 + 5, #rows) -- the head, the ring with the row itself, the rows after
            assert.equal(51, rows[2].step)
            assert.equal(value, rows[51][name])
            assert.equal(105, rows[56].step)
            assert.equal(1, #system.list(path))
        end
    end)

    it("comes again after a while, for what is not finite at once, and fills no disk", function()
        local path = folder "again"
        local a = alarm.new(path)
        local events = feed(a, 1, 3, function(row)
            if row.step == 2 then row["loss/g"] = 0 / 0 end
        end)
        assert.equal(1, #events)
        assert.equal(2, events[1].step)
        assert.is_nil(events[1].low)
        events = feed(a, 4, 1000, function(row) if row.step % 40 == 0 then row["grad/d"] = 1e4 end end)
        assert.equal(19, #events)
        assert.equal(20, #system.list(path))
    end)

    it("goes on where the log ends", function()
        local path, text = folder "continued", {}
        for step = 1, 60 do text[step] = json.encode(usual(step)) .. "\n" end
        assert(system.write_atomic(path .. "/log.jsonl", table.concat(text) .. '{"event":"set","step":60}\n'))
        local events = feed(alarm.new(path), 61, 61, function(row) row["grad/d"] = 1e4 end)
        assert.equal(1, #events)
    end)

    it("warns in a run, once, and changes no bit of it", function()
        d:experiment("run", [[train = { steps = 24, batch = 4, ema_start = 2 },
            log = { every = 1, tensorboard = false, attention = false },
            sample = { every = 0, rows = 2, columns = 2, attention = false }, checkpoint = { every = 100 }]])
        d:succeeds("run.lua")
        d:succeeds("run.lua name=without log.alarm=false")
        local last = "/seed-5/checkpoints/step-00000024.safetensors"
        assert.equal("", d:differing("runs/run" .. last, "runs/without" .. last))
        for _, row in ipairs(d:log "runs/run/seed-5") do assert.is_nil(row.event) end
        -- the same state with a rate that throws it out of range
        local run = assert(sagan.open(d:at "runs/run"))
        assert(run:fork { at = 24, name = "wild", optimizer = { lr_d = 0.5 }, train = { steps = 30 } })
        local text = d:run "runs/wild/seed-5/config.lua"
        local step = tonumber(text:match("warning  step (%d+): %S+ is [%d.e+-]+, usually [%d.e+-]+ to [%d.e+-]+"))
        assert.is_true(step > 24 and step <= 30, text)
        assert.matches(("alarm-%08d.jsonl has the rows before"):format(step), text, 1, true)
        assert.matches((':replay(%d) the step'):format(step), text, 1, true)
        assert.equal(1, select(2, text:gsub("warning  step", "")))
        local found = 0
        for _, row in ipairs(d:log "runs/wild/seed-5") do
            if row.event == "alarm" then
                found = found + 1
                assert.equal(step, row.step)
            end
        end
        assert.equal(1, found)
        assert.equal("alarm", lines_of(d:at(("runs/wild/seed-5/alarm-%08d.jsonl"):format(step)))[1].event)
        d:succeeds "runs/wild/seed-5/config.lua --fresh optimizer.lr_d=4e-4 train.steps=1"
        assert.is_nil((system.stat(d:at(("runs/wild/seed-5/alarm-%08d.jsonl"):format(step)))))
    end)
end)
