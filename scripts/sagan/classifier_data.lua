--- classifier_data.lua - what the scores' classifier learns from and what it is tested on: the split "train" and the split
--- "test" where the data set has one; else a tenth of every class is held out, the same images every time.
local core = require "sagan.core"
local streams = require "sagan.streams"

local classifier_data = {}

local TESTED_MOST <const>, SEED <const> = 10000, 0

---@class sagan.ClassifierData
---@field set sagan.Dataset       what is learned from, apart from what is held out of it
---@field test sagan.Dataset      what is tested on
---@field test_list integer[]     images of it
---@field kept integer[]?         images of set that are learned from; nil: all
local Data = {}
Data.__index = Data

--- The test split, or nil where there is none that can be told from the training images: an images file that is both splits,
--- or one with other classes. A split that is there and broken is a message.
local function open_test(set)
    local test, message, code = core.dataset.open(set.spec, { split = "test", resolution = set.width, channels = set.channels })
    if not test then return nil, code ~= "io" and message or nil end
    if test:hash() ~= set:hash() and test.classes == set.classes then return test end
    test:close()
end

--- Every tenth image of each class, the second one first, so that a class of two has one on either side.
local function hold_out(set)
    local seen, kept, held = {}, {}, {}
    for i = 1, set.count do
        local label = set:label(i)
        seen[label] = (seen[label] or 0) + 1
        local list = seen[label] % 10 == 2 and held or kept
        list[#list + 1] = i
    end
    return kept, held
end

--- Divides an open data set.
---@param set sagan.Dataset  split "train"
---@return sagan.ClassifierData? data
---@return string? message
function classifier_data.divide(set)
    local test, message = open_test(set)
    if message then return nil, message end
    if test then
        local n = math.min(test.count, TESTED_MOST)
        local all = {}
        for i = 1, n do all[i] = (i - 1) * test.count // n + 1 end
        return setmetatable({ set = set, test = test, test_list = all }, Data)
    end
    local kept, held = hold_out(set)
    if #held == 0 then
        return nil, ("%s: no class has more than one image, so none can be held out to test a classifier on"):format(set.name)
    end
    return setmetatable({ set = set, test = set, test_list = held, kept = kept }, Data)
end

--- The images of one epoch in their order: a Fisher-Yates permutation, keyed by the epoch.
local function shuffled(list, epoch)
    return core.scope(function()
        local clock, keys = core.tensor({ epoch, 0 }, { dtype = "i32" }), core.zeros({ #list }, { dtype = "i32" })
        core.ops.randint(keys, clock, SEED, streams.classifier_order, 0, 1 << 31)
        local order = table.move(list, 1, #list, 1, {})
        for i, key in ipairs(keys:totable()) do
            local j = #list - i + 1
            local k = key % j + 1
            order[j], order[k] = order[k], order[j]
        end
        return order
    end)
end

---@class sagan.ClassifierBatches
---@field fill fun(step: integer, images: sagan.Tensor, labels: sagan.Tensor)  batch `step`, from 0, into tensors that exist
---@field close fun()

--- Batches of the images that are learned from, epoch after epoch.
---@param n integer  images of a batch
---@return sagan.ClassifierBatches
function Data:batches(n)
    if not self.kept then
        local loader = self.set:loader { batch = n, seed = SEED }
        return {
            fill = function(step, images, labels) loader:fill(step, images, labels) end,
            close = function() loader:close() end,
        }
    end
    local epoch, order
    return {
        fill = function(step, images, labels)
            local list = {}
            for place = step * n, step * n + n - 1 do
                if epoch ~= place // #self.kept then
                    epoch = place // #self.kept
                    order = shuffled(self.kept, epoch)
                end
                list[#list + 1] = order[place % #self.kept + 1]
            end
            core.scope(function()
                local pixels, numbers = self.set:batch(list)
                images:copy_(pixels)
                labels:copy_(numbers)
            end)
        end,
        close = function() end,
    }
end

--- Share of the held-out images whose class is named rightly.
---@param classify fun(images: sagan.Tensor): sagan.Tensor  logits {N, classes} of u8 {N, H, W, C}
---@return number
function Data:accuracy(classify)
    local right, chunk = 0, 500
    for first = 1, #self.test_list, chunk do
        local list = table.move(self.test_list, first, math.min(first + chunk - 1, #self.test_list), 1, {})
        core.scope(function()
            local images, labels = self.test:batch(list)
            local guesses, truth = core.ops.argmax(classify(images)):totable(), labels:totable()
            for i, guess in ipairs(guesses) do right = right + (guess == truth[i] and 1 or 0) end
        end)
    end
    return right / #self.test_list
end

--- Closes what divide opened; the data set that it was given stays open.
function Data:close()
    if self.test ~= self.set then self.test:close() end
end

return classifier_data
