#!/usr/bin/env bash
# test.sh - installs what is missing, builds, runs every test. The exit code is the verdict.
#   scripts/dev/test.sh [preset] [ctest options]      scripts/dev/test.sh asan -R conv
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
preset=release
case "${1:-}" in release|dev|asan|tsan) preset=$1; shift ;; esac
scripts/dev/setup.sh --tests "$preset"
exec ctest --preset "$preset" -j "$(nproc)" "$@"
