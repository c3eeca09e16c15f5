-- help(x): the words come from the stubs and from the comments in the sources, and from nowhere else.
local core = require "sagan.core"
local sagan = require "sagan"
local help = require "sagan.help"
local annotations = require "sagan.prompt.annotations"
local source = os.getenv "SAGAN_SOURCE" or "."

local function lines(path)
    local list = {}
    for line in io.lines(source .. "/scripts/sagan/" .. path) do list[#list + 1] = line end
    return list
end

--- The first line of the comment above the line that holds `code`, read in the plainest way.
local function comment_above(path, code)
    local list = lines(path)
    for i, line in ipairs(list) do
        if line:find(code, 1, true) then
            local first = i
            while list[first - 1]:find("^%-%-") do first = first - 1 end
            return list[first]:match("^%-%-%- (.*)$")
        end
    end
    error(code .. " is not in " .. path)
end

local function has(text, part)
    assert(text:find(part, 1, true), ("'%s' is missing in\n%s"):format(part, text))
end

describe("help", function()
    it("describes an object by its class: the comment, fields, methods", function()
        local folder = require "sagan.run_folder".at "runs/none"
        local text = help.text(folder)
        has(text, "sagan.RunFolder\n")
        for _, method in ipairs { "config", "checkpoints", "trim_log" } do
            local first = comment_above("run_folder.lua", "function RunFolder:" .. method .. "("):match "^[^.]*"
            has(text, ("  :%s "):format(method))
            has(text, first .. ".\n")
        end
        assert.matches("fields\n  path +string\n  lock%? +any +closes with the process", text)
        assert.matches("\n  sagan/run_folder.lua:%d+$", text)
        -- where __index is a function, the metatable says which are the methods
        local other = setmetatable({}, { __index = function() end, __methods = getmetatable(folder).__index })
        assert.equal(text, help.text(other))
        has(help.text(sagan.open), "sagan.open(path, options?) -> run, message")
        -- a type with blanks in it
        has(help.text(folder.checkpoints), "RunFolder:checkpoints() -> {step: integer, path: string}[]\n")
    end)

    it("describes every function of the engine by its stub", function()
        local count = 0
        for _, file in ipairs { "meta/core.lua", "meta/ops.lua", "meta/parts.lua" } do
            for _, line in ipairs(lines(file)) do
                local name, arguments = line:match("^function core%.([%w_%.]+)%((.-)%)")
                if name then
                    local value = core
                    for key in name:gmatch("[^%.]+") do value = value[key] end
                    local text = help.text(value)
                    has(text, comment_above(file, line))
                    has(text:match("^[^\n]*"), name:match("[^%.]+$") .. "(")
                    for argument in arguments:gmatch("[%w_]+") do has(text, argument) end
                    count = count + 1
                end
            end
        end
        assert.is_true(count > 150)
        for name in pairs(core.tensor_methods) do assert.is_nil(help.text(name):find "without a description", name) end
    end)

    it("shows arguments, defaults and results", function()
        local text = help.text(core.ops.conv2d)
        has(text, "sagan.ops.conv2d(x, w, b?, residual?, sigma?, stride=1, pad_h=0, pad_w=0, relu=false) -> y\n")
        has(text, "\n  stride?    integer       default 1\n")
        has(text, "\n  -> sagan.Tensor y\n")
        has(text, "x:conv2d(...)")
        assert.equal(text, help.text "conv2d")
        has(help.text "item", "tensor:item() -> number\n  The value of a tensor with one element.")
        has(help.text(core.system.lock), "-> lock, message\n")
        has(help.text "ops", "\nrelu(x) -> y\n")
    end)

    it("describes functions of the library by the comment above them", function()
        local pictures = require "sagan.pictures"
        local text = help.text(pictures.class_grid)
        has(text, comment_above("pictures.lua", "function pictures.class_grid("))
        has(text, "pictures.class_grid(G, config, class_names, options?) -> sagan.Tensor\n")
        has(text, "in eval mode")
        has(text, "sagan/pictures.lua:")
        assert.equal(text, help.text "pictures.class_grid")
        has(help.text(require "sagan.nearest"), comment_above("nearest.lua", "return function(word, list)"))
    end)

    it("describes classes with their options, modules and objects", function()
        local text = help.text(sagan.nn.Conv2d)
        has(text, "sagan.nn.Conv2d(options: sagan.nn.ConvOptions)\n")
        has(text, "\n  in_channels ")
        has(text, "1\n") -- the default of stride
        assert.equal(text, help.text(sagan.nn.Conv2d { in_channels = 1, out_channels = 1 }))
        text = help.text(sagan.nn)
        has(text, "layers, blocks and networks")
        has(text, "\n  SelfAttention ")
        text = help.text(sagan.image)
        has(text, "Pictures as u8 tensors")
        has(text, "\n  crop_center ")
        local x = core.zeros(2)
        text = help.text(x)
        x:release()
        has(text, "sagan.Tensor\n  Contiguous numbers on a device.")
        has(text, "\n  :backward ")
        has(help.text(sagan), "\n  zeros ")
    end)

    it("knows the fields of a configuration", function()
        local field = require "sagan.fields".by_key["optimizer.lr_d"]
        has(help.text "optimizer.lr_d", field.doc)
        has(help.text "optimizer.lr_d", "default " .. field.default)
    end)

    it("looks for other words, and names what is near", function()
        has(help.text "upsampl", "sagan.ops.upsample")
        has(help.text "upsampl", "sagan.ops.upconv")
        assert.equal("nothing is known about 'reluu' (did you mean 'relu'?)", help.text "reluu")
        has(help.text(string.format), "string.format: a function of Lua 5.4; ")
        has(help.text(function(a, b) return a, b end), "function(a, b)\n  ")
        has(help.text(nil), "nil")
        has(help.text(5), "5")
        has(tostring(help), "help(x)")
    end)
end)

describe("annotations", function()
    it("are read with their types, optional or not, over several lines", function()
        local path = os.tmpname()
        local file = assert(io.open(path, "w"))
        file:write([[
--- The head
--- of the file.

local m = {}

---@class thing.Options
---@field a? integer|string  may be
---                          in two lines
---@field f fun(x: number, y: table<string, number>): boolean?  a callback

--- Does it.
---
---     m.f(1)
---@param o thing.Options
---@param n? { size: integer, name: string? }  the second
---@return boolean? ok
---@return string? message
function m.f(o, n) end

-- A comment that is no annotation.
function m.g() end

---@class thing.Child: thing.Options
---@overload fun(o: table): thing.Child
local Child = {}

--- A method.
function Child:go(...) end

--- Assigned.
m.h = function(x) return x end

return m
]])
        file:close()
        local read = annotations.file(path)
        os.remove(path)
        assert.equal("The head\nof the file.", read.head)
        local f = read.functions["m.f"]
        assert.equal("Does it.\n\n    m.f(1)", f.doc)
        assert.same({ "o", "n" }, f.arguments)
        assert.same({ name = "n", optional = true, type = "{ size: integer, name: string? }", text = "the second" }, f.params[2])
        assert.same({ "boolean? ok", "string? message" }, f.returns)
        assert.equal(f, read.at[18])
        assert.is_nil(read.functions["m.g"])
        local fields = read.classes["thing.Options"].fields
        assert.same({ name = "a", optional = true, type = "integer|string", text = "may be in two lines" }, fields[1])
        assert.same({ name = "f", optional = false, type = "fun(x: number, y: table<string, number>): boolean?",
            text = "a callback" }, fields[2])
        assert.equal("thing.Options", read.classes["thing.Child"].parent)
        assert.equal("fun(o: table): thing.Child", read.classes["thing.Child"].overload)
        assert.same({ "..." }, read.functions["Child:go"].arguments)
        assert.equal("Assigned.", read.functions["m.h"].doc)
    end)
end)
