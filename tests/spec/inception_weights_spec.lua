-- Files of weights for Inception-v3: which are taken, which are refused, and in which words. The files here are made by the
-- spec, so none has the genuine digest; where one has to pass for genuine, the spec changes the digest asked for.
local core = require "sagan.core"
local helper = require "helper"
local Inception = require "sagan.models.inception"
local weights = require "sagan.models.inception_weights"

--- The network's tensors under the file's names, convolutions as {K, C, R, S}.
local function file_state(net)
    local out = {}
    for name, t in pairs(net:state_dict()) do
        out[name:gsub("bn%.gain$", "bn.weight")] = t.rank == 4 and core.ops.permute(t, 1, 4, 2, 3) or t
    end
    return out
end

describe("inception weights", function()
    local net, state
    local base = os.tmpname()
    local path, converted = base .. ".safetensors", base .. "-converted.safetensors"
    local digest = weights.DIGEST
    setup(function()
        helper.start()
        net = Inception.random(5)
        state = file_state(net)
    end)
    teardown(function()
        net, state = nil, nil
        for _, name in ipairs { base, path, converted } do os.remove(name) end
        helper.finish()
    end)
    after_each(function() weights.DIGEST = digest end)

    local function refused(tensors, wanted, options)
        assert(core.safetensors.save(path, tensors))
        local got, message = Inception.load(path, options)
        assert.is_nil(got)
        for _, words in ipairs(wanted) do assert.truthy(message:find(words, 1, true), message) end
        assert.truthy(message:find(path, 1, true), message)
    end

    it("are the network's under torchvision's names", function()
        local all = 0
        for _ in pairs(state) do all = all + 1 end
        assert.equal(472, all)
        assert.same({ 192, 768, 1, 1 }, state["Mixed_6b.branch_pool.conv.weight"].shape)
        assert.same({ 128, 128, 1, 7 }, state["Mixed_6b.branch7x7_2.conv.weight"].shape)
        assert.same({ 384, 384, 3, 1 }, state["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape)
        assert.same({ 1008, 2048 }, state["fc.weight"].shape)
        assert.truthy(state["Conv2d_1a_3x3.bn.running_var"])
    end)

    it("that miss, exceed or misshape a tensor are refused, naming it with both shapes", function()
        refused({
            ["Mixed_6b.branch7x7_2.conv.weight"] = core.zeros(128, 128, 7, 1),
            ["Conv2d_1a_3x3.bn.bias"] = core.zeros({ 32 }, { dtype = "bf16" }),
            ["AuxLogits.fc.weight"] = core.zeros(1),
            ["Conv2d_1a_3x3.bn.num_batches_tracked"] = core.zeros(1),
        }, {
            "Mixed_6b.branch7x7_2.conv.weight is {128, 128, 7, 1} in the file, {128, 128, 1, 7} is needed",
            "Conv2d_1a_3x3.bn.bias is bf16 in the file, f32 is needed", "has no place for AuxLogits.fc.weight",
            "lacks Conv2d_1a_3x3.bn.running_mean", "and 469 more",
        })
        refused({}, { "lacks Conv2d_1a_3x3.bn.bias", "and 468 more" })
        refused({}, { "lacks" }, { other = true })
        refused({}, { "SHA-256 " .. core.sha256.file(path) }) -- of the same file as before
    end)

    it("of another digest are refused unless asked for, and then are not genuine", function()
        state["Conv2d_1a_3x3.bn.num_batches_tracked"] = core.zeros({ 1 }, { dtype = "i32" })
        assert(core.safetensors.save(path, state))
        local got, message = Inception.load(path)
        assert.is_nil(got)
        assert.truthy(message:find("begin with 6726825d: scores by others must not be called FID", 1, true))
        local source = core.sha256.file(path)
        assert.truthy(message:find("SHA-256 " .. source, 1, true))
        got = assert(Inception.load(path, { other = true }))
        assert.same({ name = "other", genuine = false, sha256 = source, path = path }, got.weights)
        for name, t in pairs(net:state_dict()) do assert(t:bytes() == got:state_dict()[name]:bytes(), name) end
        weights.DIGEST = source:sub(1, 8)
        got = assert(Inception.load(path))
        assert.equal("inception-2015-12-05", got.weights.name)
        assert.is_true(got.weights.genuine)

        -- what was converted stands for the file it came from, until a number changes
        assert.is_true(Inception.convert(path, converted))
        got = assert(Inception.load(converted))
        assert.same({ true, source }, { got.weights.genuine, got.weights.sha256 })
        local file = assert(io.open(converted, "r+b"))
        assert(file:seek("end", -1))
        file:write("\1")
        file:close()
        local ok
        ok, message = Inception.load(converted)
        assert.is_nil(ok)
        assert.truthy(message:find("damaged: its numbers are not those that were converted", 1, true))
    end)

    it("that are no file of tensors are refused", function()
        local ok, message = Inception.load("/nonexistent.pth")
        assert.is_nil(ok)
        assert.truthy(message:find("/nonexistent.pth: cannot open", 1, true))
        ok, message = Inception.load((os.getenv "SAGAN_SOURCE" or ".") .. "/tests/golden/state_zip.pth")
        assert.is_nil(ok)
        assert.truthy(message:find("not the weights of Inception-v3 (2015-12-05): has no place for bfloat", 1, true))
    end)
end)
