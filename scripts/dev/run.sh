#!/usr/bin/env bash
# run.sh - one command from a fresh clone to training: installs what is missing, builds, and runs sagan-lua with the words
# that follow.
#   scripts/dev/run.sh experiments/feat32.lua
#   scripts/dev/run.sh                          the prompt
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
"$top/scripts/dev/setup.sh"
exec "$top/build/release/sagan-lua" "$@"
