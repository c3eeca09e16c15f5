--- run_setup.lua - what a configuration needs before a trainer can be made of it: a device and an open data set.
local core = require "sagan.core"

local run_setup = {}

--- The device that a configuration asks for. The arithmetic modes below f32 are a GPU's.
---@param config sagan.Config
---@return "cpu"|"cuda"|nil device
---@return string? message
function run_setup.device(config)
    local there = {}
    for _, name in ipairs(core.devices()) do there[name] = true end
    local device = config.device == "auto" and (there.cuda and "cuda" or "cpu") or config.device
    if not there[device] then
        return nil, ("device=%s is not available here; device=auto takes what there is (sagan-lua doctor)"):format(device)
    end
    if device == "cpu" and config.precision ~= "f32" then
        return nil, ("precision=%s needs device=cuda; the CPU computes in f32"):format(config.precision)
    end
    return device
end

--- Which products may be rounded on the way in, from now on, in the current device's context. What networks keep in bf16 is
--- theirs to say (Module.activations).
---@param precision "f32"|"tf32"|"bf16"
function run_setup.precision(precision) core.tf32(precision ~= "f32") end

--- What a device is, in words: a SIMD level, a card and its driver.
---@param device "cpu"|"cuda"
---@return string
function run_setup.device_name(device)
    return device == "cpu" and core.isa() or core.cuda.name()
end

---@class sagan.TrainingData
---@field set sagan.Dataset        split "train"
---@field name string
---@field classes integer
---@field channels integer
---@field class_names string[]
---@field hash string
---@field histogram integer[]      images of each class

--- Opens the data set that a configuration trains on; one that nothing can be learned from is refused.
---@param config sagan.Config
---@param progress? fun(done: integer, total: integer)  while images are decoded
---@return sagan.TrainingData? data
---@return string? message
function run_setup.data(config, progress)
    local m = config.model
    local set, message = core.dataset.open(config.data, {
        resolution = m.resolution,
        channels = type(m.channels) == "number" and m.channels or nil,
        split = "train",
        progress = progress,
    })
    if not set then return nil, message end
    local problem = set:check()
    if problem then return nil, problem end
    return {
        set = set, name = set.name, classes = set.classes, channels = set.channels, class_names = set.class_names,
        hash = set:hash(), histogram = set:histogram(),
    }
end

return run_setup
