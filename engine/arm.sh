#!/usr/bin/env bash
# The engine for 64-bit ARM on a machine that is none: cross-built into build/arm, run under QEMU as three processors.
#
#   engine/arm.sh                      builds and checks everything
#   engine/arm.sh build                builds
#   engine/arm.sh on CPU PROGRAM ...   runs a program of build/arm as cortex-a72, neoverse-n1 or max
#   engine/arm.sh pytest CPU ...       runs pytest in an arm64 Python, which is fetched once, with this library
#   engine/arm.sh root                 makes build/arm/root, which `tightrope verify --emulate aarch64 --root` takes
#
# QEMU says that answers are right, and that no processor meets an instruction which it lacks. It says nothing of speed.
set -euo pipefail
cd "$(dirname "$0")/.."
built=$(realpath -m "${ARM_BUILD:-build/arm}")
root=/usr/aarch64-linux-gnu
python=${PYTHON:-.venv/bin/python}

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
    cmake --build "$built" --parallel --target tightrope tests-kernels tests-scan tightrope-embed >"$built/build.log" 2>&1 ||
        { tail -n 40 "$built/build.log" >&2; exit 1; }
}

on() { # CPU PROGRAM ARGUMENT...
    qemu-aarch64-static -cpu "$1" -L "$root" -E LD_LIBRARY_PATH="$built" "$built/$2" "${@:3}"
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
    on cortex-a72 tests-scan
    on neoverse-n1 tests-scan
    refuse cortex-a72 neon-dotprod
    refuse cortex-a72 neon-i8mm
    refuse neoverse-n1 neon-i8mm
    refuse max avx2
}

# Debian's Python for arm64 is unpacked, not installed; wheels for it come before the environment's own, which lends the
# rest. Both are Python 3.11.
fetch() {
    local apt=$built/apt wheels=$built/wheels
    local compiled='^(numpy|tokenizers|safetensors|onnx|ml_dtypes|protobuf|hypothesis|hf[-_]xet)=='
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$built/python" "$built/site"
    : >"$apt/status"
    printf '%s\n' 'APT::Architecture "arm64";' 'APT::Architectures {"arm64";};' "Dir::Cache \"$apt\";" \
        "Dir::State::status \"$apt/status\";" "Dir::State::lists \"$apt/lists\";" >"$apt/apt.conf"
    APT_CONFIG=$apt/apt.conf apt-get update -qq
    APT_CONFIG=$apt/apt.conf apt-get install -y -qq --download-only --no-install-recommends \
        python3 libstdc++6 >/dev/null
    for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$built/python"; done
    "$python" -m pip freeze --exclude-editable | grep -Ei "$compiled" |
        xargs "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
            --dest "$wheels" --python-version 3.11 --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 \
            --platform manylinux_2_26_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64
    for wheel in "$wheels"/*.whl; do "$python" -m zipfile -e "$wheel" "$built/site"; done
    touch "$built/fetched"
}

test_python() { # CPU ARGUMENT...
    [ -e "$built/fetched" ] || fetch
    local cpu=$1 lent
    [ "$cpu" != max ] || cpu=max,sve=off  # numpy's products raise a division by zero under qemu 7.2's SVE
    lent=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    PYTHONPATH=$built/site:$PWD/src:$lent TIGHTROPE_LIBRARY=$built/libtightrope.so \
        qemu-aarch64-static -cpu "$cpu" -L "$built/python" "$built/python/usr/bin/python3.11" \
        -m pytest -p no:cacheprovider "${@:2}"
}

# One folder that runs this tightrope: Python, its compiled wheels, the package and the library.
root() {
    build
    [ -e "$built/fetched" ] || fetch
    local site=$built/root/opt/tightrope
    rm -rf "$built/root"
    mkdir -p "$site"
    cp -a "$built/python/." "$built/root"
    cp -a "$built/site/." src/tightrope "$site"
    cp "$built/libtightrope.so" "$site/tightrope/device/"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$site" click
    echo "$built/root"
}

need
case ${1:-} in
    build) build ;;
    on) on "${@:2}" ;;
    check) check ;;
    root) root ;;
    pytest) test_python "${@:2}" ;;
    "") build && check ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
