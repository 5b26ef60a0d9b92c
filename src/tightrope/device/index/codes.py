"""Vectors as integers: sixteen bits to judge by, eight bits to scan.

Both are grids of a vector's own, symmetric around zero, up to its largest feature. The eight bits are made of the
sixteen, so they can be made again; sums of integers have one value, so scores are the same on every machine.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import DataError

Floats = NDArray[np.float32]
STEP = 64
"""Rows are padded to a multiple of this many bytes, as the engine's scan wants it."""
_EXACT, _COARSE = 32767, 127


@dataclass(frozen=True, slots=True)
class Quantized:
    """Unit vectors as integers: `exact` int16 [rows, width] times `scales` float32 [rows]."""

    exact: NDArray[np.int16]
    scales: NDArray[np.float32]

    @property
    def coarse(self) -> NDArray[np.int8]:
        """The same in eight bits, padded with zeros to the stride: int8 [rows, stride]."""
        rows = np.zeros((len(self.exact), stride_of(self.exact.shape[1])), np.int8)
        rows[:, : self.exact.shape[1]] = np.rint(self.exact * (_COARSE / _EXACT))
        return rows

    @property
    def coarse_scales(self) -> NDArray[np.float32]:
        """What a product of eight-bit codes with a query is multiplied by: float32 [rows]."""
        return np.asarray(self.scales * np.float32(_EXACT / _COARSE))


def quantize(vectors: Floats, width: int) -> Quantized:
    """Vectors [rows, width], brought to unit length, as integers.

    Raises `DataError` for another width, for nan and infinity, and for a vector without direction.
    """
    given = np.asarray(vectors)
    if given.ndim != 2 or given.shape[1] != width or given.dtype.kind not in "fiu":
        raise DataError(
            f"Vectors of shape {given.shape} do not fit an index of width {width}.", hint="Embed with its own model."
        )
    if not np.isfinite(given).all():
        raise DataError("A vector holds nan or infinity.", hint="Look at the model that made it: `tightrope verify`.")
    rows = given.astype(np.float64)
    largest = np.abs(rows).max(1, keepdims=True, initial=0)
    if not largest.all():
        raise DataError("A vector is zero, which has no direction.", hint="Leave it out: nothing is similar to it.")
    rows /= largest  # before squares are taken, which might overflow or vanish
    exact = np.rint(rows * _EXACT).astype(np.int16)
    scales = 1 / np.sqrt((exact.astype(np.int64) ** 2).sum(1))
    return Quantized(exact, scales.astype(np.float32))


def stride_of(width: int) -> int:
    """Bytes between the rows of eight-bit codes."""
    return -(-width // STEP) * STEP


def cosines(rows: Quantized, query: Quantized) -> NDArray[np.float64]:
    """Similarities of the rows with the one query, float64 [rows]: exact sums, rounded once."""
    products = rows.exact.astype(np.int64) @ query.exact[0].astype(np.int64)
    return np.asarray(products * rows.scales.astype(np.float64) * float(query.scales[0]))


def checksum(row: bytes | memoryview) -> int:
    """The checksum that tells a torn or changed row: CRC-32."""
    return zlib.crc32(row)
