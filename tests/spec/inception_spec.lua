-- Inception-v3 against torchvision's, patched to the 2015-12-05 graph, in float64 with weights by one rule:
-- tests/golden/make_inception.py wrote the features and describes the rule.
local core = require "sagan.core"
local nn = require "sagan.nn"
local helper = require "helper"
local Inception = require "sagan.models.inception"

local TOLERANCE <const> = 1e-4 -- relative error norms
local golden_path = (os.getenv "SAGAN_SOURCE" or ".") .. "/tests/golden/inception.safetensors"

--- What the file calls a tensor of the network.
local function file_name(name) return (name:gsub("bn%.gain$", "bn.weight")) end

local RANGES <const> = {
    ["bn.weight"] = { 0.5, 1.5 }, ["bn.bias"] = { -0.5, 0.5 }, ["bn.running_mean"] = { -0.5, 0.5 },
    ["bn.running_var"] = { 0.5, 1.5 }, ["fc.bias"] = { -1, 1 },
}

--- make_inception.py's weights: uniform by Philox, keyed by the name.
local function by_rule(net, seed)
    local clock <close> = core.zeros({ 2 }, { dtype = "i32" })
    for name, tensor in pairs(net:state_dict()) do
        name = file_name(name)
        local range = RANGES[name:match("[^.]+%.[^.]+$")]
        if not range then
            local bound = math.sqrt(6 / (tensor:numel() // tensor:size(1)))
            range = { -bound, bound }
        end
        core.ops.uniform(tensor, clock, seed, nn.stream(name), range[1], range[2])
    end
    return net
end

local function close(what, got, want)
    assert.same(want.shape, got.shape, what)
    local e = core.ops.norm(core.ops.sub(got, want)):item() / core.ops.norm(want):item()
    if e ~= e or e > TOLERANCE then error(("%s: relative error %.2e, allowed %.0e"):format(what, e, TOLERANCE), 2) end
    return e
end

describe("inception", function()
    local net, golden, threads
    setup(function()
        helper.start()
        threads = core.threads()
        local meta
        golden, meta = assert(core.safetensors.load(golden_path))
        net = by_rule(Inception { init = "zeros" }:build { grad = false }, math.tointeger(tonumber(meta.seed)))
    end)
    teardown(function()
        net, golden = nil, nil
        core.threads(threads)
        helper.finish()
    end)

    it("has the parameters of the weights file, to the unit", function()
        local tensors, numbers = 0, 0
        for _, t in pairs(net:state_dict()) do tensors, numbers = tensors + 1, numbers + t:numel() end
        assert.equal(472, tensors)
        assert.equal(23885392, numbers)
        assert.truthy(tostring(net):find("Mixed_7c %s+InceptionBlock%s+8x8x2048"))
    end)

    for _, kind in ipairs { "tf1", "torch", "clean" } do
        it("has torchvision's features and logits through the resizer " .. kind, function()
            local f, l = net:features(golden["colour/images"], { resizer = kind, batch = 2 })
            close("features", f, golden["colour/" .. kind .. "/features"])
            close("logits", l, golden["colour/" .. kind .. "/logits"])
        end)
    end

    it("takes grey pictures, and leaves the bias out when asked", function()
        local f, l = net:features(golden["grey/images"], { resizer = "clean", bias = false })
        close("features", f, golden["grey/clean/features"])
        close("logits", l, golden["grey/clean/unbiased"])
    end)

    it("gives each picture the same bits in any batch and with any number of threads", function()
        local images = golden["colour/images"]
        core.threads(2)
        local f, l = net:features(images, { batch = 2 })
        core.threads(1)
        local seen = {}
        local g, m = net:features(images, { batch = 1, progress = function(done, total)
            seen[#seen + 1] = done .. "/" .. total
        end })
        assert.equal(f:bytes(), g:bytes())
        assert.equal(l:bytes(), m:bytes())
        assert.same({ "1/2", "2/2" }, seen)
    end)

    it("stops when progress says so", function()
        local f, message = net:features(golden["grey/images"], { progress = function() return false end })
        assert.is_nil(f)
        assert.equal("stopped on request", message)
    end)

    it("names what is wrong with an argument", function()
        local images = golden["grey/images"]
        local function message(...) return helper.message_of(net.features, net, ...) end
        assert.truthy(message(core.zeros(1, 8, 8, 3)):find("u8 {N,H,W,C}; round generated ones once", 1, true))
        assert.truthy(message(images, { resiser = "tf1" }):find("did you mean 'resizer'?", 1, true))
        assert.truthy(message(images, { resizer = "tf2" }):find("no resizer is called 'tf2' (tf1, torch, clean)", 1, true))
        assert.truthy(message(images, { batch = 0 }):find("batch is a whole number from 1", 1, true))
        assert.truthy(helper.message_of(function() Inception():features(images) end):find("load or build", 1, true))
    end)
end)
