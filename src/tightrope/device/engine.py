"""The native engine's C interface (`engine/include/tightrope.h`) through ctypes.

One shared library lies beside this file, in the wheels for the platforms it is built for. ctypes and not an extension
module: the same library serves every Python, and the interface that C programs use is the one that is tested here.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tightrope import device
from tightrope.errors import DataError, EngineError, MissingExtraError, TightropeError

LIBRARY = "TIGHTROPE_LIBRARY"
"""The environment variable that names another build of the library, such as one with a sanitizer."""

_NAMES = ("libtightrope.so", "libtightrope.dylib")
_ARGUMENT = 1


class _Options(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("threads", ctypes.c_uint32),
        ("pinned", ctypes.c_uint32),
        ("half_attention", ctypes.c_uint32),
    )


class _Description(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("width", ctypes.c_uint32),
        ("max_length", ctypes.c_uint32),
        ("vocabulary", ctypes.c_uint32),
        ("types", ctypes.c_uint32),
        ("scores", ctypes.c_uint32),
        ("tokenizes", ctypes.c_uint32),
    )


class _Rows(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("codes", ctypes.c_void_p),
        ("stride", ctypes.c_size_t),
        ("count", ctypes.c_size_t),
        ("scales", ctypes.c_void_p),
        ("allowed", ctypes.c_void_p),
    )


@cache
def library() -> ctypes.CDLL:
    """The library, loaded once. Raises `MissingExtraError` where this installation has none."""
    named = os.environ.get(LIBRARY)
    places = [Path(named)] if named else [Path(folder) / name for folder in device.__path__ for name in _NAMES]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise MissingExtraError(
            "This installation of tightrope has no native engine.",
            hint="Install it where a C++ compiler is, or use another one: pip install 'tightrope[onnxruntime]'",
        )
    try:
        return _declared(ctypes.CDLL(str(found)))
    except OSError as error:
        raise EngineError(f"{found.name} cannot be loaded: {error}.", hint="Install tightrope again.") from error


def _declared(lib: ctypes.CDLL) -> ctypes.CDLL:
    """The functions' types: without them ctypes would cut a 64-bit handle."""
    pointer, size, model = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
    for name in ("tightrope_version", "tightrope_isa", "tightrope_isas", "tightrope_last_error"):
        getattr(lib, name).restype = ctypes.c_char_p
    texts = (ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(size), size)
    lib.tightrope_open_descriptor.argtypes = (ctypes.c_int, pointer, pointer)
    lib.tightrope_close.argtypes = (model,)
    lib.tightrope_describe.argtypes = (model, pointer)
    lib.tightrope_run.argtypes = (model, pointer, pointer, pointer, size, pointer)
    lib.tightrope_tokenize.argtypes = (model, *texts, ctypes.c_int, size, pointer, pointer, size, pointer, pointer)
    lib.tightrope_scan.argtypes = (pointer, pointer, size, pointer, pointer, pointer)
    return lib


def version() -> str:
    """The engine's version."""
    return str(library().tightrope_version().decode())


def isa() -> str:
    """The instruction set in use. Raises `EngineError` if `TIGHTROPE_ISA` names one that is not here."""
    name = library().tightrope_isa()
    if name is None:
        raise _failure(0)
    return str(name.decode())


def isas() -> tuple[str, ...]:
    """The instruction sets that this processor can run, the best first."""
    return tuple(library().tightrope_isas().decode().split())


def scan(
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    query: NDArray[np.int8],
    most: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of `codes` [rows, stride] most like `query` [stride]: at most `most` places and scores, the best first.

    A row's score is its product with the query, an exact integer rounded to float32, times its scale [rows]; of equal
    scores the lower place comes first. Rows that are not `allowed` [rows] are left out. The stride is a multiple of 64.
    Raises `DataError` for arrays that do not fit each other.
    """
    rows, stride = codes.shape
    fits = scales.shape == (rows,) and query.shape == (stride,) and (allowed is None or allowed.shape == (rows,))
    given = (codes, scales, query) if allowed is None else (codes, scales, query, allowed)
    if not fits or not all(array.flags.c_contiguous for array in given):
        raise DataError(
            f"{rows} rows of {stride} codes do not fit scales or query.", hint="Give arrays that are whole."
        )
    places, scores = np.empty(min(most, rows), np.int64), np.empty(min(most, rows), np.float32)
    found = ctypes.c_size_t()
    about = _Rows(ctypes.sizeof(_Rows), _address(codes), stride, rows, _address(scales), _address(allowed))
    _check(
        library().tightrope_scan(
            ctypes.byref(about), _address(query), len(places), _address(places), _address(scores), ctypes.byref(found)
        )
    )
    return places[: found.value], scores[: found.value]


class Model:
    """An open file of the engine: an encoder, a tokenizer, or both. Safe for use from many threads."""

    def __init__(self, descriptor: int, *, threads: int = 1, half_attention: bool = False) -> None:
        self._lib = library()
        self._handle = ctypes.c_uint64()
        options = _Options(ctypes.sizeof(_Options), threads, 0, int(half_attention))
        _check(self._lib.tightrope_open_descriptor(descriptor, ctypes.byref(options), ctypes.byref(self._handle)))
        about = _Description(ctypes.sizeof(_Description))
        _check(self._lib.tightrope_describe(self._handle, ctypes.byref(about)))
        self.width, self.max_length, self.types = about.width, about.max_length, about.types
        self.vocabulary = about.vocabulary
        self.scores, self.tokenizes = bool(about.scores), bool(about.tokenizes)

    @classmethod
    def open(cls, path: Path, *, threads: int = 1, half_attention: bool = False) -> Self:
        """Open a file by its path. Raises `EngineError` for one that cannot be read or is damaged."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block
        except OSError as error:
            raise EngineError(
                f"{path} cannot be opened: {error.strerror}.", hint="Allow this user to read it."
            ) from error
        try:
            return cls(descriptor, threads=threads, half_attention=half_attention)
        finally:
            os.close(descriptor)

    def run(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], types: NDArray[np.int32] | None = None
    ) -> NDArray[np.float32]:
        """Rows [texts, width] for ids [tokens]: text i has those from offsets[i] to offsets[i + 1], of [texts + 1].

        Raises `DataError` for ids or lengths that the model does not have, `EngineError` if it is closed.
        """
        ids, offsets = np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(offsets, np.int64)
        if len(offsets) < 1 or offsets[-1] != len(ids) or (types is not None and len(types) != len(ids)):
            raise DataError(f"{len(ids)} ids do not fit their offsets.", hint="The last offset is the number of ids.")
        kinds = None if types is None else np.ascontiguousarray(types, np.int32)
        out = np.empty((len(offsets) - 1, self.width), np.float32)
        _check(
            self._lib.tightrope_run(
                self._handle, _address(ids), _address(kinds), _address(offsets), len(out), _address(out)
            )
        )
        return out

    def tokenize(
        self, texts: Sequence[str], *, pairs: bool, max_length: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], int]:
        """Ids [tokens], types [tokens] (zeros but for pairs), offsets [rows + 1], and how many rows were cut.

        `pairs`: two texts one after the other are a row.
        """
        encoded = [text.encode() for text in texts]
        count = len(encoded) // 2 if pairs else len(encoded)
        room = min(sum(map(len, encoded)) + 3 * count, count * max_length)  # no token is shorter than a byte
        ids, types, offsets = np.empty(room, np.int32), np.empty(room, np.int32), np.zeros(count + 1, np.int64)
        cut = ctypes.c_size_t()
        _check(
            self._lib.tightrope_tokenize(
                self._handle,
                (ctypes.c_char_p * len(encoded))(*encoded),
                (ctypes.c_size_t * len(encoded))(*map(len, encoded)),
                count,
                int(pairs),
                max_length,
                _address(ids),
                _address(types),
                room,
                _address(offsets),
                ctypes.byref(cut),
            )
        )
        total = int(offsets[-1])
        return ids[:total], types[:total], offsets, cut.value

    def close(self) -> None:
        """Give the file back. Calls under way finish first; later ones raise `EngineError`."""
        self._lib.tightrope_close(self._handle)  # closing twice is refused by the engine, and does no harm

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()


def _address(array: NDArray[Any] | None) -> int | None:
    return None if array is None else int(array.__array_interface__["data"][0])


def _check(status: int) -> None:
    if status:
        raise _failure(status)


def _failure(status: int) -> TightropeError:
    what, _, hint = library().tightrope_last_error().decode("utf-8", "replace").partition("\n")
    return (DataError if status == _ARGUMENT else EngineError)(what, hint=hint)
