-- The profile as a table: shares, rates, what bounds a kernel, and the time that no kernel accounts for.

local core = require "sagan.core"
local profile_table = require "sagan.profile_table"

describe("the profile table", function()
    local machine = { gflops = 100, gbytes = 10 }

    it("sets every kernel against what bounds it", function()
        local lines = profile_table.lines({
            { kernel = "adding", calls = 3, seconds = 0.2, flops = 1e8, done = 1e8, bytes = 1e9 },
            { kernel = "multiplying", calls = 4, seconds = 0.5, flops = 5e10, done = 2.5e10, bytes = 1e9 },
        }, 1, 2, machine)
        assert.equal(5, #lines)
        assert.matches("^multiplying +4 +250%.00 +50%.0 %% +100%.0 +50%.0 +2%.0 +50 %% sgemm$", lines[2])
        assert.matches("^adding +3 +100%.00 +20%.0 %% +0%.5 +0%.5 +5%.0 +50 %% copy$", lines[3])
        assert.matches("^outside kernels +150%.00 +30%.0 %%$", lines[4])
        assert.matches("^whole step +500%.00 +100%.0 %% +50%.1 +25%.1 +2%.0 +25 %% sgemm$", lines[5])
    end)

    it("measures the machine", function()
        local rates = profile_table.machine()
        assert.is_true(rates.gflops > 0.01 and rates.gflops < 1e6)
        assert.is_true(rates.gbytes > 0.01 and rates.gbytes < 1e5)
    end)

    it("leaves the rows as they were", function()
        local rows = { { kernel = "a", calls = 1, seconds = 0.1, flops = 1, done = 1, bytes = 1 },
            { kernel = "b", calls = 1, seconds = 0.2, flops = 1, done = 1, bytes = 1 } }
        profile_table.lines(rows, 1, 1, machine)
        assert.equal("a", rows[1].kernel)
    end)

    it("has sizes for what a step runs", function()
        core.scope(function()
            core.profile(true)
            local x = core.ones { 2, 8, 8, 4 }
            core.ops.conv2d(x, core.ones { 3, 1, 1, 4 })
            core.profile(false)
            local row = core.profile_rows()[1]
            assert.equal("conv2d_fwd", row.kernel)
            assert.equal(2 * 128 * 12, row.flops)
            assert.equal(4 * (512 + 12 + 384), row.bytes)
        end)
    end)
end)
