-- The words after a command.

local options = require "sagan.options"

local KNOWN = {
    ["--steps"] = { "steps", "count", 100 }, ["--seed"] = { "seed", "whole" }, ["--cut"] = { "cut", "positive" },
    ["-o"] = { "out", "text" }, ["--raw"] = { "raw" },
}

local function parse(...) return options.parse({ ... }, KNOWN) end

describe("options", function()
    it("come with values, joined or apart, between other words", function()
        assert.same({ "runs/a", "b", steps = 5, seed = 0, cut = 0.5, out = "x.png", raw = true },
            parse("runs/a", "--steps", "5", "--seed=0", "--raw", "--cut=0.5", "b", "-o", "x.png"))
        assert.is_true(parse("--help").help)
        assert.is_true(parse("-h").help)
        assert.same({ "-" }, parse("-"))
    end)

    local function refuses(words, ...)
        local o, message = parse(table.unpack(words))
        assert.is_nil(o)
        for _, part in ipairs { ... } do assert.matches(part, message, 1, true) end
    end

    it("that are wrong are named, with what would be right", function()
        refuses({ "--step", "5" }, "'--step'", "did you mean --steps?")
        refuses({ "--zzzzzzzz" }, "--help lists them")
        refuses({ "--steps" }, "--steps needs a value")
        refuses({ "--steps", "0" }, "a whole number from 1 to 100", "'0'")
        refuses({ "--steps", "101" }, "to 100")
        refuses({ "--steps", "2.5" }, "'2.5'")
        refuses({ "--seed", "-1" }, "a whole number from 0")
        refuses({ "--cut", "0" }, "a number above 0")
        refuses({ "--cut", "inf" }, "a number above 0")
        refuses({ "--raw=1" }, "--raw takes no value")
    end)
end)
