--- metrics.lua - scores from features: Frechet distance (FID), inception score, KID, precision/recall/density/coverage,
--- Frechet distance within classes; and legs, counted in pictures.
--
--     local metrics = require "sagan.metrics"
--     local real, fake = metrics.moments(), metrics.moments()
--     for batch in batches do assert(real:add(network(batch))) end
--     local distance, warning = assert(metrics.frechet(real, fake))
--
-- Features and logits are f32 {N, D}, one row an image; whose features they are, the caller says. They come from u8 images,
-- fakes quantised exactly once (ops.float_to_pixels). All is computed in f64 on the CPU, and is the same for any number of
-- threads. What is wrong with the numbers (too few, NaN or infinity, widths that differ, a class that is missing) is nil,
-- message, code. What makes a score misleading, yet leaves it what it is by definition, is a warning beside it.
local core = require "sagan.core"
local engine = core.metrics

local metrics = {}

--- Mean and population standard deviation.
---@param values number[]
local function summary(values)
    local mean, square = 0, 0
    for _, v in ipairs(values) do mean = mean + v / #values end
    for _, v in ipairs(values) do square = square + (v - mean) ^ 2 / #values end
    return mean, math.sqrt(square)
end

--- Raises unless all fields of the options are known.
local function check_options(name, options, known)
    for field in pairs(options) do
        if not known[field] then
            local names = {}
            for k in pairs(known) do names[#names + 1] = k end
            local near = type(field) == "string" and require "sagan.nearest"(field, names)
            error(("metrics.%s: no option '%s'%s"):format(name, tostring(field),
                near and (" (did you mean '%s'?)"):format(near) or ""), 3)
        end
    end
end

-------------------------------------------------------------------------------------------------- Frechet distance

--- An empty stream of features: m:add(features), m:merge(other), m:count(), m:width(), m:close(). Holds D^2 numbers, not the
--- rows. A batch that is refused spoils the stream, so that no score can leave it out unnoticed.
---@return sagan.Moments
function metrics.moments() return engine.moments() end

local FORMAT = "sagan.moments.1"

--- Writes moments to a safetensors file: `mean` {D, 8} and `scatter` {D (D + 1) / 2, 8}, bytes of f64 numbers (the sum of
--- (x - mean)(x - mean)', lower triangle, row after row); the covariance is scatter / (n - 1).
---@param m sagan.Moments
---@param path string
---@param metadata table<string, string>? what the features are of
---@return true? ok
---@return string? message
function metrics.save(m, path, metadata)
    local mean, scatter, code = m:export()
    if not mean then return nil, scatter, code end
    local all = { format = FORMAT, count = ("%d"):format(m:count()) }
    for key, value in pairs(metadata or {}) do
        if all[key] then error(("metrics.save: metadata '%s' is the file's own"):format(key), 2) end
        all[key] = value
    end
    local ok, message
    ok, message, code = core.safetensors.save(path, { mean = mean, scatter = scatter }, all)
    mean:release()
    scatter:release()
    return ok, message, code
end

--- Moments from a file that save wrote.
---@param path string
---@return sagan.Moments? moments
---@return table<string, string>|string metadata_or_message
function metrics.load(path)
    local device = core.device()
    core.device "cpu"
    local ok, tensors, metadata, code = pcall(core.safetensors.load, path)
    core.device(device)
    if not ok then error(tensors, 0) end
    if not tensors then return nil, metadata, code end
    local n, mean, scatter = math.tointeger(tonumber(metadata.count)), tensors.mean, tensors.scatter
    local m, message = nil, "is no file of moments"
    local function is_list(t) return t and t.dtype == "u8" and t.rank == 2 and t:size(2) == 8 end
    if metadata.format == FORMAT and n and is_list(mean) and is_list(scatter) then
        m, message, code = engine.import(n, mean, scatter)
    end
    for _, tensor in pairs(tensors) do tensor:release() end
    if not m then return nil, ("%s: %s"):format(path, message), code or "format" end
    return m, metadata
end

--- What should be known of a Frechet distance besides its value.
local function frechet_warning(a, b, collapsed)
    local notes = {}
    for i, name in ipairs { "first", "second" } do
        if collapsed[i] then notes[#notes + 1] = ("all images of the %s set have the same features"):format(name) end
    end
    local least, width = math.min(a:count(), b:count()), a:width()
    if least <= width then
        notes[#notes + 1] = ("%d and %d images for %d features: a covariance of fewer images than features is singular and "
            .. "the distance comes out too large (it falls as images are added); compare it only with distances of the "
            .. "same counts"):format(a:count(), b:count(), width)
    end
    return #notes > 0 and table.concat(notes, "; ") or nil
end

--- Squared Frechet distance |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances over N - 1; FID where the features are
--- Inception's. On failure nil and a message.
---@param a sagan.Moments
---@param b sagan.Moments
---@return number? distance
---@return string? warning_or_message
function metrics.frechet(a, b)
    local distance, terms, code = engine.frechet(a, b)
    if not distance then return nil, terms, code end
    return distance, frechet_warning(a, b, terms.collapsed)
end

--- Moments of class i, or nil, message, code.
local function class_moments(source, i, kind, name)
    local m, message, code
    if type(source) == "function" then m, message, code = source(i) else m = source[i] end
    if m and m:count() > 0 then return m end
    return nil, ("intra_frechet: no %s images of %s%s"):format(kind, name, message and ": " .. message or ""), code or "argument"
end

--- Distance of class i and a warning, or nil, message, code.
local function class_distance(real, fake, i, name)
    local a, b, distance, message, code
    a, message, code = class_moments(real, i, "real", name)
    if not a then return nil, message, code end
    b, message, code = class_moments(fake, i, "fake", name)
    if not b then return nil, message, code end
    distance, message, code = metrics.frechet(a, b)
    if distance then return distance, message and ("%s: %s"):format(name, message) end
    return nil, ("intra_frechet: %s: %s"):format(name, message), code
end

--- The highest class of a list, which may have holes: # would not see all that lies behind one.
local function last_class(source)
    local last = 0
    for i in pairs(type(source) == "table" and source or {}) do last = math.max(last, i) end
    return last
end

--- Frechet distance of each class, and their mean. A source is a list of moments, or a function that makes those of a class
--- when its turn comes (and returns nil, message if it cannot): then the moments of one class at a time are in memory.
---@param real sagan.Moments[]|fun(class: integer): sagan.Moments? classes count from 1
---@param fake sagan.Moments[]|fun(class: integer): sagan.Moments?
---@param options {classes: integer?, names: string[]?}? classes: how many, if absent as many as the longer list has; names:
--- for the messages
---@return number? mean
---@return number[]|string distances_or_message
---@return string? warning that of the first class that has one
function metrics.intra_frechet(real, fake, options)
    local o = options or {}
    check_options("intra_frechet", o, { classes = true, names = true })
    local lazy = type(real) == "function" or type(fake) == "function"
    local classes = o.classes or math.max(last_class(real), last_class(fake))
    if lazy and not o.classes and type(real) == type(fake) then
        error("metrics.intra_frechet: options.classes says how many there are where both are functions", 2)
    end
    if classes < 1 then return nil, "intra_frechet: there are no classes", "argument" end
    local distances, warning = {}, nil
    for i = 1, classes do
        local name = o.names and o.names[i] and ("class %d (%s)"):format(i, o.names[i]) or ("class %d"):format(i)
        local distance, message, code = class_distance(real, fake, i, name)
        if not distance then return nil, message, code end
        distances[i], warning = distance, warning or message
        if lazy then collectgarbage() end -- Lua does not see how large moments are
    end
    return summary(distances), distances, warning
end

--------------------------------------------------------------------------------------------------- inception score

--- exp E KL(p(y|x) || p(y)), p = softmax(logits): mean and population deviation over splits, rows i N / S to (i + 1) N / S of
--- them as they come. Rows that are sorted by class give a low score: shuffle them.
---@param logits sagan.Tensor f32 {N, classes}; with or without the network's bias, as the score is defined
---@param options {splits: integer?, order: integer[]?, shuffle: integer?}? splits: 10; order: row numbers from 1, each once;
--- shuffle: a seed to draw an order with
---@return number? mean
---@return number|string deviation_or_message
---@return number[]|string|nil scores of the splits
function metrics.inception_score(logits, options)
    local scores, message, code = engine.inception_score(logits, options)
    if not scores then return nil, message, code end
    local mean, deviation = summary(scores)
    return mean, deviation, scores
end

---------------------------------------------------------------------------------------------------------------- KID

---@class sagan.KidOptions
---@field subsets? integer 100
---@field size? integer images of a subset, 1000
---@field degree? integer 3
---@field gamma? number 1 / D
---@field coef? number 1
---@field seed? integer 0; subset i is the same for all calls with this seed and these counts
---@field progress? fun(done: integer, total: integer)

--- Kernel distance: the unbiased MMD^2 with kernel (gamma x.y + coef)^degree, mean and population deviation over subsets
--- that are drawn without replacement. Values slightly below 0 are right for sets that are alike.
---@param x sagan.Tensor f32 {N, D}
---@param y sagan.Tensor f32 {M, D}
---@param options sagan.KidOptions?
---@return number? mean
---@return number|string deviation_or_message
---@return number[]|string|nil values of the subsets
function metrics.kid(x, y, options)
    local o = options or {}
    check_options("kid", o, { subsets = true, size = true, degree = true, gamma = true, coef = true, seed = true,
        progress = true })
    local subsets = o.subsets or 100
    if math.type(subsets) ~= "integer" or subsets < 1 then
        error(("metrics.kid: subsets is %s, must be a whole number, 1 at least"):format(tostring(subsets)), 2)
    end
    for name, features in pairs { x = x, y = y } do
        local ok, message, code = engine.check(features, "kid: " .. name)
        if not ok then return nil, message, code end
    end
    local each = { size = o.size, degree = o.degree, gamma = o.gamma, coef = o.coef, seed = o.seed }
    local values = {}
    for i = 1, subsets do
        local value, message, code = engine.kid_subset(x, y, i - 1, each)
        if not value then return nil, message, code end
        values[i] = value
        if o.progress then o.progress(i, subsets) end
    end
    local mean, deviation = summary(values)
    return mean, deviation, values
end

------------------------------------------------------------------------------------------------- nearest neighbours

---@class sagan.Prdc
---@field precision number share of fakes that lie in the ball of some real image
---@field recall number share of real images that lie in the ball of some fake
---@field density number 1/k of the number of real balls that a fake lies in, in the mean; may exceed 1
---@field coverage number share of real images whose nearest fake lies in their ball
---@field repeated_real integer real images whose k nearest are all equal to them: balls of radius 0
---@field repeated_fake integer

--- Precision, recall, density, coverage; an image's ball reaches to its k-th nearest neighbour among its own kind. Time goes
--- with N^2 D, memory with N.
---@param real sagan.Tensor f32 {N, D}
---@param fake sagan.Tensor f32 {M, D}
---@param options {k: integer?, inclusive: boolean?, progress: fun(done: integer, total: integer)?}? k: 5; inclusive: whether
--- the edge belongs to a ball, no if absent
---@return sagan.Prdc? scores
---@return string? warning_or_message
function metrics.prdc(real, fake, options)
    local o = options or {}
    check_options("prdc", o, { k = true, inclusive = true, progress = true })
    local work <close>, message, code = engine.neighbours(real, fake, { k = o.k, inclusive = o.inclusive })
    if not work then return nil, message, code end
    local more
    repeat
        more = work:step()
        if o.progress then o.progress(work:progress()) end
    until not more
    local scores, notes = work:result(), {}
    for _, kind in ipairs { "real", "fake" } do
        local n = scores["repeated_" .. kind]
        if n > 0 then notes[#notes + 1] = ("%d %s images have balls of radius 0: images are repeated"):format(n, kind) end
    end
    return scores, #notes > 0 and table.concat(notes, "; ") or nil
end

----------------------------------------------------------------------------------------------------------- legs

--- How many separate legs the figure of each picture stands on, by the count that most rows above its feet show; of counts
--- that equally many show the expected one, if it is among them. 0: nothing stands on a ground there.
---@param images sagan.Tensor u8 {N, H, W, C}
---@param expected integer|integer[]
---@return integer[]
function metrics.legs(images, expected) return engine.legs(images, expected) end

return metrics
