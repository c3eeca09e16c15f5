--- microscope.lua - looks into the attention of a network: where a position looks, how sharply, how far, how that came to be
--- over training, and what depends on it.
---
---     local run = assert(sagan.open "runs/feat32")
---     local a = run.G:attention { class = "Sandal", seed = 1 }
---     print(a)                                          -- size, gamma, entropy, distance
---     a:map { y = 10, x = 12 }                          -- the softmax weights of that position, {32, 32}
---     a:show { y = 10, x = 12, file = "look.png" }      -- microscope_pictures.lua
---     a:sheet { file = "sheet.png" }
---     a:knockout { "gamma0" }:compare { file = "without.png" }    -- knockout.lua
---     a:rollout { from = 200 }:show { y = 10, x = 12, file = "history.png" }
---     run.D:attention { image = "boot.png", class = "Ankle boot" }
---
--- Positions are rows y and columns x of the attention's map, from 1 at the top left, not pixels.
local core = require "sagan.core"
local arguments = require "sagan.arguments"
local input = require "sagan.microscope_input"
local knockout = require "sagan.knockout"
local pictures = require "sagan.pictures"
local ops = core.ops

local microscope = {}

---@class sagan.AttentionOptions
---@field at? integer       which attention, by the size of its map; the largest if absent
---@field z? sagan.Tensor|number[]   G: {z_dim} or {n, z_dim}; else drawn from seed, as for the sample sheets
---@field seed? integer     of z; the run's
---@field count? integer    how many z are drawn; as many as classes are named
---@field image? string|string[]|sagan.Tensor  D: PNG, JPEG or BMP files, made to fit as the data are; or u8 {H,W,C} or
---                         {n,H,W,C}; or f32 {n,R,R,C} in [-1, 1], taken as it is
---@field class? string|integer|(string|integer)[]  a name or a number from 1, one for all or one each; the first

---@class sagan.Point
---@field y integer       row of the map, from 1
---@field x integer       column
---@field image? integer  which of the inputs, 1

---@class sagan.Attention
---@field view sagan.RunNet
---@field name string        "G.attention32"
---@field size integer       of the map; N = size * size positions look
---@field grid sagan.nn.AttentionGrid
---@field form string
---@field gamma number
---@field share number       |gamma| |o| / |x|
---@field count integer      inputs
---@field classes string[]   their names; {} for a network without classes
---@field images sagan.Tensor   u8 {count,R,R,C}: what G drew, or what D was shown
---@field output sagan.Tensor   what the network gave: images f32 in [-1, 1], or D's logits {count,1}
---@field altered? sagan.Knockout   of a knock-out
---@field plain? sagan.Attention    of a knock-out: the same without it
---@field change? number[]   of a knock-out, for each input: mean |difference| of the output
---@field scores? table<string, sagan.ScoreChange>
---@field class_scores? table<string, table<string, sagan.ScoreChange>>
local Attention = {}
Attention.__index = Attention

-- The size of the map that is meant.
local function choose(view, at)
    local attention, sizes = view.net.attention, {}
    for size in pairs(attention) do sizes[#sizes + 1] = size end
    table.sort(sizes)
    if #sizes == 0 then error(("%s has no attention; nothing to look at"):format(view.letter), 3) end
    if at == nil then at = sizes[#sizes] end
    if not attention[at] then
        error(("%s has no attention at %s; it has feat%s"):format(view.letter, tostring(at), table.concat(sizes, ", feat")), 3)
    end
    return at
end

-- Calls f while the module is altered.
local function altering(module, alter, f)
    local reset <close> = setmetatable({}, { __close = function() module.knockout = nil end }) -- luacheck: ignore reset
    module.knockout = alter and alter.attend
    return f()
end

-- One pass of the network over x, with what the module did.
local function pass(view, at, x, labels, classes, alter)
    local net, module = view.net, view.net.attention[at]
    local look <close> = net:observe() -- luacheck: ignore look
    local release <close> = setmetatable({}, { __close = function() -- luacheck: ignore release
        module.capture = false
        module:release_held()
    end })
    module.capture = true
    local self = setmetatable({ view = view, size = at, input = x, labels = labels, classes = classes, altered = alter,
        name = ("%s.attention%d"):format(view.letter, at), form = module.form, count = x:size(1) }, Attention)
    core.no_grad(function()
        local y = core.tensor(labels, { dtype = "i32" })
        self.output = altering(module, alter, function() return (net(x, y)) end)
        local s, stats = module.held, module:stats()
        self.q, self.k = s.q:clone(), s.k:clone()
        self.grid = { height = s.height, width = s.width, key_height = s.key_height, key_width = s.key_width }
        self.gamma, self.share = stats.gamma, stats.gate
        self.mean_entropy, self.mean_distance = stats.entropy, stats.distance
        self.images = ops.float_to_pixels(view.letter == "G" and self.output or x):to("cpu")
    end)
    return self
end

--- Runs a network and keeps what its attention did.
---@param view sagan.RunNet|table  net, letter, config, class_names; run for rollout; is_past() of a network that trains on
---@param options? sagan.AttentionOptions
---@return sagan.Attention? attention
---@return string? message  a picture cannot be read
function microscope.open(view, options)
    local known = view.letter == "G" and { "at", "class", "z", "seed", "count" } or { "at", "class", "image" }
    local o = arguments(view.letter .. ":attention", options, known)
    local at = choose(view, o.at)
    local x, labels, classes = input.read(view, o)
    if not x then return nil, labels end
    return pass(view, at, x, labels, classes)
end

------------------------------------------------------------------------------------------------------------ the map

local POINT <const> = { "y", "x", "image", positional = 2 }

--- A point of the map, checked. `known`: the options of the function that asks, whose caller's line a message carries.
---@return {image: integer, y: integer, x: integer, index: integer} point  index: of the position, from 1
function Attention:place(what, point, known)
    local o = arguments("a:" .. what, point, known or POINT, 4)
    local y, x, image = o.y or o[1], o.x or o[2], o.image or 1
    local g = self.grid
    if math.type(y) ~= "integer" or math.type(x) ~= "integer" then
        error(("a:%s needs a query point: y = row 1..%d, x = column 1..%d of the map"):format(what, g.height, g.width), 3)
    end
    if y < 1 or y > g.height or x < 1 or x > g.width then
        error(("a:%s: the query point y = %d, x = %d is outside of %s's map, rows 1..%d, columns 1..%d"):format(what, y, x,
            self.name, g.height, g.width), 3)
    end
    if math.type(image) ~= "integer" or image < 1 or image > self.count then
        error(("a:%s: image = %s, but there are 1..%d"):format(what, tostring(image), self.count), 3)
    end
    return { image = image, y = y, x = x, index = (y - 1) * g.width + x }
end

-- Weights of chosen positions of one image: {M, Nk}. indices from 1.
local function weights_of(self, image, indices)
    return core.scope(core.no_grad, function()
        local queries = {}
        for i, index in ipairs(indices) do queries[i] = index - 1 end
        queries = core.tensor(queries, { dtype = "i32", device = self.q.device })
        if not self.altered then
            local p = ops.attention_map(self.q:rows(image, 1), self.k:rows(image, 1), queries, 1)
            return p:reshape(#indices, -1):to("cpu")
        end
        local all = self.altered.weights(knockout.logits(self.q, self.k, image))
        return ops.embedding(all:reshape(all:size(2), -1), queries):to("cpu")
    end)
end

--- Where a position looks: its row of the softmax, {key_height, key_width}; it sums to 1. Of a knock-out: as altered.
---@param point sagan.Point
---@return sagan.Tensor f32 on the cpu
function Attention:map(point)
    local at = self:place("map", point)
    return weights_of(self, at.image, { at.index }):reshape(self.grid.key_height, self.grid.key_width)
end

--- The keys that a position looks at most, by weight.
---@param point sagan.Point|{count: integer?}  count: how many, 8
---@return {y: integer, x: integer, weight: number}[]  rows and columns of the keys' grid
function Attention:top(point)
    local at = self:place("top", point, { "y", "x", "image", "count", positional = 2 })
    local list, width = {}, self.grid.key_width
    for i, weight in ipairs(weights_of(self, at.image, { at.index }):totable()[1]) do
        list[i] = { y = (i - 1) // width + 1, x = (i - 1) % width + 1, weight = weight }
    end
    table.sort(list, function(a, b)
        if a.weight ~= b.weight then return a.weight > b.weight end
        return a.y < b.y or a.y == b.y and a.x < b.x
    end)
    return table.move(list, 1, math.min(#list, point.count or 8), 1, {})
end

-- Entropy in nats, mean distance in positions and sum of one row of weights.
local function row_statistics(grid, weights, y, x)
    local entropy, distance, sum = 0, 0, 0
    local down, across = grid.height / grid.key_height, grid.width / grid.key_width
    for i, p in ipairs(weights) do
        if p > 0 then
            local dy = ((i - 1) // grid.key_width + 0.5) * down - (y - 0.5)
            local dx = ((i - 1) % grid.key_width + 0.5) * across - (x - 0.5)
            entropy = entropy - p * math.log(p)
            distance = distance + p * math.sqrt(dy * dy + dx * dx)
            sum = sum + p
        end
    end
    return entropy, distance, sum
end

-- Of one point.
local function of_point(self, at)
    return row_statistics(self.grid, weights_of(self, at.image, { at.index }):totable()[1], at.y, at.x)
end

-- Means over all positions of all images; those of an altered map are found row by row, over the rows that it leaves.
local function means(self)
    local grid = self.grid
    if self.altered and not self.swept then
        self.swept = true
        local entropy, distance, left, all = 0, 0, 0, {}
        for i = 1, grid.height * grid.width do all[i] = i end
        for image = 1, self.count do
            for i, row in ipairs(weights_of(self, image, all):totable()) do
                local e, far, sum = row_statistics(grid, row, (i - 1) // grid.width + 1, (i - 1) % grid.width + 1)
                entropy, distance, left = entropy + e, distance + far, left + (sum > 0 and 1 or 0)
            end
        end
        self.mean_entropy, self.mean_distance = entropy / math.max(left, 1), distance / math.max(left, 1)
    end
    return self.mean_entropy, self.mean_distance
end

--- How sharply a position looks, in nats; without a point the mean over all positions and images.
---@param point? sagan.Point
---@return number entropy
---@return number uniform  that of a map that looks everywhere alike, the largest there is
function Attention:entropy(point)
    local entropy
    if point then entropy = of_point(self, self:place("entropy", point)) else entropy = means(self) end
    return entropy, math.log(self.grid.key_height * self.grid.key_width)
end

--- How far a position looks on average, in pixels of the image; without a point the mean over all positions and images.
---@param point? sagan.Point
---@return number
function Attention:distance(point)
    local _, positions
    if point then _, positions = of_point(self, self:place("distance", point)) else _, positions = means(self) end
    return positions * self.view.config.model.resolution / self.size
end

---------------------------------------------------------------------------------------------------------- knock-outs

--- The same input through the network with this attention altered; all other modules as they are.
---     a:knockout { "gamma0" }   { ["local"] = 3 }   { "shuffle", seed = 1 }   { rows = { 1, 8 } }
--- The result is an attention too, whose map, entropy and distance are the altered ones; change says how much the output
--- differs, compare() draws it, and with score = ... scores and class_scores say what it does to those.
---@param options sagan.KnockoutOptions  see knockout.lua
---@return sagan.Attention
function Attention:knockout(options)
    local alter = knockout.new(options, self.grid)
    if self.view.is_past and self.view.is_past() then
        error(("knockout: the network has trained on since step %d; look at it again first"):format(self.view.step), 2)
    end
    local score = options.score
    if score and self.view.letter ~= "G" then error("knockout: scores are those of the generator; this is D", 2) end
    local session
    if score == true then score, session = require "sagan.evaluation".scorer(self.view.config) end
    local guard <close> = session -- luacheck: ignore guard
    local altered = pass(self.view, self.size, self.input, self.labels, self.classes, alter)
    altered.plain, altered.change = self, {}
    for i = 1, self.count do
        altered.change[i] = core.scope(core.no_grad, function()
            return ops.mean(ops.abs(ops.sub(altered.output:rows(i, 1), self.output:rows(i, 1)))):item()
        end)
    end
    if score then
        local net = self.view.net
        local look <close> = net:observe() -- luacheck: ignore look
        altered.scores, altered.class_scores = knockout.compare(score, net, function(f)
            return altering(net.attention[self.size], alter, f)
        end)
    end
    return altered
end

------------------------------------------------------------------------------------------------------------ history

---@class sagan.Rollout  a list of attentions to the same input, one for each checkpoint, oldest first
---@field [integer] sagan.Attention
---@field skipped string[]  checkpoints that cannot be read, and why
local Rollout = {}
Rollout.__index = Rollout

--- The same input through the network at every checkpoint of the run from one step to another. A run keeps as many
--- checkpoints as checkpoint.keep says.
---@param options? {from: integer?, to: integer?}  steps; all if absent
---@return sagan.Rollout? rollout
---@return string? message  no checkpoint of these steps can be read
function Attention:rollout(options)
    local o = arguments("a:rollout", options, { "from", "to" })
    local run = self.view.run
    if not run then error("a:rollout needs a run folder: sagan.open(path).G:attention{...}", 2) end
    local from, to = o.from or 0, o.to or math.huge
    local out = setmetatable({ skipped = {} }, Rollout)
    for i = #run.checkpoints, 1, -1 do
        local step = run.checkpoints[i].step
        if step >= from and step <= to then
            local view = run:net(self.view.letter, { step = step, raw = self.view.weights == "raw" })
            local ok, result = pcall(function() return pass(view, self.size, self.input, self.labels, self.classes) end)
            if ok then out[#out + 1] = result else out.skipped[#out.skipped + 1] = tostring(result) end
            view:forget() -- a network for each checkpoint would be a lot of memory
        end
    end
    if #out > 0 then return out end
    if #out.skipped > 0 then return nil, table.concat(out.skipped, "\n") end
    return nil, ("%s: no checkpoint from step %s to %s; there are %s (checkpoint.keep of the run says how many stay)"):format(
        run.path, tostring(o.from or "the first"), tostring(o.to or "the last"), run:steps())
end

function Rollout:__tostring()
    local lines = { ("%s over %d checkpoint%s"):format(self[1].name, #self, #self == 1 and "" or "s"),
        ("  %8s  %8s  %7s  %8s  %9s"):format("step", "gamma", "share", "entropy", "distance") }
    for _, a in ipairs(self) do
        lines[#lines + 1] = ("  %8d  %8.4f  %7.4f  %8.3f  %6.1f px"):format(a.view.step, a.gamma, a.share, (a:entropy()),
            a:distance())
    end
    for _, message in ipairs(self.skipped) do lines[#lines + 1] = "not usable: " .. message end
    return table.concat(lines, "\n")
end

--------------------------------------------------------------------------------------------------------------- words

-- "Sandal, Sandal, Bag and 3 more"
local function few(names)
    local shown = table.concat(names, ", ", 1, math.min(3, #names))
    return #names > 3 and ("%s and %d more"):format(shown, #names - 3) or shown
end

local function score_lines(scores, indent, lines)
    local names = {}
    for name in pairs(scores or {}) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        local s = scores[name]
        lines[#lines + 1] = ("%s%s %.4g, without %.4g (%+.4g)"):format(indent, name, s.altered, s.plain, s.change)
    end
end

function Attention:__tostring()
    local view, g = self.view, self.grid
    local entropy, uniform = self:entropy()
    local pooled = g.key_height ~= g.height and (" look at %d pooled ones"):format(g.key_height * g.key_width) or ""
    local lines = {
        ("%s%s%s: %dx%d, N = %d positions%s, %s form"):format(self.name, view.step and " at step " .. view.step or "",
            view.weights and " (" .. view.weights .. ")" or "", g.height, g.width, g.height * g.width, pooled, self.form),
        ("  gamma %.4f, %.2f %% of what leaves it (|gamma| |o| / |x|)"):format(self.gamma, 100 * self.share),
        ("  entropy %.3f nats of the uniform map's %.3f, mean distance %.1f of %d pixels"):format(entropy, uniform,
            self:distance(), view.config.model.resolution),
        ("  %d input%s%s"):format(self.count, self.count == 1 and "" or "s",
            #self.classes > 0 and ": " .. few(self.classes) or ""),
    }
    if self.altered then
        local mean = 0
        for _, change in ipairs(self.change) do mean = mean + change / self.count end
        lines[#lines + 1] = ("  knock-out %s: the output changes by %.4g on average"):format(self.altered.name, mean)
        score_lines(self.scores, "    ", lines)
        local classes = {}
        for class in pairs(self.class_scores or {}) do classes[#classes + 1] = class end
        table.sort(classes)
        for _, class in ipairs(classes) do score_lines(self.class_scores[class], "    " .. class .. ": ", lines) end
    end
    return table.concat(lines, "\n")
end

----------------------------------------------------------------------------------------------------------- pictures

-- Loaded when something is drawn. Tail calls, so that messages carry the user's line.
local function draw(what, self, options) return require "sagan.microscope_pictures"[what](self, options) end

--- One query point: the sample with the point marked, and beside it where the point looks.
---@param options sagan.Point|{top: integer?, size: integer?, file: string?}  top: lines to so many keys, 8; size: of a panel
---                                                                            in pixels, 384
---@return sagan.Tensor? picture u8 {H,W,3}
---@return string? message  the file cannot be written
function Attention:show(options) return draw("show", self, options) end

--- Many query points: each row is an input with its points marked, then where each of them looks, framed in its colour.
---@param options? {queries: integer[][]?, top: integer?, size: integer?, file: string?}  queries: {y, x} each, five around the
---                  centre; top: lines to so many keys, 3; size: of a picture, at least 96 and the image's
---@return sagan.Tensor? picture u8 {H,W,3}
---@return string? message  the file cannot be written
function Attention:sheet(options) return draw("sheet", self, options) end

--- What a knock-out does, input by input: as it was, altered, and where they differ.
---@param options? {size: integer?, file: string?}  size: of a picture, at least 96 and the image's
---@return sagan.Tensor? picture u8 {H,W,3}
---@return string? message  the file cannot be written
function Attention:compare(options) return draw("compare", self, options) end

--- One query point over training: at each checkpoint the input with the point marked and where it looks.
---@param options sagan.Point|{top: integer?, size: integer?, file: string?}  top: 3; size: at least 96 and the image's
---@return sagan.Tensor? picture u8 {H,W,3}
---@return string? message  the file cannot be written
function Rollout:show(options) return draw("history", self, options) end

--- The sheet that a run draws: one sample of each of some classes, with the z of its other pictures.
---@param view sagan.RunNet|{net: sagan.models.Generator, letter: "G", config: sagan.Config, class_names: string[]}
---@param options? {seed: integer?, rows: integer?, at: integer?}  rows: samples at most, 6; at: which attention
---@return sagan.Tensor u8 {H,W,3}
function microscope.class_sheet(view, options)
    local o, model = options or {}, view.config.model
    local rows, classes = o.rows or 6, nil
    if model.conditional ~= false then
        classes = pictures.choose_classes(model.classes, rows)
        for i, label in ipairs(classes) do classes[i] = label + 1 end
        rows = #classes
    end
    return microscope.open(view, { class = classes, count = rows, seed = o.seed, at = o.at }):sheet()
end

return microscope
