--- show.lua - pictures in the terminal: sixel, kitty, iTerm2 or Unicode blocks, as the terminal can. The prompt shows u8
--- pictures by itself; show(x) also takes what a network puts out, maps, and files.
---
---     show(G(z, y))                       -- f32 {N, H, W, C} in [-1, 1], as a grid
---     show "runs/feat32/seed-1/samples/ema-00003750.png"
---     show(x, { mode = "half", rows = 20 })
---
--- The environment variable SAGAN_PICTURES names a mode for all pictures (half, symbols, sixel, kitty, iterm2), or off.

local core = require "sagan.core"
local ops, image, system, terminal_picture = core.ops, core.image, core.system, core.terminal_picture

local show = {}

local MOST_SHOWN <const> = 64 -- pictures of a batch
local LEAST_SIDE <const> = 8  -- a smaller u8 tensor is rather numbers than a picture
local LEAST_ROWS <const> = 8  -- of the terminal, which a picture may take; else two thirds, so that the lines before stay

--- The last picture shown: u8 {H, W, C}; nil before the first.
---@type sagan.Tensor?
show.last = nil

--- Whether a value is a picture or a batch of them by its looks: u8 {H, W, 1 or 3} or {N, H, W, 1 or 3}, 8 pixels a side
--- or more.
---@param value any
---@return boolean
function show.is_picture(value)
    if not core.is_tensor(value) then return false end
    local alive, shape = pcall(function() return value.shape end) -- a released tensor has none
    if not alive or value.dtype ~= "u8" or #shape < 3 then return false end
    local height, width, channels = table.unpack(shape, #shape - 2)
    return (channels == 1 or channels == 3) and height >= LEAST_SIDE and width >= LEAST_SIDE
end

local function rows_for(t) return math.max(LEAST_ROWS, t.rows * 2 // 3) end

--- Columns of a grid of n pictures that fills the terminal best.
local function grid_columns(n, height, width)
    local t = terminal_picture.detect()
    local wide = t.columns * t.cell_width / (rows_for(t) * t.cell_height)
    return math.max(1, math.min(n, math.floor(math.sqrt(n * wide * height / width) + 0.5)))
end

--- The picture that stands for a value, and how to call it: a u8 or f32 ([-1, 1]) image, a batch as a grid, an f32 map
--- {h, w} in colours, the name of a file.
---@param value sagan.Tensor|string
---@return sagan.Tensor? picture u8 {H, W, C}; nil if the value cannot be one
---@return string text "picture 64 x 48 RGB", or the reason
function show.picture(value)
    if type(value) == "string" then
        local read, message = image.read(value)
        if not read then return nil, message end
        value = read
    end
    if not core.is_tensor(value) then return nil, ("a %s is no picture"):format(type(value)) end
    local shape, dtype = value.shape, value.dtype
    if #shape == 2 and dtype == "u8" then return show.picture(value:reshape(shape[1], shape[2], 1)) end
    if #shape == 2 and dtype ~= "i32" then
        return image.heatmap(value:to "f32"), ("map %d x %d"):format(shape[2], shape[1])
    end
    local height, width, channels = table.unpack(shape, math.max(1, #shape - 2))
    if #shape < 3 or (channels ~= 1 and channels ~= 3) or dtype == "i32" then
        return nil, ("pictures are u8 or f32 {H, W, 1 or 3}, {N, H, W, 1 or 3} or maps {h, w}; this is %s {%s}"):format(dtype,
            table.concat(shape, ", "))
    end
    local size = ("%d x %d %s"):format(width, height, channels == 1 and "grey" or "RGB")
    if dtype ~= "u8" then value = core.no_grad(ops.float_to_pixels, value:to "f32") end
    value = value:to "cpu"
    if #shape == 3 then return value, "picture " .. size end
    if shape[1] == 1 then return value:reshape(height, width, channels), "picture " .. size end
    local n = math.min(shape[1], MOST_SHOWN)
    local count = n < shape[1] and ("%d of %d"):format(n, shape[1]) or n
    return image.grid(value:rows(1, n), grid_columns(n, height, width), 1), ("%s pictures %s"):format(count, size)
end

--- Prints what show.picture returned: the line, and below it the picture; without a terminal, or with SAGAN_PICTURES=off,
--- only the line.
---@param picture sagan.Tensor u8 {H, W, C}
---@param text string
---@param options? sagan.PictureOptions
function show.print(picture, text, options)
    show.last = picture
    options = options or {}
    local wanted = os.getenv "SAGAN_PICTURES"
    if wanted == "" then wanted = nil end
    local forced = options.mode or options.columns or options.rows
    if not forced and (wanted == "off" or not system.isatty(1)) then
        print(text)
        return
    end
    local t = terminal_picture.detect()
    local drawn, message = terminal_picture.render(picture, {
        mode = options.mode or wanted or t.mode, colors = options.colors or t.colors,
        columns = options.columns or t.columns, rows = options.rows or rows_for(t),
    })
    print(text .. (drawn and "" or (" (not shown: %s)"):format(message)))
    if drawn then io.write(drawn) end
end

--- Prints a picture, and a line with its size.
---@param value sagan.Tensor|string what show.picture takes
---@param options? sagan.PictureOptions
---@return nil
local function print_picture(value, options)
    local picture, text = show.picture(value)
    if not picture then error(text, 3) end
    show.print(picture, text, options)
end

return setmetatable(show, { __call = function(_, value, options) print_picture(value, options) end })
