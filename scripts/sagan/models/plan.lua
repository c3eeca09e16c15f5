--- Which blocks a network has at each resolution, and where attention goes. Shared by generator and discriminator.
---
--- Channels in units of the width. Sources: 128 the paper's code; 64 and 32 StudioGAN's and Miyato's networks; 256 BigGAN's.

local plan = {}

-- first the channels of the 4x4 map, then one entry a block; every block doubles the size
local GENERATOR <const> = {
    [32] = { 4, 4, 4, 4 },
    [64] = { 16, 8, 4, 2, 1 },
    [128] = { 16, 16, 8, 4, 2, 1 },
    [256] = { 16, 16, 8, 8, 4, 2, 1 },
}

-- one entry a block: channels, and whether it halves the size
local DISCRIMINATOR <const> = {
    [32] = { { 2, true }, { 2, true }, { 2, false }, { 2, false } },
    [64] = { { 1, true }, { 2, true }, { 4, true }, { 8, true }, { 16, false } },
    [128] = { { 1, true }, { 2, true }, { 4, true }, { 8, true }, { 16, true }, { 16, false } },
    [256] = { { 1, true }, { 2, true }, { 4, true }, { 8, true }, { 8, true }, { 16, true }, { 16, false } },
}

--- The resolutions that there are networks for.
plan.resolutions = { 32, 64, 128, 256 }

local function need(list, resolution)
    local entry = list[resolution]
    if not entry then
        error(("there is no network for resolution %s (%s)"):format(tostring(resolution),
            table.concat(plan.resolutions, ", ")), 0)
    end
    return entry
end

---@class sagan.models.Block
---@field input integer   channels
---@field output integer  channels
---@field size integer    height and width after the block
---@field down? boolean

--- The generator's blocks.
---@param resolution integer
---@param width integer
---@return sagan.models.Block[]
---@return integer channels  of the 4x4 map in front of the first block
function plan.generator(resolution, width)
    local channels = need(GENERATOR, resolution)
    local blocks, size = {}, 4
    for i = 2, #channels do
        size = size * 2
        blocks[i - 1] = { input = channels[i - 1] * width, output = channels[i] * width, size = size }
    end
    return blocks, channels[1] * width
end

--- The discriminator's blocks.
---@param resolution integer
---@param width integer
---@param image_channels integer
---@return sagan.models.Block[]
function plan.discriminator(resolution, width, image_channels)
    local blocks, size, input = {}, resolution, image_channels
    for i, entry in ipairs(need(DISCRIMINATOR, resolution)) do
        if entry[2] then size = size // 2 end
        blocks[i] = { input = input, output = entry[1] * width, size = size, down = entry[2] }
        input = entry[1] * width
    end
    return blocks
end

--- The sizes of feature maps that attention can be placed at, in the order in which the net reaches them.
---@param net "generator"|"discriminator"
---@param resolution integer
---@return integer[]
function plan.sizes(net, resolution)
    local blocks = net == "generator" and plan.generator(resolution, 1) or plan.discriminator(resolution, 1, 3)
    local sizes = {}
    for _, b in ipairs(blocks) do
        if sizes[#sizes] ~= b.size then sizes[#sizes + 1] = b.size end
    end
    return sizes
end

--- A message if one of the sizes matches no block of the net, else nil.
---@param net "generator"|"discriminator"
---@param resolution integer
---@param wanted integer[]
---@return string?
function plan.attention_problem(net, resolution, wanted)
    local sizes = plan.sizes(net, resolution)
    local has = {}
    for _, s in ipairs(sizes) do has[s] = true end
    for _, s in ipairs(wanted) do
        if not has[s] then
            return ("attention at %s: the %s for %dx%d images has no feature map of that size (it has %s)")
                :format(tostring(s), net, resolution, resolution, table.concat(sizes, ", "))
        end
    end
end

--- Where attention goes: {[size] = true} for the sizes in the list.
---@param net "generator"|"discriminator"
---@param resolution integer
---@param wanted integer[]?
---@return table<integer, boolean>
function plan.attention(net, resolution, wanted)
    local problem = plan.attention_problem(net, resolution, wanted or {})
    if problem then error(problem, 0) end
    local set = {}
    for _, s in ipairs(wanted or {}) do set[s] = true end
    return set
end

return plan
