--- runner.lua - from an experiment and the words after it on the command line to finished runs: resolves the configuration
--- (a sweep gives several), opens data, prepares each run folder, and hands over to the trainer.
local core = require "sagan.core"
local system = core.system
local experiment = require "sagan.experiment"
local config_module = require "sagan.config"
local fields = require "sagan.fields"
local control = require "sagan.control"
local run_folder = require "sagan.run_folder"
local run_setup = require "sagan.run_setup"
local logger = require "sagan.logger"
local machine = require "sagan.machine"
local numbers = require "sagan.numbers"
local progress = require "sagan.progress"

local runner = {}

local function say(...)
    io.stdout:write(string.format(...), "\n")
    io.stdout:flush()
end

local HELP = [[
sagan-lua EXPERIMENT.lua [field=value ...] [options]

Options
  --dry-run     print the configurations that would run, and stop
  --fresh       start over: empty the run folder first
  --runs DIR    where run folders live (default: $SAGAN_RUNS, else runs)
  --fields      list every field with its meaning and default
  -h, --help    this text

Fields
  seed=3  data=folder:photos  profile=small  optimizer.lr_d=2e-4  train.steps=8000  model.attention.generator={16,32}
  A list makes a sweep, one run after another: optimizer.lr_d={1e-4,2e-4,4e-4} seed={1,2,3}
  Several words for one field are a list too: seed=1 seed=2

Examples
  sagan-lua experiments/feat32.lua
  sagan-lua experiments/feat32.lua optimizer.lr_d=2e-4 seed=3 data=cifar10:PATH profile=small
  sagan-lua experiments/feat32.lua optimizer.lr_d={1e-4,4e-4} --dry-run

The same command again continues an interrupted run; Ctrl-C stops after the step and saves.]]

--- bash turns lr={1e-4,2e-4} into the two words lr=1e-4 lr=2e-4: words of one field are put together as the list again.
local function gather(words)
    local order, values = {}, {}
    for _, word in ipairs(words) do
        local key, value = word:match("^([^=]+)=(.*)$")
        if not values[key] then
            order[#order + 1] = key
            values[key] = {}
        end
        table.insert(values[key], value)
    end
    for i, key in ipairs(order) do
        local list = values[key]
        local field = fields.by_key[key] or fields.aliases[key]
        if #list > 1 and field and field.type.raw then
            for k, value in ipairs(list) do list[k] = ("%q"):format(value) end
        end
        order[i] = key .. "=" .. (#list > 1 and "{" .. table.concat(list, ",") .. "}" or list[1])
    end
    return order
end

--- Splits the words after an experiment into options and overrides.
---@param args string[]
---@return table? options, string[]|string overrides_or_message
function runner.parse(args)
    local options, overrides = {}, {}
    local i = 1
    while i <= #args do
        local word = args[i]
        if word == "--dry-run" then options.dry_run = true
        elseif word == "--fresh" then options.fresh = true
        elseif word == "--fields" then options.fields = true
        elseif word == "-h" or word == "--help" then options.help = true
        elseif word == "--runs" or word:match("^%-%-runs=") then
            options.root = word:match("^%-%-runs=(.+)$")
            if not options.root then
                i = i + 1
                options.root = args[i]
            end
            if not options.root then return nil, "--runs needs a folder" end
        elseif word:match("^[%w_.]+=") then
            overrides[#overrides + 1] = word
        else
            local near = require "sagan.nearest" (word, { "--dry-run", "--fresh", "--runs", "--fields", "--help" })
            return nil, ("'%s' is neither an option nor field=value%s"):format(word, near and "; did you mean " .. near .. "?" or "")
        end
        i = i + 1
    end
    return options, gather(overrides)
end

local opened = {}

--- Opens a data set once for all arms of a sweep that share it, and prints what is in it.
local function open_data(config)
    local key = ("%s|%d|%s"):format(config.data, config.model.resolution, tostring(config.model.channels))
    if opened[key] then return opened[key] end
    local bar
    local data, message = run_setup.data(config, function(done, total)
        bar = bar or progress.new { total = total }
        bar:show(done, "reading images")
    end)
    if bar then bar:finish() end
    if not data then return nil, message end
    local set = data.set
    local least, most = math.huge, 0
    for _, count in ipairs(data.histogram) do least, most = math.min(least, count), math.max(most, count) end
    say("data     %s: %d images, %d classes (%s each), %dx%d, %s%s", data.name, set.count, data.classes,
        least == most and tostring(most) or ("%d to %d"):format(least, most),
        set.height, set.width, data.channels == 1 and "grey" or "RGB",
        set.skipped > 0 and (", %d unreadable skipped"):format(set.skipped) or "")
    opened[key] = data
    return data
end

--- One picture of what the data look like, beside the samples.
local function contact_sheet(data, folder)
    local pictures = require "sagan.pictures"
    local chosen = pictures.choose_classes(data.classes, 10)
    local rows, names = {}, {}
    local by_class = {}
    for i = 1, math.min(data.set.count, 20000) do
        local label = data.set:label(i)
        by_class[label] = by_class[label] or {}
        if #by_class[label] < 10 then table.insert(by_class[label], i) end
    end
    for _, class in ipairs(chosen) do
        local list = by_class[class]
        if list and #list == 10 then
            rows[#rows + 1] = (data.set:batch(list))
            names[#names + 1] = data.class_names[class + 1] or tostring(class)
        end
    end
    if #rows == 0 then return true end
    local all = rows[1]
    for i = 2, #rows do all = core.ops.concat(all, rows[i], 1) end
    return core.image.write(folder.path .. "/samples/data.png", pictures.sheet(all, 10, names))
end

--- "residual at feat32: G 81,922 parameters in place of attention's 81,921": what stands where attention would.
local function stand_ins(net)
    local lines = {}
    for _, child in ipairs(net.children) do
        local module, size = child.module, child.name:match("^attention(%d+)$")
        if size and module.type == "ResidualBlock" then
            local count, attention = module:parameter_count(), math.floor(1.25 * module.channels ^ 2) + 1
            local off = 100 * (count / attention - 1)
            lines[#lines + 1] = ("block    %s, feat%s: %s with %s parameters in place of attention's %s (%+.2f %%)%s"):format(
                net.name, size, module:describe(), numbers.thousands(count), numbers.thousands(attention), off,
                math.abs(off) > 2 and "; equal counts need a larger model.width" or "")
        end
    end
    return lines
end

local function train(config, data, folder, last)
    local Trainer = require "sagan.trainer"
    core.threads(config.threads)
    core.winograd(config.winograd)
    run_setup.precision(config.precision)
    local trainer = Trainer.new(config, data)
    trainer.folder = folder
    local G, D = trainer.G, trainer.D
    local function sizes(net)
        local list = {}
        for size in pairs(net.attention) do list[#list + 1] = size end
        table.sort(list)
        return #list > 0 and "attention at feat" .. table.concat(list, ", feat") or "no attention"
    end
    say("nets     %dx%d, width %d; G %s parameters (%s), D %s (%s)", config.model.resolution, config.model.resolution,
        config.model.width, numbers.thousands(G:parameter_count()), sizes(G), numbers.thousands(D:parameter_count()), sizes(D))
    for _, net in ipairs { G, D } do
        for _, line in ipairs(stand_ins(net)) do say("%s", line) end
    end
    local step, message, kept = trainer:resume()
    if not step then return nil, message end
    if message then io.stderr:write(message) end
    local origin = step == 0 and folder:origin()
    if origin and #folder:checkpoints() == 0 then
        return nil, ("%s is a fork at step %d of %s, and its checkpoint is gone; --fresh starts it from the seed"):format(folder.path,
            origin.at, origin.from)
    end
    config = trainer.config -- with what was changed while it ran
    if last and step >= last then return "done" end
    if step >= config.train.steps then
        say("done     this run has reached step %d already; train.steps=%d goes on, --fresh starts over", step, 2 * step)
        return "done"
    end
    local ok, why = folder:trim_log(step, trainer.changes)
    if not ok then return nil, why end
    if step > 0 then say("resume   from step %d", step) end
    for _, change in ipairs(kept or {}) do say("kept     %s", change) end
    ok, why = machine.record(folder.path, step)
    if not ok then return nil, why end
    trainer.log, why = logger.open(folder, config.log)
    if not trainer.log then return nil, why end
    trainer.loader = data.set:loader { batch = config.train.batch, seed = config.seed }
    if step == 0 then
        ok, why = contact_sheet(data, folder)
        if not ok then return nil, why end
    end
    say("train    on %s to step %d, batch %d, rates D %g / G %g; %s", core.device(), last or config.train.steps, config.train.batch,
        trainer.rate_factor * config.optimizer.lr_d, trainer.rate_factor * config.optimizer.lr_g, folder.path)
    local started = system.now()
    local connection <close>, deaf = control.open(trainer)
    if deaf then say("warning  sagan-lua attach cannot reach this run: %s", deaf) end
    trainer.control = connection
    local outcome, words = trainer:run(last)
    connection:close(("it ended at step %d: %s"):format(trainer.step, words or outcome))
    trainer.loader:close()
    trainer.log:close()
    local newest = folder:checkpoints()[1]
    if not outcome then
        return nil, ("%s; once this is mended, the same command continues from %s"):format(words,
            newest and "step " .. newest.step or "the beginning")
    end
    if outcome == "diverged" then
        return "diverged", ("%s; %s"):format(words, newest and newest.path .. " is the last good checkpoint" or "there is no checkpoint yet")
    end
    say("%s step %d after %s", outcome == "done" and "done    " or "stopped at", trainer.step,
        progress.duration(system.now() - started))
    if outcome == "interrupted" then
        say("         the same command continues from here")
    end
    local shown = ("%s/samples/%s-%08d.png"):format(folder.path, trainer.average and "ema" or "raw", trainer.step)
    if system.stat(shown) then say("samples  %s", shown) end
    local sheet = ("%s/attention/G-%08d.png"):format(folder.path, trainer.step)
    if system.stat(sheet) then say("maps     %s", sheet) end
    if newest then say("model    %s", newest.path) end
    if outcome == "done" and config.score.every == 0 then say("score    sagan-lua eval %s", folder.path) end
    return outcome
end

local function run_one(config, options, position)
    say("run      %s, seed %d%s", config.name, config.seed, position)
    if config.question ~= "" then say("asks     %s", config.question) end
    say("profile  %s%s", config.profile, config.profile_reason and " (" .. config.profile_reason .. ")" or "")
    for _, warning in ipairs(experiment.warnings(config)) do say("warning  %s", warning) end
    local device, message = run_setup.device(config)
    if not device then return nil, message end
    core.device(device)
    local data
    data, message = open_data(config)
    if not data then return nil, message end
    config.model.classes, config.model.channels = data.classes, data.channels
    local folder
    local code
    folder, message, code = run_folder.create(config, options)
    if not folder then return nil, message, code end
    local lock <close> = folder.lock -- luacheck: ignore lock
    return train(config, data, folder, options.last)
end

--- One run from its configuration to its last step, or to `options.last`; the same call again goes on where it stopped. An
--- error that is raised becomes a message, so that the other arms of a sweep go on. Ctrl-C ends them all.
---@param config sagan.Config  resolved
---@param options {root: string?, fresh: boolean?, last: integer?}
---@param position string      " (2 of 5)", or ""
---@return "done"|"interrupted"|"diverged"|nil outcome
---@return string? why
---@return string? code  "locked": another process trains there
function runner.run_one(config, options, position)
    local ok, outcome, why, code = xpcall(run_one, require "sagan.traceback", config, options, position)
    if ok then return outcome, why, code end
    if outcome:find("^interrupted") or outcome:find(": interrupted", 1, true) then error("interrupted", 0) end
    return nil, outcome
end

--- Runs an experiment. One failed arm of a sweep does not stop the others.
---@param what table experiment
---@param args string[] words after the script
---@return integer exit code
function runner.run(what, args)
    local options, overrides = runner.parse(args)
    if not options then
        io.stderr:write("sagan-lua: ", overrides, "\n")
        return 1
    end
    if options.help then
        say("%s", HELP)
        return 0
    end
    if options.fields then
        say("%s", config_module.describe_fields())
        return 0
    end
    local configs, message = experiment.resolve(what, overrides)
    if not configs then
        io.stderr:write("sagan-lua: ", message, "\n")
        return 1
    end
    if options.dry_run then
        for i, config in ipairs(configs) do
            say("-- %d of %d: %s/%s/seed-%d", i, #configs, run_folder.root(options.root), config.name, config.seed)
            say("%s", config_module.serialize(config))
        end
        return 0
    end
    local failed = 0
    for i, config in ipairs(configs) do
        local outcome, why = runner.run_one(config, options, #configs > 1 and (" (%d of %d)"):format(i, #configs) or "")
        if not outcome or outcome == "diverged" then
            io.stderr:write(("sagan-lua: %s: %s\n"):format(config.name, why))
            failed = failed + 1
        elseif outcome == "interrupted" then
            return 130
        end
    end
    return failed > 0 and 1 or 0
end

return runner
