-- The prompt as a user meets it: in a terminal, key by key, and without one.
local core = require "sagan.core"
local driver = require "driver"
local terminal = require "terminal"
local system = core.system

describe("the prompt", function()
    local folder = driver.new "prompt"
    local program = io.popen(("realpath '%s'"):format(driver.program)):read("l")
    teardown(function() folder:remove() end)

    --- Without tmux these are not passed but pending.
    local on_terminal = terminal.is_here() and it or function(name) pending(name .. " (needs tmux)") end

    local open = {}
    after_each(function()
        for _, session in ipairs(open) do session:close() end
        open = {}
    end)

    --- A session with the prompt in front of it. state: where the history is kept.
    local function session(state, ...)
        local s = terminal.open(folder.root, ("'%s'; echo ended with $?; read line"):format(program),
            { "XDG_STATE_HOME=" .. folder:at(state or "state"), ... })
        open[#open + 1] = s
        s:shows "Ctrl-D leaves\n>\n"
        return s
    end

    on_terminal("prints values and goes on after errors, which have a traceback", function()
        local s = session()
        s:enter "x = 6 * 7"
        s:enter "x, x / 2, 'text'"
        s:shows "\n42\t21.0\ttext\n"
        s:enter "function f() error 'broken' end"
        s:enter "f()"
        s:shows "\nprompt:1: broken\n    prompt:1: in function 'f'\n    prompt:1: in main chunk\n>\n"
        s:enter "sagan.zeros(2, 3):linear(sagan.zeros(4, 5))"
        s:shows "\nprompt:1: linear(x {2, 3}, w {4, 5}): the last dimension of x is 3"
        s:enter "x = = 1"
        s:shows "unexpected symbol near '='"
        s:enter "_ + 1"
        s:shows "\n43\n"
        s:enter "sagan.arange(100)"
        s:shows "\nmin 0  max 99  mean 49.5  std 28.87  █"
        s:press "C-d"
        s:shows "\nended with 0\n"
    end)

    on_terminal("takes inputs of several lines, pasted ones whole", function()
        local s = session()
        s:enter "for i = 1, 3 do"
        s:shows "\n>>\n"
        s:enter "print('turn', i)"
        s:enter "end"
        s:shows "\nturn\t3\n>\n"
        -- the tab completes nothing, and nothing runs before Enter
        s:paste "for i = 1, 2 do\n\tprint('pasted', i)\nend\n"
        s:shows "\nend\n"
        assert.is_nil(s:screen():find("\npasted", 1, true))
        s:press "Enter"
        s:shows "\npasted\t1\npasted\t2\n>\n"
        s:press "Up"
        s:type " print 'again'"
        s:shows "\nend print 'again'\n"
        s:press "Enter"
        s:shows "\npasted\t1\npasted\t2\nagain\n>\n"
    end)

    on_terminal("keeps its history for later sessions, and of several at a time", function()
        local a, b = session "shared", session "shared"
        a:enter "first = 1"
        a:enter "t = { -- a comment\n1 }"
        a:shows "\n>> 1 }\n>\n"
        b:enter "second = 2"
        b:shows "> second = 2\n>\n"
        b:enter "first = 1"
        a:enter ":quit"
        b:press "C-d"
        a:shows "\nended with 0\n"
        b:shows "\nended with 0\n"
        assert.equal("600\n", (folder:shell "stat -c %a shared/sagan-lua/history"))

        local c = session "shared"
        c:press "Up"
        c:shows "\n> :quit\n"
        c:press "Up"
        c:shows "\n> first = 1\n"
        c:press "Up"
        c:shows "\n> second = 2\n"
        c:press "Up"
        c:shows "\n> t = { -- a comment\n1 }\n"
        c:press("Enter", "Up", "Up", "Up", "Up", "Up") -- what was run again is the newest, and nowhere else
        c:shows "\n> second = 2\n"
        c:press "C-c"
        c:enter "t[1] + 10"
        c:shows "\n11\n"
        c:press "C-r"
        c:type "seco"
        c:shows "second = 2"
    end)

    on_terminal("completes names, fields, methods, keywords, files, commands", function()
        folder:write("data/pictures.bin", "")
        folder:write("data/pictures.txt", "")
        local s = session()
        s:type "sagan.ops.conv2"
        s:press "Tab"
        s:shows "\n> sagan.ops.conv2d\n"
        s:type "("
        s:press "Tab"
        s:shows "\nsagan.ops.conv2d(x, w, b?, residual?, sigma?, stride=1, pad_h=0, pad_w=0, relu=false) -> y\n"
        s:press "C-c"
        s:enter "x = sagan.zeros(2)"
        s:type "x:soft"
        s:press("Tab", "Tab")
        s:shows "\nsoftmax   softplus\n> x:soft\n"
        s:type "p"
        s:press "Tab"
        s:type "().sh"
        s:press "C-c"
        s:type "x.sh"
        s:press "Tab"
        s:shows "\n> x.shape\n"
        s:press "C-c"
        s:type "io.open('da"
        s:press "Tab"
        s:type "p"
        s:press("Tab", "Tab")
        s:shows "\npictures.bin  pictures.txt\n> io.open('data/pictures.\n"
        s:type "t"
        s:press "Tab"
        s:shows "\n> io.open('data/pictures.txt'\n"
        s:press "C-c"
        s:type "ret"
        s:press "Tab"
        s:shows "\n> return\n"
        s:press "C-c"
        s:type ":sa"
        s:press "Tab"
        s:type "z.png"
        s:shows "\n> :save z.png\n"
    end)

    --- Cells of the lines after one that ends in `after`: for each the colour that fills it, "r;g;b".
    local function colors_below(screen, after, lines)
        local rows, at = {}, select(2, screen:find(after .. "[^\n]*\n"))
        for line in screen:sub(at + 1):gmatch("([^\n]*)\n") do
            if #rows == lines then break end
            local row, fg, bg, reverse = {}, nil, nil, false
            local i = 1
            while i <= #line do
                local codes = line:match("^\27%[([%d;]*)m", i)
                if codes then
                    if codes == "" or codes == "0" then fg, bg, reverse = nil, nil, false end
                    reverse = reverse or codes == "7"
                    fg = codes:match("38;2;(%d+;%d+;%d+)") or fg
                    bg = codes:match("48;2;(%d+;%d+;%d+)") or bg
                    i = i + #codes + 3
                else
                    local char = line:match("^[%z\1-\127\194-\244][\128-\191]*", i)
                    -- a whole cell of one colour, or two halves that are equal
                    row[#row + 1] = char == " " and (reverse and fg or bg) or char == "█" and fg or fg == bg and fg or "mixed"
                    i = i + #char
                end
            end
            rows[#rows + 1] = row
        end
        return rows
    end

    local function shows_the_picture(mode)
        local s = session("state", "SAGAN_PICTURES=" .. mode)
        s:enter "red, blue = sagan.image.blank(16, 16, 3, {200, 16, 32}), sagan.image.blank(16, 32, 3, {0, 64, 255})"
        s:enter "sagan.image.paste(blue, red, 1, 1)"
        s:shows "\npicture 32 x 16 RGB\n"
        s:enter "'after the picture'"
        s:shows "\nafter the picture\n"
        local rows = colors_below(s:screen(true), "picture 32 x 16 RGB", 16)
        assert.equal(16, #rows)
        for _, row in ipairs(rows) do
            for x = 1, 64 do
                -- where the colours meet, symbols may share a cell and half blocks mix
                if x < 32 or x > 33 then assert.equal(x < 32 and "200;16;32" or "0;64;255", row[x]) end
            end
        end
        return s
    end

    on_terminal("shows pictures as half blocks", function() shows_the_picture "half" end)

    local with_library = core.terminal_picture.detect().library and on_terminal
        or function(name) pending(name .. " (needs libchafa)") end
    with_library("shows pictures by libchafa, as symbols where tmux passes no pixels on", function()
        local s = shows_the_picture ""
        s:enter "sagan.terminal_picture.detect().mode"
        s:shows "\nsymbols\n"
        s:enter "show(_G)"
        s:shows "a table is no picture"
    end)

    on_terminal("saves the last picture, or any", function()
        local s = session()
        s:enter ':save "early.png"'
        s:shows "no picture has been shown yet"
        s:enter "image = sagan.image.blank(9, 12, 1, 77)"
        s:enter "image"
        s:shows "\npicture 12 x 9 grey\n"
        s:enter ':save "last.png"'
        s:shows "\nwrote last.png, 12 x 9\n"
        s:enter ":save 'map.png' sagan.zeros(8, 10)"
        s:shows "\nwrote map.png, 10 x 8\n"
        s:enter ":save x.jpg"
        s:shows "x.jpg: pictures are written as PNG, so the name ends in .png"
        s:enter ":sav x.png"
        s:shows ":sav is no command (did you mean :save?); :help lists them"
        local last, map = assert(core.image.read(folder:at "last.png")), assert(core.image.read(folder:at "map.png"))
        assert.same({ 9, 12, 1 }, last.shape)
        assert.equal(string.char(77):rep(9 * 12), last:bytes())
        assert.same({ 8, 10, 3 }, map.shape)
        last:release()
        map:release()
    end)

    on_terminal("stops what runs at Ctrl-C, and goes on", function()
        local s = session()
        s:enter "print 'endless' while true do end"
        s:shows "\nendless\n"
        s:press "C-c"
        s:shows "\nprompt:1: interrupted\n    prompt:1: in main chunk\n>\n"
        s:enter "x = sagan.ones(300, 300)"
        s:enter "print 'engine' for i = 1, 1e9 do sagan.scope(function() x:matmul(x) end) end"
        s:shows "\nengine\n"
        s:press "C-c"
        s:enter "'alive'"
        s:shows "\nalive\n"
        -- a loop that nothing leaves to the main thread of Lua
        s:enter "for f in coroutine.wrap(function() print 'coroutine' while true do end end) do end"
        s:shows "\ncoroutine\n"
        s:press "C-c"
        s:enter "print 'resume' coroutine.resume(coroutine.create(function() while true do end end))"
        s:shows "\nresume\n"
        s:press "C-c"
        -- what swallows the error has to be stopped again; no number of Ctrl-C ends the program
        s:enter "for i = 1, 3 do print('turn ' .. i) pcall(function() while true do end end) end print 'out'"
        for turn = 1, 3 do
            s:shows(("turn %d\n"):format(turn)) -- after "^C"
            s:press "C-c"
        end
        s:shows "out\n>\n"
        local _, stopped = s:screen():gsub("interrupted", "")
        assert.equal(3, stopped) -- endless, engine, wrap; resume and pcall keep the error to themselves
    end)

    on_terminal("clears the line at Ctrl-C", function()
        local s = session()
        s:type "1 + nonsense"
        s:shows "> 1 + nonsense"
        s:press "C-c 5 + 5 Enter" -- at once: what comes after Ctrl-C belongs to the new line
        s:shows "\n10\n"
        s:enter "for i = 1, 2 do"
        s:shows "\n>>\n"
        s:press "C-c"
        s:enter "20 + 2"
        s:shows "\n22\n"
        assert.is_nil(s:screen():find("attempt to", 1, true))
    end)

    on_terminal("comes back after Ctrl-Z", function()
        local s = terminal.open(folder.root, "PS1='$ ' exec bash --norc -i", { "XDG_STATE_HOME=" .. folder:at "state" })
        open[#open + 1] = s
        s:shows "\n$\n"
        s:enter(("'%s'"):format(program))
        s:shows "Ctrl-D leaves\n>\n"
        s:press "C-z"
        s:shows "Stopped"
        s:enter "fg"
        s:enter "print('back', 1 + 1)"
        s:shows "\nback\t2\n"
    end)

    it("works without a terminal", function()
        folder:write("session.txt", [[
1 + 1
for i = 1, 2 do
print("line", i)
end
error("broken")
sagan.image.blank(8, 8, 3)
:save "piped.png"
:time 5
:help
help "relu"
"still here"
:quit
"not here"
]])
        local text, code = folder:shell("XDG_STATE_HOME=$PWD/none $SAGAN -i < session.txt")
        assert.equal(0, code)
        for _, line in ipairs { "2", "line\t1", "line\t2", "prompt:1: broken", "picture 8 x 8 RGB", "wrote piped.png, 8 x 8", "5",
            "sagan.ops.relu(x) -> y", "still here" } do
            assert(("\n" .. text):find("\n" .. line .. "\n", 1, true), line .. " is missing in\n" .. text)
        end
        assert.matches("\n[%d.e-]+ s\n", text)
        assert.matches("\n:time CODE +runs", text)
        assert.is_nil(text:find("not here", 1, true))
        assert.is_nil(text:find("\27", 1, true)) -- nothing for a terminal
        assert.is_nil(system.stat(folder:at "none")) -- and no history
    end)
end)
