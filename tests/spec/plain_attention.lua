--- Self-attention in plain loops, from the weights as they are stored: spectral norm by one power iteration from the stored
--- u, the whole map, o = map h. Only the slides' form.
local plain = {}

local function norm(x)
    local sum = 0
    for _, v in ipairs(x) do sum = sum + v * v end
    return math.sqrt(sum)
end

local function unit(x)
    local length, out = norm(x) + 1e-12, {}
    for i, v in ipairs(x) do out[i] = v / length end
    return out
end

--- A 1x1 convolution's weight {K,1,1,C} divided by its largest singular value: rows of K.
local function matrix_of(conv)
    local rows = {}
    for k, kernel in ipairs(conv.weight:totable()) do rows[k] = kernel[1][1] end
    local u, v = conv.weight_u:totable(), {}
    for c = 1, #rows[1] do
        v[c] = 0
        for k = 1, #rows do v[c] = v[c] + rows[k][c] * u[k] end
    end
    v = unit(v)
    local wv = {}
    for k, row in ipairs(rows) do
        wv[k] = 0
        for c = 1, #row do wv[k] = wv[k] + row[c] * v[c] end
    end
    local sigma, next_u = 0, unit(wv)
    for k = 1, #rows do sigma = sigma + next_u[k] * wv[k] end
    local out = {}
    for k, row in ipairs(rows) do
        out[k] = {}
        for c = 1, #row do out[k][c] = row[c] / sigma end
    end
    return out
end

local function project(matrix, positions)
    local out = {}
    for i, x in ipairs(positions) do
        out[i] = {}
        for k, row in ipairs(matrix) do
            local sum = 0
            for c = 1, #row do sum = sum + row[c] * x[c] end
            out[i][k] = sum
        end
    end
    return out
end

--- What a module does with one image.
---@param module sagan.nn.SelfAttention
---@param image table  totable() of {H,W,C}
---@return number[][] map  each position's weights
---@return number[][] o    before gamma
---@return number[][] x    position by position
function plain.attend(module, image)
    local x = {}
    for _, row in ipairs(image) do
        for _, pixel in ipairs(row) do x[#x + 1] = pixel end
    end
    local keys, queries = project(matrix_of(module.f), x), project(matrix_of(module.g), x)
    local values = project(matrix_of(module.h), x)
    local map, o = {}, {}
    for j, query in ipairs(queries) do
        local row, top, sum = {}, -math.huge, 0
        for i, key in ipairs(keys) do
            row[i] = 0
            for c = 1, #key do row[i] = row[i] + key[c] * query[c] end
            top = math.max(top, row[i])
        end
        for i = 1, #row do
            row[i] = math.exp(row[i] - top)
            sum = sum + row[i]
        end
        o[j] = {}
        for c = 1, #values[1] do o[j][c] = 0 end
        for i = 1, #row do
            row[i] = row[i] / sum
            for c = 1, #values[1] do o[j][c] = o[j][c] + row[i] * values[i][c] end
        end
        map[j] = row
    end
    return map, o, x
end

--- Mean entropy in nats and mean distance in positions of the rows of a map `width` wide.
function plain.statistics(map, width)
    local entropy, distance = 0, 0
    for j, row in ipairs(map) do
        for i, p in ipairs(row) do
            if p > 0 then entropy = entropy - p * math.log(p) / #map end
            local dy, dx = (i - 1) // width - (j - 1) // width, (i - 1) % width - (j - 1) % width
            distance = distance + p * math.sqrt(dy * dy + dx * dx) / #map
        end
    end
    return entropy, distance
end

--- Length of all numbers of a list of lists together.
function plain.length(lists)
    local sum = 0
    for _, list in ipairs(lists) do sum = sum + norm(list) ^ 2 end
    return math.sqrt(sum)
end

return plain
