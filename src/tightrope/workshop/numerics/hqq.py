"""HQQ: half-quadratic quantisation of weights without calibration (Badri & Shaji 2023, "Half-Quadratic Quantization").

Few weights are outliers, so the error is judged by an l_p norm with p < 1, which forgives a few large errors for many
small ones. That norm is split in two: the outliers' share of the error is found by shrinkage, and what is left is
ordinary least squares. The paper moves a floating-point zero point only; the grids that engines execute have an integer
one, so scale and zero point are fitted together and the zero point is rounded before the scale is fitted to it.
"""

from dataclasses import replace

import numpy as np

from tightrope.workshop.numerics.quantized import Array, Floats, Quantized
from tightrope.workshop.numerics.rounding import round_to_nearest

ROUNDS = 20
STIFFNESS = 10.0
"""The weight β of the quadratic term at the first round, for errors counted in steps of the grid …"""
STIFFENING = 1.01
"""… and its growth from round to round; both as in the paper's published settings."""
_LEAST = 1e-12


def half_quadratic(
    weight: Floats, *, bits: int, block: int | None, symmetric: bool, norm: float = 0.7, rounds: int = ROUNDS
) -> Quantized:
    """Codes for a weight [out, in] whose l_p error, p = `norm`, is nowhere larger than round-to-nearest's.

    `block` runs along the input features share a scale (a whole row if `None`), and a zero point unless `symmetric`.
    """
    start = round_to_nearest(weight, bits=bits, block=block, symmetric=symmetric)
    low, high = _limits(start)
    rows, real = _in_runs(np.asarray(weight, np.float32), block)
    codes = _in_runs(start.codes.astype(np.float32), block)[0]
    scale = start.scale.reshape(*codes.shape[:2], 1)
    zero = (
        np.zeros_like(scale) if start.zero_point is None else start.zero_point.reshape(scale.shape).astype(np.float32)
    )
    best = (_loss(rows, codes, scale, zero, real, norm), codes, scale, zero)
    stiffness = STIFFNESS
    for _ in range(rounds):
        error = rows / scale - (codes - zero)
        target = rows - scale * _shrink(error, stiffness, norm)
        scale, zero = _fit(target, codes, real, (scale, zero), None if symmetric else (low, high))
        codes = np.clip(np.rint(rows / scale) + zero, low, high)
        best = _better(best, (_loss(rows, codes, scale, zero, real, norm), codes, scale, zero))
        stiffness *= STIFFENING
    return _as_quantized(start, *best[1:])


def _limits(start: Quantized) -> tuple[int, int]:
    """The lowest and highest code; a symmetric grid has as many below zero as above."""
    most = 2 ** (start.bits - 1) - 1
    return (0, 2**start.bits - 1) if start.zero_point is not None else (-most, most)


def _in_runs(matrix: Floats, block: int | None) -> tuple[Floats, Array]:
    """[out, runs, block] with zeros after the end, and 1 for what is real."""
    out, width = matrix.shape
    length = block or width
    missing = -width % length
    padded = np.pad(matrix, ((0, 0), (0, missing)))
    real = (np.arange(width + missing) < width).astype(np.float32)
    return padded.reshape(out, -1, length), real.reshape(1, -1, length)


def _shrink(error: Floats, stiffness: float, norm: float) -> Floats:
    """The generalised soft threshold: the part of each error that the l_p norm sees as an outlier's."""
    size = np.abs(error)
    kept = np.maximum(size - np.maximum(size, _LEAST) ** (norm - 1) / stiffness, 0)
    return (np.sign(error) * kept).astype(np.float32)


def _fit(
    target: Floats, codes: Floats, real: Array, now: tuple[Floats, Floats], zeros: tuple[int, int] | None
) -> tuple[Floats, Floats]:
    """Least squares of scale · (codes - zero) to the target, run by run; a run that has no answer stays as it is."""
    scale, zero = now
    if zeros is not None:
        count = real.sum(-1, keepdims=True)
        centre_codes = (codes * real).sum(-1, keepdims=True) / count
        centre = (target * real).sum(-1, keepdims=True) / count
        spread = (codes - centre_codes) * real
        slope = (spread * (target - centre)).sum(-1, keepdims=True) / np.maximum((spread**2).sum(-1, keepdims=True), 1)
        exact = centre_codes - centre / np.where(slope > _LEAST, slope, scale)
        zero = np.where(slope > _LEAST, np.clip(np.rint(exact), *zeros), zero)
    steps = (codes - zero) * real
    fitted = (steps * target).sum(-1, keepdims=True) / np.maximum((steps**2).sum(-1, keepdims=True), 1)
    return np.where(fitted > _LEAST, fitted, scale).astype(np.float32), zero.astype(np.float32)


def _loss(rows: Floats, codes: Floats, scale: Floats, zero: Floats, real: Array, norm: float) -> Floats:
    loss: Floats = ((np.abs(rows - (codes - zero) * scale) ** norm) * real).sum(-1, keepdims=True)
    return loss


def _better(
    best: tuple[Floats, Floats, Floats, Floats], new: tuple[Floats, Floats, Floats, Floats]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Run by run the one that loses less."""
    wins = new[0] < best[0]
    loss, codes, scale, zero = (np.where(wins, fresh, old) for fresh, old in zip(new, best, strict=True))
    return loss, codes, scale, zero


def _as_quantized(start: Quantized, codes: Floats, scale: Floats, zero: Floats) -> Quantized:
    width = start.codes.shape[1]
    return replace(
        start,
        codes=np.ascontiguousarray(codes.reshape(len(codes), -1)[:, :width].astype(start.codes.dtype)),
        scale=scale.reshape(start.scale.shape).astype(np.float32),
        zero_point=None
        if start.zero_point is None
        else zero.reshape(start.zero_point.shape).astype(start.zero_point.dtype),
    )
