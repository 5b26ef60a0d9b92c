"""The Hadamard transform over blocks of features: a rotation that spreads an outlier over its whole block.

Sylvester's matrices, divided by the root of their size, so that they are symmetric and their own inverse (QuaRot,
Ashkboos et al. 2024, arXiv:2404.00456, uses them for the same purpose).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@cache
def hadamard(length: int) -> Floats:
    """The orthonormal matrix [length, length]; `length` is a power of two.

    >>> hadamard(2).round(3).tolist()
    [[0.7070000171661377, 0.7070000171661377], [0.7070000171661377, -0.7070000171661377]]
    """
    matrix = np.ones((1, 1))
    while len(matrix) < length:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    found: Floats = (matrix / np.sqrt(length)).astype(np.float32)
    found.flags.writeable = False
    return found


def rotated(x: Floats, length: int) -> Floats:
    """Rows [..., features] with each block of `length` features transformed; twice gives them back."""
    blocks = x.reshape(*x.shape[:-1], -1, length)
    found: Floats = (blocks @ hadamard(length)).reshape(x.shape)
    return found


def block_of(features: int, most: int) -> int:
    """The longest power of two, `most` at most, that divides the number of features; 1 means that none does."""
    return min(most, features & -features)
