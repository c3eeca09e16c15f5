--- spectrum.lua - all singular values of a network's weights, layer by layer, where spectral norm watches only the largest:
--- a layer whose small ones vanish has lost directions. Each weight is the matrix that spectral norm sees, {K, R S C}, and as
--- it is stored, not normalised.
---
---     local s = assert(run.G:spectrum { file = "spectrum.png" })
---     print(s)                                    -- a table: largest, smallest, stable rank
---     s["block1.conv1.weight"].values             -- the largest first
local core = require "sagan.core"
local arguments = require "sagan.arguments"
local image = core.image

local spectrum = {}

---@class sagan.LayerSpectrum
---@field path string            of the weight, "block1.conv1.weight"
---@field rows integer
---@field columns integer
---@field values number[]        the largest first
---@field stable_rank number     sum of the squares over the largest one's: 1 for one direction, `rows` for an orthogonal matrix
---@field sigma? number          what spectral norm takes for the largest, where it normalises

---@class sagan.Spectrum         a list of the layers, which are found by their paths too
---@field picture sagan.Tensor   u8 {H,W,3}: a curve a layer, logarithmic
local Spectrum = {}

function Spectrum.__index(self, path)
    for i = 1, #self do
        if self[i].path == path then return self[i] end
    end
end

function Spectrum:__tostring()
    local rows = { { self.name, "matrix", "largest", "smallest", "stable rank", "spectral norm's" } }
    for _, l in ipairs(self) do
        rows[#rows + 1] = { l.path, ("%d x %d"):format(l.rows, l.columns), ("%.4g"):format(l.values[1]),
            ("%.4g"):format(l.values[#l.values]), ("%.3g"):format(l.stable_rank), l.sigma and ("%.4g"):format(l.sigma) or "-" }
    end
    local width = { 0, 0, 0, 0, 0, 0 }
    for _, row in ipairs(rows) do
        for i, text in ipairs(row) do width[i] = math.max(width[i], #text) end
    end
    local lines = {}
    for i, row in ipairs(rows) do
        for k, text in ipairs(row) do row[k] = ((k == 1 and "%-" or "%") .. width[k] .. "s"):format(text) end
        lines[i] = table.concat(row, "  ")
    end
    return table.concat(lines, "\n")
end

local INK <const>, PAPER <const> = { 32, 32, 32 }, { 255, 255, 255 }
local FAINT <const>, LINE <const> = { 225, 225, 225 }, { 40, 90, 200 }
local WIDE <const>, HIGH <const>, GAP <const>, ACROSS <const>, DECADES <const> = 190, 80, 10, 4, 4

--- A panel for each layer: the values against their number, relative to the largest, over four decades.
local function draw(layers)
    local down = (#layers + ACROSS - 1) // ACROSS
    local sheet = image.blank(GAP + down * (HIGH + 14 + GAP), GAP + math.min(ACROSS, #layers) * (WIDE + GAP), 3, PAPER)
    for i, layer in ipairs(layers) do
        local x0 = GAP + (i - 1) % ACROSS * (WIDE + GAP) + 1
        local y0 = GAP + (i - 1) // ACROSS * (HIGH + 14 + GAP) + 1
        image.text(sheet, x0, y0, ("%s  %.3g"):format(layer.path:gsub("%.weight$", ""), layer.values[1]), 1, INK)
        y0 = y0 + 12
        for decade = 0, DECADES do
            local y = y0 + decade * (HIGH - 1) // DECADES
            image.draw_line(sheet, x0, y, x0 + WIDE - 1, y, 1, FAINT)
        end
        local values, before = layer.values, nil
        for k, value in ipairs(values) do
            local part = value > 0 and math.min(DECADES, math.log(values[1] / value, 10)) or DECADES
            local x = x0 + (#values > 1 and (k - 1) * (WIDE - 1) // (#values - 1) or 0)
            local y = y0 + math.floor(part * (HIGH - 1) / DECADES + 0.5)
            image.draw_line(sheet, before and before[1] or x, before and before[2] or y, x, y, 2, LINE)
            before = { x, y }
        end
    end
    return sheet
end

--- The spectrum of every weight with more than one dimension.
---@param view sagan.RunNet
---@param options? {file: string?}
---@return sagan.Spectrum? spectrum
---@return string? message  a weight is not finite, or the file cannot be written
function spectrum.of(view, options)
    local o = arguments("net:spectrum", options, { "file" })
    local layers = { name = ("%s, step %d, %s"):format(view.letter, view.step, view.weights or view.letter) }
    local sigma = view.net:singular_values()
    for path, tensor, spec in view.net:named_parameters() do
        if #spec.shape > 1 then
            local rows = spec.shape[1]
            local values, message = core.no_grad(function()
                return core.metrics.singular_values(tensor:detach():reshape(rows, spec.numel // rows))
            end)
            if not values then return nil, ("%s.%s: %s"):format(view.letter, path, message) end
            local sum = 0
            for _, value in ipairs(values) do sum = sum + value ^ 2 end
            layers[#layers + 1] = { path = path, rows = rows, columns = spec.numel // rows, values = values, sigma = sigma[path],
                stable_rank = values[1] > 0 and sum / values[1] ^ 2 or 0 }
        end
    end
    layers.picture = draw(layers)
    if o.file then
        local ok, message = image.write(o.file, layers.picture)
        if not ok then return nil, message end
    end
    return setmetatable(layers, Spectrum)
end

return spectrum
