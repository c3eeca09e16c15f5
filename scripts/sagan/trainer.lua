--- trainer.lua - one run from its configuration to its last checkpoint; the sole owner of the order of an iteration:
---
---   [1] data        the loader's batch of this D step's number                      (engine/data/loader.c)
---   [2] batch       u8 -> [-1,1], flips by keyed random numbers
---   [3] D step      z, labels -> G without gradient -> D over real and fake together -> loss -> backward -> Adam on D
---   [4] G step      fresh z, labels -> G -> frozen D -> loss -> backward -> Adam on G; moving average of G
---   [5] log         every so many steps one read of the ring of losses
---   [6] checkpoint  the whole state, temp file + sync + rename
---   [7] sample      fixed z -> picture grids, attention sheets
---   [8] score       the checkpoint -> feature network -> scores.jsonl               (scripts/sagan/evaluation.lua)
---   [9] control     what clients ask and change between two steps                   (scripts/sagan/control.lua)
---
--- [3] and [4] read no host value that changes from step to step and give none back: clocks, learning rates, batches and
--- losses are tensors, so on CUDA each is captured once and replayed. Steps count from 1; the state "at step n" is the one
--- after n G steps. Everything random is keyed by (seed, stream, clock), so equal configurations give equal bits.
local core = require "sagan.core"
local ops, system = core.ops, core.system
local streams = require "sagan.streams"
local losses = require "sagan.losses"
local optimizer = require "sagan.optimizer"
local checkpoint = require "sagan.checkpoint"
local config_module = require "sagan.config"
local progress = require "sagan.progress"
local pictures = require "sagan.pictures"
local measurements = require "sagan.measurements"
local microscope = require "sagan.microscope"
local control = require "sagan.control"
local live = require "sagan.live"

---@class sagan.Trainer
---@field config table resolved configuration
---@field step integer G steps done
---@field G sagan.models.Generator
---@field D sagan.models.Discriminator
---@field average sagan.Average? moving average of G
---@field changes sagan.Change[]  fields that were changed since the run began
---@field last integer?           the step that a study ends at
local Trainer = {}
Trainer.__index = Trainer

--- Builds networks, optimisers and buffers.
---@param config table resolved configuration whose data fields are filled in
---@param data table the open data set
---@return sagan.Trainer
function Trainer.new(config, data)
    local t, o, m = config.train, config.optimizer, config.model
    config = config_module.copy(config) -- a client may change it
    local self = setmetatable({ config = config, data = data, step = 0, d_steps_done = 0, logged = 0, changes = {},
        control = control.none }, Trainer)
    self.G = require "sagan.models.generator" (m)
    self.D = require "sagan.models.discriminator" (m)
    self.G:build { seed = config.seed, path = "G" }
    self.D:build { seed = config.seed, path = "D" }
    if config.precision == "bf16" then self.G.activations, self.D.activations = "bf16", "bf16" end
    self.G.recompute_norms = t.recompute ~= "none"
    if t.recompute == "blocks" then
        self.G:recompute_blocks()
        self.D:recompute_blocks()
    end
    self.rate_factor = o.rate_factor or 1
    local function adam(net, lr)
        return optimizer.adam(net, { lr = lr * self.rate_factor, beta1 = o.beta1, beta2 = o.beta2, eps = o.eps, tf_eps = o.tf_eps,
            weight_decay = o.weight_decay })
    end
    self.adam_g, self.adam_d = adam(self.G, o.lr_g), adam(self.D, o.lr_d)
    if t.ema_decay > 0 then
        self.average = optimizer.average(self.G, { decay = t.ema_decay, start = t.ema_start })
    end
    self.loss = losses.get(config.loss)
    self.class_loss = self.D.classifier and losses.auxiliary(config.auxiliary) or nil

    local i32 = { dtype = "i32" }
    local n, g_n = t.batch, t.batch * t.g_batch
    if n % t.accumulate ~= 0 then
        error(("train.batch = %d is not a multiple of train.accumulate = %d"):format(n, t.accumulate), 0)
    end
    self.images = core.zeros({ n, m.resolution, m.resolution, m.channels }, { dtype = "u8" })
    self.labels = core.zeros({ 2 * n }, i32) -- reals first, then fakes, as D sees them
    self.real_labels, self.fake_labels = self.labels:rows(1, n), self.labels:rows(n + 1, n)
    self.d_z, self.g_z = core.zeros { n, m.z_dim }, core.zeros { g_n, m.z_dim }
    self.g_labels = core.zeros({ g_n }, i32)
    self.d_clock, self.g_clock = core.zeros({ 2 }, i32), core.zeros({ 2 }, i32)
    self.d_ring, self.g_ring = measurements.rings(config, self.class_loss ~= nil)
    self.d_step = core.capture(function() self:discriminator_step() end)
    self.g_step = core.capture(function() self:generator_step() end)
    return self
end

--- z and labels for one step, fresh for every value of the clock.
function Trainer:draw_noise(z, labels, clock, noise_stream, label_stream)
    ops.normal(z, clock, self.config.seed, noise_stream)
    ops.randint(labels, clock, self.config.seed, label_stream, 0, self.data.classes)
end

--- Calls fn(first row, rows) -> loss, other values for each part of a batch of n. The loss of a part carries the weight
--- 1 / accumulate, so the gradients add up to those of the whole batch. Returns the means of what fn returns.
function Trainer:parts(n, fn)
    local parts = self.config.train.accumulate
    local means
    for i = 1, parts do
        local values = table.pack(fn((i - 1) * (n // parts) + 1, n // parts))
        values[1]:scale(1 / parts):backward()
        for k, value in ipairs(values) do values[k] = value:detach():scale(1 / parts) end
        for k, mean in ipairs(means or {}) do values[k] = mean + values[k] end
        means = values
    end
    return means
end

local function record(ring, clock, values)
    for column, value in ipairs(values) do ops.record(ring, value, clock, column - 1) end
end

--- D's logits for real and fake images, in one pass or in two (train.d_forward); then the class logits of both, if it
--- has a class head.
function Trainer:judge(real, real_labels, fake, fake_labels)
    local D, n = self.D, real:size(1)
    local policy = self.config.model.spectral_norm.update
    if self.config.train.d_forward == "separate" then
        local on_real, real_class = D(real, real_labels)
        D.update_spectral = policy ~= "real_pass"
        local on_fake, fake_class = D(fake, fake_labels)
        D.update_spectral = true
        return on_real, on_fake, real_class, fake_class
    end
    local labels = n == self.real_labels:size(1) and self.labels or ops.concat(real_labels, fake_labels, 1)
    local logits, classes = D(ops.concat(real, fake, 1), labels)
    if not classes then return logits:rows(1, n), logits:rows(n + 1, n) end
    return logits:rows(1, n), logits:rows(n + 1, n), classes:rows(1, n), classes:rows(n + 1, n)
end

--- [3] One step of the discriminator on the batch in self.images, self.real_labels.
function Trainer:discriminator_step()
    local config, G, D = self.config, self.G, self.D
    self:draw_noise(self.d_z, self.fake_labels, self.d_clock, streams.d_noise, streams.d_labels)
    D:zero_grad()
    local images = ops.pixels_to_float(self.images, self.d_clock, config.seed, streams.pixels, config.train.flip,
        config.train.dequantize)
    G.update_spectral = config.model.spectral_norm.update ~= "own_step"
    G.update_statistics = config.model.batch_norm.update ~= "own_step"
    local means = self:parts(config.train.batch, function(first, rows)
        local fake_labels = self.fake_labels:rows(first, rows)
        local fake = core.no_grad(G, self.d_z:rows(first, rows), fake_labels)
        local real_labels = self.real_labels:rows(first, rows)
        local on_real, on_fake, real_class, fake_class = self:judge(images:rows(first, rows), real_labels, fake, fake_labels)
        local loss = self.loss.discriminator(on_real, on_fake)
        local of_classes = self.class_loss and self.class_loss.discriminator(real_class, real_labels, fake_class, fake_labels)
        return of_classes and loss + of_classes or loss, on_real:detach():mean(), on_fake:detach():mean(), of_classes
    end)
    G.update_spectral, G.update_statistics = true, true
    record(self.d_ring, self.d_clock, { means[1], means[2], means[3], D.slab.grad:norm(), means[4] })
    self.adam_d:step()
    D:release_grad() -- the two networks' gradients are never alive together
    ops.tick(self.d_clock)
end

--- [4] One step of the generator against the frozen discriminator.
function Trainer:generator_step()
    local config, G, D = self.config, self.G, self.D
    self:draw_noise(self.g_z, self.g_labels, self.g_clock, streams.g_noise, streams.g_labels)
    G:zero_grad()
    D:freeze()
    D.update_spectral = config.model.spectral_norm.update == "every_forward"
    local means = self:parts(self.g_z:size(1), function(first, rows)
        local labels = self.g_labels:rows(first, rows)
        local on_fake, fake_class = D(G(self.g_z:rows(first, rows), labels), labels)
        local loss, of_classes = self.loss.generator(on_fake), self.class_loss and self.class_loss.generator(fake_class, labels)
        return of_classes and loss + of_classes or loss, of_classes
    end)
    D.update_spectral = true
    D:unfreeze()
    record(self.g_ring, self.g_clock, { means[1], G.slab.grad:norm(), means[2] })
    self.adam_g:step(self.average, self.g_clock)
    G:release_grad()
    ops.tick(self.g_clock)
end

--- Linear decay of both rates to 0 at the last step, where the recipe has it.
function Trainer:schedule()
    local steps, rates = self.config.train.steps, self.config.optimizer
    local over = (self.config.train.lr_decay or 0) * steps
    if over == 0 or self.step < steps - over then return end
    local left = self.rate_factor * (steps - self.step) / over
    self.adam_g:set_rate(rates.lr_g * left)
    self.adam_d:set_rate(rates.lr_d * left)
end

--- One whole iteration.
function Trainer:iterate()
    self:schedule()
    local g_first = self.config.train.order == "g_first"
    if g_first then core.scope(self.g_step) end
    for _ = 1, self.config.train.d_steps do
        self.loader:fill(self.d_steps_done, self.images, self.real_labels)
        core.scope(self.d_step)
        self.d_steps_done = self.d_steps_done + 1
    end
    if not g_first then core.scope(self.g_step) end
    self.step = self.step + 1
end

--- [5] Means over the last `steps` iterations, gamma and statistics of every attention, largest singular values.
---@param steps integer at most log.every
---@return table<string, number> row
---@return string? bad name of a value that is not finite
function Trainer:measure(steps) return measurements.of(self, steps) end

--- [6] Writes a checkpoint, of nothing but finite numbers, and removes all but the newest `keep`. One of a later step is
--- damaged, or this run would have begun there: it is neither counted nor removed.
---@return string? path, string? message, string? bad  what is not finite
function Trainer:save()
    local _, bad = self:measure(math.max(1, self.step - self.logged))
    bad = bad or measurements.not_finite(self)
    if bad then return nil, bad .. " is not finite", bad end
    local path = ("%s/checkpoints/step-%08d.safetensors"):format(self.folder.path, self.step)
    local ok, message = checkpoint.save(self, path)
    if not ok then return nil, message end
    local kept = 0
    for _, old in ipairs(self.folder:checkpoints()) do
        if old.step <= self.step then kept = kept + 1 end
        if kept > self.config.checkpoint.keep then system.remove(old.path) end
    end
    return path
end

--- Continues from the newest checkpoint that can be read, with what was changed before it.
---@return integer? step 0 if there is none
---@return string? message
---@return string[]? kept  changes that the configuration does not know of
function Trainer:resume()
    local broken
    for _, candidate in ipairs(self.folder:checkpoints()) do
        local step, info = checkpoint.load(self, candidate.path)
        if step then
            if info.data_hash ~= self.data.hash then
                return nil, ("%s was trained on other data (data set %s); --fresh starts over"):format(candidate.path, self.data.name)
            end
            self.step, self.d_steps_done = step, self.d_clock:totable()[1]
            local kept, message = live.adopt(self, info.changes)
            if not kept then return nil, ("%s: %s; --fresh starts over"):format(candidate.path, message) end
            return step, broken, kept
        end
        broken = ("%s%s: not usable, trying an older one\n"):format(broken or "", tostring(info))
    end
    if broken then return nil, broken .. "no checkpoint can be read; --fresh starts over" end
    return 0
end

--- [7] Sample grids of the raw and the averaged generator and an attention sheet, as PNG files and in TensorBoard.
---@return string? path of the picture to look at first, string? message
function Trainer:draw()
    local function put(tag, picture)
        local path = ("%s/%s-%08d.png"):format(self.folder.path, tag, self.step)
        local ok, message = core.image.write(path, picture)
        if not ok then return nil, message end
        ok, message = self.log:picture(tag, picture, self.step)
        if not ok then return nil, message end
        return path
    end
    local config, names, first = self.config, self.data.class_names, nil
    for _, entry in ipairs { { "raw", self.G }, self.average and { "ema", self.average.net } } do
        local name, net = entry[1], entry[2]
        local look <close> = net:observe() -- luacheck: ignore look
        local path, message = put("samples/" .. name, pictures.class_grid(net, config, names, config.sample))
        if not path then return nil, message end
        if name == "ema" or not self.average then first = path end
        if config.sample.attention and next(net.attention) and (name == "ema" or not self.average) then
            path, message = put("attention/G",
                microscope.class_sheet { net = net, letter = "G", config = config, class_names = names })
            if not path then return nil, message end
        end
    end
    return first
end

--- [8] Scores the checkpoint that was just written. Works on the file, so the run cannot notice.
---@param path string
---@return true? ok, string? message
function Trainer:score(path)
    local entries, message = require "sagan.evaluation".score {
        checkpoint = path, folder = self.folder.path, protocol = self.config.score, say = print,
    }
    if not entries then return nil, message end
    local row = { event = "score" }
    for name, value in pairs(entries[1].scores) do row["score/" .. name] = value end
    return self.log:row(self.step, row)
end

--- Trains to the last step, or to an earlier one. Returns "done", "interrupted" or "diverged"; nil and a message if a file
--- could not be written.
---@param last integer?  train.steps
---@return string? outcome, string? message
function Trainer:run(last)
    local config, batch = self.config, self.config.train.batch
    local function steps() return last or config.train.steps end -- the field may change meanwhile
    self.last, self.logged = last, self.step
    local bar = progress.new { total = steps(), start = self.step, every_seconds = 15 }
    local shown, drawn, saved, scored = self.step, self.step, self.step, self.step
    local logged_at, losses_text = system.now(), ""
    system.catch_interrupts(true)
    local resume_guard <close> = setmetatable({}, { __close = function() system.catch_interrupts(false) end })

    local function diverged(what)
        bar:finish()
        self.log:event(self.step, { event = "diverged", what = what })
        return "diverged", ("step %d: %s is not finite; the run stops. Try a lower optimizer.lr_d or lr_g, or spectral norm on both networks")
            :format(self.step, what)
    end

    --- What is due of [5] to [7] after a step; all of it, but nothing twice, where the run ends. Returns what trained, or else
    --- why it cannot go on: a log line or a picture that cannot be written ends the run, but first the checkpoint is tried.
    local function report(ends)
        local written, failure = true, nil
        local function due(every, done)
            return self.step ~= done and (ends or every > 0 and self.step % every == 0)
        end
        if due(config.log.every, self.logged) then
            local row, bad = self:measure(self.step - self.logged)
            local now = system.now()
            row["images_per_second"] = (self.step - self.logged) * batch / (now - logged_at)
            self.logged, logged_at, self.row = self.step, now, row
            losses_text = ("loss d %.3f g %.3f  "):format(row["loss/d"], row["loss/g"])
            written, failure = self.log:row(self.step, row)
            if bad then return diverged(bad) end
        end
        if bar:due() or due(0, shown) then
            local speed = (self.step - bar.first) * batch / (system.now() - bar.started)
            shown, bar.total = self.step, steps()
            bar:show(self.step, ("%s%.1f images/s"):format(losses_text, speed), ends)
        end
        if written and due(config.sample.every, drawn) then
            drawn = self.step
            written, failure = self:draw()
        end
        local every = config.score.every
        local to_score = every > 0 and self.step ~= scored and (self.step % every == 0 or self.step >= steps())
        if due(config.checkpoint.every, saved) or to_score then
            saved = self.step
            local path, message, bad = self:save()
            if bad then return diverged(bad) end
            if path and to_score then
                scored = self.step
                path, message = self:score(path)
            end
            if not path then written, failure = nil, failure or message end
        end
        if written then return "trained" end
        bar:finish()
        return nil, failure
    end

    while self.step < steps() do
        self:iterate()
        local outcome, message = report(self.step >= steps())
        if outcome ~= "trained" then return outcome, message end
        local stop, waited = self.control:poll(self)
        logged_at, bar.started = logged_at + waited, bar.started + waited -- speed is that of training
        if stop then break end
    end
    local outcome, message = report(true)
    if outcome ~= "trained" then return outcome, message end
    bar:finish()
    return self.step >= steps() and "done" or "interrupted"
end

return Trainer
