"""Rounding a weight to the nearest values of an integer grid, by row or by block of a row."""

import numpy as np

from tightrope.errors import UnsupportedError
from tightrope.workshop.numerics.quantized import Codes, Floats, Quantized

LEAST_HALF = np.float32(2.0**-14)
"""Below it float16 loses bits."""


def round_to_nearest(
    weight: Floats, *, bits: int, block: int | None, symmetric: bool, half_scales: bool = False
) -> Quantized:
    """A weight [out, in] as the nearest codes of the grid that just covers each row, or each `block` of a row.

    Symmetric: int8 codes in ±(2^(bits-1) - 1) and no zero point. Asymmetric: uint8 codes from zero up, and a zero
    point, so that 0.0 itself is always exact. Where `block` does not divide `in`, a row's last block is short.
    `half_scales`: every scale is a value that float16 holds, the next one above, unless one of them is too small.

    Raises `UnsupportedError` for a weight that is not finite.
    """
    low, high = limits(weight, block)
    scale, zero = grid(low, high, bits=bits, symmetric=symmetric)
    if half_scales and (scale >= LEAST_HALF).all() and (scale < np.finfo(np.float16).max / 2).all():
        scale = _above(scale)
        zero = None if zero is None else np.clip(np.rint(-np.minimum(low, 0) / scale), 0, 2**bits - 1)
    wide_zero = None if zero is None else spread(zero, weight.shape[1], block)
    codes = encode(weight, spread(scale, weight.shape[1], block), wide_zero, bits=bits)
    return pack(codes, scale, zero, bits=bits, block=block)


def _above(scale: Floats) -> Floats:
    """The least values that float16 holds and that are no smaller."""
    nearest = scale.astype(np.float16)
    below = nearest.astype(np.float32) < scale
    found: Floats = np.where(below, np.nextafter(nearest, np.float16(np.inf)), nearest).astype(np.float32)
    return found


def limits(weight: Floats, block: int | None) -> tuple[Floats, Floats]:
    """The least and greatest value of each row [out, 1], or of each block [out, ceil(in / block)]."""
    if not np.isfinite(weight).all():
        raise UnsupportedError("A weight holds values that are not finite.", hint="Give a model that is whole.")
    starts = np.arange(0, weight.shape[1], block or weight.shape[1])
    return np.minimum.reduceat(weight, starts, axis=1), np.maximum.reduceat(weight, starts, axis=1)


def grid(low: Floats, high: Floats, *, bits: int, symmetric: bool) -> tuple[Floats, Floats | None]:
    """Scale and zero point (a whole number, as float32; `None` for symmetric) of grids from `low` to `high` and 0.

    A range with nothing in it gets the scale 1, so that no engine divides by zero.
    """
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    levels = np.float32(2 ** (bits - 1) - 1 if symmetric else 2**bits - 1)
    most: Floats = np.maximum(-low, high)
    span: Floats = most / levels if symmetric else high / levels - low / levels
    scale: Floats = np.where(span > 0, span, np.float32(1))
    if symmetric:
        return scale, None
    zero: Floats = np.clip(np.rint(-low / scale), 0, levels)
    return scale, zero


def encode(weight: Floats, scale: Floats, zero: Floats | None, *, bits: int) -> Codes:
    """The nearest codes; `scale` and `zero` broadcast against the weight. int8 without a zero point, else uint8."""
    steps: Floats = np.rint(weight / scale)
    if zero is None:
        most = 2 ** (bits - 1) - 1
        signed: Codes = np.clip(steps, -most, most).astype(np.int8)
        return signed
    codes: Codes = np.clip(steps + zero, 0, 2**bits - 1).astype(np.uint8)
    return codes


def spread(parameter: Floats, length: int, block: int | None) -> Floats:
    """A parameter of each block repeated for each of the `length` columns; by row, it broadcasts as it is."""
    return parameter if block is None else np.repeat(parameter, block, axis=1)[:, :length]


def pack(codes: Codes, scale: Floats, zero: Floats | None, *, bits: int, block: int | None) -> Quantized:
    """Codes [out, in] with the parameters of `grid` as a value: along axis 0 by row, along axis 1 by block."""
    zero_point = None if zero is None else zero.astype(np.uint8)
    if block is None:
        flat = None if zero_point is None else zero_point[:, 0]
        return Quantized(codes=codes, scale=scale[:, 0], zero_point=flat, axis=0, bits=bits)
    return Quantized(codes=codes, scale=scale, zero_point=zero_point, axis=1, block=block, bits=bits)
