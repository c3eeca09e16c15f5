--- series.lua - from the rows of several seeds to one curve with its band.
local statistics = require "sagan.statistics"
local format = require "sagan.report.format"

local series = {}

--- Points of a curve at most; longer logs are averaged.
series.most = 100

---@class sagan.report.Point
---@field x number
---@field mean number?  over the seeds that have a finite value here; nil: none has, the curve has a gap
---@field low number?   of the band; nil for a single seed
---@field high number?
---@field n integer     seeds in it

--- What the band of n seeds is. An interval of two seeds is all but boundless: theirs is their range.
---@param band "range"|"sd"|"interval"
---@param n integer
---@return string
local function band_of(band, n) return band == "interval" and n < 3 and "range" or band end

--- Words for a band.
series.words = {
    range = "from the lowest to the highest seed",
    sd = "one standard deviation over seeds to either side",
    interval = "95 % interval of the mean over seeds (t); with two seeds from the lower to the higher",
}

local quantiles = {} -- by seeds; they take a while to find

local function t_of(n)
    quantiles[n] = quantiles[n] or statistics.t_quantile(0.975, n - 1)
    return quantiles[n]
end

local function point_of(x, values, band)
    local n = #values
    if n == 0 then return { x = x, n = 0 } end
    local mean, sd = statistics.mean_sd(values)
    if n == 1 then return { x = x, mean = mean, n = 1 } end
    local kind = band_of(band, n)
    if kind == "range" then
        return { x = x, mean = mean, low = math.min(table.unpack(values)), high = math.max(table.unpack(values)), n = n }
    end
    local half = kind == "sd" and sd or t_of(n) * sd / math.sqrt(n)
    return { x = x, mean = mean, low = mean - half, high = mean + half, n = n }
end

--- The curve of one arm.
---@param runs {steps: number[], values: any[]}[]  one for each seed; a value that is no finite number is a gap
---@param last number   the largest step of all curves of the chart
---@param band "range"|"sd"|"interval"
---@return sagan.report.Point[]
---@return {x: number, y: number}[] ends  last point of each run by itself; none for a run without a finite value
function series.of(runs, last, band)
    local steps, distinct = {}, 0
    for _, run in ipairs(runs) do
        for _, step in ipairs(run.steps) do
            if not steps[step] then steps[step], distinct = true, distinct + 1 end
        end
    end
    local width = distinct > series.most and last / series.most or nil
    local bins, order, ends = {}, {}, {}
    for k, run in ipairs(runs) do
        for i, step in ipairs(run.steps) do
            local key = width and math.max(1, math.ceil(step / width - 1e-9)) or step
            local bin = bins[key]
            if not bin then
                bin = { x = width and math.min(last, (key - 0.5) * width) or step, sums = {}, counts = {} }
                bins[key] = bin
                order[#order + 1] = key
            end
            local value = run.values[i]
            if format.is_finite(value) then
                bin.sums[k] = (bin.sums[k] or 0) + value
                bin.counts[k] = (bin.counts[k] or 0) + 1
            end
        end
    end
    table.sort(order)
    local points = {}
    for i, key in ipairs(order) do
        local bin, values = bins[key], {}
        for k = 1, #runs do
            if bin.counts[k] then
                values[#values + 1] = bin.sums[k] / bin.counts[k]
                ends[k] = { x = bin.x, y = values[#values] }
            end
        end
        points[i] = point_of(bin.x, values, band)
    end
    return points, ends
end

--- What a curve needs room for: its means, and the ends of its band but for points where that is far wider than elsewhere,
--- as an interval of three seeds can be.
---@param points sagan.report.Point[]
---@return number[]
function series.numbers(points)
    local widths, out = {}, {}
    for _, p in ipairs(points) do
        if p.low then widths[#widths + 1] = p.high - p.low end
    end
    table.sort(widths)
    local widest = 3 * (widths[(#widths + 1) // 2] or 0)
    for _, p in ipairs(points) do
        if p.mean then
            out[#out + 1] = p.mean
            if p.low and p.high - p.low <= widest then
                out[#out + 1] = p.low
                out[#out + 1] = p.high
            end
        end
    end
    return out
end

return series
