--- live.lua - the fields that may change while a run goes on: what each change does, why the others may not, and how a
--- changed run is continued. Every change is a row of log.jsonl and an entry of the checkpoints after it:
---
---     {"event":"set","field":"optimizer.lr_d","new":0.0002,"old":0.0004,"step":1200}
---
--- The step is the number of steps done by then; the next one is the first with the new value.
local core = require "sagan.core"
local config_module = require "sagan.config"
local fields = require "sagan.fields"

local live = {}

---@class sagan.Change
---@field step integer
---@field field string
---@field old any
---@field new any

--- A rate lives in device memory, and the schedule reads the configuration: the next step sees it.
local function rate(adam)
    return { apply = function(trainer, value) trainer[adam]:set_rate(value * trainer.rate_factor) end }
end

local function check_steps(trainer, value)
    if trainer.config.train.lr_decay > 0 then return "the rates fall towards the last step (train.lr_decay)" end
    if trainer.last then return "this run is a part of a study, which says how long it is" end
    if value < trainer.step then return ("step %d is done already"):format(trainer.step) end
end

local function check_log(trainer, value)
    local most = trainer.g_ring:size(1)
    if value > most then return ("the losses of %d steps are kept at most, which was log.every at the start"):format(most) end
end

---@class sagan.LiveField
---@field check? fun(trainer: sagan.Trainer, value: any): string?  a reason against a value
---@field apply? fun(trainer: sagan.Trainer, value: any)           what there is to do besides a new value in the configuration

---@type table<string, sagan.LiveField>
live.fields = {
    ["optimizer.lr_g"] = rate "adam_g",
    ["optimizer.lr_d"] = rate "adam_d",
    ["train.steps"] = { check = check_steps },
    ["threads"] = { apply = function(_, value) core.threads(value) end },
    ["log.every"] = { check = check_log },
    ["sample.every"] = {}, ["sample.rows"] = {}, ["sample.columns"] = {}, ["sample.attention"] = {},
    ["checkpoint.every"] = {}, ["checkpoint.keep"] = {},
}

--- The live fields in the order of the field list.
---@return sagan.Field[]
function live.list()
    local out = {}
    for _, f in ipairs(fields.list) do
        if live.fields[f.key] then out[#out + 1] = f end
    end
    return out
end

--- The value in its canonical form, or why the field cannot have it now.
---@param trainer sagan.Trainer
---@param key string
---@param value any
---@return any value, string? reason
local function fitting(trainer, key, value)
    local field, rule = fields.by_key[key], live.fields[key]
    if not rule then
        if field and field.free then
            return nil, ("%s is read when a run starts: stop(), then start it again with %s=..."):format(key, key)
        end
        config_module.field(key) -- raises for what is no field
        return nil, ("%s says what a step computes; changed, it is another experiment, with another name"):format(key)
    end
    local good = config_module.check(key, value)
    local reason = rule.check and rule.check(trainer, good)
    if reason then return nil, ("%s = %s: %s"):format(key, config_module.literal(good), reason) end
    return good
end

--- Gives a live field of a trainer its value, unchecked and unrecorded.
---@param trainer sagan.Trainer
---@param key string
---@param value any
function live.put(trainer, key, value)
    config_module.set(trainer.config, key, value)
    local apply = live.fields[key].apply
    if apply then apply(trainer, value) end
end

--- Changes fields of a run between two steps: all of them or none. What is wrong with a field or a value is raised.
---@param trainer sagan.Trainer
---@param values {key: string, value: any}[]
---@return sagan.Change[]  those that made a difference
function live.set(trainer, values)
    local changes = {}
    for _, pair in ipairs(values) do
        local good, reason = fitting(trainer, pair.key, pair.value)
        if good == nil then error(reason, 0) end
        local old = config_module.get(trainer.config, pair.key)
        if old ~= good then changes[#changes + 1] = { step = trainer.step, field = pair.key, old = old, new = good } end
    end
    -- A change that cannot be written down is not made.
    for _, change in ipairs(changes) do
        local ok, message = trainer.log:event(change.step, live.row(change))
        if not ok then error(message, 0) end
        live.put(trainer, change.field, change.new)
        table.insert(trainer.changes, change)
    end
    return changes
end

--- A change as a row of the log.
---@param change sagan.Change
---@return table
function live.row(change)
    return { event = "set", step = change.step, field = change.field, old = change.old, new = change.new }
end

--- What a field is in a run: its value in the configuration of the command, or, where that is the value from before the first
--- change, what the last change made of it.
---@param config sagan.Config
---@param changes sagan.Change[]
---@param key string
---@return any
function live.value(config, changes, key)
    local value, first, last = config_module.get(config, key), nil, nil
    for _, change in ipairs(changes) do
        if change.field == key then first, last = first or change, change end
    end
    if first and value == first.old then return last.new end
    return value
end

--- Takes over the changes that a checkpoint knows of, into a trainer that was made from the configuration of a command. A
--- field that has the value that it had before its first change gets that of its last one; where the command asks for
--- something else, which only a free field allows, the command is the last change.
---@param trainer sagan.Trainer at the step of the checkpoint
---@param changes sagan.Change[]
---@return string[]? kept  "optimizer.lr_d = 0.0002, changed at step 1200 (the command says 0.0004)"
---@return string? message
function live.adopt(trainer, changes)
    local last, order = {}, {}
    for _, change in ipairs(changes) do
        if not live.fields[change.field] or not pcall(config_module.check, change.field, change.new) then
            return nil, ("%s was changed while it ran, to what makes no sense to this program"):format(change.field)
        end
        if not last[change.field] then order[#order + 1] = change.field end
        last[change.field] = change
    end
    trainer.changes = table.move(changes, 1, #changes, 1, {})
    local kept = {}
    for _, key in ipairs(order) do
        local asked, value = config_module.get(trainer.config, key), live.value(trainer.config, changes, key)
        value = config_module.check(key, value)
        if value ~= asked then
            live.put(trainer, key, value)
            kept[#kept + 1] = ("%s = %s, changed at step %d (the command says %s)"):format(key, config_module.literal(value),
                last[key].step, config_module.literal(asked))
        elseif value ~= last[key].new then
            table.insert(trainer.changes, { step = trainer.step, field = key, old = last[key].new, new = value })
        end
    end
    return kept
end

return live
