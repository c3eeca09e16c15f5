--- microscope_input.lua - what a network is looked at with: z for G, pictures for D, and labels, from what a user names.
local core = require "sagan.core"
local nearest = require "sagan.nearest"
local pictures = require "sagan.pictures"
local image, ops = core.image, core.ops

local input = {}

-- Whose line the message carries: fail, the function here, input.read, microscope.open, the user's.
local function fail(text, ...) error(text:format(...), 5) end

local function quoted(names)
    local out = {}
    for i, name in ipairs(names) do out[i] = "'" .. name .. "'" end
    return table.concat(out, ", ")
end

-- The names nearest to a word, and all of them where they are few.
local function hint(word, names)
    local left, near = table.move(names, 1, #names, 1, {}), {}
    while #near < 4 do
        local best = nearest(word, left)
        if not best then break end
        near[#near + 1] = best
        for i, name in ipairs(left) do
            if name == best then
                table.remove(left, i)
                break
            end
        end
    end
    local text = #near > 0 and "; did you mean " .. quoted(near) .. "? The" or "; the"
    if #names <= 16 then return text .. " run has " .. table.concat(names, ", ") end
    return text .. (" run has %d classes"):format(#names)
end

-- Labels, counted from 0, for n inputs, and the names of their classes. One class is that of all.
local function labels_of(view, class, n)
    local names, count, model = view.class_names, view.config.model.classes, view.config.model
    local labels = {}
    if model.conditional == false then
        if class ~= nil then fail("class: this run's networks know no classes (model.conditional = false)") end
        for i = 1, n do labels[i] = 0 end
        return labels, {}
    end
    local wanted = type(class) == "table" and class or { class or 1 }
    if #wanted ~= 1 and #wanted ~= n then
        fail("class: %d classes for %d inputs; name one for all, or one for each", #wanted, n)
    end
    local shown = {}
    for i = 1, n do
        local one = wanted[#wanted == 1 and 1 or i]
        local number = math.type(one) == "integer" and one or nil
        for k, name in ipairs(names) do
            if name == one then number = k end
        end
        if not number then fail("class: there is no '%s'%s", tostring(one), hint(tostring(one), names)) end
        if number < 1 or number > count then fail("class: %d is outside of 1..%d", number, count) end
        labels[i], shown[i] = number - 1, names[number] or tostring(number)
    end
    return labels, shown
end

local function noise_of(view, o)
    local z_dim = view.config.model.z_dim
    if o.z == nil then
        local count = o.count or type(o.class) == "table" and #o.class or 1
        if math.type(count) ~= "integer" or count < 1 then fail("count is a whole number from 1") end
        local seed = o.seed or view.config.seed
        if math.type(seed) ~= "integer" or seed < 0 then fail("seed is a whole number from 0") end
        return pictures.noise(count, z_dim, seed)
    end
    if o.seed ~= nil or o.count ~= nil then fail("z is given; seed and count are for z that is drawn") end
    local z = core.is_tensor(o.z) and o.z or core.tensor(o.z)
    if z.dtype ~= "f32" or z.rank > 2 or z:size(z.rank) ~= z_dim then
        fail("z is f32 {%d} or {n, %d}, not %s {%s}", z_dim, z_dim, z.dtype, table.concat(z.shape, ", "))
    end
    return z:detach():reshape(-1, z_dim):to(core.device())
end

-- u8 {H,W,C} as the data are made to fit: colours first, then the largest centred square, then the size.
local function fit(picture, model)
    if picture:size(3) ~= model.channels then picture = image.convert(picture, model.channels) end
    local height, width = picture:size(1), picture:size(2)
    if height == model.resolution and width == height then return picture end
    return image.resize(image.crop_center(picture), model.resolution, model.resolution)
end

local function to_float(u8)
    return ops.pixels_to_float(u8:to(core.device()), core.zeros({ 2 }, { dtype = "i32" }), 0, 0)
end

local function images_of(view, o)
    local model, given = view.config.model, o.image
    local want = ("image: D looks at pictures: a file, a list of files, u8 {H,W,C} or {n,H,W,C}, or f32 {n,%d,%d,%d}")
        :format(model.resolution, model.resolution, model.channels)
    if core.is_tensor(given) then
        local shape = given.shape
        if given.dtype == "f32" then
            if #shape ~= 4 or shape[2] ~= model.resolution or shape[3] ~= model.resolution or shape[4] ~= model.channels then
                fail("%s, not f32 {%s}", want, table.concat(shape, ", "))
            end
            return given:detach():to(core.device())
        end
        if given.dtype ~= "u8" or #shape < 3 then fail("%s, not %s {%s}", want, given.dtype, table.concat(shape, ", ")) end
        local all, list = given:reshape(-1, table.unpack(shape, #shape - 2)), {}
        for i = 1, all:size(1) do list[i] = fit(all:rows(i, 1):reshape(table.unpack(shape, #shape - 2)), model) end
        return to_float(pictures.stack(list))
    end
    local files, list = type(given) == "table" and given or { given }, {}
    if #files == 0 then fail("%s", want) end
    for i, path in ipairs(files) do
        if type(path) ~= "string" then fail("%s, not %s", want, tostring(path)) end
        local picture, message = image.read(path, model.channels)
        if not picture then return nil, message end
        list[i] = fit(picture, model)
    end
    return to_float(pictures.stack(list))
end

--- Reads what net:attention{...} was given.
---@param view sagan.RunNet
---@param o sagan.AttentionOptions
---@return sagan.Tensor? x       z {n, z_dim}, or images f32 {n,R,R,C}; nil: a picture cannot be read
---@return integer[]|string labels_or_message  counted from 0
---@return string[]? class_names  of the labels; {} without classes
function input.read(view, o)
    local make = view.letter == "G" and noise_of or images_of
    local x, message = make(view, o)
    if not x then return nil, message end
    local labels, names = labels_of(view, o.class, x:size(1))
    return x, labels, names
end

return input
