#!/usr/bin/env bash
# The engine's tests under sanitizers: addresses and undefined behaviour from Python, data races from a program in C++.
# engine/sanitize.sh [what to give to pytest instead of all tests that concern the engine]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
tests=(tests/engine tests/attacks/test_native_file.py tests/attacks/test_wordpiece.py)
[ $# -gt 0 ] && tests=("$@")

build() { # KIND SANITIZERS TARGET...
    cmake -S engine -B "build/$1" -DTIGHTROPE_SANITIZE="$2" -DTIGHTROPE_PROGRAMS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
    cmake --build "build/$1" --parallel --target "${@:3}" >"build/$1/build.log" 2>&1 || { tail -n 40 "build/$1/build.log" >&2; exit 1; }
}

build tsan thread tests-crew
"$python" engine/fuzz/seeds.py build/tsan/seeds
for model in halves integers; do
    TSAN_OPTIONS=halt_on_error=1 build/tsan/tests-crew "build/tsan/seeds/artefact/$model"
done
echo "threads: nothing found"

build asan address,undefined tightrope tests-kernels tests-scan
build/asan/tests-kernels
build/asan/tests-scan
# Python is not built with the sanitizer, so it must come first; with it the C++ runtime, whose exceptions it watches.
# A finding ends the process: what it says must not wait in pytest's hands.
preload="$(c++ -print-file-name=libasan.so) $(c++ -print-file-name=libstdc++.so)"
env LD_PRELOAD="$preload" TIGHTROPE_LIBRARY="$PWD/build/asan/libtightrope.so" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    "$python" -m pytest -p no:cacheprovider --capture=sys -m "not slow" "${tests[@]}"
