--- pictures.lua - which pictures a page shows, and the pictures in it: of every arm the newest samples of one and the same
--- seed, so at equal z; the newest sheets of attention. A page has a budget of bytes: pictures are left out whole, in an order
--- that keeps what is compared, and the page says which.
local base64 = require "sagan.base64"
local config = require "sagan.config"
local html = require "sagan.report.html"
local format = require "sagan.report.format"
local setup_table = require "sagan.report.setup_table"
local system = require("sagan.core").system

local e = html.element

local pictures = {}

---@class sagan.report.Picture
---@field path string
---@field caption any
---@field alt string
---@field group string   "samples" or "attention"
---@field rows integer?  of classes in a grid

---@class sagan.report.Budget
---@field left number         bytes
---@field left_out string[]   paths
---@field used integer        pictures in the page

--- A budget for a page.
---@param bytes number
---@return sagan.report.Budget
function pictures.budget(bytes) return { left = bytes, left_out = {}, used = 0 } end

-- Width and height of a PNG file's bytes; nil if it is none.
local function png_size(bytes)
    if bytes:sub(1, 8) ~= "\137PNG\r\n\26\n" or #bytes < 24 then return nil end
    return string.unpack(">I4I4", bytes, 17)
end

--- The seed of which most arms have samples, and the kind that all of those have: the average, else the raw generator.
---@param group sagan.report.Group
---@return integer? seed
---@return string? kind
function pictures.seed_and_kind(group)
    local best, most, kind = nil, 0, nil
    for _, seed in ipairs(group.seeds) do
        local n, average = 0, true
        for _, arm in ipairs(group.arms) do
            local cell = (group.by[arm.name] or {})[seed]
            local has = {}
            for _, p in ipairs(cell and cell.run and cell.run.pictures or {}) do has[p.kind] = true end
            if next(has) then
                n = n + 1
                average = average and has.ema == true
            end
        end
        if n > most then best, most, kind = seed, n, average and "ema" or "raw" end
    end
    return best, kind
end

--- Fields that must agree for pictures of one seed to show the same z in the same place.
local SAME_Z <const> = { "model.z_dim", "model.conditional", "sample.columns", "sample.rows", "data" }

--- Names of the fields by which z or its place differs between arms.
---@param group sagan.report.Group
---@return string[]
function pictures.unlike_z(group)
    local names, first = {}, nil
    for _, field in ipairs(SAME_Z) do
        local unlike = false
        for _, arm in ipairs(group.arms) do
            local c = setup_table.config(group, arm.name)
            first = first or c
            unlike = unlike or c and config.get(c, field) ~= config.get(first, field)
        end
        if unlike then names[#names + 1] = field end
    end
    return names
end

-- Rows of classes in a grid, if it has any; as pictures.class_grid draws them.
local function class_rows(c)
    if not c or c.model.conditional == false or not math.type(c.model.classes) then return nil end
    return math.min(c.model.classes, c.sample.rows)
end

--- The newest samples of each arm at one seed: what is there, and for what is not, why.
---@param group sagan.report.Group
---@return sagan.report.Picture[] list
---@return {arm: string, reason: string}[] missing
---@return integer? seed
---@return string? kind
function pictures.samples(group)
    local seed, kind = pictures.seed_and_kind(group)
    local list, missing = {}, {}
    if not seed then return list, missing end
    for _, arm in ipairs(group.arms) do
        local cell = (group.by[arm.name] or {})[seed]
        local newest
        for _, p in ipairs(cell and cell.run and cell.run.pictures or {}) do
            if not newest and p.kind == kind then newest = p end
        end
        if newest then
            local early = cell.outcome ~= "done" and (" (%s)"):format(cell.outcome == "open" and "not at its end" or cell.outcome)
                or ""
            list[#list + 1] = {
                path = newest.path, rows = class_rows(cell.run.config), arm = arm.name,
                caption = { e("b", {}, arm.name), (", step %s%s"):format(format.number(newest.step), early) },
                alt = ("Generated samples of %s, seed %d, step %d%s: one row a class, one column a z."):format(arm.name, seed,
                    newest.step, early),
            }
        else
            missing[#missing + 1] = { arm = arm.name, reason = cell and cell.reason or "no picture yet" }
        end
    end
    return list, missing, seed, kind
end

--- The newest sheet of attention of each arm that has one, at one seed if it can be.
---@param group sagan.report.Group
---@param seed integer?
---@return sagan.report.Picture[]
function pictures.attention(group, seed)
    local list = {}
    for _, arm in ipairs(group.arms) do
        local cells = group.by[arm.name] or {}
        local chosen = seed and cells[seed] and cells[seed].run and cells[seed].run.attention and cells[seed]
        for _, other in ipairs(group.seeds) do
            chosen = chosen or cells[other] and cells[other].run and cells[other].run.attention and cells[other]
        end
        if chosen then
            local sheet = chosen.run.attention
            list[#list + 1] = {
                path = sheet.path,
                caption = { e("b", {}, arm.name), (", seed %d, step %s"):format(chosen.seed, format.number(sheet.step)) },
                alt = ("Attention maps of %s, seed %d, step %d: each row a sample with five query points, then where each of "
                    .. "them looks."):format(arm.name, chosen.seed, sheet.step),
            }
        end
    end
    return list
end

--- Reads a picture if the budget allows it.
---@param picture sagan.report.Picture
---@param budget sagan.report.Budget
---@return {uri: string, width: integer, height: integer}? data
---@return string? why
function pictures.load(picture, budget)
    local stat = system.stat(picture.path)
    if not stat then return nil, picture.path .. ": it is gone" end
    local size = (stat.size + 2) // 3 * 4
    if size > budget.left then
        budget.left_out[#budget.left_out + 1] = picture.path
        return nil, ("left out, for the size of the page: %s"):format(picture.path)
    end
    local bytes, message = system.read(picture.path)
    local width, height = png_size(bytes or "")
    if not width then return nil, ("%s: %s"):format(picture.path, message or "no PNG picture") end
    budget.left, budget.used = budget.left - size, budget.used + 1
    return { uri = "data:image/png;base64," .. base64.encode(bytes), width = width, height = height }
end

-- Pixels of width below which a picture is enlarged on most screens: then pixels stay pixels.
local SMALL <const> = 340

local function figure(picture, data, why, id)
    local caption = e("figcaption", {}, picture.caption)
    if not data then return e("figure", { class = "picture" }, e("p", { class = "missing box" }, why), caption) end
    -- SVG rather than img: the strips of the classes use the same picture again
    return e("figure", { class = data.width <= SMALL and "picture small" or "picture" },
        e("svg", { viewBox = ("0 0 %d %d"):format(data.width, data.height), role = "img", ["aria-label"] = picture.alt },
            e("image", { id = id, href = data.uri, width = data.width, height = data.height })), caption)
end

-- The rows of all grids, class by class: the arms under each other at equal class and z.
local function strips(list, loaded, ids)
    local rows, most = {}, 0
    for i, p in ipairs(list) do
        if loaded[i] and p.rows and p.rows > 0 then most = math.max(most, p.rows) end
    end
    for row = 1, most do
        local parts = {}
        for i, p in ipairs(list) do
            local data = loaded[i]
            if data and p.rows and row <= p.rows then
                local cell = (data.height - 2) / p.rows -- a frame of two pixels around every picture
                parts[#parts + 1] = e("div", { class = "strip" }, e("span", {}, p.arm),
                    e("svg", { viewBox = ("0 %.6g %d %.6g"):format((row - 1) * cell + 1, data.width, cell), role = "img",
                        ["aria-label"] = ("Row %d of the samples of %s"):format(row, p.arm) },
                        e("use", { href = "#" .. ids[i] })))
            end
        end
        rows[row] = e("div", { class = "strips" }, parts)
    end
    return #rows > 0 and rows or nil
end

--- Pictures as figures beside each other; with `by_class` also class by class.
---@param list sagan.report.Picture[]
---@param o {budget: sagan.report.Budget, next_id: fun(): string, by_class: boolean?}
---@return sagan.report.Node
function pictures.figures(list, o)
    local figures, loaded, ids, shown = {}, {}, {}, 0
    for i, p in ipairs(list) do
        local data, why = pictures.load(p, o.budget)
        loaded[i], ids[i] = data or false, o.next_id()
        figures[i] = figure(p, data, why, ids[i])
        shown = shown + (data and 1 or 0)
    end
    local by_class = o.by_class and shown > 1 and strips(list, loaded, ids)
    return e("div", {}, e("div", { class = "pictures" }, figures), by_class and e("details", { class = "classes" },
        e("summary", {}, "The same pictures class by class, the arms under each other"), by_class))
end

return pictures
