--- pictures.lua - what a run shows: grids of samples by class at fixed z, and sheets of attention maps at query points.
local core = require "sagan.core"
local ops, image = core.ops, core.image
local streams = require "sagan.streams"

local pictures = {}

local INK, PAPER = { 32, 32, 32 }, { 255, 255, 255 }
local MARKS = { { 230, 60, 60 }, { 40, 160, 70 }, { 60, 110, 230 }, { 235, 160, 30 }, { 160, 70, 200 } }

--- Fixed noise: row i is the same for every run with this seed, whatever the batch.
---@param count integer
---@param z_dim integer
---@param seed integer
---@param truncation number? > 0: values outside +-truncation are never drawn
---@return sagan.Tensor {count, z_dim}
function pictures.noise(count, z_dim, seed, truncation)
    local z = core.empty { count, z_dim }
    local clock = core.zeros({ 2 }, { dtype = "i32" })
    ops.normal(z, clock, seed, streams.sample_noise, 0, 1, truncation or 0)
    return z
end

--- Classes for the rows of a grid: all of them up to `most`, else evenly spread.
---@param classes integer
---@param most integer
---@return integer[] counted from 0
function pictures.choose_classes(classes, most)
    local chosen = {}
    local n = math.min(classes, most)
    for i = 1, n do chosen[i] = (i - 1) * classes // n end
    return chosen
end

--- Images of G for pairs of z and label, in batches, without a trace on the tape.
---@param G sagan.models.Generator in eval mode
---@param z sagan.Tensor {N, z_dim}
---@param labels integer[] counted from 0
---@param batch integer? images at a time, 32
---@return sagan.Tensor u8 {N, R, R, C}
function pictures.generate(G, z, labels, batch)
    local n, parts = z:size(1), {}
    batch = batch or 32
    for first = 1, n, batch do
        local rows = math.min(batch, n - first + 1)
        local some = table.move(labels, first, first + rows - 1, 1, {})
        parts[#parts + 1] = core.scope(core.no_grad, function()
            local y = core.tensor(some, { dtype = "i32" })
            return ops.float_to_pixels(G(z:rows(first, rows), y)):to("cpu")
        end)
    end
    local all = parts[1]
    for i = 2, #parts do all = ops.concat(all, parts[i], 1) end
    return all
end

--- A sheet of pictures with the row names written beside them.
---@param pixels sagan.Tensor u8 {N,H,W,C}
---@param columns integer
---@param names string[] one for each row; {} for none
---@return sagan.Tensor u8 {H,W,3}
function pictures.sheet(pixels, columns, names)
    local size = pixels:size(2)
    local factor = size < 48 and 2 or 1
    local grid = image.grid(image.enlarge(pixels, factor), columns, 2)
    local longest = 0
    for _, name in ipairs(names) do longest = math.max(longest, #name) end
    if longest == 0 then return grid end
    local margin = 6 * longest + 8
    local sheet = image.blank(grid:size(1), grid:size(2) + margin, 3, PAPER)
    image.paste(sheet, grid, margin + 1, 1)
    for row, name in ipairs(names) do
        image.text(sheet, 4, math.floor((row - 0.5) * (size * factor + 2)) - 3, name, 1, INK)
    end
    return sheet
end

--- One row for each class, one column for each z; every row uses the same z, so a column shows what the class does.
---@param G sagan.models.Generator in eval mode
---@param config table
---@param class_names string[]
---@param options {columns: integer?, seed: integer?, truncation: number?, rows: integer?}?
---@return sagan.Tensor u8 {H,W,3}
function pictures.class_grid(G, config, class_names, options)
    local o = options or {}
    local columns = o.columns or 10
    local chosen = config.model.conditional == false and {} or pictures.choose_classes(config.model.classes, o.rows or 10)
    local rows = #chosen > 0 and #chosen or o.rows or 8
    local shared = #chosen > 0
    local z = pictures.noise(shared and columns or rows * columns, config.model.z_dim, o.seed or config.seed, o.truncation)
    local names, labels, parts = {}, {}, {}
    for row = 1, rows do
        names[row] = shared and (class_names[chosen[row] + 1] or tostring(chosen[row])) or nil
        for column = 1, columns do labels[column] = chosen[row] or 0 end
        parts[row] = pictures.generate(G, shared and z or z:rows((row - 1) * columns + 1, columns), labels)
    end
    local all = parts[1]
    for i = 2, rows do all = ops.concat(all, parts[i], 1) end
    return pictures.sheet(all, columns, names)
end

--- Query points for a sheet, as fractions of the height and the width: the centre and four around it.
local QUERIES = { { 0.5, 0.5 }, { 0.25, 0.5 }, { 0.75, 0.5 }, { 0.5, 0.25 }, { 0.5, 0.75 } }

--- Rows of softmax weights drawn as heat over the sample.
---@param sample sagan.Tensor u8 {R,R,C}
---@param weights sagan.Tensor f32 {h,w}
---@param size integer pixels of the result
local function overlay(sample, weights, size)
    local heat = image.resize(image.heatmap(weights), size, size)
    local base = image.resize(image.convert(image.convert(sample, 1), 3), size, size)
    return image.blend(base, heat, 0.7)
end

--- The paper's figure: each row is a sample with its query points marked, then the attention map of each query, the
--- brightest where that point looks most.
---@param G sagan.models.Generator in eval mode, with attention
---@param config table
---@param class_names string[]
---@param options {feat: integer?, seed: integer?, rows: integer?}? feat: which attention, the largest map if absent
---@return sagan.Tensor u8 {H,W,3}
function pictures.attention_sheet(G, config, class_names, options)
    local o = options or {}
    local feat = o.feat
    for size in pairs(G.attention) do
        if not o.feat then feat = math.max(feat or 0, size) end
    end
    local attention = G.attention[feat]
    if not attention then error(("no attention at feat%s"):format(tostring(feat)), 2) end
    local shared = config.model.conditional ~= false
    local chosen = shared and pictures.choose_classes(config.model.classes, o.rows or 6) or { 0, 0, 0, 0, 0, 0 }
    local n = #chosen
    local z = pictures.noise(n, config.model.z_dim, o.seed or config.seed)
    local samples, maps, height, width
    core.no_grad(function()
        G:capture_attention(true)
        samples = ops.float_to_pixels(G(z, core.tensor(chosen, { dtype = "i32" }))):to("cpu")
        local points = {}
        for i, q in ipairs(QUERIES) do points[i] = { math.ceil(q[1] * feat), math.ceil(q[2] * feat) } end
        maps, height, width = attention:map(points)
        maps = maps:to("cpu")
        G:capture_attention(false)
    end)
    local size = math.max(96, config.model.resolution)
    local cell, header = size + 4, 14
    local longest = 0
    if shared then
        for i = 1, n do longest = math.max(longest, #(class_names[chosen[i] + 1] or "")) end
    end
    local margin = longest > 0 and 6 * longest + 8 or 4
    local sheet = image.blank(header + n * cell, margin + (1 + #QUERIES) * cell, 3, PAPER)
    image.text(sheet, margin, 4, ("G.attention%d"):format(feat), 1, INK)
    for i = 1, n do
        local top = header + (i - 1) * cell + 1
        local sample = samples:rows(i, 1):reshape(table.unpack(samples.shape, 2))
        local marked = image.resize(image.convert(sample, 3), size, size)
        if shared then image.text(sheet, 4, top + size // 2 - 4, class_names[chosen[i] + 1] or tostring(chosen[i]), 1, INK) end
        for k, q in ipairs(QUERIES) do
            local y, x = math.ceil((math.ceil(q[1] * feat) - 0.5) * size / feat), math.ceil((math.ceil(q[2] * feat) - 0.5) * size / feat)
            image.draw_rect(marked, x - 2, y - 2, 5, 5, 2, MARKS[k])
            local row = maps:part(((i - 1) * #QUERIES + k - 1) * height * width + 1, { height, width })
            local picture = overlay(sample, row, size)
            image.draw_rect(picture, x - 2, y - 2, 5, 5, 2, MARKS[k])
            image.draw_rect(picture, 1, 1, size, size, 2, MARKS[k])
            image.paste(sheet, picture, margin + k * cell + 1, top)
        end
        image.paste(sheet, marked, margin + 1, top)
    end
    return sheet
end

return pictures
