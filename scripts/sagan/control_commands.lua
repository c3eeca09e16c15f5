--- control_commands.lua - the globals that a client of a run finds: the run itself, and what can be asked of it.
local core = require "sagan.core"
local config_module = require "sagan.config"
local live = require "sagan.live"
local microscope = require "sagan.microscope"
local pictures = require "sagan.pictures"
local progress = require "sagan.progress"

local PAGE <const> = [[
run             the run between two steps: run.step, run.G, run.D, run.ema, run.config (a copy), run.trainer, run.path
status()        where it is, how fast, what was changed
pause()         holds it while you are here; pause "stay": until somebody says resume()
resume()        goes on
step(n)         does n steps, or one, and holds again
set(field, x)   changes a field from the next step on: set("optimizer.lr_d", 2e-4), set{ optimizer = { lr_d = 2e-4 } };
                help "set" lists the fields
samples()       shows a grid of the averaged generator; samples("x.png", { raw = true, seed = 7, truncation = 2 }) writes it
attention()     shows attention maps; attention("x.png", { raw = true, seed = 7, feat = 32, rows = 3 }) writes them
attention{...}  the microscope on the networks as they are now: a = attention { class = "Sandal", seed = 1 }, then a,
                a:show { y = 10, x = 12 }, a:sheet(); raw = true; net = "D", image = "x.png". It shows the step it was made at
show(x)         a picture, a batch, a map or a file in your terminal; values that are pictures are shown by themselves
checkpoint()    saves now
stop()          saves and ends the run, as Ctrl-C does; the command that started it continues it
time_limit(s)   how many seconds one command of yours may take
sagan, help "relu", _, Tab as at the prompt

Commands run in the training process, between two steps. Passes through the networks leave no trace in the run; what you
write into weights stays, and is not recorded.]]

local function describe(change)
    return ("%s: %s -> %s"):format(change.field, config_module.literal(change.old), config_module.literal(change.new))
end

---@param control sagan.Control
---@param client sagan.ControlClient  gets `refresh`, which brings the run's fields up to date
---@param refuse fun(words: string, ...: any)  ends the command
---@return table env
return function(control, client, refuse)
    local env, run = {}, {}
    local trainer = control.trainer

    --- A file of the client, who may be in another folder than the run.
    local function at(name) return name:sub(1, 1) == "/" and name or client.folder .. "/" .. name end

    --- The file that a picture is for.
    local function place(name)
        if type(name) ~= "string" then refuse "the name of a file is text" end
        if not name:lower():find("%.png$") then refuse("'%s' does not end in .png, the form that is written", name) end
        return at(name)
    end

    local function check_options(options, known)
        if options ~= nil and type(options) ~= "table" then refuse "options are a table: { seed = 7 }" end
        for key in pairs(options or {}) do
            if not known[key] then
                local names = {}
                for name in pairs(known) do names[#names + 1] = name end
                table.sort(names)
                refuse("there is no option '%s' (%s)", tostring(key), table.concat(names, ", "))
            end
        end
        return options or {}
    end

    function client.refresh()
        run.trainer, run.G, run.D, run.ema = trainer, trainer.G, trainer.D, trainer.average and trainer.average.net
        run.step, run.path, run.config = trainer.step, trainer.folder.path, config_module.copy(trainer.config)
    end

    --- Does what must not be broken off in the middle.
    local function undivided(f, ...)
        control.critical = true
        local results = table.pack(pcall(f, ...))
        control.critical = false
        if not results[1] then refuse("%s", tostring(results[2])) end
        return table.unpack(results, 2, results.n)
    end

    local function set(field, value)
        local changes = undivided(function()
            local values = type(field) == "table" and config_module.flatten(field) or { { key = field, value = value } }
            return live.set(trainer, values)
        end)
        client.refresh()
        if #changes == 0 then return "no change" end
        local lines = {}
        for i, c in ipairs(changes) do lines[i] = ("%s from step %d on"):format(describe(c), c.step + 1) end
        return table.concat(lines, "\n")
    end
    env.set = set
    function run.set(_, ...) return set(...) end

    function env.status()
        local lines = { control:describe() }
        local row, steps = trainer.row, trainer.last or trainer.config.train.steps
        if row then
            local left = (steps - trainer.step) * trainer.config.train.batch / row["images_per_second"]
            lines[1] = ("%s, %s left"):format(lines[1], progress.duration(left))
            local names = {}
            for name in pairs(row) do
                if name:find("^gamma/") or name:find("^sigma/") then names[#names + 1] = name end
            end
            table.sort(names)
            for i, name in ipairs(names) do names[i] = ("%s %.4g"):format(name, row[name]) end
            lines[2] = table.concat(names, ", ")
        end
        for _, c in ipairs(trainer.changes) do lines[#lines + 1] = ("changed at step %d: %s"):format(c.step, describe(c)) end
        lines[#lines + 1] = #control.clients == 1 and "one client: you" or ("%d clients"):format(#control.clients)
        return table.concat(lines, "\n")
    end

    function env.pause(stay)
        if stay ~= nil and stay ~= "stay" then refuse 'pause() or pause "stay"' end
        if stay then control.stays = true else client.pauses = true end
        control.left = 0
        return control:describe()
    end

    function env.resume()
        control.stays, control.left = false, 0
        for _, other in ipairs(control.clients) do other.pauses = false end
        return control:describe()
    end

    function env.step(n)
        n = n == nil and 1 or math.type(n) and math.tointeger(n)
        if not n or n < 1 then refuse "step(n): a whole number from 1" end
        if not control.stays then client.pauses = true end
        control.left, client.asked_steps = n, true
    end

    function env.checkpoint()
        local path, message = undivided(trainer.save, trainer)
        if not path then refuse("%s", message) end
        return path
    end

    function env.stop()
        control.leaving = true
        return ("it stops after step %d and saves; the command that started it continues it"):format(trainer.step)
    end

    local function network(raw)
        local net = not raw and trainer.average and trainer.average.net or trainer.G
        return net:eval()
    end

    --- Writes a picture, or without a file returns it, to be shown.
    local function draw(path, picture)
        if not path then return picture end
        local ok, message = core.image.write(path, picture)
        if not ok then refuse("%s", message) end
        return ("%s: %dx%d, step %d"):format(path, picture:size(2), picture:size(1), trainer.step)
    end

    function env.samples(file, options)
        local path = file ~= nil and place(file)
        local o = check_options(options, { raw = true, seed = true, rows = true, columns = true, truncation = true })
        local usual = trainer.config.sample
        return draw(path, pictures.class_grid(network(o.raw), trainer.config, trainer.data.class_names, { seed = o.seed,
            truncation = o.truncation, rows = o.rows or usual.rows, columns = o.columns or usual.columns }))
    end

    --- The microscope on a live network.
    local function look(options)
        local o = {}
        for key, value in pairs(options) do o[key] = value end
        local letter, raw = o.net or "G", o.raw
        if letter ~= "G" and letter ~= "D" then refuse('net is "G" or "D", not %s', tostring(letter)) end
        local net = letter == "D" and trainer.D:eval() or network(raw)
        o.net, o.raw = nil, nil
        local files = type(o.image) == "string" and { o.image } or o.image
        if type(files) == "table" then
            o.image = {}
            for i, name in ipairs(files) do o.image[i] = type(name) == "string" and at(name) or name end
        end
        local step = trainer.step
        local a, message = microscope.open({ net = net, letter = letter, config = trainer.config, step = step,
            class_names = trainer.data.class_names, is_past = function() return trainer.step ~= step end,
            weights = (letter == "D" or net == trainer.G) and "raw" or "EMA" }, o)
        if not a then refuse("%s", message) end
        return a
    end

    function env.show(value, options)
        if type(value) == "string" then value = at(value) end
        control:show(client, value, check_options(options, { rows = true, columns = true, mode = true, colors = true }))
    end

    function env.attention(file, options)
        if type(file) == "table" then return look(file) end
        local path = file ~= nil and place(file)
        local o = check_options(options, { raw = true, seed = true, rows = true, feat = true })
        local net = network(o.raw)
        if not next(net.attention) then refuse "this generator has no attention" end
        if o.feat and not net.attention[o.feat] then refuse("this generator has no attention at feat%s", tostring(o.feat)) end
        local view = { net = net, letter = "G", config = trainer.config, class_names = trainer.data.class_names }
        return draw(path, microscope.class_sheet(view, { seed = o.seed, rows = o.rows, at = o.feat }))
    end

    function env.time_limit(seconds)
        if seconds ~= nil then
            local good = math.type(seconds) and seconds > 0 and seconds < math.huge
            if not good then refuse "time_limit(seconds): a number above 0" end
            client.limit = seconds
        end
        return client.limit
    end

    function env.help(name)
        if name == nil then
            print(PAGE)
        elseif name == "set" then
            for _, f in ipairs(live.list()) do
                print(("%-18s %s Now %s."):format(f.key, f.doc, config_module.literal(config_module.get(trainer.config, f.key))))
            end
        else
            require "sagan.help" (name)
        end
    end

    env.run, env.sagan = run, require "sagan"
    client.refresh()
    return setmetatable(env, { __index = _G })
end
