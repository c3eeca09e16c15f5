#!/usr/bin/env bash
# gpu_check.sh - one command on a machine with an NVIDIA GPU: builds, then proves and measures the CUDA backend, in about 8 minutes.
#   scripts/dev/gpu_check.sh [--no-build] [options of gpu_check.lua]
#       --no-build       build/release is there already, with CUDA and with tests
#       --data SPEC      train on this instead of quadrupeds        --out DIR   results (default build/gpu_check)
#       --only a,b       these checks alone                         --help      all options and the names of the checks
# Writes gpu_check.json and gpu_check.md, a table to read. Exit code 0: every check that could run passed; 3: there is no card.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=1
words=()
for word in "$@"; do
    case "$word" in
        --no-build) build=0 ;;
        *) words+=("$word") ;;
    esac
done
if [ "$build" = 1 ]; then SAGAN_CUDA=ON scripts/dev/setup.sh --tests release; fi
exec build/release/sagan-lua scripts/dev/gpu_check.lua "${words[@]+"${words[@]}"}"
