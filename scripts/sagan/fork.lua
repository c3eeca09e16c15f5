--- fork.lua - one state of a run, continued in another way, in a folder of its own:
---
---     local fork = assert(run:fork { at = 1200, name = "feat32-slow-d", ["optimizer.lr_d"] = 2e-4 })
---     print(fork)                        -- the command that continues it
---
--- The folder holds the changed configuration, the state as its first checkpoint, the log up to there and fork.json, which
--- says where it came from. Without a change the fork goes on to the bits of the run that it is from. Whatever leaves every
--- tensor its shape can be changed: rates, loss, batch, steps, seed, data of as many classes.
local core = require "sagan.core"
local checkpoint = require "sagan.checkpoint"
local config_module = require "sagan.config"
local experiment = require "sagan.experiment"
local json = require "sagan.json"
local live = require "sagan.live"
local rebuild = require "sagan.rebuild"
local run_folder = require "sagan.run_folder"
local run_setup = require "sagan.run_setup"
local system = core.system

local fork = {}

---@class sagan.ForkOptions: sagan.Fields
---@field at integer     the state after this step, from 0
---@field name string    of the new run
---@field root? string   where its folder lies; beside the run

---@class sagan.Fork
---@field path string    the new run folder
---@field step integer
---@field config sagan.Config
---@field root string
local Fork = {}
Fork.__index = Fork

function Fork:__tostring()
    return ("%s, from step %d on: sagan-lua %s/config.lua%s"):format(self.path, self.step, self.path,
        self.root ~= run_folder.root() and " --runs " .. self.root or "")
end

local OWN <const> = { at = true, root = true }

--- What each tensor of the two networks is like; nothing is allocated.
local function shapes(config)
    local found = {}
    for letter, model in pairs { G = "generator", D = "discriminator" } do
        local net = require("sagan.models." .. model)(config.model)
        for name, _, spec in net:named_parameters() do
            found[letter .. "." .. name] = ("{%s}%s"):format(table.concat(spec.shape, ", "),
                spec.spectral and ", normalised" or "")
        end
        for name, _, spec in net:named_buffers() do
            found[letter .. "." .. name] = ("{%s}"):format(table.concat(spec.shape, ", "))
        end
    end
    return found
end

--- The first tensor in which two configurations' networks differ, in words.
local function difference(old, new)
    local ok, there = pcall(shapes, new)
    if not ok then return tostring(there) end
    local here, names = shapes(old), {}
    for name, shape in pairs(here) do
        if there[name] ~= shape then names[#names + 1] = name end
    end
    for name in pairs(there) do
        if not here[name] then names[#names + 1] = name end
    end
    table.sort(names)
    local name = names[1]
    return name and ("%s is %s, and would be %s"):format(name, here[name] or "not there", there[name] or "gone")
end

--- Why the state of one configuration does not fit the other; names the field that is at fault.
local function misfit(old, new)
    local all = difference(old, new)
    if not all then return nil end
    local names = {}
    for _, change in ipairs(config_module.diff(old, new)) do
        local one = config_module.copy(old)
        config_module.set(one, change.field, change.b)
        local why = difference(old, one)
        if why then return ("%s cannot change in a fork: %s"):format(change.field, why) end
        names[#names + 1] = change.field
    end
    return ("%s cannot change together in a fork: %s"):format(table.concat(names, ", "), all)
end

--- The configuration of the fork, from that of the run at the step.
local function changed(old, options)
    local new = config_module.copy(old)
    for _, pair in ipairs(config_module.flatten(options, OWN)) do config_module.set(new, pair.key, pair.value) end
    local resolved, message = experiment.resolve(new)
    if not resolved then return nil, message end
    new = resolved[1]
    new.model.classes, new.model.channels = old.model.classes, old.model.channels
    message = misfit(old, new)
    if message then return nil, message end
    if new.train.steps <= options.at then
        return nil, ("train.steps = %d: the fork is at step %d already; give it more"):format(new.train.steps, options.at)
    end
    return new
end

--- The data of the fork: the run's, or others of as many classes.
local function data_of(rebuilt, config)
    if config.data == rebuilt.config.data then return rebuilt.data end
    local data, message = run_setup.data(config)
    if not data then return nil, message end
    local m = config.model
    if data.classes ~= m.classes or data.channels ~= m.channels then
        data.set:close()
        return nil, ("data = %s cannot change in a fork: %d classes and %d channels, the networks have %d and %d"):format(
            config.data, data.classes, data.channels, m.classes, m.channels)
    end
    return data
end

--- What was measured up to the step, so that curves begin where the run began.
local function past_of(path, step)
    local kept = {}
    for line in (system.read(path .. "/log.jsonl") or ""):gmatch("[^\n]+\n") do
        local row = json.decode(line)
        if type(row) == "table" and not row.event and math.type(row.step) and row.step <= step then kept[#kept + 1] = line end
    end
    return table.concat(kept)
end

local function story_of(rebuilt, config, step)
    local changes, history = json.array {}, json.array {}
    for _, change in ipairs(config_module.diff(rebuilt.config, config)) do
        if change.field ~= "name" then changes[#changes + 1] = { field = change.field, old = change.a, new = change.b } end
    end
    for _, change in ipairs(rebuilt.trainer.changes) do history[#history + 1] = live.row(change) end
    return json.encode { from = rebuilt.path, at = step, changes = changes, history = history, version = core.version }
end

local function write(rebuilt, config, data, path, root)
    local trainer, step = rebuilt.trainer, rebuilt.trainer.step
    -- fork.json first: a folder that says what it is and lacks its checkpoint is refused, not started over
    local ok, message = system.mkdir(path)
    if ok then ok, message = system.write_atomic(path .. "/fork.json", story_of(rebuilt, config, step) .. "\n") end
    if not ok then return nil, message end
    local folder
    folder, message = run_folder.create(config, { root = root })
    if not folder then return nil, message end
    local lock <close> = folder.lock -- luacheck: ignore lock
    local average = config.train.ema_decay > 0 and (trainer.average or { net = trainer.G })
    local state = setmetatable({ config = config, changes = {}, data = data, average = average }, { __index = trainer })
    ok, message = checkpoint.save(state, ("%s/checkpoints/step-%08d.safetensors"):format(path, step))
    if ok then ok, message = system.write_atomic(path .. "/log.jsonl", past_of(rebuilt.path, step)) end
    if not ok then
        folder:clear()
        return nil, message
    end
    return setmetatable({ path = path, step = step, config = config, root = root }, Fork)
end

--- Makes a run of a state of another one. What is wrong with the fields is raised, what is wrong with files returned.
---@param path string  a run folder
---@param options sagan.ForkOptions
---@return sagan.Fork? fork
---@return string? message
function fork.make(path, options)
    local rebuilt, message = rebuild.at(path, options.at)
    if not rebuilt then return nil, message end
    local _ <close> = rebuilt
    local fits, config, why = pcall(changed, rebuilt.config, options)
    if not fits or not config then error(fits and why or config, 0) end
    local root = options.root or path:match("^(.+)/[^/]+/[^/]+$") or run_folder.root()
    local new = ("%s/%s/seed-%d"):format(root, config.name, config.seed)
    if system.stat(new .. "/config.lua") then return nil, new .. ": there is a run already; give the fork another name" end
    local data
    data, message = data_of(rebuilt, config)
    if not data then return nil, message end
    local made
    made, message = write(rebuilt, config, data, new, root)
    if data ~= rebuilt.data then data.set:close() end
    return made, message
end

return fork
