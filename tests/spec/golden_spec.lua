-- The engine against an independent implementation in PyTorch, in float64: tests/golden/make_goldens.py wrote the files
-- and describes them. Single ops within 1e-5, whole networks and ten training steps within 1e-4 (relative error norms).
local core = require "sagan.core"
local helper = require "helper"
local ops = core.ops

local OP <const>, NETWORK <const> = 1e-5, 1e-4
local folder = (os.getenv "SAGAN_SOURCE" or ".") .. "/tests/golden/"

local function load_golden(name)
    local tensors, meta = core.safetensors.load(folder .. name .. ".safetensors")
    assert(tensors, meta)
    return tensors, meta
end

local function numbers(t)
    local flat = t:reshape(-1)
    local values = flat:totable()
    flat:release()
    return values
end

--- Fails unless |got - want| <= tolerance * |want|.
-- scale: the norm of the whole gradient. A part of it that is all cancellation (a bias in front of batch norm) carries f32's
-- rounding of the whole: its error is measured against at least a ten-thousandth of the whole (with the tolerance 1e-4 that is
-- 1e-8 of it), and where the exact value is 0, against a thousandth; without a scale, against 1.
local function close(what, got, want, tolerance, scale)
    assert.same(want.shape, got.shape, what)
    local a, b = numbers(got), numbers(want)
    local difference, size = 0, 0
    for i = 1, #b do
        difference = difference + (a[i] - b[i]) ^ 2
        size = size + b[i] ^ 2
    end
    local least = size > 0 and (scale or 0) / 10000 or (scale or 1000) / 1000
    local e = math.sqrt(difference) / math.max(math.sqrt(size), least)
    if not (e <= tolerance) then
        error(("%s: relative error %.2e, allowed %.0e"):format(what, e, tolerance), 2)
    end
    return e
end

--- The tensors whose name starts with prefix, without it.
local function under(tensors, prefix)
    local out = {}
    for name, t in pairs(tensors) do
        if name:sub(1, #prefix) == prefix then out[name:sub(#prefix + 1)] = t end
    end
    return out
end

local function words(text)
    local list = {}
    for word in text:gmatch "%S+" do list[#list + 1] = word end
    return list
end

--- "a=1 b=2" as the op's attributes, booleans as such.
local function attributes(text, op)
    local out = {}
    for key, value in text:gmatch "(%S+)=(%S+)" do out[key] = tonumber(value) end
    for _, attribute in ipairs(op and core.op_info(op).attributes or {}) do
        if attribute.type == "boolean" and out[attribute.name] then out[attribute.name] = out[attribute.name] ~= 0 end
        if attribute.type == "integer" and out[attribute.name] then
            out[attribute.name] = math.tointeger(out[attribute.name])
        end
    end
    return out
end

describe("goldens:", function()
    setup(helper.start)
    teardown(helper.finish)
    after_each(function() core.clear_tape() end)

    describe("op", function()
        local tensors, meta = load_golden "ops"
        teardown(function()
            tensors = nil
            collectgarbage()
        end)

        local function run_case(name, spec)
            local op, inputs, text, grads, written = spec:match "^(.-)|(.-)|(.-)|(.-)|(.*)$"
            local case = under(tensors, name .. "/")
            local arguments = attributes(text, op)
            for _, input in ipairs(words(inputs)) do arguments[input] = case[input] end
            for _, input in ipairs(words(grads)) do arguments[input]:requires_grad_() end
            local y = ops[op](arguments)
            close(op, y, case["=y"], OP)
            for _, input in ipairs(words(written)) do
                close(op .. ": " .. input .. " afterwards", case[input], case["=after_" .. input], OP)
            end
            if grads == "" then return end
            y:backward(case["=dy"])
            for _, input in ipairs(words(grads)) do
                close(op .. ": gradient of " .. input, case[input].grad, case["=d" .. input], OP, math.sqrt(#numbers(case["=dy"])))
            end
        end

        local cases = {}
        for key, spec in pairs(meta) do
            local name = key:match "^case%.(.*)"
            if name then cases[#cases + 1] = { name, spec } end
        end
        table.sort(cases, function(a, b) return a[1] < b[1] end)
        it("cases are all there", function() assert.is_true(#cases >= 70) end)
        for _, case in ipairs(cases) do
            it(case[1], function() run_case(case[1], case[2]) end)
        end

        for _, name in ipairs { "paper", "momentum", "decay", "tf" } do
            it("adam over 5 steps: " .. name, function()
                local case, o = under(tensors, "adam_" .. name .. "/"), attributes(meta["adam." .. name])
                local w, n = case.w:clone(), case.w:numel()
                local m, v, count = core.zeros(n), core.zeros(n), core.zeros({ 2 }, { dtype = "i32" })
                local hyper = core.tensor { o.rate, o.beta1, o.beta2, o.eps, o.decay, 1 }
                for step = 1, 5 do
                    ops.adam(w, case.g:rows(step, 1):reshape(n), m, v, count, hyper, o.tf ~= 0)
                    local want = case["=steps"]:rows(step, 1):reshape(n)
                    close("w after step " .. step, w, want, OP)
                    -- rates are small, so the way gone is looked at too; its last digits are lost in w
                    close("way after step " .. step, w - case.w, want - case.w, 1e-3)
                end
                assert.same({ 5, 0 }, count:totable())
            end)
        end
    end)

    local Generator = require "sagan.models.generator"
    local Discriminator = require "sagan.models.discriminator"

    local function model_of(meta)
        local function whole(key) return math.tointeger(tonumber(meta[key])) end
        local function sizes(key)
            local list = {}
            for _, word in ipairs(words(meta[key])) do list[#list + 1] = math.tointeger(tonumber(word)) end
            return list
        end
        local spectral = meta.spectral_norm == "True"
        return {
            resolution = whole "resolution", width = whole "width", channels = whole "channels", classes = whole "classes",
            z_dim = whole "z_dim", conditional = whole "classes" > 0,
            attention = { generator = sizes "attention", discriminator = sizes "attention_d", form = meta.form },
            spectral_norm = { generator = spectral, discriminator = spectral },
        }
    end

    local function close_state(letter, net, want)
        local own, n = net:state_dict(), 0
        for name, t in pairs(want) do
            close(letter .. "." .. name, own[name], t, NETWORK)
            n = n + 1
        end
        return n
    end

    local function close_grads(letter, net, want)
        local total, n = 0, 0
        for _, t in pairs(want) do total = total + ops.norm(t):item() ^ 2 end
        for name, parameter in net:named_parameters() do
            assert(want[name], letter .. "." .. name .. " is not in the file")
            close("gradient of " .. letter .. "." .. name, parameter.grad, want[name], NETWORK, math.sqrt(total))
            n = n + 1
        end
        local in_file = 0
        for _ in pairs(want) do in_file = in_file + 1 end
        assert.equal(in_file, n)
    end

    describe("networks", function()
        for _, name in ipairs { "net32_slides", "net32_pooled", "net32_v2", "net32_unconditional", "net32_no_spectral_norm",
            "net64_slides", "net128_pooled", "net128_slides" } do
            it(name, function()
                local t, meta = load_golden(name)
                local model = model_of(meta)
                local G, D = Generator(model):build(), Discriminator(model):build()
                G:load_state_dict(under(t, "G/"))
                D:load_state_dict(under(t, "D/"))
                local clock = core.zeros({ 2 }, { dtype = "i32" })
                local real, n = ops.pixels_to_float(t.pixels, clock, { seed = 1, stream = 1 }), t.pixels:size(1)

                -- discriminator step
                local fake = G(t.z, t.labels)
                close("fake images", fake, t["=fake"], NETWORK)
                local logits = D(ops.concat(real, fake:detach()), ops.concat(t.real_labels, t.labels))
                close("logits", logits, t["=logits"], NETWORK)
                local loss = ops.hinge_d(logits:rows(1, n), logits:rows(n + 1, n))
                close("loss of D", loss, t["=loss_d"], NETWORK)
                loss:backward()
                close_grads("D", D, under(t, "=dD/"))
                close_state("D", D, under(t, "=D/"))

                -- generator step from the same state: the images again, for the tape is gone; u as it was
                G:load_state_dict(under(t, "G/"))
                D:zero_grad()
                D:freeze()
                local on_fake = D(G(t.z, t.labels), t.labels)
                D:unfreeze()
                close("logits of fakes", on_fake, t["=on_fake"], NETWORK)
                loss = ops.hinge_g(on_fake)
                close("loss of G", loss, t["=loss_g"], NETWORK)
                loss:backward()
                close_grads("G", G, under(t, "=dG/"))
                close_state("G", G, under(t, "=G/"))
                assert.equal(0, ops.norm(D.slab.grad):item())

                G:eval()
                D:eval()
                core.no_grad(function()
                    fake = G(t.z, t.labels)
                    close("fake images in evaluation", fake, t["=fake_eval"], NETWORK)
                    close("logits in evaluation", D(fake, t.labels), t["=logits_eval"], NETWORK)
                end)
                -- evaluation moves no state, but sigma is an output
                for name, tensor in pairs(G:state_dict()) do
                    if t["=G/" .. name] and not name:match "_sigma$" then
                        close("G." .. name .. " after evaluation", tensor, t["=G/" .. name], NETWORK)
                    end
                end
            end)
        end
    end)

    describe("training", function()
        it("ten steps of the trainer", function()
            local Trainer = require "sagan.trainer"
            local t, meta = load_golden "training"
            local steps, model = tonumber(meta.steps), model_of(meta)
            local config = assert(require("sagan.experiment").resolve({
                recipe = "paper", profile = "quick", data = "quadrupeds", seed = 1, model = model,
                optimizer = { rate_factor = 1, lr_g = tonumber(meta.lr_g), lr_d = tonumber(meta.lr_d), beta1 = tonumber(meta.beta1),
                    beta2 = tonumber(meta.beta2), eps = tonumber(meta.eps) },
                train = { batch = tonumber(meta.batch), ema_decay = tonumber(meta.ema_decay), steps = steps,
                    ema_start = tonumber(meta.ema_start) },
                log = { every = steps },
            }))[1]
            config.model.channels, config.model.classes = model.channels, model.classes
            local trainer = Trainer.new(config, { classes = model.classes })
            trainer.G:load_state_dict(under(t, "G/"))
            trainer.D:load_state_dict(under(t, "D/"))
            -- the trainer's own order of things, with the file's data and noise
            local n = config.train.batch
            local function given(name) return t[name]:rows(trainer.step * n + 1, n) end
            trainer.loader = { fill = function(_, _, images, labels)
                images:copy_(given "pixels")
                labels:copy_(given "real_labels")
            end }
            function trainer:draw_noise(z, labels)
                local name = z == self.g_z and "g" or "d"
                z:copy_(given("z_" .. name))
                labels:copy_(given(name .. "_labels"))
            end
            for _ = 1, steps do trainer:iterate() end

            local d_ring, g_ring, want = trainer.d_ring:totable(), trainer.g_ring:totable(), t["=losses"]:totable()
            for i = 1, steps do
                for which, got in ipairs { d_ring[i][1], g_ring[i][1] } do
                    local e = math.abs(got / want[i][which] - 1)
                    assert(e <= NETWORK, ("loss of %s at step %d: %.7g, not %.7g"):format(which == 1 and "D" or "G", i, got, want[i][which]))
                end
            end
            local noise = {}
            for _, name in ipairs(words(meta.noise)) do noise[name] = true end
            for _, entry in ipairs { { "G", trainer.G, "G" }, { "D", trainer.D, "D" }, { "average", trainer.average.net, "G" } } do
                local letter, net, from = table.unpack(entry)
                local start, finish, own = under(t, from .. "/"), under(t, "=" .. letter .. "/"), net:state_dict()
                local moved, off, compared = 0, 0, 0
                for name, target in pairs(finish) do
                    if not noise[name] then
                        close(letter .. "." .. name, own[name], target, NETWORK)
                        compared = compared + 1
                    end
                end
                assert.is_true(compared > 60)
                -- the way gone, which is short beside the weights
                for name in net:named_parameters() do
                    if not noise[name] then
                        moved = moved + ops.norm(finish[name] - start[name]):item() ^ 2
                        off = off + ops.norm(own[name] - finish[name]):item() ^ 2
                    end
                end
                local e = math.sqrt(off / moved)
                assert(e <= 1e-4, ("%s went another way: %.2e of its length apart"):format(letter, e))
            end
        end)
    end)
end)
