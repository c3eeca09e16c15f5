--- pictures.lua - what a run shows: grids of samples by class at fixed z. Attention is drawn by microscope_pictures.lua.
local core = require "sagan.core"
local ops, image = core.ops, core.image
local streams = require "sagan.streams"

local pictures = {}

local INK, PAPER = { 32, 32, 32 }, { 255, 255, 255 }

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

--- Batches as one.
---@param parts sagan.Tensor[]  {n, ...}
---@return sagan.Tensor
function pictures.join(parts)
    local all = parts[1]
    for i = 2, #parts do all = ops.concat(all, parts[i], 1) end
    return all
end

--- Pictures of one size as one batch.
---@param list sagan.Tensor[]  u8 {H,W,C}
---@return sagan.Tensor u8 {n,H,W,C}
function pictures.stack(list)
    local all = core.empty({ #list, table.unpack(list[1].shape) }, { dtype = "u8", device = "cpu" })
    for i, picture in ipairs(list) do all:rows(i, 1):copy_(picture:reshape(1, table.unpack(picture.shape))) end
    return all
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
    return pictures.join(parts)
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
    return pictures.sheet(pictures.join(parts), columns, names)
end

return pictures
