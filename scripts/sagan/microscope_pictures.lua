--- microscope_pictures.lua - what the microscope draws: one query point large, sheets of many, a knock-out beside what it
--- was, the same point over training. Every function takes the object and one table of options; with file = "x.png" the
--- picture is written too, and if that fails the result is nil and a message.
local core = require "sagan.core"
local arguments = require "sagan.arguments"
local image, ops = core.image, core.ops

local draw = {}

local INK <const>, PAPER <const>, FAINT <const> = { 32, 32, 32 }, { 255, 255, 255 }, { 120, 120, 120 }
local MARKS <const> = { { 230, 60, 60 }, { 40, 160, 70 }, { 60, 110, 230 }, { 235, 160, 30 }, { 160, 70, 200 } }
local GAP <const>, LINE <const> = 8, 12 -- pixels between parts, and of a line of small text

--- Query points of a sheet, as fractions of the height and the width: the centre and four around it.
local QUERIES <const> = { { 0.5, 0.5 }, { 0.25, 0.5 }, { 0.75, 0.5 }, { 0.5, 0.25 }, { 0.5, 0.75 } }

local function deliver(picture, file)
    if not file then return picture end
    local ok, message = image.write(file, picture)
    if not ok then return nil, message end
    return picture
end

--- The pixel in the middle of the i-th of so many cells along a side.
local function middle(i, cells, side) return math.ceil((i - 0.5) * side / cells) end

--- One of the attention's images, {side, side, 3}.
local function sample_of(a, i, side)
    local one = a.images:rows(i, 1)
    return image.resize(image.convert(one:reshape(table.unpack(one.shape, 2)), 3), side, side)
end

--- A round mark that is seen on dark and on bright.
local function mark(picture, a, point, color, radius)
    local side = picture:size(1)
    local y, x = middle(point.y, a.grid.height, side), middle(point.x, a.grid.width, side)
    image.draw_line(picture, x, y, x, y, 2 * radius + 4, { 0, 0, 0 })
    image.draw_line(picture, x, y, x, y, 2 * radius + 2, { 255, 255, 255 })
    image.draw_line(picture, x, y, x, y, 2 * radius - 1, color)
end

--- The weights of a point as heat over the grey sample; lines to the keys with the most weight, the thicker and the fuller
--- the more; the point itself marked. Where a map is nearly uniform even the largest weight is little, and so are its lines.
---@return sagan.Tensor picture
---@return number low, number high  the weights at the ends of the colours
local function overlay(a, point, side, color, top, radius)
    local here = { y = point.y, x = point.x, image = point.image }
    local map = a:map(here)
    local grey = image.convert(image.convert(sample_of(a, point.image, side), 1), 3)
    local picture = image.blend(grey, image.resize(image.heatmap(map), side, side), 0.7)
    local keys = {}
    if top > 0 then
        here.count = top
        keys = a:top(here)
    end
    local y, x = middle(point.y, a.grid.height, side), middle(point.x, a.grid.width, side)
    local count = a.grid.key_height * a.grid.key_width
    for i = #keys, 1, -1 do
        local key = keys[i]
        local times = keys[1].weight * count -- the uniform weight
        local part = times > 0 and key.weight / keys[1].weight * times / (times + 4) or 0
        local ky, kx = middle(key.y, a.grid.key_height, side), middle(key.x, a.grid.key_width, side)
        local thick = radius * (0.15 + 0.45 * part)
        image.draw_line(picture, x, y, kx, ky, thick + 2, { 0, 0, 0 }, 0.15 + 0.35 * part)
        image.draw_line(picture, x, y, kx, ky, thick, { 255, 255, 255 }, 0.35 + 0.65 * part)
        image.draw_line(picture, kx, ky, kx, ky, thick + 4, { 0, 0, 0 })
        image.draw_line(picture, kx, ky, kx, ky, thick + 2, { 255, 255, 255 })
    end
    mark(picture, a, point, color, radius)
    return picture, map:min():item(), map:max():item()
end

--- A bar of the colours with what its ends mean, for a panel of this height.
local function legend(sheet, x, y, side, low, high, keys)
    local width, values = 12, {}
    for i = 1, side do values[i] = { (side - i) / side } end
    image.paste(sheet, image.resize(image.heatmap(core.tensor(values), 0, 1), side, width), x, y)
    local function label(value) return ("%.2g"):format(value * keys) end
    image.text(sheet, x + width + 4, y, label(high), 1, INK)
    image.text(sheet, x + width + 4, y + side - 7, label(low), 1, INK)
    for i, text in ipairs { "times", "the", "uniform", "weight" } do
        image.text(sheet, x + width + 4, y + side // 2 - 24 + i * 10, text, 1, FAINT)
    end
end

local function title_of(a, i)
    local view = a.view
    return table.concat({ a.name, view.step and "step " .. view.step or nil, view.weights, a.classes[i],
        a.altered and "knock-out " .. a.altered.name or nil }, ", ")
end

local function wide_enough(width, ...)
    for _, text in ipairs { ... } do width = math.max(width, 6 * #text + 2 * GAP) end
    return width
end

--- One query point: the sample with the point marked, and beside it where the point looks.
---@param a sagan.Attention
---@param options sagan.Point|{top: integer?, size: integer?, file: string?}  top: lines to so many keys, 8; size: of a panel
---                                                                            in pixels, 384
---@return sagan.Tensor? picture u8 {H,W,3}
---@return string? message
function draw.show(a, options)
    local known = { "y", "x", "image", "top", "size", "file", positional = 2 }
    local o = options or {}
    local point, side, top = a:place("show", o, known), o.size or 384, o.top or 8
    local keys = a.grid.key_height * a.grid.key_width
    local radius, title = math.max(3, side // 64), title_of(a, point.image)
    local panel, low, high = overlay(a, point, side, MARKS[1], top, radius)
    local plain = sample_of(a, point.image, side)
    mark(plain, a, point, MARKS[1], radius)
    local here = { y = point.y, x = point.x, image = point.image }
    local entropy, uniform = a:entropy(here)
    local caption = ("query y %d, x %d: entropy %.2f of %.2f nats, mean distance %.1f px of %d"):format(point.y, point.x, entropy,
        uniform, a:distance(here), a.view.config.model.resolution)
    if top > 0 then
        local held = 0
        here.count = top
        for _, key in ipairs(a:top(here)) do held = held + key.weight end
        caption = ("%s; the %d lines hold %.1f %%"):format(caption, top, 100 * held)
    end
    local sheet = image.blank(side + 2 * LINE + 3 * GAP, wide_enough(2 * side + 4 * GAP + 60, title, caption), 3, PAPER)
    image.text(sheet, GAP, GAP, title, 1, INK)
    image.paste(sheet, plain, GAP, GAP + LINE + 1)
    image.paste(sheet, panel, side + 2 * GAP, GAP + LINE + 1)
    legend(sheet, 2 * side + 3 * GAP, GAP + LINE + 1, side, low, high, keys)
    image.text(sheet, GAP, side + 2 * GAP + LINE + 2, caption, 1, INK)
    return deliver(sheet, o.file)
end

--- Pictures in a table with names of rows on the left and of columns above.
---@param rows sagan.Tensor[][]  all of the same size
local function tabulate(rows, row_names, column_names, title)
    local side, margin, longest = rows[1][1]:size(1), GAP, 0
    for _, name in ipairs(row_names) do longest = math.max(longest, #name) end
    if longest > 0 then margin = 6 * longest + 2 * GAP end
    local top = GAP + (title and LINE + 4 or 0) + (#column_names > 0 and LINE or 0)
    local width = wide_enough(margin + #rows[1] * (side + 4) + GAP, title or "")
    local sheet = image.blank(top + #rows * (side + 4) + GAP, width, 3, PAPER)
    if title then image.text(sheet, GAP, GAP, title, 1, INK) end
    for c, name in ipairs(column_names) do image.text(sheet, margin + (c - 1) * (side + 4) + 1, top - LINE + 2, name, 1, INK) end
    for r, row in ipairs(rows) do
        local y = top + (r - 1) * (side + 4) + 1
        image.text(sheet, GAP, y + side // 2 - 4, row_names[r] or "", 1, INK)
        for c, picture in ipairs(row) do image.paste(sheet, picture, margin + (c - 1) * (side + 4) + 1, y) end
    end
    return sheet
end

--- Many query points: each row is an input with its points marked, then where each of them looks, framed in its colour.
---@param a sagan.Attention
---@param options? {queries: integer[][]?, top: integer?, size: integer?, file: string?}  queries: {y, x} each, five around the
---                  centre; top: lines to so many keys, 3; size: of a picture, at least 96 and the image's
---@return sagan.Tensor? picture u8 {H,W,3}
---@return string? message
function draw.sheet(a, options)
    local o = arguments("a:sheet", options, { "queries", "top", "size", "file" })
    local side, top = o.size or math.max(96, a.view.config.model.resolution), o.top or 3
    local points = {}
    if o.queries then
        for i, query in ipairs(o.queries) do points[i] = a:place("sheet", query) end
    else
        for i, q in ipairs(QUERIES) do
            points[i] = { y = math.ceil(q[1] * a.grid.height), x = math.ceil(q[2] * a.grid.width) }
        end
    end
    local rows = {}
    for i = 1, a.count do
        local marked = sample_of(a, i, side)
        rows[i] = { marked }
        for k, point in ipairs(points) do
            local color = MARKS[(k - 1) % #MARKS + 1]
            point.image = i
            local panel = overlay(a, point, side, color, top, 3)
            image.draw_rect(panel, 1, 1, side, side, 2, color)
            rows[i][k + 1] = panel
            mark(marked, a, point, color, 3)
        end
    end
    local title = table.concat({ a.name, a.altered and "knock-out " .. a.altered.name or nil }, ", ")
    return deliver(tabulate(rows, a.classes, {}, title), o.file)
end

--- What a knock-out does, input by input: as it was, altered, and where they differ. D's logits are written instead.
---@param a sagan.Attention  of a:knockout{...}
---@param options? {size: integer?, file: string?}  size: of a picture, at least 96 and the image's
---@return sagan.Tensor? picture u8 {H,W,3}
---@return string? message
function draw.compare(a, options)
    local o = arguments("a:compare", options, { "size", "file" })
    if not a.plain then error("a:compare draws a knock-out beside what it was: a:knockout{...}:compare()", 2) end
    local side = o.size or math.max(96, a.view.config.model.resolution)
    local rows, names = {}, {}
    if a.view.letter == "D" then
        for i = 1, a.count do
            rows[i] = { sample_of(a, i, side) }
            names[i] = ("%s %.3f, without %.3f"):format(a.classes[i] or "logit", a.output:get(i, 1), a.plain.output:get(i, 1))
        end
        return deliver(tabulate(rows, names, {}, ("%s, knock-out %s"):format(a.name, a.altered.name)), o.file)
    end
    local difference = core.no_grad(function()
        return ops.mean(ops.abs(ops.sub(a.output, a.plain.output)), 4):to("cpu")
    end)
    local high = math.max(difference:max():item(), 1e-6)
    local heat = image.heatmap(difference, 0, high)
    for i = 1, a.count do
        local one = heat:rows(i, 1)
        rows[i] = { sample_of(a.plain, i, side), sample_of(a, i, side),
            image.resize(one:reshape(table.unpack(one.shape, 2)), side, side) }
    end
    local title = ("%s, knock-out %s; differences to %.2g of 2"):format(a.name, a.altered.name, high)
    return deliver(tabulate(rows, a.classes, { "as it is", "altered", "difference" }, title), o.file)
end

--- One query point over training: at each checkpoint the input with the point marked and where it looks.
---@param rollout sagan.Rollout
---@param options sagan.Point|{top: integer?, size: integer?, file: string?}  top: 3; size: at least 96 and the image's
---@return sagan.Tensor? picture u8 {H,W,3}
---@return string? message
function draw.history(rollout, options)
    local last, o = rollout[#rollout], options or {}
    local point = last:place("show", o, { "y", "x", "image", "top", "size", "file", positional = 2 })
    local side = o.size or math.max(96, last.view.config.model.resolution)
    local samples, maps, names = {}, {}, {}
    for i, a in ipairs(rollout) do
        samples[i] = sample_of(a, point.image, side)
        mark(samples[i], a, point, MARKS[1], 3)
        maps[i] = overlay(a, point, side, MARKS[1], o.top or 3, 3)
        names[i] = "step " .. a.view.step
    end
    local title = table.concat({ last.name, last.classes[point.image], ("query y %d, x %d"):format(point.y, point.x) }, ", ")
    return deliver(tabulate({ samples, maps }, {}, names, title), o.file)
end

return draw
