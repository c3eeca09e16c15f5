--- published.lua - scores that others have published, each table with the fingerprint of how they were measured as far as it
--- is stated. What is not stated is absent and is shown as unknown. They are reference columns beside a study of our own and
--- never part of its statistics: another scale of run, and mostly another protocol.
---
--- Fingerprint: weights (of the feature network), resizer, n_real, n_fake, reference (split), batch_norm (mode of the
--- generator), ema, steps, batch, is_splits, checkpoint (which one was scored). recalled: from memory of the source.

local nearest = require "sagan.nearest"

local published = {}

---@class sagan.Published
---@field source string
---@field data string
---@field resolution integer
---@field scores string[]                    order of print
---@field fingerprint table<string, any>
---@field recalled? boolean
---@field entries table[]                    arm, scores by name; where stated share of the steps, step, batch, ...
local Published = {}
Published.__index = Published

--- In the order of print; of the scores only those that a table has.
local FINGERPRINT <const> = {
    "weights", "resizer", "n_real", "n_fake", "reference", "batch_norm", "ema", "steps", "batch", "is_splits", "checkpoint",
}
published.fingerprint_fields = FINGERPRINT

-- { "name", a, b, c } with the scores in order; false where there is none
local function rows(scores, list)
    local entries = {}
    for i, row in ipairs(list) do
        local entry = { arm = row[1] }
        for k, score in ipairs(scores) do entry[score] = row[k + 1] or nil end
        entries[i] = entry
    end
    return entries
end

local PAPER_FINGERPRINT <const> = { n_fake = 50000, ema = "none", steps = 1000000, checkpoint = "best within 1 M steps" }

local STUDIOGAN_04 <const> = { "IS", "FID", "precision", "recall", "density", "coverage", "intra-FID" }
local function studiogan_04(data, resolution, batch, list)
    return {
        source = "PyTorch-StudioGAN, tables of version 0.4, " .. data,
        data = data, resolution = resolution, scores = STUDIOGAN_04, entries = rows(STUDIOGAN_04, list),
        fingerprint = {
            weights = "TF Inception", resizer = "friendly", n_fake = "as many as the train split; 50 k for ImageNet sets",
            reference = "train", batch_norm = "standing", ema = "none", is_splits = 1, checkpoint = "best FID", batch = batch,
        },
    }
end

local STUDIOGAN_02 <const> = { "IS", "FID", "F1/8", "F8" }
local function studiogan_02(data, resolution, fingerprint, list)
    fingerprint.ema, fingerprint.checkpoint, fingerprint.weights = "none", "best FID", nil
    return {
        source = "PyTorch-StudioGAN, tables of versions 0.2 and 0.3, " .. data,
        data = data, resolution = resolution, scores = STUDIOGAN_02, entries = rows(STUDIOGAN_02, list),
        fingerprint = fingerprint,
    }
end

-- FID of StudioGAN's SAGAN by step, from its logs
local function curve(data, resolution, list)
    local entries = {}
    for i, point in ipairs(list) do entries[i] = { arm = "sagan", step = point[1], FID = point[2] } end
    return {
        source = "PyTorch-StudioGAN, log of SAGAN, " .. data, data = data, resolution = resolution, scores = { "FID" },
        fingerprint = { ema = "none", checkpoint = "each evaluation" }, entries = entries,
    }
end

local PLACEMENT <const> = { "FID", "IS" }

---@type table<string, sagan.Published>
published.list = {
    ["paper.attention_placement"] = {
        source = "arXiv 1805.08318, table 1: ImageNet 128x128", data = "ImageNet", resolution = 128, scores = PLACEMENT,
        fingerprint = PAPER_FINGERPRINT,
        entries = rows(PLACEMENT, {
            { "none", 22.96, 42.87 }, { "feat8", 22.98, 43.15 }, { "feat16", 22.14, 45.94 }, { "feat32", 18.28, 51.43 },
            { "feat64", 18.65, 52.52 }, { "residual_feat8", 42.13, 23.17 }, { "residual_feat16", 22.40, 44.49 },
            { "residual_feat32", 27.33, 38.50 }, { "residual_feat64", 28.82, 38.96 },
        }),
    },
    ["paper.stability"] = {
        source = "arXiv 1805.08318, figure on stabilisation: ImageNet 128x128", data = "ImageNet", resolution = 128,
        scores = { "FID" }, recalled = true,
        fingerprint = { n_fake = 50000, ema = "none", steps = 1000000, checkpoint = "each of these steps" },
        entries = {
            { arm = "sn_d", share = 0.01, step = 10000, FID = 181.84 },
            { arm = "sn_gd", share = 0.01, step = 10000, FID = 93.5 },
            { arm = "sn_gd", share = 0.16, step = 160000, FID = 33.39 },
            { arm = "sn_gd", share = 0.26, step = 260000, FID = 72.41 },
            { arm = "ttur", share = 0.01, step = 10000, FID = 99.04 }, { arm = "ttur", share = 0.16, step = 160000, FID = 40.96 },
            { arm = "ttur", share = 0.26, step = 260000, FID = 34.62 }, { arm = "ttur", share = 1, step = 1000000, FID = 22.96 },
        },
    },
    ["paper.state_of_the_art"] = {
        source = "arXiv 1805.08318, table of earlier methods: ImageNet 128x128", data = "ImageNet", resolution = 128,
        scores = { "IS", "intra-FID", "FID" }, fingerprint = PAPER_FINGERPRINT,
        entries = {
            { arm = "acgan", IS = 28.5, ["intra-FID"] = 260.0 },
            { arm = "sngan_projection", IS = 36.8, ["intra-FID"] = 92.4, FID = 27.62 },
            { arm = "sagan", IS = 52.52, ["intra-FID"] = 83.7, FID = 18.65 },
        },
    },
    ["biggan_paper.sagan_baseline"] = {
        source = "arXiv 1809.11096, table 1, SA-GAN baseline (81.5 M parameters): ImageNet 128x128", data = "ImageNet",
        resolution = 128, scores = PLACEMENT, recalled = true, fingerprint = {},
        entries = {
            { arm = "batch256", FID = 18.65, IS = 52.52, batch = 256, steps = 1000000 },
            { arm = "batch512", FID = 15.30, IS = 58.77, batch = 512 },
            { arm = "batch1024", FID = 14.88, IS = 63.03, batch = 1024 },
            { arm = "batch2048", FID = 12.39, IS = 76.85, batch = 2048, steps = 732000 },
        },
    },
    ["studiogan_04.cifar10"] = studiogan_04("CIFAR-10", 32, nil, {
        { "dcgan", 6.11, 48.29, .61, .21, .52, .28, 117.0 }, { "acgan_mod", 7.19, 33.39, .61, .21, .52, .36, 72.75 },
        { "pd_gan", 7.25, 31.54, .61, .28, .53, .39, 65.04 }, { "wgan_gp", 5.22, 53.98, .68, .26, .67, .27, 119.2 },
        { "sngan", 8.83, 9.01, .70, .62, .79, .75, 22.85 }, { "sagan", 8.64, 10.35, .69, .63, .73, .71, 25.00 },
        { "biggan", 9.96, 4.16, .74, .65, .98, .88, 14.29 },
    }),
    ["studiogan_04.baby_imagenet"] = studiogan_04("Baby-ImageNet", 64, nil, {
        { "sngan", 18.21, 36.31, .54, .58, .38, .39, 93.1 }, { "sagan", 16.47, 42.10, .50, .53, .33, .32, 111.1 },
        { "biggan", 27.47, 18.64, .63, .47, .59, .57, 62.2 },
    }),
    ["studiogan_04.papa_imagenet"] = studiogan_04("Papa-ImageNet", 64, nil, {
        { "sngan", 15.04, 41.06, .52, .55, .38, .37, 107 }, { "sagan", 12.86, 51.55, .48, .53, .31, .27, 130 },
        { "biggan", 21.62, 24.99, .60, .47, .54, .53, 79 },
    }),
    ["studiogan_04.grandpa_imagenet"] = studiogan_04("Grandpa-ImageNet", 64, nil, {
        { "sngan", 12.70, 41.74, .49, .52, .35, .37, 110 }, { "sagan", 11.96, 50.02, .44, .47, .29, .29, 132 },
        { "biggan", 17.64, 24.40, .58, .48, .55, .57, 78 },
    }),
    ["studiogan_04.imagenet"] = studiogan_04("ImageNet", 128, 256, {
        { "sngan", 31.42, 31.49, .56, .67, .43, .39, 112.7 }, { "biggan", 40.78, 20.57, .66, .65, .63, .52, 121.3 },
    }),
    ["studiogan_02.cifar10"] = studiogan_02("CIFAR-10", 32,
        { batch = 64, steps = 100000, n_real = 10000, reference = "test", batch_norm = "batch" }, {
            { "dcgan", 6.64, 49.03, .833, .795 }, { "acgan", 6.63, 45.57, .857, .847 }, { "projgan", 7.54, 33.83, .952, .855 },
            { "sngan", 8.68, 13.25, .983, .978 }, { "sagan", 8.68, 14.01, .982, .970 }, { "biggan", 9.75, 8.03, .995, .994 },
        }),
    ["studiogan_02.tiny_imagenet"] = studiogan_02("Tiny-ImageNet", 64,
        { batch = "256; BigGAN 1024", steps = 100000, n_real = 10000, reference = "valid", batch_norm = "batch" }, {
            { "dcgan", 5.64, 91.63, .606, .391 }, { "acgan", 6.34, 78.51, .668, .518 }, { "projgan", 6.22, 89.18, .626, .428 },
            { "sngan", 8.41, 53.59, .900, .703 }, { "sagan", 8.34, 51.41, .898, .698 }, { "biggan", 12.00, 31.92, .956, .879 },
        }),
    ["studiogan_02.imagenet"] = studiogan_02("ImageNet", 128,
        { steps = "SNGAN 500 k, SAGAN 1 M", n_real = 50000, reference = "valid", batch_norm = "moving" }, {
            { "sngan", 32.25, 26.79, .938, .913 }, { "sagan", 29.85, 34.73, .849, .914 },
            { "biggan_256", 28.63, 24.68, .941, .921 }, { "biggan_2048", 99.7, 7.89, .985, .989 },
        }),
    ["studiogan_curve.cifar10"] = curve("CIFAR-10", 32, {
        { 2000, 48.9 }, { 4000, 37.7 }, { 10000, 27.7 }, { 20000, 22.2 }, { 30000, 19.2 }, { 50000, 17.9 }, { 80000, 16.8 },
        { 90000, 14.0 }, { 100000, 15.0 },
    }),
    ["studiogan_curve.tiny_imagenet"] = curve("Tiny-ImageNet", 64, {
        { 2000, 143 }, { 4000, 87 }, { 10000, 67 }, { 20000, 57.5 }, { 50000, 52.9 }, { 88000, 51.4 }, { 100000, 51.6 },
    }),
    ["studiogan_curve.imagenet"] = curve("ImageNet", 128, {
        { 2000, 221 }, { 4000, 140 }, { 10000, 103 }, { 20000, 91 }, { 40000, 72.7 }, { 100000, 64.5 }, { 200000, 55.3 },
        { 400000, 52.7 }, { 800000, 43.9 }, { 920000, 34.7 }, { 1000000, 38.0 },
    }),
}

--- The names of all tables, sorted.
---@return string[]
function published.names()
    local names = {}
    for name in pairs(published.list) do names[#names + 1] = name end
    table.sort(names)
    return names
end

--- A table by its name.
---@param name string
---@return sagan.Published
function published.get(name)
    local found = published.list[name]
    if not found then
        local near = nearest(tostring(name), published.names())
        error(("there is no published table '%s'%s"):format(tostring(name),
            near and ("; did you mean '%s'?"):format(near) or ""), 0)
    end
    return setmetatable(found, Published)
end

--- The entry of an arm, at a share of the steps if the table has several; nil if there is none.
---@param arm string
---@param share? number  1
---@return table?
function Published:entry(arm, share)
    for _, entry in ipairs(self.entries) do
        if entry.arm == arm and (entry.share or 1) == (share or 1) then return entry end
    end
end

--- How the scores were measured, every field: "weights unknown, resizer unknown, n_fake 50000, ...".
---@return string
function Published:fingerprint_text()
    local parts = {}
    for i, field in ipairs(FINGERPRINT) do
        local value = self.fingerprint[field]
        parts[i] = ("%s %s"):format(field, value == nil and "unknown" or tostring(value))
    end
    return table.concat(parts, ", ") .. (self.recalled and "; recalled, not read again" or "")
end

return published
