"""Ranges: which part of the values seen in calibration an input's grid should cover.

Values beyond the range are clipped to its ends, so a narrower one trades large errors of a few values for small
errors of all the others. Each function takes float32 rows of any shape and gives (low, high), which hold 0.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tightrope.workshop.numerics.quantized import Floats
from tightrope.workshop.numerics.rounding import encode, grid

Range = tuple[float, float]

BINS = 2048
"""Bins of the histogram from which `entropy` and `mse` judge."""
SHARES = np.linspace(1 / 8, 1, 57).tolist()
"""The shares of the full range that are tried. At an eighth, a bin of the histogram is as wide as a step of 8 bits."""

_Bins = NDArray[np.float64]


def minmax(rows: Floats) -> Range:
    """Everything that was seen."""
    return min(float(rows.min()), 0.0), max(float(rows.max()), 0.0)


def percentile(rows: Floats, percent: float) -> Range:
    """The middle `percent` of all values, such as 99.99; what is left out is shared by both ends."""
    outside = (100 - percent) / 2
    low, high = np.percentile(rows, [outside, 100 - outside])
    return min(float(low), 0.0), max(float(high), 0.0)


def mse(rows: Floats, *, bits: int = 8, symmetric: bool = True) -> Range:
    """The range whose grid gives the values back with the least squared error (Sung et al. 2015, arXiv:1511.06488)."""

    def loss(limits: Range) -> float:
        codes, scale, zero = _coded(centres, limits, bits, symmetric)
        return float((counts * (centres - (codes - zero) * scale) ** 2).sum())

    counts, centres = _histogram(rows)
    return _best(minmax(rows), symmetric, loss)


def entropy(rows: Floats, *, bits: int = 8, symmetric: bool = True) -> Range:
    """The range whose clipped and rounded distribution diverges least, by Kullback and Leibler, from what was seen.

    After Migacz 2017, "8-bit Inference with TensorRT", widened to ranges that are not symmetric.
    """

    def loss(limits: Range) -> float:
        return _divergence(counts, centres, limits, bits, symmetric)

    counts, centres = _histogram(rows)
    return _best(minmax(rows), symmetric, loss)


def _histogram(rows: Floats) -> tuple[_Bins, Floats]:
    """The share of values in each bin between the least and the greatest, zero included, and the bins' centres."""
    counts, edges = np.histogram(rows, BINS, range=minmax(rows))
    return counts / counts.sum(), ((edges[:-1] + edges[1:]) / 2).astype(np.float32)


def _best(full: Range, symmetric: bool, loss: Callable[[Range], float]) -> Range:
    """The range with the least loss. A symmetric one has one end to move; else the ends move in turn, twice."""
    low, high = full
    if symmetric:
        most = max(-low, high)
        return min(((-most * share, most * share) for share in reversed(SHARES)), key=loss)
    best = full
    for _ in range(2):
        best = min(((best[0], high * share) for share in reversed(SHARES)), key=loss)
        best = min(((low * share, best[1]) for share in reversed(SHARES)), key=loss)
    return best


def _coded(values: Floats, limits: Range, bits: int, symmetric: bool) -> tuple[_Bins, float, float]:
    """Codes of values on the grid of a range, its scale and its zero point."""
    scale, zero = grid(
        np.array(limits[:1], np.float32), np.array(limits[1:], np.float32), bits=bits, symmetric=symmetric
    )
    codes = encode(values, scale, zero, bits=bits).astype(np.float64)
    return codes, float(scale[0]), 0.0 if zero is None else float(zero[0])


def _divergence(counts: _Bins, centres: Floats, limits: Range, bits: int, symmetric: bool) -> float:
    """Σ p·log(p / q): p has the clipped values in the outermost bins, q spreads each code's share over its bins."""
    inside = (centres >= limits[0]) & (centres <= limits[1])
    seen, where = counts[inside], centres[inside]
    if not len(seen):
        return np.inf
    clipped = seen.copy()
    clipped[0] += counts[centres < limits[0]].sum()
    clipped[-1] += counts[centres > limits[1]].sum()
    codes, _, _ = _coded(where, limits, bits, symmetric)
    index = (codes - codes.min()).astype(np.int64)
    filled = seen > 0
    share = np.bincount(index, seen) / np.maximum(np.bincount(index, filled), 1)
    spread = np.where(filled, share[index], 0)
    spread /= max(spread.sum(), 1e-12)
    some = clipped > 0
    return float((clipped[some] * np.log(clipped[some] / np.maximum(spread[some], 1e-9))).sum())
