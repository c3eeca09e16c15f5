--- checkpoint.lua - everything that a run needs to go on as if it had never stopped, in one safetensors file:
---   G.<parameter>, D.<parameter>, ema.<parameter>   weights (KRSC), running statistics, spectral norm's u, v, sigma
---   adam.G.m ... adam.D.count                        the optimisers over the slabs
---   clock.d, clock.g                                 the random numbers' and the data's position
--- and in the metadata: format, step, the configuration, what was changed in it while the run went on, class names. Written
--- to a temporary file, synced, renamed.
local core = require "sagan.core"
local json = require "sagan.json"
local config_module = require "sagan.config"

local checkpoint = {}

local FORMAT = "sagan-lua checkpoint 1"

--- The tensors that a trainer goes on from, by their names in a checkpoint: the live ones, not copies.
---@param trainer sagan.Trainer
---@return table<string, sagan.Tensor>
function checkpoint.state(trainer)
    local all = {}
    local function add(prefix, tensors)
        for name, tensor in pairs(tensors) do all[prefix .. name] = tensor end
    end
    add("G.", trainer.G:state_dict())
    add("D.", trainer.D:state_dict())
    if trainer.average then add("ema.", trainer.average.net:state_dict()) end
    add("adam.G.", trainer.adam_g:state())
    add("adam.D.", trainer.adam_d:state())
    all["clock.d"] = trainer.d_clock
    all["clock.g"] = trainer.g_clock
    return all
end

--- Writes the state of a trainer between two steps.
---@param trainer table
---@param path string
---@return boolean? ok, string? message
function checkpoint.save(trainer, path)
    return core.safetensors.save(path, checkpoint.state(trainer), {
        format = FORMAT,
        version = core.version,
        step = tostring(trainer.step),
        config = config_module.serialize(trainer.config),
        changes = json.encode(json.array(trainer.changes)),
        data_hash = trainer.data.hash,
        class_names = json.encode(json.array(trainer.data.class_names)),
    })
end

local function changes_in(text)
    local changes = json.decode(text)
    if type(changes) ~= "table" then return nil end
    for _, change in ipairs(changes) do
        if type(change) ~= "table" or not math.type(change.step) or type(change.field) ~= "string" then return nil end
    end
    return changes
end

--- The metadata of a checkpoint, checked.
---@param path string
---@return {step: integer, config: table, changes: sagan.Change[], class_names: string[], data_hash: string, version: string?}? info
---@return string? message
function checkpoint.info(path)
    local _, metadata = core.safetensors.header(path)
    if type(metadata) ~= "table" then return nil, tostring(metadata) end
    if metadata.format ~= FORMAT then
        return nil, ("%s: not a checkpoint of this program (format '%s', expected '%s')"):format(path, tostring(metadata.format), FORMAT)
    end
    local config, message = config_module.parse(metadata.config or "", path .. " (config)")
    if not config then return nil, message end
    local step, names = math.tointeger(tonumber(metadata.step)), json.decode(metadata.class_names or "[]")
    local changes = changes_in(metadata.changes or "[]")
    if not step or step < 0 or type(names) ~= "table" or not changes then
        return nil, ("%s: damaged: its step, its changes or its class names make no sense"):format(path)
    end
    return {
        step = step,
        config = config,
        changes = changes,
        class_names = names,
        data_hash = metadata.data_hash,
        version = metadata.version,
    }
end

--- Puts a trainer into the state of a checkpoint. Every tensor must be there with its shape; else nothing is changed.
---@param trainer table
---@param path string
---@return integer? step, string? message
function checkpoint.load(trainer, path)
    local info, message = checkpoint.info(path)
    if not info then return nil, message end
    local ok, why = core.safetensors.load_into(path, checkpoint.state(trainer))
    if not ok then return nil, why end
    return info.step, info
end

--- One network of a checkpoint, in eval mode. G is the averaged one if the run kept an average and `raw` is not set.
---@param path string checkpoint file
---@param letter "G"|"D"
---@param options {raw: boolean?}?
---@return table? net, any info_or_message
function checkpoint.network(path, letter, options)
    local info, message = checkpoint.info(path)
    if not info then return nil, message end
    local tensors, why = core.safetensors.load(path)
    if not tensors then return nil, why end
    local states = { ["ema."] = {}, ["G."] = {}, ["D."] = {} }
    for name, tensor in pairs(tensors) do
        local prefix, rest = name:match("^(%a+%.)(.+)$")
        if states[prefix] then states[prefix][rest] = tensor end
    end
    local averaged = letter == "G" and not (options and options.raw) and next(states["ema."]) ~= nil
    local ok, net = pcall(function()
        local made = require("sagan.models." .. (letter == "G" and "generator" or "discriminator"))(info.config.model)
        made:build { seed = 0, grad = false }
        made:load_state_dict(states[averaged and "ema." or letter .. "."])
        return made
    end)
    if not ok then -- the file is at fault
        local other = info.version ~= core.version and
            ("; version %s wrote it, this is %s"):format(info.version or "unknown", core.version) or ""
        return nil, ("%s: %s%s"):format(path, tostring(net):gsub("^%S+%.lua:%d+: ", ""), other)
    end
    net:eval()
    info.weights = averaged and "EMA" or "raw"
    return net, info
end

--- A generator alone, for drawing.
---@param path string checkpoint file
---@param options {raw: boolean?}?
---@return table? G, any info_or_message
function checkpoint.generator(path, options) return checkpoint.network(path, "G", options) end

return checkpoint
