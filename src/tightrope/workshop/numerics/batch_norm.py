"""Batch normalisation as it is after training: one factor and one offset a channel (Ioffe and Szegedy 2015)."""

import numpy as np

from tightrope.workshop.numerics.quantized import Array, Floats


def affine(gain: Array, bias: Array, mean: Array, variance: Array, epsilon: float) -> tuple[Floats, Floats]:
    """Factor and offset [channels] of y = factor·x + offset, worked out in float64.

    >>> affine(np.ones(1), np.zeros(1), np.full(1, 2.0), np.full(1, 4.0), 0.0)
    (array([0.5], dtype=float32), array([-1.], dtype=float32))
    """
    factor = gain.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    offset = bias - mean * factor
    return factor.astype(np.float32), offset.astype(np.float32)


def folded(weight: Array, bias: Array | None, factor: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """Weight [out, …] and bias [out] of a convolution that does what it and an affine behind it did."""
    wide = factor.astype(np.float64)
    scaled = weight * wide.reshape(-1, *[1] * (weight.ndim - 1))
    shifted = offset + (0 if bias is None else bias * wide)
    return scaled.astype(np.float32), np.asarray(shifted, np.float32)
