-- Student's t against tables, and the paired comparison against an example worked by hand.
local statistics = require "sagan.statistics"

local function near(want, got, tolerance) assert.near(want, got, tolerance or 1e-9 * math.abs(want)) end

describe("Student's t", function()
    it("has the quantiles that tables print", function()
        for _, row in ipairs {
            { 0.975, 1, 12.706204736432095 }, { 0.975, 2, 4.302652729749464 }, { 0.975, 3, 3.182446305284263 },
            { 0.975, 4, 2.7764451051977987 }, { 0.975, 9, 2.2621571628540993 }, { 0.975, 10, 2.2281388519649385 },
            { 0.975, 30, 2.0422724563012373 }, { 0.975, 120, 1.9799304050824413 }, { 0.995, 5, 4.032142983557536 },
            { 0.8, 1, 1.3763819204711736 }, { 0.8, 10, 0.8790578285505887 }, { 0.95, 7, 1.894578605061305 },
        } do
            local p, freedom, t = table.unpack(row)
            near(t, statistics.t_quantile(p, freedom))
            near(-t, statistics.t_quantile(1 - p, freedom))
            near(p, statistics.t_cdf(t, freedom))
        end
        near(1.959963984540054, statistics.t_quantile(0.975, 1e8), 1e-6) -- the normal's
        assert.equal(0.0, statistics.t_quantile(0.5, 3))
    end)

    it("has the distribution function that closed forms give for 1 and 2 degrees of freedom", function()
        for _, t in ipairs { -30, -2, -0.1, 0.0, 0.3, 1, 5, 100 } do
            near(0.5 + math.atan(t) / math.pi, statistics.t_cdf(t, 1), 1e-13)
            near(0.5 + t / (2 * math.sqrt(2 + t * t)), statistics.t_cdf(t, 2), 1e-13)
        end
    end)

    it("rests on an incomplete beta function that agrees with polynomials", function()
        for _, x in ipairs { 0.0, 0.1, 0.5, 0.9, 1.0 } do
            near(x * x * (3 - 2 * x), statistics.incomplete_beta(x, 2, 2), 1e-14)
            near(1 - (1 - x) ^ 5, statistics.incomplete_beta(x, 1, 5), 1e-14)
        end
    end)
end)

describe("paired comparison", function()
    it("gives mean, deviation and interval of the differences", function()
        -- differences 1, 2, 3, 6: mean 3, sd sqrt(14/3), interval 3 +- 3.182446 * sd / 2
        local base, arm = { 10, 20, 30, 40 }, { 11, 22, 33, 46 }
        local c = statistics.paired(arm, base, { 1, 2, 3, 4 })
        assert.equal(4, c.n)
        near(3, c.mean)
        near(math.sqrt(14 / 3), c.sd)
        near(3 - 3.182446305284263 * math.sqrt(14 / 3) / 2, c.low, 1e-8)
        near(3 + 3.182446305284263 * math.sqrt(14 / 3) / 2, c.high, 1e-8)
        assert.is_false(c.decided)
        -- effect 3 / 2.1602 = 1.3887: sqrt(5) * 1.3887 = 3.105 < 2.776 + 0.941; sqrt(6) * 1.3887 = 3.402 < 2.571 + 0.920;
        -- sqrt(7) * 1.3887 = 3.674 > 2.447 + 0.906
        assert.equal(7, statistics.seeds_needed(c.mean, c.sd))
        assert.equal(3, c.more)
    end)

    it("decides when the interval leaves 0 out, either way", function()
        local base = { 10, 20, 30 }
        assert.is_true(statistics.paired({ 11, 21.1, 31.05 }, base, { 1, 2, 3 }).decided)
        assert.is_true(statistics.paired({ 9, 18.9, 28.95 }, base, { 1, 2, 3 }).decided)
        assert.is_true(statistics.paired({ 11, 21 }, base, { 1, 2 }).decided)
    end)

    it("uses the seeds that both arms have, and says so when they are too few", function()
        local c = statistics.paired({ [1] = 5, [3] = 7 }, { [1] = 4, [2] = 4, [3] = 5 }, { 1, 2, 3 })
        assert.equal(2, c.n)
        near(1.5, c.mean)
        assert.same({ n = 1, mean = 2, decided = false }, statistics.paired({ [3] = 7 }, { [1] = 4, [3] = 5 }, { 1, 2, 3 }))
        assert.same({ n = 0, decided = false }, statistics.paired({}, { 1 }, { 1 }))
        local equal = statistics.paired({ 1, 2 }, { 1, 2 }, { 1, 2 })
        assert.equal(0, equal.mean)
        assert.is_nil(equal.more)
        assert.is_nil(statistics.seeds_needed(0.001, 1))
    end)
end)
