--- The fields of a configuration: every choice that a run depends on, each with its type, default and one line of
--- description. The only list of them: checking, --help, editor annotations, serialisation and diff derive from it.
--- The defaults are the paper's choices (arXiv 1805.08318) where it states them; recipes/ holds the others'.
---
--- Types are tables with
---   text               for messages and help
---   annotation         the LuaCATS type
---   check(value)       the value in its canonical form, or nil
---   list               the value is itself a list, so that a sweep is a list of lists

local fields = {}

---@class sagan.FieldType
---@field text string
---@field annotation string
---@field check fun(value: any): any
---@field list? boolean
---@field raw? boolean  text on the command line is taken as it is

---@class sagan.Field
---@field key string      "optimizer.lr_g"
---@field type sagan.FieldType
---@field default any     nil: none
---@field doc string
---@field free boolean    may differ when a run is continued

---@type sagan.Field[]
fields.list = {}
---@type table<string, sagan.Field>
fields.by_key = {}

-- ------------------------------------------------------------------------------------------------------------ types

local function integer(low, high)
    return {
        text = ("a whole number %s"):format(high and ("from %d to %d"):format(low, high) or "from " .. low),
        annotation = "integer",
        check = function(v)
            v = math.type(v) and math.tointeger(v)
            if v and v >= low and (not high or v <= high) then return v end
        end,
    }
end

-- above < v or from <= v, v < below or v <= to
local function number(range)
    local words = {}
    if range.above then words[#words + 1] = "above " .. range.above end
    if range.from then words[#words + 1] = "from " .. range.from end
    if range.below then words[#words + 1] = "below " .. range.below end
    if range.to then words[#words + 1] = "to " .. range.to end
    return {
        text = "a number " .. table.concat(words, " and "):gsub("and to", "to"),
        annotation = "number",
        check = function(v)
            if not math.type(v) or v ~= v then return end
            if range.above and v <= range.above or range.from and v < range.from then return end
            if range.below and v >= range.below or range.to and v > range.to then return end
            return v + 0.0
        end,
    }
end

local function choice(options)
    local words, annotation = {}, {}
    for i, o in ipairs(options) do
        words[i] = tostring(o)
        annotation[i] = type(o) == "string" and ("%q"):format(o) or tostring(o)
    end
    return {
        text = "one of " .. table.concat(words, ", "),
        annotation = table.concat(annotation, "|"),
        options = options,
        check = function(v)
            for _, o in ipairs(options) do
                if v == o then return o end
            end
        end,
    }
end

local boolean <const> = {
    text = "true or false", annotation = "boolean",
    check = function(v)
        if type(v) == "boolean" then return v end
    end,
}

local text <const> = {
    text = "text", annotation = "string", raw = true,
    check = function(v)
        if type(v) == "string" then return v end
        if math.type(v) then return tostring(v) end
    end,
}

local word <const> = { text = "a name", annotation = "string", check = text.check }

local name <const> = {
    text = "a name: letters, digits and . _ + = -, not starting with a dot", annotation = "string", raw = true,
    check = function(v)
        if math.type(v) then v = tostring(v) end
        if type(v) == "string" and v:match("^[%w_+=-][%w._+=-]*$") then return v end
    end,
}

local function from_data(whole)
    return {
        text = whole.text .. ', or "data": what the data set has', annotation = whole.annotation .. '|"data"',
        check = function(v)
            if v == "data" then return v end
            return whole.check(v)
        end,
    }
end

--- A set of sizes of feature maps. 32 means {32}, "none" means {}.
fields.sizes = {
    text = 'a size of feature maps (8, 16, 32, 64, ...), a list of them, or "none"',
    annotation = 'integer|integer[]|"none"', list = true,
    check = function(v)
        if v == "none" then return {} end
        if math.type(v) then v = { v } end
        if type(v) ~= "table" then return end
        local seen, out = {}, {}
        for _, s in ipairs(v) do
            s = math.type(s) and math.tointeger(s)
            if not s or s < 4 or s > 1024 or s & (s - 1) ~= 0 then return end
            if not seen[s] then out[#out + 1] = s end
            seen[s] = true
        end
        for k in pairs(v) do
            if math.type(k) ~= "integer" or k < 1 or k > #v then return end
        end
        table.sort(out)
        return out
    end,
}
local sizes <const> = fields.sizes

-- ----------------------------------------------------------------------------------------------------------- fields

local function field(key, kind, default, doc, free)
    local f = { key = key, type = kind, default = default, doc = doc, free = free == "free" }
    fields.list[#fields.list + 1] = f
    fields.by_key[key] = f
end

fields.groups = {
    model = "The two networks.",
    ["model.attention"] = "Self-attention: where and in which form.",
    ["model.spectral_norm"] = "Spectral normalisation of the weights.",
    ["model.batch_norm"] = "Batch normalisation in the generator.",
    ["model.init"] = "Initial values of the weights.",
    auxiliary = "The discriminator's class head (model.d_head=auxiliary).",
    optimizer = "Adam, one for each network.",
    train = "The training loop.",
    log = "What is written down while training.",
    sample = "Pictures drawn while training.",
    checkpoint = "Saved states.",
    score = "How a run is scored: the protocol, which is part of every score.",
}

field("name", name, "run", "Name of the run; its folder under runs/.", "free")
field("question", text, "", "What the experiment asks, in one line.", "free")
field("recipe", word, "paper", "The set of choices that everything unsaid comes from.", "free")
field("profile", choice { "auto", "quick", "small", "paper" }, "auto",
    "Scale: quick (minutes on two cores), small (about an hour on one GPU), paper (days).", "free")
field("profile_reason", text, nil, "Why profile=auto chose what it chose; filled in.", "free")
field("seed", integer(0, 2 ^ 31 - 1 | 0), 1, "Seed of all random numbers.")
field("data", text, "auto",
    "Data set: auto, fashion-mnist, idx:PATH, cifar10:PATH, folder:PATH, pack:FILE, quadrupeds[:count]; the last adds the score legs.")

field("model.resolution", choice { 32, 64, 128, 256 }, 128, "Side of the images in pixels.")
field("model.width", integer(1, 1024), 64, "Channels of the narrowest layers; all others are multiples.")
field("model.channels", from_data(choice { 1, 3 }), "data", "Channels of the images: 1 grey, 3 colour.")
field("model.classes", from_data(integer(1)), "data", "Number of classes.")
field("model.z_dim", integer(1), 128, "Length of the generator's random input.")
field("model.conditional", boolean, true,
    "Class-conditional: batch-norm tables in the generator, projection in the discriminator.")
field("model.d_head", choice { "projection", "auxiliary" }, "projection",
    "How D knows classes: projection (embedding of the label times features) or auxiliary (AC-GAN: a head that names them).")
field("model.d_width", number { above = 0, to = 16 }, 1.0, "Width of the discriminator, in units of model.width.")
field("model.d_hidden", choice { "wide", "thin" }, "wide",
    "Channels inside a discriminator block: wide as its output, thin as its input.")
field("model.inplace_shortcut", boolean, false,
    "The shortcut of a discriminator block sees relu(x), as where an in-place ReLU overwrites x.")
field("model.upsample", choice { "nearest", "bilinear" }, "nearest",
    "How the generator's blocks double the size; bilinear with half-pixel centres (align_corners=False).")
field("model.generator_linear_bias", boolean, true, "Bias of the generator's first layer.")

field("model.attention.generator", sizes, { 32 }, "Sizes of the generator's feature maps that attention follows.")
field("model.attention.discriminator", sizes, { 32 }, "Sizes of the discriminator's feature maps that attention follows.")
field("model.attention.form", choice { "slides", "pooled", "v2", "residual" }, "slides",
    "slides: f, g C/8, h C; pooled: the official code's; v2: C/8 and back; residual: a block of as many parameters.")
field("model.attention.kernel", choice { 3, 5, 7 }, 3, "Kernel of the residual form; as many parameters whatever its size.")
field("model.attention.gamma_init", number { from = -10, to = 10 }, 0.0, "Initial value of the gate gamma.")
field("model.attention.spectral_norm", boolean, true, "Normalise the projections, in a network that has spectral norm.")

field("model.spectral_norm.generator", boolean, true, "Normalise the generator's convolutions and linear layer.")
field("model.spectral_norm.discriminator", boolean, true, "Normalise the discriminator's convolutions and linear layer.")
field("model.spectral_norm.embedding", boolean, true, "Normalise the discriminator's class embedding too.")
field("model.spectral_norm.cbn", boolean, false,
    "Normalise the conditional batch-norm tables too; bounds every class's gains.")
field("model.spectral_norm.iterations", integer(0, 100), 1, "Power iterations in one pass.")
field("model.spectral_norm.eps", number { above = 0, below = 1 }, 1e-12, "What keeps the norms that divide from 0.")
field("model.spectral_norm.eps_form", choice { "add", "max" }, "add", "x / (|x| + eps), or x / max(|x|, eps).")
field("model.spectral_norm.u_init", choice { "normal", "truncated" }, "normal",
    "Distribution of the first u: normal, or cut off at two standard deviations. (Its length makes no difference.)")
field("model.spectral_norm.through", boolean, false, "Let the gradient flow through the power iteration.")
field("model.spectral_norm.update", choice { "every_forward", "own_step", "real_pass" }, "every_forward",
    "When u is stored: in each training pass, only in the net's own step, or (D) only in the pass of real images.")

field("model.batch_norm.eps", number { above = 0, below = 1 }, 1e-5, "Added to the variance.")
field("model.batch_norm.momentum", number { above = 0, to = 1 }, 0.1, "How far running statistics move to the batch's.")
field("model.batch_norm.last_momentum", number { from = 0, to = 1 }, 0.0,
    "The same in the normalisation before the last convolution; 0: as the others.")
field("model.batch_norm.gain_offset", number { from = 0, to = 1 }, 0.0,
    "Added to the gain tables; 1 when they hold differences from 1.")
field("model.batch_norm.init", choice { "identity", "weights" }, "identity",
    "Conditional tables start as gain 1 and bias 0, or like other weights.")
field("model.batch_norm.update", choice { "every_forward", "own_step" }, "every_forward",
    "When running statistics move: in each training pass, or only in the generator's step.")

field("model.init.weights", choice { "xavier", "orthogonal", "normal" }, "xavier", "Initialiser of all weights.")
field("model.init.gain", number { above = 0 }, 1.0, "Factor of the 3x3 convolutions of the blocks.")
field("model.init.shortcut_gain", number { above = 0 }, 1.0, "Factor of the shortcuts' 1x1 convolutions.")
field("model.init.std", number { above = 0 }, 0.02, "Standard deviation for normal.")
field("model.init.bias", choice { "zeros", "fan_uniform" }, "zeros", "Initial biases: 0, or +-1/sqrt(fan in).")

field("loss", choice { "hinge", "bce", "wasserstein" }, "hinge",
    "Loss of both networks; bce is the first GAN's, with the generator's non-saturating form.")

field("auxiliary.d_weight", number { from = 0, to = 1000 }, 1.0, "Weight of the cross-entropy of classes in D's loss.")
field("auxiliary.g_weight", number { from = 0, to = 1000 }, 1.0, "Weight of the cross-entropy of classes in G's loss.")
field("auxiliary.d_on_fake", boolean, true, "D learns to name the classes of fakes too, not of real images only.")

field("optimizer.lr_g", number { from = 0, to = 1 }, 1e-4, "Learning rate of the generator.")
field("optimizer.lr_d", number { from = 0, to = 1 }, 4e-4, "Learning rate of the discriminator.")
field("optimizer.rate_factor", number { above = 0, to = 1000 }, 1.0,
    "Factor of both rates: a scale of few steps needs larger ones, and an experiment's rates keep their meaning.")
field("optimizer.beta1", number { from = 0, below = 1 }, 0.0, "Adam's beta1.")
field("optimizer.beta2", number { from = 0, below = 1 }, 0.9, "Adam's beta2.")
field("optimizer.eps", number { above = 0, below = 1 }, 1e-8, "Adam's epsilon.")
field("optimizer.tf_eps", boolean, false, "Epsilon inside the bias correction, as TensorFlow 1.")
field("optimizer.weight_decay", number { from = 0, to = 1 }, 0.0, "Decoupled weight decay.")

field("train.steps", integer(1), 1000000, "Generator steps.", "free")
field("train.batch", integer(1), 256, "Images in one step, over all accumulated parts.")
field("train.d_steps", integer(1, 100), 1, "Discriminator steps before each generator step.")
field("train.accumulate", integer(1), 1, "Parts that a batch is computed in; their gradients are added.")
field("train.recompute", choice { "none", "norms", "blocks" }, "norms",
    "What backward computes again instead of keeping it: nothing, what batch norms put out, or the inside of the residual blocks. "
    .. "Less memory, more time, the same bits.", "free")
field("train.g_batch", integer(1, 16), 1, "Batch of the generator step, in units of train.batch.")
field("train.d_forward", choice { "together", "separate" }, "together",
    "Real and fake images through the discriminator in one pass or in two.")
field("train.order", choice { "d_first", "g_first" }, "d_first", "Which network is updated first in a step.")
field("train.ema_decay", number { from = 0, below = 1 }, 0.999,
    "Decay of the generator's moving average; 0: none. Training does not depend on it.")
field("train.ema_start", integer(0), 2000, "Step from which the average is one; a plain copy before.")
field("train.flip", boolean, false, "Mirror each image with probability 1/2.")
field("train.dequantize", number { from = 0, to = 1 }, 0.0, "Width of the uniform noise added to images in [-1, 1].")
field("train.lr_decay", number { from = 0, to = 1 }, 0.0,
    "Share of the steps, at the end, in which the rates fall linearly to 0; 0: never, 1: from the first step.")

field("device", choice { "auto", "cpu", "cuda" }, "auto", "Where to compute.", "free")
field("threads", integer(0, 4096), 0, "CPU threads; 0: all cores. The results do not depend on it.", "free")
field("precision", choice { "f32", "tf32", "bf16" }, "f32", "Arithmetic on a GPU; the CPU computes in f32.")
field("control", boolean, true, "Listen for sagan-lua attach, at a private socket in the run folder.", "free")
field("winograd", boolean, true, "Faster 3x3 convolutions on the CPU by Winograd's algorithm; the roundings differ.")

field("log.every", integer(1), 50, "Steps between two lines of the log.", "free")
field("log.tensorboard", boolean, true, "Write a TensorBoard event file too.", "free")
field("log.attention", boolean, true,
    "Measure at each line what attention does: entropy, attended distance, share of the output.", "free")
field("log.alarm", boolean, true,
    "Warn when a loss, a gradient norm, gamma or the largest singular value leaves its usual range, and keep the rows around.", "free")
field("sample.every", integer(0), 1000, "Steps between two picture sheets; 0: only at the end.", "free")
field("sample.rows", integer(1, 64), 10, "Rows of a picture sheet: one for each class, spread over them if there are more.", "free")
field("sample.columns", integer(1, 64), 10, "Columns of a picture sheet; each has its own z.", "free")
field("sample.attention", boolean, true, "Draw attention maps beside the pictures.", "free")
field("checkpoint.every", integer(0), 1000, "Steps between two checkpoints; 0: only at the end.", "free")
field("checkpoint.keep", integer(1), 2, "How many of the last checkpoints stay.", "free")

field("score.every", integer(0), 0, "Steps between two scorings, each of a checkpoint, and one at the end; 0: none in training.", "free")
field("score.network", text, "auto",
    "Whose features: cnn (a classifier trained on the data), a file of Inception weights, or auto: $SAGAN_INCEPTION, else cnn.", "free")
field("score.n_fake", integer(2), 50000, "Generated pictures.", "free")
field("score.n_real", integer(0), 0, "Real pictures; 0: all.", "free")
field("score.reference", choice { "train", "test" }, "train", "Split of the real pictures.", "free")
field("score.generator", choice { "ema", "raw" }, "ema",
    "The moving average, or the generator itself, which it is anyway in a run that keeps no average.", "free")
field("score.batch_norm", choice { "moving", "standing", "batch" }, "moving",
    "The generator's statistics: training's moving averages, those of 16 batches of 64 now, or each batch's own.", "free")
field("score.resizer", choice { "tf1", "torch", "clean" }, "tf1", "How pictures reach Inception's 299 pixels.", "free")
field("score.splits", integer(1), 10, "Splits of the Inception Score.", "free")
field("score.bias", boolean, false, "The Inception Score's logits with the last layer's bias; the original leaves it out.", "free")

--- Shorter names for several fields at once.
---@type table<string, {keys: string[], type: sagan.FieldType, doc: string}>
fields.aliases = {
    attention = {
        keys = { "model.attention.generator", "model.attention.discriminator" }, type = sizes,
        doc = "Sizes of attention in both networks.",
    },
}

--- Names of all fields and aliases.
---@return string[]
function fields.names()
    local names = {}
    for _, f in ipairs(fields.list) do names[#names + 1] = f.key end
    for alias in pairs(fields.aliases) do names[#names + 1] = alias end
    table.sort(names)
    return names
end

return fields
