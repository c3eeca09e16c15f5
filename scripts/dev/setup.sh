#!/usr/bin/env bash
# setup.sh - installs what is missing and builds one preset; run.sh and test.sh begin with it.
#   scripts/dev/setup.sh [--tests] [preset]        presets: release (default), dev, asan, tsan
# Says what it installs, works as root or with sudo, and can be run any number of times.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tests=0
preset=release
for word in "$@"; do
    case "$word" in
        --tests) tests=1 ;;
        release|dev|asan|tsan) preset=$word ;;
        *) echo "setup.sh: unknown word '$word' (--tests, release, dev, asan, tsan)" >&2; exit 2 ;;
    esac
done

needed=(gcc libc6-dev make cmake ninja-build pkg-config lua5.4 liblua5.4-dev zlib1g-dev libopenblas-openmp-dev libstb-dev libedit-dev)
[ "$tests" = 1 ] && needed+=(g++ lua-busted libcmocka-dev tmux)
# Real pictures to train on; without it the program draws its own (quadrupeds). Pictures in the terminal; without them coarser.
optional=(dataset-fashion-mnist libchafa-dev libglib2.0-dev)

installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
if command -v apt-get >/dev/null 2>&1; then
    missing=()
    for package in "${needed[@]}"; do installed "$package" || missing+=("$package"); done
    wanted=()
    for package in "${optional[@]}"; do installed "$package" || wanted+=("$package"); done
    if [ $((${#missing[@]} + ${#wanted[@]})) -gt 0 ]; then
        root=()
        if [ "$(id -u)" != 0 ]; then
            command -v sudo >/dev/null 2>&1 || {
                echo "setup.sh: these packages are missing and neither root nor sudo is at hand: ${missing[*]} ${wanted[*]}" >&2
                [ ${#missing[@]} = 0 ] || exit 1
            }
            root=(sudo)
        fi
        export DEBIAN_FRONTEND=noninteractive
        echo "setup: updating the package lists"
        "${root[@]}" apt-get update -qq || echo "setup: could not update the package lists; trying with the old ones" >&2
        if [ ${#missing[@]} -gt 0 ]; then
            echo "setup: installing ${missing[*]}"
            "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
        fi
        for package in "${wanted[@]}"; do
            echo "setup: installing $package (optional)"
            "${root[@]}" apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
                echo "setup: $package is not to be had here; going on without it" >&2
        done
    fi
else
    echo "setup: no apt-get on this machine; expecting these to be there already: ${needed[*]}" >&2
fi

build=build/$preset
with_tests=OFF
[ "$tests" = 1 ] && with_tests=ON
# What an earlier build with tests had must stay: a later run of run.sh does not take the tests away.
if [ "$tests" = 0 ] && grep -q '^SAGAN_BUILD_TESTS:BOOL=ON' "$build/CMakeCache.txt" 2>/dev/null; then with_tests=ON; fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
fresh=1
[ -f "$build/build.ninja" ] && fresh=0
if ! cmake --preset "$preset" -G Ninja -DSAGAN_BUILD_TESTS=$with_tests >"$log" 2>&1; then
    cat "$log" >&2
    [ "$fresh" = 1 ] && rm -rf "$build" # no half-configured build stays behind
    echo "setup.sh: cmake could not configure $build" >&2
    exit 1
fi
[ "$fresh" = 1 ] && echo "setup: building $build"
if ! cmake --build --preset "$preset" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    echo "setup.sh: the build of $build failed" >&2
    exit 1
fi
