"""The native tokenizer under test: its own sources behind a few lines of C, built once a session."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "engine" / "src"
SHIM = """
#include <algorithm>
#include <cstring>
#include "error.hpp"
#include "wordpiece.hpp"

using tightrope::WordPiece;

extern "C" int cut(const std::byte* packed, std::size_t size, const char* first, std::size_t first_size,
                   const char* second, std::size_t second_size, std::size_t max_length,
                   std::int32_t* ids, std::int32_t* types, std::size_t* count, char* what) try {
  const WordPiece tokenizer({packed, size});
  std::vector<std::int32_t> made, kinds;
  const bool cut = second ? tokenizer.encode_pair({first, first_size}, {second, second_size}, max_length, made, kinds)
                          : tokenizer.encode({first, first_size}, max_length, made);
  *count = made.size();
  std::ranges::copy(made, ids);
  std::ranges::copy(kinds, types);
  return cut;
} catch (const tightrope::Error& error) {
  std::strncpy(what, (std::string(error.what()) + "\\n" + error.hint).c_str(), 999);
  return -static_cast<int>(error.fault);
}

extern "C" std::size_t vocabulary(const std::byte* packed, std::size_t size) {
  return WordPiece({packed, size}).vocabulary();
}
"""
FAULTS = {-1: "argument", -2: "format", -4: "unsupported"}


class NativeError(Exception):
    """An error of the engine: its fault, its message and its hint."""

    def __init__(self, fault: str, message: str, hint: str) -> None:
        super().__init__(f"{message}\n{hint}")
        self.fault, self.message, self.hint = fault, message, hint


class Native:
    """The native tokenizer: packed bytes and text in, ids, segment numbers and whether anything was cut out."""

    error = NativeError

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            pytest.skip("needs a C++ compiler: apt-get install g++")
        library = folder / "wordpiece.so"
        if not library.exists():
            (folder / "shim.cpp").write_text(SHIM, encoding="utf-8")
            sources = [folder / "shim.cpp", SOURCES / "wordpiece.cpp", SOURCES / "unicode_tables.cpp"]
            options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-I", SOURCES, "-o", library]
            subprocess.run([compiler, *options, *sources], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.vocabulary.restype = ctypes.c_size_t

    def encode(self, packed: bytes, text: str | bytes, max_length: int) -> tuple[list[int], bool]:
        ids, _, cut = self._cut(packed, text, None, max_length)
        return ids, cut

    def encode_pair(
        self, packed: bytes, first: str | bytes, second: str | bytes, max_length: int
    ) -> tuple[list[int], list[int], bool]:
        return self._cut(packed, first, second, max_length)

    def vocabulary(self, packed: bytes) -> int:
        return int(self._library.vocabulary(packed, ctypes.c_size_t(len(packed))))

    def _cut(
        self, packed: bytes, first: str | bytes, second: str | bytes | None, max_length: int
    ) -> tuple[list[int], list[int], bool]:
        size = ctypes.c_size_t
        one, other = (text.encode() if isinstance(text, str) else text for text in (first, second))
        most = min(max_length, 3 * (len(one) + len(other or b"")) + 3)  # a Hangul syllable may become three ids
        kind = ctypes.c_int32 * most
        ids, types, count, what = kind(), kind(), size(), ctypes.create_string_buffer(1000)
        sizes = size(len(packed)), size(len(one)), size(len(other or b"")), size(max_length)
        result = self._library.cut(
            packed, sizes[0], one, sizes[1], other, sizes[2], sizes[3], ids, types, ctypes.byref(count), what
        )
        if result < 0:
            message, hint = what.value.decode("utf-8", "replace").split("\n")
            raise NativeError(FAULTS[result], message, hint)
        return ids[: count.value], types[: count.value if other is not None else 0], bool(result)
