local core = require "sagan.core"

describe("editor stubs", function()
    local source = os.getenv("SAGAN_SOURCE") or "."
    local stubs = dofile(source .. "/scripts/dev/stubs.lua")

    it("are what scripts/dev/stubs.lua makes", function()
        for name, text in pairs(stubs.generate()) do
            local file = assert(io.open(source .. "/scripts/sagan/meta/" .. name))
            local written = file:read("a")
            file:close()
            assert(written == text, "scripts/sagan/meta/" .. name .. " is out of date: run sagan-lua scripts/dev/stubs.lua")
            assert(load(text, name))
        end
    end)

    it("know every function of core and no other", function()
        for name, value in pairs(core) do
            if type(value) == "function" then assert(stubs.documented[name], "no stub for core." .. name) end
        end
        for name in pairs(stubs.documented) do assert(core[name], "a stub for core." .. name .. ", which does not exist") end
    end)

    it("know every function of core's parts and no other", function()
        local listed = {}
        for _, part in ipairs(stubs.parts.order) do
            listed[part] = true
            local documented = {}
            for _, entry in ipairs(stubs.parts[part].functions) do
                documented[entry[1]] = true
                assert(core[part][entry[1]], ("a stub for core.%s.%s, which does not exist"):format(part, entry[1]))
            end
            for name in pairs(core[part]) do assert(documented[name], ("no stub for core.%s.%s"):format(part, name)) end
        end
        for name, value in pairs(core) do
            assert(type(value) ~= "table" or listed[name]
                or name == "ops" or name == "tensor_methods", "no stubs for core." .. name)
        end
    end)

    it("know every method of tensors and no other", function()
        for name in pairs(core.tensor_methods) do
            local is_op = rawget(core.ops, name) ~= nil
            assert(is_op or stubs.documented_methods[name], "no stub for tensor:" .. name)
        end
        for name in pairs(stubs.documented_methods) do
            assert(core.tensor_methods[name], "a stub for tensor:" .. name .. ", which does not exist")
        end
    end)
end)
