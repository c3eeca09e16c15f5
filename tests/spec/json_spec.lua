-- JSON as others read and write it: what is encoded is valid and comes back; what is not JSON is refused with its position.

local json = require "sagan.json"

describe("json", function()
    it("writes values in one form", function()
        local cases = {
            { 3, "3" }, { -3.0, "-3" }, { 0.1, "0.1" }, { 1 / 3, "0.3333333333333333" }, { 1e300, "1e+300" },
            { 2 ^ 53, "9007199254740992" },
            { math.maxinteger, "9223372036854775807" }, { 5e-324, "4.94066e-324" },
            { true, "true" }, { "", '""' }, { 'a"b\\c/\n\t\r\0\31', [["a\"b\\c/\n\t\r\u0000\u001f"]] },
            { "Größe ☺", '"Größe ☺"' },
            { { 1, "two", { 3 } }, '[1,"two",[3]]' }, { {}, "{}" }, { json.array {}, "[]" },
            { { b = 1, a = { y = false, x = "" }, ["1"] = 2 }, '{"1":2,"a":{"x":"","y":false},"b":1}' },
            { 0 / 0, '"nan"' }, { math.huge, '"inf"' }, { -math.huge, '"-inf"' },
        }
        for _, case in ipairs(cases) do assert.equal(case[2], json.encode(case[1])) end
        assert.equal("null", json.encode(nil))
        assert.has_error(function() json.encode(print) end, "json.encode: a function has no JSON form")
        assert.has_error(function() json.encode { { io.stdout } } end)
    end)

    it("gives back what it wrote, to the last bit", function()
        math.randomseed(11)
        local function value(depth)
            local kind = math.random(depth > 0 and 6 or 4)
            if kind == 1 then return math.random(0) end
            if kind == 2 then return (math.random() - 0.5) * 10 ^ math.random(-300, 300) end
            if kind == 3 then return math.random() < 0.5 end
            if kind == 4 then
                local bytes = {}
                for i = 1, math.random(0, 12) do bytes[i] = utf8.char(math.random(0, 0x24ff)) end
                return table.concat(bytes)
            end
            local t = {}
            for i = 1, math.random(1, 4) do
                t[kind == 5 and i or "key" .. i] = value(depth - 1)
            end
            return t
        end
        for _ = 1, 500 do
            local v = value(4)
            local text = json.encode(v)
            assert.same(v, json.decode(text))
            assert.equal(text, json.encode(json.decode(text)))
        end
    end)

    it("reads what others write", function()
        local cases = {
            { ' { "a" : [ 1 , 2.5e-1 , -0 , 1E3 ] , "b" : null } ', { a = { 1, 0.25, 0, 1000.0 } } },
            { [["\u0041\u00e4\u20ac\ud83d\ude00\/\b\f"]], "Aä€😀/\b\f" }, { '"\127"', "\127" },
            { "[]", {} }, { "{}", {} }, { "false", false }, { "\t[\r\n]", {} }, { '{"":{"":1}}', { [""] = { [""] = 1 } } },
        }
        for _, case in ipairs(cases) do assert.same(case[2], (json.decode(case[1]))) end
    end)

    it("refuses what is not JSON and says where", function()
        for _, text in ipairs { "", " ", "[", "[1", "[1,", "[1,]", "[,1]", "{", '{"a"', '{"a":', '{"a":1', '{"a":1,}',
            "{a:1}", "{'a':1}",
            '{"a" 1}', "[1 2]", "1 2", "nul", "True", "nan", "inf", "NaN", "-", "+1", "01", "-01", ".5", "5.", "1e",
            "1e+", "0x10", "1.e3",
            "1.5.2", "1-2", '"', '"a', '"\\', '"\\x"', '"\\u12"', '"\\u12g4"', '"\\ud83d"', '"\\ud83dx"', '"\\ude00"',
            '"\\ud83d\\u0041"',
            '"a\nb"', '"\0"', "\0", "[1]]", "}", "]", "\xef\xbb\xbf1", ("["):rep(200), ("["):rep(200) .. ("]"):rep(200) } do
            local value, message = json.decode(text)
            assert(value == nil, text)
            assert.matches("^byte %d+: ", message)
        end
        assert.equal("byte 6: unknown word x", select(2, json.decode "[1, x"))
        assert.is_truthy(json.decode(("["):rep(90) .. ("]"):rep(90)))
    end)

    it("survives damaged text", function()
        math.randomseed(12)
        local good = json.encode { a = { 1, 2.5, { b = "text \n" } }, c = true, d = json.array {} }
        for _ = 1, 3000 do
            local at = math.random(#good)
            local text = good:sub(1, at - 1) .. string.char(math.random(0, 255))
                .. good:sub(at + 1, math.random(at, #good + 5))
            local value, message = json.decode(text)
            assert(value ~= nil or type(message) == "string", text)
        end
    end)
end)
