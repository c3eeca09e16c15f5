-- The arrows of the architecture point down only: who may include what.

local source = os.getenv("SAGAN_SOURCE") or "."

local function files(folder)
    local list = {}
    local pipe = assert(io.popen(("find '%s/%s' -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.def' | sort"):format(source, folder)))
    for path in pipe:lines() do list[#list + 1] = path end
    pipe:close()
    return list
end

local function includes(path)
    local list = {}
    for line in io.lines(path) do
        local name = line:match('^%s*#%s*include%s+["<]([^">]+)[">]')
        if name then list[#list + 1] = name end
    end
    return list
end

-- The op list is the one file that every layer reads.
local function forbidden(layer, name)
    if name == "engine/ops.def" then return false end
    local is_lua = name:match("^lua") or name == "lualib.h" or name == "lauxlib.h"
    local is_cuda = name:match("^cuda") or name:match("^cublas") or name:match("^curand")
    if layer == "kernels" then return is_lua or name:match("^engine/") or name:match("^bindings/") end
    if layer == "kernels/cpu" then return is_lua or is_cuda or name:match("^engine/") or name:match("^bindings/") end
    if layer == "engine" then return is_lua or is_cuda or name:match("^bindings/") end
    if layer == "bindings" then return is_cuda or name:match("^kernels/cpu") or name:match("^kernels/cuda") end
    return false
end

describe("layers", function()
    for _, layer in ipairs { "kernels", "kernels/cpu", "engine", "bindings" } do
        it(layer .. " includes only what lies below it", function()
            local seen = 0
            for _, path in ipairs(files(layer)) do
                for _, name in ipairs(includes(path)) do
                    seen = seen + 1
                    assert.is_falsy(forbidden(layer, name), path .. " includes " .. name)
                end
            end
            assert.is_true(seen > 0)
        end)
    end

    it("would notice a breach", function()
        assert.is_truthy(forbidden("engine", "lua.h"))
        assert.is_truthy(forbidden("kernels/cpu", "engine/sagan.h"))
        assert.is_truthy(forbidden("engine", "cuda_runtime.h"))
        assert.is_falsy(forbidden("bindings", "engine/sagan.h"))
    end)
end)
