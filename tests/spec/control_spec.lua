-- Talking to a run: what clients can ask, and that nothing they do or leave undone harms or changes the run.

local core = require "sagan.core"
local system, socket = core.system, core.socket
local json = require "sagan.json"
local control_client = require "sagan.control_client"
local sagan = require "sagan"
local driver = require "driver"
local terminal = require "terminal"

local d = driver.new "control"
local LONG <const> = " threads=1 train.steps=1000000 checkpoint.every=0"

local function folder(root) return root .. "/tiny/seed-5" end

--- Starts a run and returns when it listens.
local function start(root, words)
    d:start(root, ("tiny.lua --runs %s%s %s"):format(root, LONG, words or ""))
    d:await("the socket of " .. root, function()
        return system.stat(d:at(folder(root) .. "/control.sock")) or system.stat(d:at(root .. ".code"))
    end)
end

--- A client that does not wait for answers without end: a run that hangs should say where.
local function connect(root)
    local client = assert(control_client.connect(d:at(folder(root))))
    local receive = client.receive
    function client:receive(seconds)
        local message, failure = receive(self, seconds < 0 and 120 or seconds)
        if seconds < 0 and not message and not failure then
            error(("%s: no answer in 120 s; it printed:\n%s"):format(root, d:read(root .. ".out")))
        end
        return message, failure
    end
    assert(client:greeting(60))
    return client
end

--- The value of a command that must succeed, and what it printed.
local function ask(client, code)
    local printed = {}
    local value, failure = client:ask(code, function(text) printed[#printed + 1] = text end)
    if not value then error(("%s: %s"):format(code, failure), 2) end
    return value, table.concat(printed)
end

--- The pictures that a command shows.
local function shown_by(client, code)
    local shown = {}
    assert(client:ask(code, nil, function(picture, text, options)
        shown[#shown + 1] = { picture = picture, text = text, options = options }
    end))
    return shown
end

local function step_of(client) return math.tointeger(tonumber((ask(client, "run.step")))) end

--- The error of a command that must fail.
local function refused(client, code)
    local value, failure = client:ask(code)
    assert.is_nil(value, code)
    assert.is_nil(client.ended, failure)
    return failure
end

local function stop(root, client)
    ask(client or connect(root), "stop()")
    local code, text = d:finish(root)
    assert.equal(130, code, text)
    return text
end

local CONNECT <const> = "$s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die;"

--- Runs Perl with a connection in $s: what it sends is no message unless it takes care. Prints what $s says, then ends.
local function raw(root, program)
    local text, code = d:shell(("perl -MIO::Socket::UNIX -e '%s %s' %s/control.sock"):format(CONNECT, program, folder(root)))
    assert.not_equal(124, code, text)
    return text
end

--- 1 MB that is no message: it announces more than is taken, or exactly what comes.
local RUBBISH <const> = "open R, q{/dev/urandom}; read R, $b, 1 << 20; print $s pack(q{V}, %s), $b; local $/; <$s>;"

local function frame(text) return ("print $s pack(%q, %d), q{%s};"):format("V", #text, text) end

describe("control", function()
    setup(function()
        d:experiment("tiny", [[train = { steps = 8, batch = 2, ema_start = 3 }, log = { every = 2 },
            sample = { every = 0, rows = 1, columns = 2, attention = false }, checkpoint = { every = 0, keep = 2 }]])
    end)
    teardown(function()
        d:shell "for p in *.pid; do kill -9 $(cat $p); done"
        d:remove()
    end)

    describe("commands", function()
        local client
        setup(function()
            start "live"
            client = connect "live"
        end)
        teardown(function() stop("live", client) end)

        it("see the run", function()
            local hello = client.hello
            assert.same({ "tiny", 5, 1000000, false }, { hello.name, hello.seed, hello.steps, hello.paused })
            assert.equal("2", ask(client, "1 + 1"))
            assert.equal("1\tnil\ttwo", ask(client, "return 1, nil, 'two'"))
            assert.equal("", ask(client, "x = 3"))
            assert.equal("3\t4", ask(client, "x, _ and 4 or 4"))
            assert.equal(d:at(folder "live"), d.root .. "/" .. ask(client, "run.path"))
            assert.equal("{4, 32, 32, 3}", ask(client, "run.G(sagan.zeros(4, 128), sagan.zeros({4}, {dtype='i32'})).shape"))
            assert.matches("^%d", ask(client, "run.D.slab:norm():item()"))
            assert.matches("^step %d+ of 1000000", ask(client, "status()"))
            assert.matches("one client: you", ask(client, "status()"))
            local value, printed = ask(client, "print('a', 1) io.write('b', 2, '\\n') return 5")
            assert.same({ "5", "a\t1\nb2\n" }, { value, printed })
            for _, word in ipairs { "pause", "set%(field", "Commands run in the training process" } do
                assert.matches(word, select(2, ask(client, "help()")))
            end
            local _, page = ask(client, "help 'set'")
            assert.matches("optimizer.lr_d +Learning rate of the discriminator. Now 0.0004", page)
            assert.matches("relu", (select(2, ask(client, "help 'relu'"))))
            assert.equal("", d:shell "grep -l 'a\t1' live.out")
        end)

        it("that fail say where, and the run and the connection go on", function()
            assert.equal("prompt:1: x\n    prompt:1: in function 'f'\n    prompt:1: in main chunk",
                refused(client, "local function f() error 'x' end f()"))
            assert.matches("unexpected symbol", refused(client, "x = = 1"))
            assert.matches("linear.*{2, 3}", refused(client, "sagan.zeros(2, 3):linear(sagan.zeros(4, 5))"))
            assert.matches("stop%(%) ends the run", refused(client, "os.exit(3)"))
            assert.matches("keyboard", refused(client, "io.read()"))
            assert.matches("'x.jpg' does not end in .png", refused(client, "samples 'x.jpg'"))
            assert.matches("/none/x.png: cannot create", refused(client, "samples '/none/x.png'"))
            assert.matches("no option 'sed' %(columns, raw", refused(client, "samples('x.png', { sed = 3 })"))
            assert.matches("whole number from 1", refused(client, "step(0)"))
            assert.equal("2", ask(client, "1 + 1"))
        end)

        it("have globals of their own", function()
            local other <close> = connect "live"
            ask(client, "mine = 1 print = nil")
            assert.equal("nil", ask(other, "mine"))
            assert.equal("ok\n", (select(2, ask(other, "print 'ok'"))))
            assert.matches("2 clients", ask(other, "status()"))
        end)

        it("end when they take too long, and when they are interrupted", function()
            assert.matches("it took more than 0.05 s", refused(client, "time_limit(0.05) while true do end"))
            assert.matches("it took more than 0.05 s", refused(client, "while true do pcall(function() while 1 do end end) end"))
            assert.equal("60", ask(client, "time_limit(60)"))
            client.id = client.id + 1
            assert(client.socket:send(json.encode { id = client.id, run = "print 'on' while true do end" }))
            assert(client:receive(60).out)
            client:interrupt()
            assert.matches("prompt:1: interrupted", select(2, client:result()))
            assert.equal("2", ask(client, "1 + 1"))
        end)

        it("complete names of the run", function()
            ask(client, "my_name = 1")
            assert.equal("me", (client:complete("my_na", 60)))
            assert.equal("fig", (client:complete("run.con", 60)))
            assert.equal("mary", (client:complete("run.G:sum", 60)))
            assert.matches("save +samples", (select(2, client:complete("sa", 60)) or ""):gsub("sagan +", "save "))
        end)

        it("hold the run, do single steps, let it go on", function()
            assert.matches("paused", ask(client, "pause()"))
            local step = step_of(client)
            assert.equal(step, step_of(client))
            assert.matches(("^step %d of .*, paused$"):format(step + 1), ask(client, "step()"))
            assert.matches(("^step %d of .*, paused$"):format(step + 4), ask(client, "step(3)"))
            local other = connect "live"
            assert.is_true(other.hello.paused)
            assert.equal(step + 4, other.hello.step)
            ask(other, "pause()")
            ask(client, "resume()")
            d:await("a step", function() return step_of(client) > step + 4 end)
            -- whoever holds the run and leaves, or dies, lets it go on
            ask(other, "pause()")
            step = step_of(client)
            other:close()
            d:await("a step", function() return step_of(client) > step end)
            -- but for those who ask for more
            assert.matches("paused", d:succeeds("attach " .. folder "live" .. [[ -e 'pause "stay"']]))
            step = step_of(client)
            assert.matches("paused", ask(client, "status()"))
            assert.equal(step, step_of(client))
            ask(client, "resume()")
        end)

        it("draw what the run itself draws, and save", function()
            ask(client, "pause()")
            local own = (ask(client, "(run.trainer:draw())"))
            assert.matches("x%d+, step %d+$", ask(client, ("samples %q"):format(d:at "mine.png")))
            assert.is_true(d:read "mine.png" == d:read(own))
            local text = d:succeeds("attach " .. folder "live"
                .. " -e 'samples(\"raw.png\", { raw = true })' -e 'attention \"attention.png\"'")
            assert.matches("/raw.png: ", text)
            assert.is_true(d:read "raw.png" == d:read((own:gsub("ema%-", "raw-"))))
            assert.is_truthy(system.stat(d:at "attention.png"))
            local info = assert(require("sagan.checkpoint").info(d:at((ask(client, "checkpoint()")))))
            assert.equal(step_of(client), info.step)
            ask(client, "resume()")
        end)

        it("show pictures where the client is", function()
            local code = "1, sagan.image.blank(8, 9, 3, { 7, 8, 9 }), 'after', 2"
            local shown = shown_by(client, code)
            assert.same({ "after\t2", "1\n" }, { ask(client, code) })
            assert.equal(1, #shown)
            assert.same({ 8, 9, 3 }, shown[1].picture.shape)
            assert.equal(("\7\8\9"):rep(72), shown[1].picture:bytes())
            assert.equal("picture 9 x 8 RGB", shown[1].text)
            assert.equal("8", ask(client, "_ == 1 and 8"))
            shown = shown_by(client, "show(sagan.zeros(4, 5), { rows = 3 })")
            assert.same({ "map 5 x 4", { rows = 3 } }, { shown[1].text, shown[1].options })
            ask(client, "pause()")
            local own = assert(core.image.read(d:at((ask(client, "(run.trainer:draw())")))))
            for _, asked in ipairs { "samples()", ("show %q"):format(d:at "mine.png") } do
                ask(client, ("samples %q"):format(d:at "mine.png"))
                shown = shown_by(client, asked)
                assert.equal(1, #shown)
                assert.is_true(own:bytes() == shown[1].picture:bytes())
            end
            ask(client, "resume()")
            assert.matches("a table is no picture", refused(client, "show(_G)"))
            assert.matches("no option 'row'", refused(client, "show(sagan.zeros(8, 8), { row = 1 })"))
            assert.matches("/none.png: cannot open", refused(client, "show '/none.png'"))
            assert.matches("more than 3 MiB of text or pictures", refused(client,
                "show(sagan.ops.uniform(sagan.empty{1500, 1500, 3}, sagan.zeros({2}, {dtype='i32'}), 1, 1))"))
        end)

        it("look at the live networks through the microscope, as at a checkpoint's", function()
            d:await("the average", function() return step_of(client) > 5 end)
            ask(client, "pause()")
            local path, image = d:at((ask(client, "checkpoint()"))), d:at "seen.png"
            assert(core.image.write(image, core.image.blank(32, 32, 3, { 10, 200, 90 })))
            local saved = assert(sagan.open(path))
            for code, a in pairs {
                ["attention { class = 2, seed = 3 }"] = saved.G:attention { class = 2, seed = 3 },
                ["attention { class = 4, raw = true }"] = saved:net("G", { raw = true }):attention { class = 4 },
                [("attention { net = 'D', image = %q, class = 3 }"):format(image)] =
                    saved.D:attention { image = image, class = 3 },
            } do
                assert.equal(tostring(a), (ask(client, code)))
                local shown = shown_by(client, "_:sheet { size = 64 }")
                assert.is_true(a:sheet({ size = 64 }):bytes() == shown[1].picture:bytes())
            end
            assert.matches("the output changes by", (ask(client, "a = attention { class = 2 } return a:knockout { 'gamma0' }")))
            local map = ask(client, "a:map({ 3, 4 }):bytes()")
            ask(client, "step()")
            assert.equal(map, (ask(client, "a:map({ 3, 4 }):bytes()")))
            assert.matches("the network has trained on since step %d+", refused(client, "a:knockout { 'gamma0' }"))
            ask(client, "resume()")
            assert.matches("there is no 'spoon'", refused(client, "attention { class = 'spoon' }"))
            assert.matches("outside of G.attention16's map", refused(client, "attention({}):map { y = 1, x = 17 }"))
            assert.matches('net is "G" or "D", not E', refused(client, "attention { net = 'E' }"))
            assert.matches("none.png: cannot open", refused(client, "attention { net = 'D', image = 'none.png' }"))
        end)

        local on_terminal = terminal.is_here() and it or function(name) pending(name .. " (needs tmux)") end
        on_terminal("are typed at a prompt that has the commands of the other", function()
            local program = d:shell('realpath "$SAGAN"'):match "[^\n]+"
            local line = ("'%s' attach %s; echo ended with $?; read line"):format(program, folder "live")
            local s <close> = terminal.open(d.root, line, { "XDG_STATE_HOME=" .. d:at "state", "SAGAN_PICTURES=half" })
            s:shows "Ctrl-D leaves\n>\n"
            s:type "run.G.blo"
            s:press "Tab"
            s:type "1.full"
            s:press("Tab", "Enter")
            s:shows "\nG.block1\n"
            s:enter ':save "none.png"'
            s:shows "no picture has been shown yet"
            s:enter "sagan.image.blank(16, 32, 3, { 200, 16, 32 })"
            s:shows "\npicture 32 x 16 RGB\n"
            s:enter ':save "shown.png"'
            s:shows "\nwrote shown.png, 32 x 16\n"
            s:enter ":save 'map.png' run.G.conv.weight:reshape(-1, 9)"
            s:shows "\nwrote map.png, 9 x"
            s:enter ":save 'x.png' error 'broken'"
            s:shows "\nprompt:1: "
            s:enter ":time 2 + 3"
            s:shows "\n5\n"
            s:shows " s\n>\n"
            s:type ":qu"
            s:press("Tab", "Enter")
            s:shows "\nended with 0\n"
            local shown = assert(core.image.read(d:at "shown.png"))
            assert.equal(("\200\16\32"):rep(16 * 32), shown:bytes())
        end)

        it("come from a shell too", function()
            local words = "attach " .. folder "live"
            assert.equal("2\n", d:succeeds("attach live/tiny -e 'return 2'"))
            local text, code = d:run(words .. " -e 'error [[x]]' -e 'print(1)'")
            assert.equal(1, code)
            assert.matches("^sagan%-lua attach: %(?.*x", text)
            local lines = [[x = 4\nx\nfor i = 1, 2 do\nprint(i)\nend\nerror [=[no]=]\n_ + 1\n]]
            text = d:shell(("printf '%s' | \"$SAGAN\" %s"):format(lines, words))
            assert.matches("^4\n1\n2\n", (text:gsub("prompt:[^\n]*\n    [^\n]*\n", "")))
            assert.matches("prompt:1: no", text)
            assert.matches("\n5\n", text)
            d:refuses("attach", { "which run?" })
            d:refuses("attach a b", { "'b' is a second one" })
            d:refuses("attach --hlep", { "--hlep" })
            d:refuses("attach nowhere", { "nowhere: no such run folder" })
            d:refuses("attach /tmp", { "/tmp: not a run folder" })
            assert.matches("Examples\n  sagan%-lua attach", d:succeeds "attach --help")
        end)
    end)

    describe("survives", function()
        local client
        setup(function()
            start "tough"
            client = connect "tough"
        end)
        teardown(function() stop("tough", client) end)

        local function lives()
            local step = step_of(client)
            d:await("a step", function() return step_of(client) > step end)
        end

        it("a client of another version", function()
            local text = raw("tough", frame '{"protocol":"sagan-lua control","version":99}' .. "local $/; print <$s>;")
            assert.matches("version 99 of the protocol, this program version 1", text)
            text = raw("tough", frame('{"protocol":"other"}') .. "local $/; print <$s>;")
            assert.matches("no part of sagan%-lua", text)
            lives()
        end)

        it("a run of another version, and what is no run, say so to a client", function()
            local function answers(bytes, wanted)
                local listener <close> = assert(socket.listen(d:at "fake/control.sock"))
                local other <close> = assert(control_client.connect(d:at "fake"))
                local peer <close> = assert(listener:accept())
                assert(peer:send(bytes))
                local hello, failure = other:greeting(60)
                assert.is_nil(hello)
                assert.matches(wanted, failure)
            end
            assert(system.mkdir(d:at "fake"))
            answers('{"protocol":"sagan-lua control","version":2}', "fake: it speaks version 2 of the protocol, this program version")
            answers('{"protocol":"x"}', "no part of sagan%-lua")
            answers("hello", "fake: what answers at its socket is no run of sagan%-lua")
        end)

        it("rubbish, half messages and silence", function()
            raw("tough", RUBBISH:format "0xfffffff0")
            raw("tough", RUBBISH:format "length $b")
            raw("tough", "print $s pack(q{V}, 100), q{half}; $s->flush;")
            raw("tough", frame "[1, 2" .. "local $/; <$s>;")
            raw("tough", frame "12" .. "local $/; <$s>;")
            local hello = '{"protocol":"sagan-lua control","version":1}'
            for _, message in ipairs { "{}", '{"id":1}', '{"id":"x","run":"1"}', '{"id":1,"run":1}', "[]", "null" } do
                raw("tough", frame(hello) .. frame(message) .. "local $/; <$s>;") -- ends, so the run ended the connection
            end
            -- half a greeting, and one that never comes, stay open
            local program = CONNECT .. "print $s pack(q{V}, 100), q{half}; $s->flush; <STDIN>"
            local command = ("cd '%s'; perl -MIO::Socket::UNIX -e '%s' %s/control.sock"):format(d.root, program, folder "tough")
            local silent, half = {}, assert(io.popen(command, "w"))
            for i = 1, 5 do silent[i] = assert(socket.connect(d:at(folder "tough" .. "/control.sock"))) end
            lives()
            for _, peer in ipairs(silent) do peer:close() end
            half:close()
            lives()
        end)

        it("clients that do not read, and too many of them", function()
            local deaf = connect "tough"
            local flood = json.encode { id = 1, run = "for i = 1, 1e6 do print(('x'):rep(1000)) end" }
            assert(deaf.socket:send(flood))
            lives()
            local text
            deaf.id = 1
            local answer = assert(deaf:answer(nil, 60))
            assert.matches("3 MiB of text or pictures that its client has not read", answer.error)
            -- one that asks on and on without reading is let go
            d:await("the end of a deaf client", function()
                local ok, message = deaf.socket:send(json.encode { id = 2, run = "('x'):rep(1 << 20)" })
                text = message
                return not ok
            end)
            assert.is_string(text)
            deaf:close()
            lives()
            local crowd = {}
            for i = 1, 31 do crowd[i] = connect "tough" end
            local last <close> = assert(control_client.connect(d:at(folder "tough")))
            local hello, reason = last:greeting(60)
            assert.is_nil(hello)
            assert.matches("32 clients are there already", reason)
            for _, one in ipairs(crowd) do one:close() end
            lives()
            connect("tough"):close()
        end)

        it("being held when Ctrl-C comes", function()
            start "held"
            local holder = connect "held"
            ask(holder, [[pause "stay"]])
            local step = step_of(holder)
            d:signal("held", "INT")
            local code, text = d:finish "held"
            assert.equal(130, code)
            assert.matches(("stopped at step %d after"):format(step), text, 1, true)
            local value, failure = holder:ask "1"
            assert.is_nil(value)
            assert.matches(("it ended at step %d: interrupted"):format(step), failure, 1, true)
            assert.is_nil(system.stat(d:at(folder "held" .. "/control.sock")))
        end)

        it("Ctrl-C while a command runs", function()
            start "busy"
            local busy = connect "busy"
            busy.id = 1
            assert(busy.socket:send(json.encode { id = 1, run = "print 'on' while true do end" }))
            assert(busy:receive(60).out)
            d:signal("busy", "INT")
            assert.matches("interrupted: the run stops", select(2, busy:result()))
            assert.equal(130, (d:finish "busy"))
        end)
    end)

    describe("the socket", function()
        it("is private, and control=false makes none", function()
            start "private"
            local mode = d:shell("umask; stat -c %a:%F " .. folder "private" .. "/control.sock")
            assert.matches("\n600:socket\n", mode)
            stop "private"
            d:start("quiet", "tiny.lua --runs quiet control=false" .. LONG)
            d:await("training", function() return d:read("quiet.out"):find("train ", 1, true) end)
            d:refuses("attach quiet/tiny", { "quiet/tiny/seed-5: the run does not listen", "control=false" })
            assert.is_nil(system.stat(d:at(folder "quiet" .. "/control.sock")))
            d:signal("quiet", "KILL")
            d:finish "quiet"
            d:refuses("attach quiet/tiny", { "quiet/tiny/seed-5: no process trains here (sagan-lua status" })
            -- the field is no part of what makes two runs the same experiment
            assert.matches("done ", d:succeeds "tiny.lua --runs quiet train.steps=2")
        end)

        it("of a dead process is recognised and replaced", function()
            start "dead"
            d:signal("dead", "KILL")
            d:finish "dead"
            assert.is_truthy(system.stat(d:at(folder "dead" .. "/control.sock")))
            d:refuses("attach dead/tiny", { "dead/tiny/seed-5: no process trains here any more", "continues it" })
            os.remove(d:at "dead.code")
            start "dead"
            local client = d:await("the new socket", function() return control_client.connect(d:at(folder "dead")) end)
            assert.equal("1", ask(client, "1"))
            stop("dead", client)
        end)

        it("may lie deep", function()
            local root = "deep/" .. ("d"):rep(90) .. "/" .. ("e"):rep(90)
            d:start("deep", ("tiny.lua --runs %s%s"):format(root, LONG))
            d:await("the deep socket", function() return system.stat(d:at(folder(root) .. "/control.sock")) end)
            assert.equal("7\n", d:succeeds("attach " .. root .. "/tiny -e 7"))
            d:succeeds("attach " .. root .. "/tiny -e 'stop()'")
            assert.equal(130, (d:finish "deep"))
        end)

        it("that cannot be made is a warning; the run goes on", function()
            d:write(folder "blocked" .. "/control.sock", "mine")
            local text = d:succeeds "tiny.lua --runs blocked"
            assert.matches("warning  sagan%-lua attach cannot reach this run: .*something other than a socket", text)
            assert.matches("done     step 8", text)
            assert.equal("mine", d:read(folder "blocked" .. "/control.sock"))
        end)

        it("of the seed that trains is found", function()
            d:succeeds "tiny.lua --runs seeds seed=4 train.steps=1"
            start "seeds"
            assert.equal("5\n", d:succeeds "attach seeds/tiny -e 'run.config.seed'")
            d:refuses("attach seeds/tiny/seed-4 -e 1", { "no process trains here" })
            stop "seeds"
        end)
    end)

    -- What a client may do to look at a run, and what it may do wrong, fifty times over. None of it writes into weights.
    local LOOKS <const> = {
        "status()", "run.G(sagan.zeros(4, 128), sagan.zeros({4}, {dtype='i32'})):mean():item()", "math.random()",
        "run.D:train() return run.D(sagan.zeros(4, 32, 32, 3), sagan.zeros({4}, {dtype='i32'})):mean():item()",
        "run.G.attention[16].bypass = true", "run.G:freeze() run.D:freeze()", "run.G:eval() run.D:eval()",
        "local y = sagan.zeros({2}, {dtype='i32'}) run.D(run.G(sagan.zeros(2, 128), y), y):mean():backward()"
            .. " return run.G.slab.grad:norm():item()",
        "samples('%s/load.png')", "samples('%s/load.png', { raw = true, seed = 9 })", "attention('%s/load.png', { rows = 1 })",
        "sagan.winograd(false)", "run.G:reset_buffers() error 'after a look'", "keep = run.D.slab:clone()",
        "sagan.no_grad(function() error 'inside' end)", "run.trainer:measure(1)",
        "run.G.update_statistics = false run.D.recompute = true",
        "for i = 1, 100 do print(i, ('y'):rep(100)) end", "require('sagan.measurements').not_finite(run.trainer)", "x = = 1",
    }

    it("under load leaves every bit of the run as it is: three clients, 1000 commands, one killed, 1 MB of rubbish", function()
        start "load"
        local clients, sent, answered, failed = { connect "load", connect "load", connect "load" }, 0, 0, 0
        local ahead = { 0, 0, 0 } -- each client asks for up to eight things before it reads an answer
        local killed, rubbish
        local stop_at = system.now() + 240
        while answered < 1000 do
            if system.now() > stop_at then error(("%d of 1000 commands are answered after 240 s"):format(answered)) end
            for i, client in ipairs(clients) do
                while ahead[i] < 8 and sent < 1000 do
                    sent, ahead[i] = sent + 1, ahead[i] + 1
                    assert(client.socket:send(json.encode { id = sent, run = LOOKS[sent % #LOOKS + 1]:format(d.root) }))
                end
                local message, failure = client:receive(0.002)
                assert.is_nil(failure)
                if message and message.done then
                    answered, ahead[i] = answered + 1, ahead[i] - 1
                    failed = failed + (message.error and 1 or 0)
                end
            end
            if answered > 300 and not killed then
                d:start("killed", "attach load/tiny -e 'print(1) while true do end'")
                d:await("a command that runs", function() return d:read("killed.out"):find("1", 1, true) end)
                d:signal("killed", "KILL")
                killed = true
            elseif answered > 600 and not rubbish then
                raw("load", RUBBISH:format "0xfffffff0")
                rubbish = true
            end
        end
        assert.equal(150, failed) -- those three of the twenty that are wrong
        assert.equal(137, (d:finish "killed"))
        local last = tonumber((ask(clients[1], "set('train.steps', run.step + 2) return run.config.train.steps")))
        local code, text = d:finish "load"
        assert.equal(0, code, text)
        assert(last > 3, last)

        d:succeeds(("tiny.lua --runs alone threads=1 train.steps=%d"):format(last))
        local file = ("/checkpoints/step-%08d.safetensors"):format(last)
        assert.equal("", d:differing(folder "alone" .. file, folder "load" .. file))
        local function losses(root)
            local lines = {}
            for _, row in ipairs(d:log(folder(root))) do
                row.images_per_second = nil
                if not row.event then lines[#lines + 1] = json.encode(row) end
            end
            return table.concat(lines, "\n")
        end
        assert.equal(losses "alone", losses "load")
    end)
end)
