--- What the specs share: the leak check and comparisons.
local core = require "sagan.core"

local helper = {}

--- Live objects after all garbage is gone. Kernel tables of a context and the like stay, so only differences count.
function helper.counters()
    core.clear_tape()
    collectgarbage()
    collectgarbage()
    core.trim() -- freed storages that are kept for reuse are host blocks too, and how many depends on the collector
    local live = core.live()
    return { tensors = live.tensors, storages = live.storages, host_blocks = live.host_blocks }
end

--- Calls f and fails when it leaves tensors, storages or host blocks behind. Returns nothing: results would be alive.
-- The first call of anything may open a context, grow the tape or the arena, intern a path: f runs once before counting.
function helper.no_leaks(f)
    f()
    local before = helper.counters()
    f()
    local after = helper.counters()
    for name, count in pairs(before) do
        if after[name] ~= count then
            error(("%s: %d before, %d after"):format(name, count, after[name]), 2)
        end
    end
end

--- For a spec file: setup(helper.start) and teardown(helper.finish) check that all its tests together left no tensor.
local baseline
function helper.start()
    core.zeros(1):release()
    baseline = helper.counters()
end

function helper.finish()
    local now = helper.counters()
    assert(now.tensors == baseline.tensors and now.storages == baseline.storages,
        ("this spec leaves %d tensors and %d storages behind"):format(now.tensors - baseline.tensors,
            now.storages - baseline.storages))
end

--- |a - b| / (|b| + tiny) over all elements of two nested tables or tensors.
function helper.distance(a, b)
    local function flat(value, out)
        if core.is_tensor(value) then value = value:totable() end
        if type(value) == "number" then
            out[#out + 1] = value
        else
            for _, item in ipairs(value) do flat(item, out) end
        end
        return out
    end
    local x, y = flat(a, {}), flat(b, {})
    if #x ~= #y then error(("%d numbers against %d"):format(#x, #y), 2) end
    local difference, size = 0, 0
    for i = 1, #x do
        difference = difference + (x[i] - y[i]) ^ 2
        size = size + y[i] ^ 2
    end
    return math.sqrt(difference) / (math.sqrt(size) + 1e-12)
end

--- The message of the error that f must raise.
function helper.message_of(f, ...)
    local ok, message = pcall(f, ...)
    if ok then error("no error was raised", 2) end
    return tostring(message)
end

return helper
