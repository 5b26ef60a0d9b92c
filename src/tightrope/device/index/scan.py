"""The rows most like a query: by the native engine, or by numpy with the same answers where there is none.

Numpy has no fast product of bytes, but one of floats, and floats are exact on integers up to 2^24: pieces of a row
whose products cannot exceed that are summed exactly in any order.
"""

import numpy as np
from numpy.typing import NDArray

from tightrope.device import engine
from tightrope.errors import MissingExtraError

_EXACT_PIECE = 1024
"""Products of that many pairs of bytes add up to at most 2^24."""
_BLOCK = 1024

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


def scan(
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    query: NDArray[np.int8],
    most: int,
    allowed: NDArray[np.bool_] | None = None,
) -> Found:
    """Places and scores of the best rows, the best first, of equal ones the lower place: see `engine.scan`."""
    try:
        engine.library()
    except MissingExtraError:
        return scan_portably(codes, scales, query, most, allowed)
    return engine.scan(codes, scales, query, most, allowed=allowed)


def scan_portably(
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    query: NDArray[np.int8],
    most: int,
    allowed: NDArray[np.bool_] | None = None,
) -> Found:
    """The same in numpy alone, in blocks, so that it takes little memory."""
    scores = np.empty(len(codes), np.float32)
    for start in range(0, len(codes), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores[block] = _products(codes[block], query).astype(np.float32) * scales[block]
    places = np.flatnonzero(~np.isnan(scores) if allowed is None else allowed & ~np.isnan(scores))
    if 0 < most < len(places):  # those at least as good as the last that can be among the best
        worst = -np.partition(-scores[places], most - 1)[most - 1]
        places = places[scores[places] >= worst]
    best = places[np.argsort(-scores[places], kind="stable")][:most]
    return best, scores[best]


def _products(codes: NDArray[np.int8], query: NDArray[np.int8]) -> NDArray[np.int64]:
    sums = np.zeros(len(codes), np.int64)
    for start in range(0, codes.shape[1], _EXACT_PIECE):
        piece = slice(start, start + _EXACT_PIECE)
        sums += (codes[:, piece].astype(np.float32) @ query[piece].astype(np.float32)).astype(np.int64)
    return sums
