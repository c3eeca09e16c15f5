--- knockout.lua - attention altered, to see what depends on it. Each alteration is a rule from the logits of one image's
--- map to weights other than their softmax; it is computed with the map in memory, N x Nk numbers an image.
---
---   { "gamma0" }           no weights at all: the module puts out x, as if gamma were 0
---   { ["local"] = w }      a position looks only at those at most w rows and w columns away; the others' weight is spread
---                          over them in proportion (softmax over the window). Pooled keys count by their nearest position
---   { "shuffle", seed = 1 }  the attended positions change places, by one permutation for all: as sharp, elsewhere
---   { rows = { y0, y1 } }  the positions in these rows of the map get nothing from attention; all others as before
local core = require "sagan.core"
local arguments = require "sagan.arguments"
local nearest = require "sagan.nearest"
local streams = require "sagan.streams"
local ops = core.ops

local knockout = {}

---@class sagan.KnockoutOptions
---@field [1]? "gamma0"|"shuffle"
---@field ["local"]? integer     positions, from 0
---@field rows? integer|integer[]  one row or {first, last}, from 1
---@field seed? integer          of shuffle, 0
---@field score? true|fun(G: sagan.nn.Module): table<string, number>, table<string, table<string, number>>?
---                              scores of a generator, and by class name if it has those; it is called with G as it is and
---                              with G altered, without gradient. true: what the evaluation measures

---@class sagan.Knockout
---@field name string  "local 3"
---@field weights fun(logits: sagan.Tensor): sagan.Tensor  {1,N,Nk} -> {1,N,Nk}
---@field attend fun(q: sagan.Tensor, k: sagan.Tensor, v: sagan.Tensor): sagan.Tensor  for SelfAttention.knockout

local KINDS <const> = 'gamma0, shuffle, ["local"] = positions, rows = { first, last }'

local function column(values, device) return core.tensor(values, { device = device }):reshape(-1, 1) end

--- {1,N,Nk}: 1 where both the row and the column of the key are within w of the query's, else 0.
local function window(grid, w, device)
    local function near(queries, keys)
        local block, flags = queries // keys, {}
        for y = 1, queries do
            for key = 1, keys do
                local first, last = (key - 1) * block + 1, key * block
                flags[#flags + 1] = math.max(first - y, y - last, 0) <= w and 1 or 0
            end
        end
        return column(flags, device)
    end
    local mask = ops.matmul(near(grid.height, grid.key_height), near(grid.width, grid.key_width), false, true)
    mask = mask:reshape(grid.height, grid.key_height, grid.width, grid.key_width):permute(1, 3, 2, 4)
    return mask:reshape(1, grid.height * grid.width, -1)
end

--- The same order for every run: keys sorted by random numbers of the seed.
---@param count integer
---@param seed integer
---@return integer[] order  counted from 0
function knockout.permutation(count, seed)
    local numbers = ops.uniform(core.empty { count }, core.zeros({ 2 }, { dtype = "i32" }), seed, streams.knockout):totable()
    local order = {}
    for i = 1, count do order[i] = i - 1 end
    table.sort(order, function(a, b)
        local x, y = numbers[a + 1], numbers[b + 1]
        if x == y then return a < b end
        return x < y
    end)
    return order
end

local function is_whole(value, low, high)
    return math.type(value) == "integer" and value >= low and (not high or value <= high)
end

local rules = {}

function rules.gamma0()
    return "gamma0", function(logits) return ops.scale(logits, 0, 0) end
end

rules["local"] = function(o, grid, fail)
    local w = o["local"]
    if not is_whole(w, 0) then fail('["local"] is a whole number of positions from 0, not ' .. tostring(w)) end
    return "local " .. w, function(logits)
        return ops.softmax(ops.add(logits, ops.scale(window(grid, w, logits.device), 1e30, -1e30)))
    end
end

function rules.shuffle(o, grid, fail)
    local seed = o.seed or 0
    if not is_whole(seed, 0) then fail("seed is a whole number from 0, not " .. tostring(seed)) end
    local order = knockout.permutation(grid.key_height * grid.key_width, seed)
    return "shuffle", function(logits)
        local index = core.tensor(order, { dtype = "i32", device = logits.device })
        local by_key = ops.softmax(logits):reshape(logits:size(2), -1):permute(2, 1)
        return ops.embedding(by_key, index):permute(2, 1):reshape(1, logits:size(2), -1)
    end
end

function rules.rows(o, grid, fail)
    local rows = math.type(o.rows) and { o.rows, o.rows } or o.rows
    local first, last = type(rows) == "table" and rows[1], type(rows) == "table" and rows[2]
    if not (is_whole(first, 1, grid.height) and is_whole(last, 1, grid.height) and first <= last and #rows == 2) then
        fail(("rows is { first, last } of the map's rows 1..%d"):format(grid.height))
    end
    return first == last and "row " .. first or ("rows %d to %d"):format(first, last), function(logits)
        local kept, ones = {}, {}
        for i = 0, logits:size(2) - 1 do
            local row = i // grid.width + 1
            kept[i + 1] = row >= first and row <= last and 0 or 1
        end
        for i = 1, logits:size(3) do ones[i] = 1 end
        local mask = ops.matmul(column(kept, logits.device), column(ones, logits.device), false, true)
        return ops.mul(ops.softmax(logits), mask:reshape(1, logits:size(2), -1))
    end
end

--- The logits of one image's map.
---@param q sagan.Tensor    {B,N,d}
---@param k sagan.Tensor    {B,Nk,d}
---@param image integer     from 1
---@return sagan.Tensor     {1,N,Nk}
function knockout.logits(q, k, image) return ops.matmul(q:rows(image, 1), k:rows(image, 1), false, true) end

local function which(o, fail)
    local kinds = {}
    if o[1] ~= nil then kinds[#kinds + 1] = o[1] end
    for _, kind in ipairs { "local", "rows" } do
        if o[kind] ~= nil then kinds[#kinds + 1] = kind end
    end
    if #kinds ~= 1 then fail(("one at a time, of %s"):format(KINDS)) end
    local kind = kinds[1]
    if o[1] ~= nil and kind ~= "gamma0" and kind ~= "shuffle" then
        local near = type(kind) == "string" and nearest(kind, { "gamma0", "shuffle" })
        local hint = near and (" (did you mean '%s'?)"):format(near) or ""
        fail(("there is no '%s'%s; there are %s"):format(tostring(kind), hint, KINDS))
    end
    if o.seed ~= nil and kind ~= "shuffle" then fail("seed is the order of shuffle, and of nothing else") end
    return kind
end

--- Reads what knockout{...} was given.
---@param options sagan.KnockoutOptions
---@param grid sagan.nn.AttentionGrid
---@return sagan.Knockout
function knockout.new(options, grid)
    local o = arguments("knockout", options, { "local", "rows", "seed", "score", positional = 1 }, 4)
    local function fail(message) error("knockout: " .. message, 5) end -- fail, which or a rule, new, a:knockout, the user's line
    local kind = which(o, fail)
    local name, weights = rules[kind](o, grid, fail)
    return {
        name = name, weights = weights,
        attend = function(q, k, v)
            local out = core.empty({ v:size(1), q:size(2), v:size(3) }, { device = q.device })
            for image = 1, v:size(1) do
                core.scope(function()
                    out:rows(image, 1):copy_(ops.matmul(weights(knockout.logits(q, k, image)), v:rows(image, 1)))
                end)
            end
            return out
        end,
    }
end

local function changes(plain, altered)
    local out = {}
    for name, value in pairs(plain) do
        if altered[name] then out[name] = { plain = value, altered = altered[name], change = altered[name] - value } end
    end
    return out
end

---@class sagan.ScoreChange
---@field plain number
---@field altered number
---@field change number  altered - plain

--- What a function of the network gives without and with the alteration.
---@param score function
---@param net sagan.nn.Module
---@param alter fun(f: function): ...  calls f while the network is altered
---@return table<string, sagan.ScoreChange> scores
---@return table<string, table<string, sagan.ScoreChange>>? by_class
function knockout.compare(score, net, alter)
    local function measure()
        local values, by_class = core.no_grad(score, net)
        if type(values) ~= "table" or by_class ~= nil and type(by_class) ~= "table" then
            error("knockout: score returns { name = number }, and by class { class = { name = number } } if it has those", 0)
        end
        return values, by_class
    end
    local plain, plain_classes = measure()
    local altered, altered_classes = alter(measure)
    if not plain_classes then return changes(plain, altered) end
    local by_class = {}
    for class, values in pairs(plain_classes) do by_class[class] = changes(values, altered_classes[class] or {}) end
    return changes(plain, altered), by_class
end

return knockout
