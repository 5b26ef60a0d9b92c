"""Named arrays as a message's payload: what each is in the message, their bytes one after the other behind it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import BenchError

_KINDS = "biuf"
"""Booleans, integers and floats: nothing whose bytes would be an address or a program."""


def pack(arrays: Mapping[str, NDArray[Any]]) -> tuple[list[list[Any]], bytes]:
    """Name, type and shape of each, and the bytes of all, little-endian.

    >>> pack({"ids": np.array([[1, 2]], np.int32)})
    ([['ids', '<i4', [1, 2]]], b'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00')
    """
    plain = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in plain.items()]
    return described, b"".join(array.tobytes() for array in plain.values())


def unpack(described: Sequence[Any], data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays, which may be written to. Raises `BenchError` if the data is not what was described."""
    found, start, own = {}, 0, bytearray(data)
    try:
        for name, kind, shape in described:
            dtype, count = np.dtype(str(kind)), math.prod(int(size) for size in shape)
            if dtype.kind not in _KINDS or any(int(size) < 0 for size in shape):
                raise ValueError(f"{kind!r:.20} {shape!r:.40}")
            found[str(name)] = np.frombuffer(own, dtype, count, start).reshape(shape)
            start += count * dtype.itemsize
    except (ValueError, TypeError, OverflowError) as error:
        raise BenchError(f"Something that is no array was sent: {error}", hint="Update tightrope.") from error
    if start != len(data):
        raise BenchError(f"{len(data) - start:,} bytes belong to no array.", hint="Update tightrope.")
    return found
