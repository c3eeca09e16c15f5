-- The parts of the prompt, each by itself: how values are written, what Tab offers, the history on disk.
local core = require "sagan.core"
local sagan = require "sagan"
local helper = require "helper"
local driver = require "driver"
local system = core.system
local values = require "sagan.prompt.values"
local complete = require "sagan.prompt.complete"
local history = require "sagan.prompt.history"
local commands = require "sagan.prompt.commands"

describe("values at the prompt", function()
    setup(helper.start)
    teardown(helper.finish)

    it("are written nested, with sorted keys", function()
        assert.equal("{}", values.text {})
        assert.equal('{1, "two", {3, {4}}, [10] = 0, a = {x = 1}, b = true, ["c d"] = 2.5, [false] = 1}',
            values.text { 1, "two", { 3, { 4 } }, b = true, a = { x = 1 }, ["c d"] = 2.5, [false] = 1, [10] = 0 })
        assert.equal("text", values.text "text") -- alone as it is, in a table quoted
        assert.equal('{"a\\nb", "\\"q\\""}', values.text { "a\nb", '"q"' })
        assert.equal("nil", values.text(nil))
        assert.equal("{f = function(a, b, ...), p = function}",
            values.text { f = function(a, b, ...) return a, b, ... end, p = print })
        assert.equal("{t = tensor {2} f32 cpu}", values.text { t = core.zeros(2) })
        assert.matches("^sagan.zeros%(shape, options%?%)", values.text(core.zeros))
    end)

    it("have limits", function()
        local long = {}
        for i = 1, 100 do long[i] = i end
        local text = values.text(long)
        assert.matches("^{1, 2, .*20, %.%.%. %(100 in all%)}$", text)
        assert.equal('{"' .. ("ä"):rep(28) .. '..."}', values.text { ("ä"):rep(50) })
        local deep = {}
        local top = deep
        for _ = 1, 50 do
            deep.next = {}
            deep = deep.next
        end
        assert.equal("{next = {next = {next = {next = {next = {...}}}}}}", values.text(top))
        local wide = {}
        for i = 1, 20 do
            wide[i] = {}
            for j = 1, 20 do wide[i][j] = { tostring(i), name = ("word "):rep(12) } end
        end
        local _, newlines = values.text(wide):gsub("\n", "")
        assert.is_true(newlines < 30)
    end)

    it("may hold themselves, and need not be polite", function()
        local t = { name = "t" }
        t.self, t.list = t, { t }
        assert.equal('{list = {(a table above)}, name = "t", self = (a table above)}', values.text(t))
        local shared = { 1 }
        assert.equal("{{1}, {1}}", values.text { shared, shared }) -- twice is no cycle
        assert.equal("my own\nwords", values.text(setmetatable({}, { __tostring = function() return "my own\nwords" end })))
        assert.equal("{my own}", values.text { setmetatable({}, { __tostring = function() return "my own\nwords" end }) })
        local rude = setmetatable({ 1 }, { __index = error, __pairs = error, __len = error })
        assert.equal("{1}", values.text(rude))
    end)
end)

describe("completion", function()
    local folder = driver.new "complete"
    setup(function()
        helper.start()
        folder:write("runs/first/log.txt", "")
        folder:write("runs/fine.png", "")
    end)
    teardown(function()
        folder:remove()
        _G.probe = nil
        helper.finish()
    end)

    local function offers(text) return (select(2, complete.text(text, nil, commands.names())) or ""):gsub("%s+", " ") end

    it("follows paths through tables, indices, parents and what could be loaded", function()
        local parent = { inherited = function() end, number = 1 }
        _G.probe = { setmetatable({ alpha = { beta = 1 } }, { __index = parent }), key = { ["a b"] = { last = 1 } }, text = "s" }
        assert.equal("ta", complete.text "print(probe[1].alpha.be")
        assert.equal("t", complete.text "probe.key['a b'].las")
        assert.equal("herited", complete.text "x = probe[1]:in")
        assert.is_nil(complete.text "probe[1]:num") -- no function
        assert.equal("er", complete.text "probe[1].numb")
        assert.equal("per", complete.text "probe.text:up")
        assert.is_nil(complete.text "probe.nothing.at.al")
        assert.is_nil(complete.text "f().al")
        assert.equal("garbage", complete.text "1 + collect")
        assert.equal("ction", complete.text "local fun")
        _G.probe = sagan
        assert.equal("erator", complete.text "probe.models.gen") -- a module that is loaded when it is named
        _G.probe = core.zeros(2)
        assert.equal("e", complete.text "probe.shap")
        assert.is_nil(complete.text "probe:shap") -- a field
        assert.equal(" softmax softplus", " " .. offers "probe:soft")
    end)

    it("knows what a table with a function for __index says of itself", function()
        local class = { open = function() end, number = 1 }
        class.__index = function(t, key) return key == "net" and { weight = 1 } or rawget(t, key) or class[key] end
        class.__methods = class
        class.__names = function() return { "net" } end
        _G.probe = setmetatable({ path = "" }, class)
        assert.equal("en", complete.text "probe:op")
        assert.is_nil(complete.text "probe:ne")
        assert.is_nil(complete.text "probe:nu")
        assert.equal("net number", (offers "probe.n"))
        assert.equal("ight", complete.text "probe.net.we")
        assert.equal("net number open path", (offers "probe."))
        _G.probe = setmetatable({}, { __index = class.__index })
        assert.is_nil(complete.text "probe.n")
    end)

    it("looks in other globals, and through them into these", function()
        local globals = setmetatable({ run = { step = 1 } }, { __index = _G })
        assert.equal("ep", complete.text("run.st", globals))
        assert.equal("garbage", complete.text("collect", globals))
        assert.equal("mat", complete.text("string.for", globals))
        assert.is_nil(complete.text "run.st")
    end)

    it("runs nothing of the user's", function()
        local ran = false
        _G.probe = setmetatable({}, { __index = function() ran = true end, __pairs = function() ran = true end })
        complete.text "probe.x.y"
        complete.text "probe.x"
        complete.text "probe:"
        assert.is_false(ran)
    end)

    it("offers files inside quotes, topics after help, commands after a colon", function()
        local at = folder.root .. "/"
        assert.equal("uns/", complete.text(("io.open('%sr"):format(at)))
        assert.equal("e.png\"", complete.text(('show "%sruns/fin'):format(at)))
        assert.equal("fine.png first/", (offers(('show "%sruns/fi'):format(at))))
        assert.equal("d\"", complete.text 'help "conv2')
        assert.is_nil(complete.text "x = 'a' -- sagan.")
        assert.is_nil(complete.text "x = [[ sagan.")
        assert.equal("help quit save time", (offers ":"))
        assert.equal("elp ", complete.text(":h", nil, commands.names()))
    end)

    it("shows the arguments after a parenthesis, and indents an empty line", function()
        _G.probe = core.ops.relu
        assert.equal("sagan.ops.relu(x) -> y", (offers "y = probe("))
        assert.equal("    ", complete.text "")
        assert.equal("    ", complete.text "for i = 1, 2 do\n")
    end)
end)

describe("one input", function()
    local repl = require "sagan.repl"

    it("is an expression or a chunk, finished or not, with the globals it is given", function()
        assert.equal(3, repl.compile("1 + x", { x = 2 })())
        local globals = {}
        repl.compile("y = 5", globals)()
        assert.equal(5, globals.y)
        assert.is_nil(rawget(_G, "y"))
        assert.equal(7, repl.compile "= 7"())
        for text, unfinished in pairs { ["f("] = true, ["for i = 1, 2 do"] = true, ["x = [["] = true, ["x +"] = true,
            ["x = = 1"] = false, ["end"] = false, ["1"] = false, [":time f("] = true, [":save x"] = false, ["::a::"] = false } do
            assert.equal(unfinished, repl.unfinished(text), text)
        end
    end)

    it("is answered by texts beside or below each other", function()
        assert.is_nil(repl.render { n = 0 })
        assert.equal("nil", repl.render { n = 1 })
        assert.equal("1\ttwo\ttrue", repl.render { 1, "two", true, n = 3 })
        assert.equal("1\na\nb\n2\t3", repl.render { 1, "a\nb", 2, 3, n = 4 })
        local bad = setmetatable({}, { __tostring = function() error "no words" end })
        assert.matches("^1\t%(cannot be shown: .*no words%)$", repl.render { 1, bad, n = 2 })
    end)
end)

describe("the history", function()
    local folder = driver.new "history"
    teardown(function() folder:remove() end)

    it("keeps entries of several lines, each once, newest last", function()
        local path = folder:at "state/sagan-lua/history"
        assert.same({}, history.load(path))
        for _, text in ipairs { "a = 1", "for i = 1, 2 do\n  print(i, '\\n')\nend", "a = 1", "b\\nc" } do
            assert.is_true(history.add(path, text))
        end
        assert.same({ "for i = 1, 2 do\n  print(i, '\\n')\nend", "a = 1", "b\\nc" }, history.load(path))
        assert.equal("600\n", (folder:shell "stat -c %a state/sagan-lua/history"))
    end)

    it("puts a large file aside and loses nothing that was typed lately", function()
        local path = folder:at "large/history"
        local long = ("x"):rep(1000)
        for i = 1, 300 do assert(history.add(path, i .. long)) end
        assert.equal("300" .. long, history.load(path)[300]) -- this moves the file
        assert.is_nil(system.stat(path))
        assert.is_true(history.add(path, "afterwards"))
        local entries = history.load(path)
        assert.equal(301, #entries)
        assert.equal("afterwards", entries[301])
        assert.equal("600\n", (folder:shell "stat -c %a large/history.old"))
    end)

    it("says why it cannot be kept", function()
        folder:write("file", "")
        local kept, message = history.add(folder:at "file/below/history", "x")
        assert.is_nil(kept)
        assert.matches("file", message)
    end)
end)
