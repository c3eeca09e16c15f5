--- study.lua - runs a study from the words of a command line: which cells are left, one after another or in several
--- processes, the table after each, and study.json.
local core = require "sagan.core"
local system = core.system
local config = require "sagan.config"
local run_folder = require "sagan.run_folder"
local ablation = require "sagan.ablation"
local study_cell = require "sagan.study_cell"
local study_table = require "sagan.study_table"
local progress = require "sagan.progress"

local study = {}

local HELP = [[
sagan-lua STUDY.lua [field=value ...] [options]

A study trains several arms with the same seeds and compares their scores seed by seed. The same command again continues;
what is finished is not run again. field=value holds in every arm; seed=1,2,3 chooses the seeds.

Options
  --dry-run         list the arms, what each changes and what is done already, and stop
  --only ARM[,ARM]  run these arms only, and leave the table to a later call
  --jobs N          N runs at a time, each a process with its share of the cores
  --print-commands  print one command for each run that is left, for GNU parallel, xargs or Slurm
  --table           print the table as it stands, and stop
  --score FILE      score with the function that this Lua file returns: function(run) -> { name = value }; run has path, arm,
                    seed, step, config, checkpoint (file) and log (rows). Without it the fields score.* say how; `--score
                    losses` does without pictures
  --rescore         score finished runs again at their last step, training nothing
  --fresh           start over: empty the run folders first
  --runs DIR        where run folders live (default: $SAGAN_RUNS, else runs)
  -h, --help        this text

Examples
  sagan-lua experiments/stability.lua --dry-run
  sagan-lua experiments/stability.lua seed=1,2,3,4,5 --jobs 4
  sagan-lua experiments/attention_placement.lua profile=small --print-commands | parallel -j 8
  sagan-lua experiments/attention_placement.lua profile=small       # afterwards: the table, and what failed again
  sagan-lua experiments/stability.lua --score fid.lua --rescore]]

local function say(...)
    io.stdout:write(string.format(...), "\n")
    io.stdout:flush()
end

local function complain(message) io.stderr:write("sagan-lua: ", message, "\n") end

-- Options of studies; the rest is the runner's.
local function parse(args)
    local own, rest, i = {}, {}, 1
    local flags = { ["--print-commands"] = "print_commands", ["--table"] = "table", ["--rescore"] = "rescore" }
    local with_value = { ["--only"] = "only", ["--jobs"] = "jobs", ["--score"] = "score" }
    while i <= #args do
        local word, value = args[i]:match("^(%-%-[%w-]+)=(.*)$")
        word = word or args[i]
        if flags[word] then
            own[flags[word]] = true
        elseif with_value[word] then
            if not value then
                i = i + 1
                value = args[i]
            end
            if not value then return nil, word .. " needs a value" end
            own[with_value[word]] = value
        else
            rest[#rest + 1] = args[i]
        end
        i = i + 1
    end
    if own.jobs then
        own.jobs = math.tointeger(tonumber(own.jobs))
        if not own.jobs or own.jobs < 1 then return nil, "--jobs needs a whole number from 1" end
    end
    local options, overrides = require("sagan.runner").parse(rest)
    if not options then return nil, overrides end
    for key, value in pairs(own) do options[key] = value end
    return options, overrides
end

--- The score function of a Lua file, or that of the losses.
---@param path string
---@return function? score
---@return string? message
function study.load_score(path)
    if path == "losses" then return ablation.losses end
    local chunk, message = loadfile(path, "t")
    if not chunk then return nil, "--score: " .. message end
    local score = chunk()
    if type(score) ~= "function" then return nil, ("--score: %s returns no function(run)"):format(path) end
    return score
end

local function quote(word)
    if word:find("^[%w_./=:,@%%+-]+$") then return word end
    return "'" .. word:gsub("'", [['\'']]) .. "'"
end

-- What runs one cell in a process of its own.
local function command_of(cell, prefix, overrides, options, threads)
    local words = {}
    for _, word in ipairs(prefix) do words[#words + 1] = quote(word) end
    for _, override in ipairs(overrides) do
        local replaced = override:find("^seed=") or threads and override:find("^threads=")
        if not replaced then words[#words + 1] = quote(override) end
    end
    words[#words + 1] = "seed=" .. cell.seed
    if threads then words[#words + 1] = "threads=" .. threads end
    words[#words + 1] = "--only " .. quote(cell.arm)
    if options.root then words[#words + 1] = "--runs " .. quote(options.root) end
    if options.score then words[#words + 1] = "--score " .. quote(options.score) end
    if options.fresh then words[#words + 1] = "--fresh" end
    if options.rescore then words[#words + 1] = "--rescore" end
    return table.concat(words, " ")
end

local function changes_text(changes)
    if #changes == 0 then return "nothing" end
    local parts = {}
    for i, d in ipairs(changes) do parts[i] = ("%s %s -> %s"):format(d.field, config.literal(d.a), config.literal(d.b)) end
    return table.concat(parts, ", ")
end

local function print_plan(plan, records)
    local s = plan.study
    say("study    %s: %d arms x %d seeds (%s) = %d runs in %s", s.name, #plan.arms, #plan.seeds,
        table.concat(plan.seeds, ", "), #plan.cells, plan.path)
    if s.question then say("asks     %s", s.question) end
    local c, steps = plan.arms[1].config, {}
    for i, stage in ipairs(plan.cells[1].stages) do steps[i] = tostring(stage.step) end
    say("profile  %s: %dx%d, width %d, batch %d, %d steps; scored at step %s", c.profile, c.model.resolution,
        c.model.resolution, c.model.width, c.train.batch, c.train.steps, table.concat(steps, ", "))
    for i, arm in ipairs(plan.arms) do
        local done, open = 0, {}
        for k, cell in ipairs(plan.cells) do
            if cell.arm == arm.name then
                if study_cell.is_finished(cell, records[k]) then done = done + 1 end
                if records[k].outcome ~= "open" and records[k].outcome ~= "done" then
                    open[#open + 1] = ("seed %d %s"):format(cell.seed, records[k].outcome)
                end
            end
        end
        say("%-8s %s: %s%s%s", i == 1 and "base" or "arm", arm.name,
            i == 1 and "recipe " .. arm.config.recipe or "changes " .. changes_text(arm.changes),
            done > 0 and ("; %d of %d finished"):format(done, #plan.seeds) or "",
            #open > 0 and " (" .. table.concat(open, ", ") .. ")" or "")
    end
end

-- Seconds that the cells which are left will take, by those that are done; nil if none is.
local function time_left(plan, records, chosen, jobs)
    local spent, done, left = 0, 0, 0
    for i, cell in ipairs(plan.cells) do
        if records[i].outcome == "done" then spent, done = spent + records[i].seconds, done + 1 end
        if chosen[i] and not study_cell.is_finished(cell, records[i]) and records[i].outcome ~= "failed" then left = left + 1 end
    end
    return done > 0 and spent / done * left / jobs or nil, left
end

local function read_all(plan, fresh, already)
    local records = {}
    for i, cell in ipairs(plan.cells) do
        local untouched = fresh and not (already and already[i])
        records[i] = study_cell.read(untouched and setmetatable({ path = "" }, { __index = cell }) or cell)
    end
    return records
end

local function write(plan, records)
    local ok, message = system.mkdir(plan.path)
    if ok then ok, message = system.write_atomic(plan.path .. "/study.json", study_table.json(plan, records)) end
    if not ok then complain(message) end
    return ok
end

local function show(plan, records)
    for _, line in ipairs(study_table.lines(plan, records, system.terminal_width())) do say("%s", line) end
end

local function after_cell(plan, records, chosen, jobs)
    local ok = write(plan, records)
    say("")
    show(plan, records)
    local seconds, left = time_left(plan, records, chosen, jobs)
    if left > 0 then say("left     %d runs%s", left, seconds and ", about " .. progress.duration(seconds) or "") end
    say("")
    return ok
end

local function in_this_process(plan, records, todo, options)
    local chosen = {}
    for _, i in ipairs(todo) do chosen[i] = true end
    for k, i in ipairs(todo) do
        local cell = plan.cells[i]
        local record, interrupted = study_cell.run(plan.study, cell, {
            root = plan.path, fresh = options.fresh, rescore = options.rescore, position = (" (%d of %d)"):format(k, #todo),
        })
        records[i] = record
        if records[i].reason then complain(("%s, seed %d: %s"):format(cell.arm, cell.seed, records[i].reason)) end
        if not options.only then after_cell(plan, records, chosen, 1) end
        if interrupted then return 130 end
    end
end

-- xargs keeps `jobs` processes busy; each line that comes back says which cell has ended.
local function in_processes(plan, records, todo, overrides, options, prefix)
    local threads = math.max(1, system.nproc() // math.min(options.jobs, #todo))
    local chosen, lines = {}, {}
    for _, i in ipairs(todo) do
        local cell = plan.cells[i]
        chosen[i] = true
        local ok, message = system.mkdir(cell.path)
        if not ok then return complain(message) or 1 end
        lines[#lines + 1] = ("%s > %s 2>&1 < /dev/null; echo %d"):format(command_of(cell, prefix, overrides, options, threads),
            quote(cell.path .. "/output.txt"), i)
    end
    local list = plan.path .. "/commands"
    local ok, message = system.write_atomic(list, table.concat(lines, "\0") .. "\0")
    if not ok then return complain(message) or 1 end
    say("jobs     %d runs, %d at a time with %d threads each; what each prints is in output.txt of its folder", #todo,
        math.min(options.jobs, #todo), threads)
    system.catch_interrupts(true)
    local guard <close> = setmetatable({}, { -- luacheck: ignore guard
        __close = function() system.catch_interrupts(false) end,
    })
    local pipe = assert(io.popen(("xargs -0 -n 1 -P %d sh -c < %s"):format(options.jobs, quote(list))))
    local ended = {}
    for line in function() return (pipe:read("l")) end do
        local i = math.tointeger(tonumber(line))
        if i and plan.cells[i] then
            ended[i] = true
            local fresh = read_all(plan, options.fresh, ended)
            for k in ipairs(records) do records[k] = fresh[k] end
            say("ended    %s, seed %d: %s%s", plan.cells[i].arm, plan.cells[i].seed, records[i].outcome,
                records[i].reason and " (" .. records[i].reason:gsub("\n.*", "") .. ")" or "")
            after_cell(plan, records, chosen, math.min(options.jobs, #todo))
        end
    end
    pipe:close()
    system.remove(list)
    if system.interrupted() then
        complain("interrupted: the runs save and stop; the same command continues")
        return 130
    end
end

-- The cells that these options ask for and that are not finished.
local function choose(plan, records, options)
    local wanted
    if options.only then
        wanted = {}
        local names = {}
        for i, arm in ipairs(plan.arms) do names[i] = arm.name end
        for name in options.only:gmatch("[^,]+") do
            local known = false
            for _, n in ipairs(names) do known = known or n == name end
            if not known then
                local near = require "sagan.nearest"(name, names)
                return nil, ("--only: there is no arm '%s'%s"):format(name, near and ("; did you mean '%s'?"):format(near) or "")
            end
            wanted[name] = true
        end
    end
    local todo = {}
    for i, cell in ipairs(plan.cells) do
        local left = not study_cell.is_finished(cell, records[i]) or options.rescore and records[i].outcome == "done"
        if left and (not wanted or wanted[cell.arm]) then
            local conflict = not options.fresh and run_folder.at(cell.path):conflict(cell.config)
            if conflict then return nil, conflict end
            todo[#todo + 1] = i
        end
    end
    return todo
end

--- Runs a study.
---@param what sagan.Study
---@param args string[]       words after the script
---@param command? string[]   the words that begin the same command again
---@return integer exit code: 1 if a run failed or diverged
function study.run(what, args, command)
    local options, overrides = parse(args)
    if not options then return complain(overrides) or 1 end
    if options.help then return say("%s", HELP) or 0 end
    if options.fields then return say("%s", config.describe_fields()) or 0 end
    if options.score then
        local score, why = study.load_score(options.score)
        if not score then return complain(why) or 1 end
        what = ablation.with_score(what, score)
    end
    local plan, message = ablation.plan(what, overrides, run_folder.root(options.root))
    if not plan then return complain(message) or 1 end
    local records = read_all(plan, options.fresh)
    if options.table then return show(plan, records) or 0 end
    if options.dry_run then return print_plan(plan, records) or 0 end
    local todo
    todo, message = choose(plan, records, options)
    if not todo then return complain(message) or 1 end

    local program = system.executable_path()
    local script = arg and arg[0]
    local prefix = { program, table.unpack(command or { script }) }
    if (options.jobs or options.print_commands) and not command and (not script or script == "-" or not system.stat(script)) then
        return complain("--jobs and --print-commands begin the script again: it must be a file") or 1
    end
    if options.print_commands then
        for _, i in ipairs(todo) do say("%s", command_of(plan.cells[i], prefix, overrides, options)) end
        return 0
    end

    local code
    if not options.only then print_plan(plan, records) end
    if #todo == 0 then
        if not options.only then show(plan, records) end
    elseif options.jobs and not options.only then
        code = in_processes(plan, records, todo, overrides, options, prefix)
    else
        code = in_this_process(plan, records, todo, options)
    end
    if not options.only then write(plan, records) end
    if code then return code end
    for i, cell in ipairs(plan.cells) do
        local r = records[i]
        local asked = not options.only or ("," .. options.only .. ","):find("," .. cell.arm .. ",", 1, true)
        if asked and not (study_cell.is_finished(cell, r) and r.outcome == "done") then return 1 end
    end
    return 0
end

return study
