#!/usr/bin/env bash
# Fuzzes the loader and the tokenizer with clang's libFuzzer: engine/fuzz.sh [SECONDS each, 60 unless told otherwise].
# Any finding fails, and its input is kept beside the corpus in build/fuzz/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
python=${PYTHON:-.venv/bin/python}
if ! command -v clang++ >/dev/null; then
    echo "The fuzzers need clang, with its sanitizers." >&2
    echo "Install it: apt-get install clang libclang-rt-14-dev" >&2
    exit 2
fi
export CC=clang CXX=clang++
cmake -S engine -B build/fuzz -DTIGHTROPE_FUZZERS=ON >/dev/null
cmake --build build/fuzz --parallel --target fuzz-artefact fuzz-wordpiece >build/fuzz/build.log 2>&1 ||
    { tail -n 40 build/fuzz/build.log >&2; exit 1; }
"$python" engine/fuzz/seeds.py build/fuzz/seeds
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
fuzz() { # NAME
    mkdir -p "build/fuzz/corpus/$1"
    "build/fuzz/fuzz-$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=65536 \
        -artifact_prefix="build/fuzz/found-$1-" "build/fuzz/corpus/$1" "build/fuzz/seeds/$1" \
        >"build/fuzz/$1.log" 2>&1 || { tail -n 60 "build/fuzz/$1.log" >&2; exit 1; }
    tail -n 1 "build/fuzz/$1.log"
}

# Side by side, each on a core of its own.
fuzz artefact & artefact=$!
fuzz wordpiece & wordpiece=$!
wait "$artefact"
wait "$wordpiece"
