#!/usr/bin/env bash
# The engine for 64-bit ARM on a machine that is none: cross-built into build/arm, and run under QEMU as three processors.
#
#   engine/arm.sh                      builds and checks everything
#   engine/arm.sh build                builds
#   engine/arm.sh on CPU PROGRAM ...   runs a program of build/arm, or one with a path, as cortex-a72, neoverse-n1 or max
#
# QEMU says that answers are right, and that no processor meets an instruction which it lacks. It says nothing of speed.
# ARM_ROOT is where programs find their libraries: an arm64 system with Python may lie there as well.
set -euo pipefail
cd "$(dirname "$0")/.."
built=${ARM_BUILD:-build/arm}
root=${ARM_ROOT:-/usr/aarch64-linux-gnu}

need() {
    local lacking=()
    command -v cmake >/dev/null || lacking+=(cmake)
    command -v aarch64-linux-gnu-g++ >/dev/null || lacking+=(g++-aarch64-linux-gnu)
    command -v qemu-aarch64-static >/dev/null || lacking+=(qemu-user-static)
    [ ${#lacking[@]} -eq 0 ] && return
    echo "The engine cannot be built and run for ARM here: ${lacking[*]} is missing." >&2
    echo "Install it: apt-get install ${lacking[*]}" >&2
    exit 1
}

build() {
    cmake -S engine -B "$built" -DCMAKE_TOOLCHAIN_FILE="$PWD/engine/aarch64.cmake" -DTIGHTROPE_PROGRAMS=ON >/dev/null
    cmake --build "$built" --parallel --target tightrope tests-kernels tightrope-embed >"$built/build.log" 2>&1 ||
        { tail -n 40 "$built/build.log" >&2; exit 1; }
}

on() { # CPU PROGRAM ARGUMENT...
    local program=$2
    [[ $program == */* ]] || program=$built/$program
    qemu-aarch64-static -cpu "$1" -L "$root" -E LD_LIBRARY_PATH="$built" "$program" "${@:3}"
}

# An instruction set that the processor lacks is refused in words (exit code 2); an illegal instruction would be 132.
refuse() { # CPU ISA
    local code=0
    on "$1" tests-kernels "$2" >/dev/null 2>&1 || code=$?
    [ $code -eq 2 ] && echo "ok      $2 is refused on $1" && return
    echo "FAILED  $2 on $1 ends with $code" && exit 1
}

check() {
    on cortex-a72 tests-kernels plain
    on cortex-a72 tests-kernels neon
    on neoverse-n1 tests-kernels neon-dotprod
    on max tests-kernels neon-i8mm
    refuse cortex-a72 neon-dotprod
    refuse cortex-a72 neon-i8mm
    refuse neoverse-n1 neon-i8mm
    refuse max avx2
}

need
case ${1:-} in
    build) build ;;
    on) on "${@:2}" ;;
    check) check ;;
    "") build && check ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
