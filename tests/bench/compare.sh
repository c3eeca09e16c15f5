#!/usr/bin/env bash
# compare.sh - our training step and PyTorch's, alternately in one go, as ratios of medians: time and peak memory.
#   tests/bench/compare.sh [pairs]            default 5; PYTHON names an interpreter that has torch
# Every line is printed, the misses too. The peer runs tuned: one OpenMP pool, tcmalloc if it is installed, the faster layout
# and form of attention's products of a first trial run. Memory is the peak of the resident set; of the peer's, what PyTorch
# itself takes before the nets are built is left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
pairs=${1:-5}
python=${PYTHON:-python3}
threads=${THREADS:-$(nproc)}
ours=build/release/sagan-lua
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
tcmalloc=$(ldconfig -p | sed -n 's/.*libtcmalloc_minimal\.so\.4.* => //p' | head -1)

peer() { LD_PRELOAD=$tcmalloc OMP_NUM_THREADS=$threads "$python" tests/bench/peer_torch.py --threads "$threads" --json "$@" | tail -1; }

cases=${CASES:-"32,64,64,none 32,64,64,16 64,32,16,none 64,32,16,32 128,16,8,none 128,16,8,32 128,16,8,64 128,64,4,none 128,64,4,32"}
printf '%5s %6s %6s %10s %12s %12s %9s %10s %10s %9s\n' res width batch attention 'ours ms' 'torch ms' 'time x' 'ours MiB' 'torch MiB' 'memory x'
for case in $cases; do
    IFS=, read -r res width batch attention <<<"$case"
    shape=(--res "$res" --width "$width" --batch "$batch" --attention "$attention")
    trial=$(peer "${shape[@]}" --steps 2 --warmup 1)
    layout=$(sed 's/.*"layout": "\([a-z_]*\)".*/\1/' <<<"$trial")
    products=$(sed 's/.*"products": "\([a-z_]*\)".*/\1/' <<<"$trial")
    [ "$attention" = none ] && products=rows
    : >"$out/ours"; : >"$out/peer"
    for _ in $(seq "$pairs"); do
        "$ours" bench "${shape[@]}" --steps 3 --threads "$threads" --json - >>"$out/ours"
        peer "${shape[@]}" --steps 3 --warmup 1 --layout "$layout" --products "$products" >>"$out/peer"
    done
    "$ours" - "$out/ours" "$out/peer" "$res" "$width" "$batch" "$attention" <<'LUA'
local json = require "sagan.json"
local function median(list)
    table.sort(list)
    local n = #list
    return n % 2 == 1 and list[n // 2 + 1] or (list[n // 2] + list[n // 2 + 1]) / 2
end
local function read(path, time, memory)
    local times, mib = {}, {}
    for line in io.lines(path) do
        local row = assert(json.decode(line))
        times[#times + 1], mib[#mib + 1] = time(row), memory(row)
    end
    return median(times), median(mib)
end
local ours, ours_mib = read(arg[1], function(r) return r.cases[1].ms_per_step end, function(r) return r.cases[1].rss_peak_mib end)
local peer, peer_mib = read(arg[2], function(r) return r.ms_per_step end,
    function(r) return r.peak_mib - r.settings.rss_before_mib end)
print(("%5s %6s %6s %10s %12.1f %12.1f %9.2f %10.1f %10.1f %9.2f"):format(arg[3], arg[4], arg[5], arg[6], ours, peer, peer / ours,
    ours_mib, peer_mib, peer_mib / ours_mib))
LUA
done
