--- statistics.lua - comparing two arms of a study over the same seeds: mean, standard deviation, Student's t, the interval
--- of a paired difference, and how many seeds would settle it. Plain numbers; nothing of the engine.
local statistics = {}

---@param list number[]
---@return number mean
---@return number? sd  of a sample, n - 1 in the divisor; nil for fewer than two values
function statistics.mean_sd(list)
    local n, sum = #list, 0
    for _, x in ipairs(list) do sum = sum + x end
    local mean, squares = sum / n, 0
    for _, x in ipairs(list) do squares = squares + (x - mean) ^ 2 end
    return mean, n > 1 and math.sqrt(squares / (n - 1)) or nil
end

-- Lanczos, g = 7, nine terms: relative error below 1e-14 for x > 0
local LANCZOS <const> = {
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
}

local function log_gamma(x)
    if x < 0.5 then return math.log(math.pi / math.sin(math.pi * x)) - log_gamma(1 - x) end
    local sum, t = LANCZOS[1], x + 6.5
    for i = 2, #LANCZOS do sum = sum + LANCZOS[i] / (x + i - 2) end
    return 0.5 * math.log(2 * math.pi) + (x - 0.5) * math.log(t) - t + math.log(sum)
end

--- The regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz's method), which converges fast
--- for x < (a + 1) / (a + b + 2); elsewhere I_x(a, b) = 1 - I_{1-x}(b, a).
---@param x number  from 0 to 1
---@param a number
---@param b number
---@return number
function statistics.incomplete_beta(x, a, b)
    if x <= 0 then return 0.0 end
    if x >= 1 then return 1.0 end
    if x > (a + 1) / (a + b + 2) then return 1 - statistics.incomplete_beta(1 - x, b, a) end
    local front = math.exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * math.log(x) + b * math.log(1 - x)) / a
    local tiny <const> = 1e-300
    local c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (math.abs(d) < tiny and tiny or d)
    local fraction = d
    for m = 1, 1000 do
        local even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        local odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        local step
        for _, term in ipairs { even, odd } do
            d = 1 + term * d
            d = 1 / (math.abs(d) < tiny and tiny or d)
            c = 1 + term / c
            if math.abs(c) < tiny then c = tiny end
            step = c * d
            fraction = fraction * step
        end
        if math.abs(step - 1) < 1e-15 then break end
    end
    return front * fraction
end

--- P(T <= t) of Student's t with so many degrees of freedom.
---@param t number
---@param freedom number
---@return number
function statistics.t_cdf(t, freedom)
    local tail = 0.5 * statistics.incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)
    return t > 0 and 1 - tail or tail
end

--- The t with P(T <= t) = p, by bisection.
---@param p number  between 0 and 1
---@param freedom number
---@return number
function statistics.t_quantile(p, freedom)
    if p == 0.5 then return 0.0 end
    if p < 0.5 then return -statistics.t_quantile(1 - p, freedom) end
    local low, high = 0, 1
    while statistics.t_cdf(high, freedom) < p and high < 1e300 do low, high = high, 2 * high end
    for _ = 1, 200 do
        local middle = 0.5 * (low + high)
        if middle == low or middle == high then break end
        if statistics.t_cdf(middle, freedom) < p then low = middle else high = middle end
    end
    return 0.5 * (low + high)
end

--- The most pairs that `seeds_needed` answers with.
statistics.most_seeds = 1000

--- How many pairs a two-sided paired t test at 5 % needs to see a mean difference with a power of 80 %, if mean and standard
--- deviation of the differences are what they were seen to be: the smallest n with
---     |mean| / sd sqrt(n) >= t_{0.975, n-1} + t_{0.8, n-1}
--- (the usual approximation of the noncentral t). From few pairs sd is itself uncertain: an order of magnitude, no promise.
---@param mean number
---@param sd number
---@return integer? pairs  nil: more than most_seeds
function statistics.seeds_needed(mean, sd)
    local effect = math.abs(mean) / sd
    local function enough(n)
        return effect * math.sqrt(n) >= statistics.t_quantile(0.975, n - 1) + statistics.t_quantile(0.8, n - 1)
    end
    local low, high = 2, statistics.most_seeds
    if not enough(high) then return nil end
    while low < high do
        local middle = (low + high) // 2
        if enough(middle) then high = middle else low = middle + 1 end
    end
    return low
end

---@class sagan.Comparison
---@field n integer        seeds that both arms have
---@field mean number?     of the differences arm - base; nil without a pair
---@field sd number?       nil below two pairs
---@field low number?      95 % interval of the mean difference
---@field high number?
---@field decided boolean  the interval leaves 0 out
---@field more integer?    seeds that are missing for 80 % power, if not decided; nil: no difference in sight

--- The paired difference of two arms, value by value of the seeds that both have.
---@param arm table<any, number>   by seed
---@param base table<any, number>
---@param seeds any[]              in order
---@return sagan.Comparison
function statistics.paired(arm, base, seeds)
    local differences = {}
    for _, seed in ipairs(seeds) do
        if arm[seed] and base[seed] then differences[#differences + 1] = arm[seed] - base[seed] end
    end
    local n = #differences
    if n == 0 then return { n = 0, decided = false } end
    local mean, sd = statistics.mean_sd(differences)
    if n == 1 then return { n = 1, mean = mean, decided = false } end
    local half = statistics.t_quantile(0.975, n - 1) * sd / math.sqrt(n)
    local out = { n = n, mean = mean, sd = sd, low = mean - half, high = mean + half }
    out.decided = out.low > 0 or out.high < 0
    if not out.decided and mean ~= 0 then
        local wanted = statistics.seeds_needed(mean, sd)
        out.more = wanted and math.max(1, wanted - n)
    end
    return out
end

return statistics
