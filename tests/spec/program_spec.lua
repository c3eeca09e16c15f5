--- The program sagan-lua from outside: options, exit codes, messages.

local program = os.getenv("SAGAN_LUA") or "build/sagan-lua"

local folder

--- Runs the program in a shell: everything it prints (errors too), exit code.
local function run(arguments, input)
    local stdin = folder .. "/stdin"
    local file = assert(io.open(stdin, "w"))
    file:write(input or "")
    file:close()
    local pipe = assert(io.popen(("env -u LUA_PATH -u LUA_CPATH HOME=%s XDG_STATE_HOME=%s/state %s %s < %s 2>&1"):format(
        folder, folder, program, arguments, stdin)))
    local text = pipe:read("a")
    local _, _, code = pipe:close()
    return text, code
end

local function write(name, text)
    local path = folder .. "/" .. name
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
end

describe("sagan-lua", function()
    setup(function()
        folder = os.tmpname()
        os.remove(folder)
        assert(os.execute("mkdir -p " .. folder))
    end)
    teardown(function() os.execute("rm -rf " .. folder) end)

    it("runs pieces of Lua with the engine loaded", function()
        local text, code = run([[-e 'x = sagan.zeros(2, 3)' -e 'print(x.shape[2], require("sagan.core").version)']])
        assert.equal("3\t0.1.0\n", text)
        assert.equal(0, code)
        assert.equal(2, select(2, run "-e"))
    end)

    it("prints version and help", function()
        assert.matches("^sagan%-lua 0.1.0 %(Lua 5.4, cpu %w+%)\n$", (run "-v"))
        local text, code = run "--help"
        assert.equal(0, code)
        for _, word in ipairs { "usage:", "options", "examples", "%-e CODE", "doctor +what this machine" } do
            assert.matches(word, text)
        end
        assert.equal(text, (run "help"))
    end)

    it("runs scripts with their arguments", function()
        local path = write("script.lua", "#!/usr/bin/env sagan-lua\nprint(arg[0], #arg, arg[1], ...)")
        assert.equal(path .. "\t2\tone\tone\t--two\n", (run(path .. " one --two")))
        assert.equal("5\tstdin\n", (run("- stdin", "print(2 + 3, ...)")))
        assert.equal("7\n", (run("", "print(3 + 4)")))
    end)

    it("gives the exit codes of scripts", function()
        assert.equal(0, select(2, run(write("good.lua", "return 3"))))
        assert.equal(4, select(2, run(write("exit.lua", "os.exit(4, true)"))))
        assert.equal(1, select(2, run(write("bad.lua", "error 'x'"))))
    end)

    it("names file and line of an error first, and folds the library's frames", function()
        local path = write("fault.lua", [[
local sagan = require "sagan"
local function build()
    local x = sagan.zeros(2, 3)
    return x:linear(sagan.zeros(4, 5))
end
local y = build()
print(y)
]])
        local text, code = run(path)
        assert.equal(1, code)
        assert.equal(1, (text:find("sagan-lua: " .. path .. ":4: linear", 1, true)))
        assert.matches("{2, 3}", text)
        assert.matches("fault.lua:6: in main chunk", text)
        assert.is_nil(text:find("cli.lua", 1, true))

        -- An error in a library file is put to the script's line; the library is one line of the traceback.
        local library = write("library.lua", [[
local nearest = require "sagan.nearest"
nearest(nil, {})
]])
        text = run(library)
        assert.equal(1, (text:find("sagan-lua: " .. library .. ":2: attempt to index a nil value", 1, true)))
        assert.matches("%(1 in the library: nearest.lua:%d+%)", text)
    end)

    it("shows errors that are no strings, and syntax errors", function()
        local object = write("object.lua", "error(setmetatable({}, {__tostring = function() return 'script-made' end}))")
        assert.matches("script%-made", (run(object)))
        assert.matches("error object is a table value", (run(write("table.lua", "error{}"))))
        local text, code = run(write("syntax.lua", "x = = 1"))
        assert.matches("syntax.lua:1: unexpected symbol", text)
        assert.equal(1, code)
    end)

    it("says what an unknown word or option might have been", function()
        local text, code = run "no_such_file.lua"
        assert.matches("neither a command nor a file", text)
        assert.equal(2, code)
        assert.matches("'docter' is neither a command nor a file that can be read %(did you mean 'doctor'%?%)", (run "docter"))
        text, code = run "--hlep"
        assert.matches("unknown option '%-%-hlep' %(did you mean '%-%-help'%?%)", text)
        assert.equal(2, code)
        assert.equal(2, select(2, run(folder))) -- a folder is no script
    end)

    it("runs a script that returns an experiment, with the words after it", function()
        local path = write("experiment.lua", [[
package.loaded["sagan.runner"] = { run = function(experiment, words)
    print("runner", experiment.name, table.concat(words, " "))
    return 3
end }
return setmetatable({ name = "probe" }, { __name = "sagan.experiment" })
]])
        local text, code = run(path .. " optimizer.lr_d=2e-4 --fresh")
        assert.equal("runner\tprobe\toptimizer.lr_d=2e-4 --fresh\n", text)
        assert.equal(3, code)
    end)

    it("keeps the prompt going after errors", function()
        local text, code = run("-i", [[
1 + 1
x = 5
x, "two"
for i = 1, 2 do
print("line", i)
end
error("broken")
local function f(
)
return 8 end print(f())
_
{1, 2, key = "v"}
nil
x +
10
x +
]])
        assert.equal(0, code)
        for _, line in ipairs {
            "2", "5\ttwo", "line\t1", "line\t2", "prompt:1: broken", "8", '{1, 2, key = "v"}', "nil", "15",
        } do
            assert(("\n" .. text):find("\n" .. line .. "\n", 1, true), line .. " is missing in\n" .. text)
        end
        assert.matches("prompt:1: syntax error near '%+'\n$", text)
    end)

    it("completes names at the prompt", function()
        local function complete(text)
            return (run(("-e 'x = sagan.zeros(2) print(require(\"sagan.repl\").complete(\"%s\"))'"):format(text)))
        end
        assert.equal("d\n", complete("sagan.ops.conv2"))
        assert.equal("s\n", complete("return sagan.zero"))
        assert.equal("ad\n", complete("x.requires_gr")) -- requires_grad and requires_grad_
        assert.equal("ad_\n", complete("x:requires_gr")) -- the first is no method
        assert.matches("^nil\tsoftmax +softplus", complete("x:soft"))
        assert.equal("nil\n", complete("nothing.at.all"))
        assert.equal("ction\n", complete("local fun"))
    end)

    it("shows values readably at the prompt", function()
        local function show(code) return (run(("-e 'print(require(\"sagan.repl\").show(%s))'"):format(code))) end
        assert.equal("{}\n", show "{}")
        assert.equal('{1, "two", x = {}, [true] = 3}\n', (show('{1, \"two\", x = {}, [true] = 3}'):gsub("table: [%w]+", "{}")))
        assert.equal("tensor {1} f32 cpu\n  7\n", show "sagan.tensor(7)")
        assert.matches("%(100 in all%)", show "(function() local t = {} for i = 1, 100 do t[i] = i end return t end)()")
    end)

    it("stops a script at Ctrl-C", function()
        -- the script sends itself the signal, so that it comes when the script runs, however slowly that began
        local path = write("endless.lua", "io.write('started\\n') io.flush() " ..
            "io.popen('kill -INT ' .. sagan.system.getpid()):close() while true do end")
        local pipe = io.popen(("timeout -k 20 60 %s %s 2>&1; echo code $?"):format(program, path))
        local text = pipe:read("a")
        pipe:close()
        assert.equal("started\nsagan-lua: interrupted\ncode 130\n", text)
    end)

    it("finds its scripts from anywhere", function()
        local absolute = io.popen("realpath " .. program):read("l")
        local code = 'print(require("sagan.nearest")("ab", {"abc"}))'
        local pipe = io.popen(("cd / && env -u LUA_PATH %s -e '%s' 2>&1"):format(absolute, code))
        assert.equal("abc", pipe:read("l"))
        pipe:close()
    end)
end)
