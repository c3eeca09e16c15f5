-- The guard around looks at live networks: whatever was done to them but writing into weights is put back, also after errors.

local core = require "sagan.core"
local undisturbed = require "sagan.undisturbed"

--- Every buffer's bytes and every plain field of every module, in one string.
local function state(net)
    local lines = { net.buffer_slab:bytes(), tostring(net.slab.requires_grad) }
    for path, module in net:modules() do
        for name, value in pairs(module) do
            local kind = type(value)
            if kind == "boolean" or kind == "number" or kind == "string" then
                lines[#lines + 1] = ("%s.%s = %s"):format(path, name, tostring(value))
            end
        end
    end
    table.sort(lines)
    return table.concat(lines, "\n")
end

describe("undisturbed", function()
    local net, z, labels
    setup(function()
        net = require "sagan.models.generator" { resolution = 32, width = 2, channels = 1, classes = 3,
            attention = { generator = { 16 } } }
        net:build { seed = 3 }
        z, labels = core.ones { 2, net.z_dim or 128 }, core.zeros({ 2 }, { dtype = "i32" })
        net(z, labels) -- a state that is not the first one
        core.clear_tape()
    end)
    teardown(function()
        net, z, labels = nil, nil, nil
        core.clear_tape()
    end)

    local DISTURBANCES <const> = {
        { "a pass in training mode", function() net(z, labels) end },
        { "another mode", function() net:eval() end },
        { "the mode of one layer", function() net.block1:eval() end },
        { "statistics set back", function() net:reset_buffers() end },
        { "freezing", function() net:freeze() end },
        { "attention switched off", function() net.attention[16].bypass = true end },
        { "captured attention", function() net:capture_attention(true) net(z, labels) end },
        { "recompute", function() net:recompute_blocks() end },
        { "a new field", function() net.block1.extra = 1 end },
        { "statistics that stand still", function() net.update_statistics = false net.update_spectral = false end },
        { "convolutions of another kind", function() core.winograd(false) end, true },
    }

    for _, case in ipairs(DISTURBANCES) do
        local name, disturb, elsewhere = table.unpack(case)
        it("puts back " .. name, function()
            local before = state(net)
            local seen
            assert.equal("result", undisturbed({ net }, function(word)
                disturb()
                seen = state(net)
                return word
            end, "result"))
            assert.is_true(before == state(net))
            assert.is_true(core.winograd())
            if not elsewhere then assert.is_true(before ~= seen) end -- the comparison can fail
            core.clear_tape()
            assert.has_error(function()
                undisturbed({ net }, function()
                    disturb()
                    error "x"
                end)
            end)
            assert.is_true(before == state(net))
            core.clear_tape()
        end)
    end

    it("mends a pass that was broken off so that its own end did not run", function()
        local before = state(net)
        undisturbed({ net }, function()
            net.running = true
            net.block1.divisors.weight = z
        end)
        assert.is_true(before == state(net))
        assert.is_nil(next(net.block1.divisors))
        net(z, labels)
        core.clear_tape()
    end)

    it("does not undo what is written into weights", function()
        local kept = net.slab:clone()
        undisturbed({ net }, function() net.slab:fill_(0) end)
        assert.equal(0, net.slab:norm():item())
        core.no_grad(function() net.slab:copy_(kept) end)
        core.clear_tape()
    end)
end)
