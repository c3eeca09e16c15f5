--- explore.lua - between and beyond samples of a generator: strips from one class or z to another, and what cutting off z
--- does. Methods of run.G (sagan/run.lua); with file = "x.png" the picture is written too.
---
---     local strip = assert(run.G:interpolate { from = { seed = 1, class = "Sandal" }, to = { class = "Ankle boot" } })
---     strip.images                          -- u8 {steps, R, R, C}; strip.picture: the same side by side
---     local sweep = assert(run.G:truncation_sweep { values = { 0.5, 1, 2 }, class = "Bag" })
---     sweep.spread                          -- how much pixels vary from sample to sample, for each value
local core = require "sagan.core"
local arguments = require "sagan.arguments"
local input = require "sagan.microscope_input"
local pictures = require "sagan.pictures"
local ops = core.ops

local explore = {}

--- Images of G for rows of z and mixtures of classes.
local function generate(view, z, mix)
    local parts, batch = {}, 32
    for first = 1, z:size(1), batch do
        local n = math.min(batch, z:size(1) - first + 1)
        parts[#parts + 1] = core.scope(function()
            return core.no_grad(ops.float_to_pixels, view(z:rows(first, n), mix and mix:rows(first, n))):to("cpu")
        end)
    end
    return pictures.join(parts)
end

--- From a to b along the great circle between them, in `steps` points with both ends; a plain mean would be shorter than any
--- z that the generator knows. The length goes from one to the other in a straight line.
---@param a number[]
---@param b number[]
---@param steps integer
---@return number[][]
function explore.spherical(a, b, steps)
    local aa, bb, ab = 0, 0, 0
    for i = 1, #a do aa, bb, ab = aa + a[i] ^ 2, bb + b[i] ^ 2, ab + a[i] * b[i] end
    local la, lb, rows = math.sqrt(aa), math.sqrt(bb), {}
    local angle = la > 0 and lb > 0 and math.acos(math.max(-1, math.min(1, ab / (la * lb)))) or 0
    for step = 1, steps do
        local t, row = steps > 1 and (step - 1) / (steps - 1) or 0, {}
        local length = (1 - t) * la + t * lb
        local wa, wb = 1 - t, t
        if math.sin(angle) > 1e-6 then
            wa = math.sin((1 - t) * angle) / math.sin(angle) * length / la
            wb = math.sin(t * angle) / math.sin(angle) * length / lb
        end
        for i = 1, #a do row[i] = t == 0 and a[i] or t == 1 and b[i] or wa * a[i] + wb * b[i] end
        rows[step] = row
    end
    return rows
end

local function write(result, file)
    if not file then return result end
    local ok, message = core.image.write(file, result.picture)
    if not ok then return nil, message end
    return result
end

---@class sagan.Place      a sample of G
---@field seed? integer     z is drawn; the run's seed if z is absent too
---@field z? sagan.Tensor|number[]
---@field class? string|integer  a name, or a number from 1; the first

---@class sagan.Strip
---@field images sagan.Tensor   u8 {steps, R, R, C}
---@field z sagan.Tensor        {steps, z_dim}
---@field mix? sagan.Tensor     {steps, classes}: the weights of the classes; nil if G knows none
---@field picture sagan.Tensor  u8 {H, W, 3}

--- A strip from one sample to another: z along the great circle, the class linearly, as gains and biases of the conditional
--- normalisation mixed from the tables' rows. What `to` leaves out is as in `from`.
---@param view sagan.RunNet
---@param options {from: sagan.Place?, to: sagan.Place?, steps: integer?, file: string?}  steps: pictures with both ends, 8
---@return sagan.Strip? strip
---@return string? message  the file cannot be written
function explore.interpolate(view, options)
    local o = arguments("G:interpolate", options, { "from", "to", "steps", "file" })
    if view.letter ~= "G" then error("interpolate is G's", 2) end
    local steps = o.steps or 8
    if math.type(steps) ~= "integer" or steps < 2 then error("G:interpolate: steps is a whole number from 2", 2) end
    local places = { "seed", "z", "class" }
    local from = arguments("G:interpolate from", o.from or {}, places)
    local to = arguments("G:interpolate to", o.to or {}, places)
    if to.z == nil and to.seed == nil then to = { z = from.z, seed = from.seed, class = to.class } end
    if to.class == nil then to = { z = to.z, seed = to.seed, class = from.class } end
    local a, a_label = input.read(view, from)
    local b, b_label = input.read(view, to)
    local z = core.tensor(explore.spherical(a:totable()[1], b:totable()[1], steps))
    local mix
    if view.config.model.conditional ~= false then
        local rows = {}
        for step = 1, steps do
            local t = (step - 1) / (steps - 1)
            rows[step] = {}
            for class = 1, view.config.model.classes do rows[step][class] = 0 end
            rows[step][a_label[1] + 1] = 1 - t
            rows[step][b_label[1] + 1] = rows[step][b_label[1] + 1] + t
        end
        mix = core.tensor(rows)
    end
    local images = generate(view, z, mix)
    return write({ images = images, z = z, mix = mix, picture = pictures.sheet(images, steps, {}) }, o.file)
end

---@class sagan.TruncationSweep
---@field values number[]
---@field spread number[]       mean over the pixels of the standard deviation over the samples, in units of [-1, 1]
---@field images sagan.Tensor   u8 {values * columns, R, R, C}
---@field picture sagan.Tensor  u8 {H, W, 3}

local function spread_of(images)
    return core.scope(core.no_grad, function()
        local n = images:size(1)
        local x = ops.pixels_to_float(images:to(core.device()), core.zeros({ 2 }, { dtype = "i32" }), 0, 0):reshape(n, -1)
        local mean = ops.mean(x, 1)
        return ops.mean(ops.sqrt(ops.relu(ops.sub(ops.mean(ops.square(x), 1), ops.square(mean))))):item()
    end)
end

--- Samples with z drawn from a normal that is cut off ever farther out: one row a value, one column a z, which moves only as
--- far as the cut moves it.
---@param view sagan.RunNet
---@param options? {values: number[]?, seed: integer?, class: (string|integer)?, columns: integer?, file: string?}  values:
--- 0.25, 0.5, 1, 1.5, 2 and math.huge (no cut); columns: 10
---@return sagan.TruncationSweep? sweep
---@return string? message  the file cannot be written
function explore.truncation_sweep(view, options)
    local o = arguments("G:truncation_sweep", options, { "values", "seed", "class", "columns", "file" })
    if view.letter ~= "G" then error("truncation_sweep is G's", 2) end
    local values, columns = o.values or { 0.25, 0.5, 1, 1.5, 2, math.huge }, o.columns or 10
    local _, label, class_names = input.read(view, { class = o.class })
    local labels, parts, names, spread = {}, {}, {}, {}
    for i = 1, columns do labels[i] = label[1] end
    for row, value in ipairs(values) do
        if not math.type(value) or value <= 0 then error("G:truncation_sweep: values are numbers above 0", 2) end
        local z = pictures.noise(columns, view.config.model.z_dim, o.seed or view.config.seed, value < math.huge and value or 0)
        parts[row] = pictures.generate(view.net, z, labels)
        names[row] = value < math.huge and ("%g"):format(value) or "none"
        spread[row] = spread_of(parts[row])
    end
    local images = pictures.join(parts)
    return write({ values = values, spread = spread, images = images, class = class_names[1],
        picture = pictures.sheet(images, columns, names) }, o.file)
end

return explore
