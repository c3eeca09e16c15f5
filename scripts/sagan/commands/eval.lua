--- sagan-lua eval - scores checkpoints: FID, IS, KID, precision, recall, density, coverage.
local core = require "sagan.core"
local system = core.system
local options = require "sagan.options"
local run_folder = require "sagan.run_folder"
local evaluation = require "sagan.evaluation"
local generated = require "sagan.generated"
local fingerprint = require "sagan.fingerprint"
local score_table = require "sagan.score_table"
local nearest = require "sagan.nearest"

local HELP = [[
sagan-lua eval RUN|CHECKPOINT... [options]

Scores the newest checkpoint of each run, prints the scores and adds them, each with the fingerprint of how it was measured,
to scores.jsonl of the run. What an option does not say, the run's configuration does (score.*). Data quadrupeds add legs: the
share of figures that stand on the right number of separate legs, counted in the pictures.

  --weights FILE      Inception-v3 weights: pt_inception-2015-12-05-6726825d.pth, or that as safetensors; its scores are FID,
                      IS, KID. Without it $SAGAN_INCEPTION, and without that a small classifier, which is trained on the data
                      set when it is first needed: its scores are FD-cnn, IS-cnn, KID-cnn.
  --network cnn       the classifier, whatever $SAGAN_INCEPTION says
  --generator LIST    of ema, raw
  --batch-norm LIST   of moving, standing, batch: which statistics normalise the generator
  --resizer LIST      of tf1 (the original FID's), torch (pytorch-fid's), clean (clean-fid's); Inception only
  --matrix            all generators x all statistics x all resizers, from one sampling pass for each of the first two
  --fakes N           generated pictures            --reals N   real ones (0: all)
  --reference SPLIT   train or test                 --data D    other data than the run's
  --splits N          of IS                         --truncation X
  --bootstrap N       resamplings for the interval of FD (100 with the classifier; with Inception each takes seconds)
  --step N            the checkpoint of that step instead of the newest
  --real              score held-out real pictures instead: as good as it can get
  --compare           score nothing; show what the ledgers of these runs hold, only equal fingerprints side by side
  -h, --help

Examples
  sagan-lua eval runs/feat32
  sagan-lua eval runs/feat32 --weights pt_inception-2015-12-05-6726825d.pth --fakes 50000
  sagan-lua eval runs/feat32 --matrix
  sagan-lua eval runs/feat32 runs/no_attention --compare]]

local eval = {}

local OPTIONS <const> = {
    ["--weights"] = { "weights", "text" }, ["--network"] = { "network", "text" }, ["--generator"] = { "generator", "text" },
    ["--batch-norm"] = { "batch_norm", "text" }, ["--resizer"] = { "resizer", "text" }, ["--matrix"] = { "matrix" },
    ["--fakes"] = { "fakes", "count" }, ["--reals"] = { "reals", "whole" }, ["--reference"] = { "reference", "text" },
    ["--data"] = { "data", "text" }, ["--splits"] = { "splits", "count" }, ["--truncation"] = { "truncation", "positive" },
    ["--bootstrap"] = { "bootstrap", "whole" }, ["--step"] = { "step", "whole" }, ["--real"] = { "real" },
    ["--compare"] = { "compare" },
}

local function complain(...)
    io.stderr:write("sagan-lua eval: ", string.format(...), "\n")
    return 1
end

-- "ema,raw" -> { "ema", "raw" }, each one of `known`.
local function list_of(text, known, option)
    if not text then return nil end
    local out = {}
    for word in text:gmatch("[^,]+") do
        local found = false
        for _, k in ipairs(known) do found = found or k == word end
        if not found then
            local near = nearest(word, known)
            error(("%s: '%s' is none of %s%s"):format(option, word, table.concat(known, ", "),
                near and ("; did you mean '%s'?"):format(near) or ""), 0)
        end
        out[#out + 1] = word
    end
    if #out == 0 then error(option .. " needs a value", 0) end
    return out
end

local function settings(o)
    if o.weights and o.network then error("--weights and --network: one of them", 0) end
    if o.weights and not system.stat(o.weights) then error(("--weights: there is no file %s"):format(o.weights), 0) end
    if o.reference then list_of(o.reference, { "train", "test" }, "--reference") end
    if o.network then list_of(o.network, { "cnn" }, "--network") end
    local both, resizers = { "ema", "raw" }, { "tf1", "torch", "clean" }
    return {
        data = o.data, network = o.weights or o.network, n_fake = o.fakes, n_real = o.reals, reference = o.reference,
        splits = o.splits, truncation = o.truncation, bootstrap = o.bootstrap, real = o.real, say = print,
        generators = list_of(o.generator, both, "--generator") or o.matrix and both,
        batch_norm = list_of(o.batch_norm, generated.modes, "--batch-norm") or o.matrix and generated.modes,
        resizers = list_of(o.resizer, resizers, "--resizer") or o.matrix and resizers,
    }
end

-- The checkpoint that a word means, and its run's folder if it lies in one.
local function find(word, step)
    local kind = system.stat(word)
    if kind and kind.type == "file" then
        local folder = word:match("^(.*)/checkpoints/[^/]+$")
        return word, folder and system.stat(folder .. "/config.lua") and folder or nil
    end
    local folder, message = run_folder.open(word)
    if not folder then return nil, message end
    local all = folder:checkpoints()
    for _, c in ipairs(all) do
        if not step or c.step == step then return c.path, folder.path end
    end
    if #all == 0 then return nil, folder.path .. ": no checkpoint yet" end
    local steps = {}
    for i, c in ipairs(all) do steps[i] = tostring(c.step) end
    return nil, ("%s: no checkpoint of step %d (there are: %s; checkpoint.keep says how many stay)"):format(folder.path, step,
        table.concat(steps, ", "))
end

local function show(name, entries)
    for _, entry in ipairs(entries) do
        local f = entry.fingerprint
        print(("%s, step %d: %s generator, batch norm %s%s; %d generated, %d real of %s (%s)"):format(name, entry.step,
            f.generator, f.batch_norm, f.resizer ~= "none" and ", resizer " .. f.resizer or "", f.n_fake, f.n_real, f.data, f.reference))
        for _, line in ipairs(score_table.entry_lines(entry)) do print("  " .. line) end
    end
end

---@param args string[]
---@return integer exit code
function eval.main(args)
    local o, message = options.parse(args, OPTIONS)
    if not o then return complain("%s", message) end
    if o.help then
        print(HELP)
        return 0
    end
    if #o == 0 then return complain("which run? sagan-lua eval runs/feat32 (--help for more)") end
    local ok, wanted = pcall(settings, o)
    if not ok then return complain("%s", wanted) end
    local failed, runs = 0, {}
    for _, word in ipairs(o) do
        local path, folder = find(word, o.step)
        if not path then
            complain("%s", folder)
            failed = failed + 1
        elseif o.compare then
            if folder then runs[#runs + 1] = { name = word, folder = folder } end
        else
            wanted.checkpoint, wanted.folder = path, folder
            local entries, why = evaluation.score(wanted)
            if not entries then
                complain("%s", why)
                failed = failed + 1
            else
                show(word, entries)
                print(("  %s"):format(fingerprint.text(entries[1].fingerprint)))
                if folder then print(("  added to %s/scores.jsonl"):format(folder)) end
            end
        end
    end
    if o.compare then
        for _, line in ipairs(score_table.comparison_lines(runs)) do print(line) end
    end
    return failed > 0 and 1 or 0
end

return eval
