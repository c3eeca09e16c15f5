--- The weights of Inception-v3 2015-12-05 in files: pt_inception-2015-12-05-6726825d.pth, the TensorFlow graph's numbers
--- under torchvision's names, which scores in the field are computed with; or safetensors with the same names.
---
--- Names and layouts in files are PyTorch's: "<layer>.conv.weight" {K, C, R, S}, "<layer>.bn.weight" (gain), ".bn.bias",
--- ".bn.running_mean", ".bn.running_var", "fc.weight" {1008, 2048}, "fc.bias"; 472 tensors. They are permuted to KRSC here
--- and nowhere else. "<layer>.bn.num_batches_tracked" may be there and is not read.
---
--- Which weights they are is told by the file's SHA-256, and it goes into the fingerprint of every score.

local core = require "sagan.core"
local digest_of = require "sagan.models.digest"

local weights = {}

weights.NAME = "inception-2015-12-05"
--- The first digits of the SHA-256 of the genuine file, which PyTorch's hub keeps in the file's name.
weights.DIGEST = "6726825d"

local FORMAT <const> = "sagan-lua inception weights 1"

local function file_name(name)
    return (name:gsub("%.bn%.gain$", ".bn.weight"))
end

local function file_shape(shape)
    if #shape == 4 then return { shape[1], shape[4], shape[2], shape[3] } end
    return shape
end

local function text(shape) return "{" .. table.concat(shape, ", ") .. "}" end

--- What a file must hold: name -> the network's tensor and the file's shape.
local function expected(net)
    local out = {}
    for name, tensor in pairs(net:state_dict()) do
        out[file_name(name)] = { tensor = tensor, shape = file_shape(tensor.shape) }
    end
    return out
end

local function ignored(name) return name:find("%.num_batches_tracked$") ~= nil end

--- nil if the file's header fits, or what does not.
local function misfit(header, wanted)
    local wrong = {}
    for name, want in pairs(wanted) do
        local have = header[name]
        if not have then
            wrong[#wrong + 1] = "lacks " .. name
        elseif text(have.shape) ~= text(want.shape) then
            wrong[#wrong + 1] = ("%s is %s in the file, %s is needed"):format(name, text(have.shape), text(want.shape))
        elseif have.dtype ~= "f32" then
            wrong[#wrong + 1] = ("%s is %s in the file, f32 is needed"):format(name, have.dtype)
        end
    end
    for name in pairs(header) do
        if not wanted[name] and not ignored(name) then wrong[#wrong + 1] = "has no place for " .. name end
    end
    if #wrong == 0 then return nil end
    table.sort(wrong)
    local more = #wrong > 4 and ("; and %d more"):format(#wrong - 4) or ""
    return table.concat(wrong, "; ", 1, math.min(#wrong, 4)) .. more
end

local function reader(path)
    return path:find("%.safetensors$") and core.safetensors or core.pth
end

--- One digest over all tensors of a file that are read.
local function content_digest(tensors)
    local read = {}
    for name, tensor in pairs(tensors) do
        if not ignored(name) then read[name] = tensor end
    end
    return digest_of(read)
end

--- The digest that stands for these weights, and whether they are the genuine ones. A safetensors file made by convert says
--- which file it came from; that it still holds the same numbers is told by their digest.
local function identify(path, tensors, metadata)
    if type(metadata) == "table" and metadata.format == FORMAT then
        if metadata.content_sha256 ~= content_digest(tensors) then
            return nil, ("%s: damaged: its numbers are not those that were converted"):format(path)
        end
        return metadata.source_sha256
    end
    return core.sha256.file(path)
end

--- Reads and checks a file: the tensors as they are in it, and the digest that stands for them.
local function read(path, wanted)
    local file = reader(path)
    local header, message = file.header(path)
    if not header then return nil, message end
    local wrong = misfit(header, wanted)
    if wrong then
        return nil, ("%s: not the weights of Inception-v3 (2015-12-05): %s (SHA-256 %s)"):format(path, wrong, core.sha256.file(path))
    end
    local tensors, metadata = file.load(path)
    if not tensors then return nil, metadata end
    local digest
    digest, message = identify(path, tensors, metadata)
    if not digest then return nil, message end
    return tensors, digest
end

local function refusal(path, digest)
    return ("%s: SHA-256 %s, but the weights of 2015-12-05 begin with %s: scores by others must not be called FID "
        .. "(pass { other = true } to use them for scores of another name)"):format(path, digest, weights.DIGEST)
end

local function is_genuine(digest) return digest:sub(1, #weights.DIGEST) == weights.DIGEST end

--- See Inception.load.
function weights.load(path, options)
    local Inception = require "sagan.models.inception"
    local net = Inception { init = "zeros" }:build { grad = false }:eval()
    local ok, message = core.scope(function()
        local wanted = expected(net)
        local tensors, digest = read(path, wanted)
        if not tensors then return nil, digest end
        if not is_genuine(digest) and not (options and options.other) then return nil, refusal(path, digest) end
        core.no_grad(function()
            for name, want in pairs(wanted) do
                local t = tensors[name]
                if #want.shape == 4 then t = core.ops.permute(t, 1, 3, 4, 2) end
                want.tensor:copy_(t)
                t:release()
            end
        end)
        net.weights = {
            name = is_genuine(digest) and weights.NAME or "other", genuine = is_genuine(digest), sha256 = digest, path = path,
        }
        return true
    end)
    if not ok then return nil, message end
    return net
end

--- See Inception.convert. Any file that fits is converted; its digest goes with it.
function weights.convert(path, target)
    local net = require "sagan.models.inception" { init = "zeros" }:build { grad = false }
    return core.scope(function()
        local tensors, digest = read(path, expected(net))
        if not tensors then return nil, digest end
        for name in pairs(tensors) do
            if ignored(name) then tensors[name] = nil end
        end
        return core.safetensors.save(target, tensors, {
            format = FORMAT, source_sha256 = digest, content_sha256 = content_digest(tensors),
        })
    end)
end

return weights
