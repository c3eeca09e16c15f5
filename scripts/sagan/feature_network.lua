--- feature_network.lua - the networks whose features scores are computed from, behind one face: Inception-v3 with the weights
--- of 2015-12-05, for what may be called FID, and the classifier that the engine trains on the data set itself.
---
--- Names of scores tell whose features they are of: FID, IS, KID with Inception's published weights; FD-cnn, IS-cnn, KID-cnn
--- with the classifier; FD-other with any other weights.
local core = require "sagan.core"

local feature_network = {}

---@class sagan.FeatureNetwork
---@field name string        fingerprint.network
---@field hash string        of the weights, 16 digits
---@field width integer      of the features
---@field logit_count integer
---@field suffix string      of the scores' names, "" for the genuine Inception
---@field resizers string[]  that it can be asked with; {"none"} if it takes pictures as they are
---@field accuracy? number   held-out, of the classifier
---@field features fun(self, images: sagan.Tensor, resizer: string, bias: boolean): sagan.Tensor?, sagan.Tensor|string
local Network = {}
Network.__index = Network

--- The name of a score with these features. "FD" is FID where the features are Inception's own.
---@param score string  FD, IS, KID, precision, ...
---@return string
function Network:score_name(score)
    if self.suffix == "" then return (score:gsub("FD$", "FID")) end
    return score .. self.suffix
end

local function inception(path)
    local model = require "sagan.models.inception"
    local net, message = model.load(path, { other = true })
    if not net then return nil, message end
    local w = net.weights
    return setmetatable({
        name = w.genuine and "inception-2015-12-05" or "inception-other", suffix = w.genuine and "" or "-other",
        hash = (w.sha256 or core.sha256.file(path)):sub(1, 16), width = 2048, logit_count = 1008,
        resizers = { "tf1", "torch", "clean" },
        features = function(_, images, resizer, bias) return net:features(images, { resizer = resizer, bias = bias }) end,
    }, Network)
end

local function classifier(o)
    local net, message = require "sagan.classifier".get {
        data = o.data, resolution = o.resolution, channels = o.channels, say = o.say,
    }
    if not net then return nil, message end
    return setmetatable({
        name = "cnn", suffix = "-cnn", hash = net.hash:sub(1, 16), width = net.feature_count,
        logit_count = net.classes, resizers = { "none" },
        accuracy = net.accuracy, features = function(_, images) return net:features(images) end,
    }, Network)
end

--- Opens a feature network. "auto" is the file that $SAGAN_INCEPTION names, and without one the classifier.
---@param what string  "auto", "cnn", or the path of Inception weights
---@param o {data: string, resolution: integer, channels: integer, say: fun(text: string)?}  for the classifier
---@return sagan.FeatureNetwork? network
---@return string? message
function feature_network.open(what, o)
    if what == "auto" then what = core.system.env("SAGAN_INCEPTION") or "cnn" end
    if what == "cnn" then return classifier(o) end
    return inception(what)
end

return feature_network
