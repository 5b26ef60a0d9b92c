"""GPTQ: rounding in which later columns make up for the error of earlier ones (Frantar et al. 2022, arXiv:2210.17323).

Rounding each value by itself ignores that the inputs of a layer are correlated. What matters is the layer's output,
so the sum of (w - q)·G·(w - q)ᵀ over its rows is made small instead, where G = XᵀX is the Gram matrix of its inputs.

With G = M·Mᵀ and M upper triangular this is |(w - q)·M|², and column j of the product holds the errors up to j only.
So each column is rounded after the earlier columns' errors, carried over by M, have been added to it. This gives the
paper's result from one Cholesky factor of G, without the inverse (the view of Chen et al. 2025, arXiv:2507.18553).
"""

import numpy as np

from tightrope.errors import UnsupportedError
from tightrope.workshop.numerics.quantized import Array, Codes, Floats, Quantized
from tightrope.workshop.numerics.rounding import encode, grid, limits, pack, spread

PANEL = 128
"""Columns rounded one by one before their errors are carried to all later columns in one product."""
DAMPINGS = (1, 10, 100)
"""How often damping is raised, and by how much, before a Gram matrix is given up."""


def compensate(
    weight: Floats, gram: Floats, *, bits: int, block: int | None, symmetric: bool, damping: float = 0.01
) -> Quantized:
    """A weight [out, in] on a grid, rounded so that its outputs for inputs with this Gram matrix [in, in] stay close.

    The result is laid out as by `round_to_nearest`, and its grids are the same; only the codes differ. `damping` is
    added to the diagonal, relative to its mean. An input that is always zero is left to plain rounding, and so is
    everything if all inputs are. Columns go by falling energy, as in the authors' later practice ("act order").

    Raises `UnsupportedError` if `gram` is not the Gram matrix of anything.
    """
    order = np.argsort(-np.diagonal(gram), kind="stable")
    factor = _factor(gram[np.ix_(order, order)], damping)
    low, high = limits(weight, block)
    scale, zero = grid(low, high, bits=bits, symmetric=symmetric)
    columns = np.ascontiguousarray(weight.T[order])
    steps = _columns(spread(scale, weight.shape[1], block), order)
    zeros = None if zero is None else _columns(spread(zero, weight.shape[1], block), order)
    rounded = _round_in_turn(columns, factor, steps, zeros, bits)
    codes = np.empty(weight.shape, rounded.dtype)
    codes[:, order] = rounded.T
    return pack(codes, scale, zero, bits=bits, block=block)


def _columns(parameter: Floats, order: Array) -> Floats:
    """A parameter [out, in or 1] as [in or 1, out], the columns in their new order."""
    across: Floats = np.ascontiguousarray(parameter.T if parameter.shape[1] == 1 else parameter.T[order])
    return across


def _round_in_turn(columns: Floats, factor: Floats, scale: Floats, zero: Floats | None, bits: int) -> Codes:
    """The codes of columns [in, out], each rounded after the errors of those before it were carried over."""

    def of(parameter: Floats, index: int) -> Floats:
        found: Floats = parameter[min(index, len(parameter) - 1)]
        return found

    errors = np.empty_like(columns)
    codes = np.empty(columns.shape, np.int8 if zero is None else np.uint8)
    for start in range(0, len(columns), PANEL):
        end = min(start + PANEL, len(columns))
        carried = factor[:start, start:end].T @ errors[:start]
        for index in range(start, end):
            owed = carried[index - start] + factor[start:index, index] @ errors[start:index]
            wanted = columns[index] + owed / factor[index, index]
            nought = None if zero is None else of(zero, index)
            codes[index] = encode(wanted, of(scale, index), nought, bits=bits)
            real = codes[index].astype(np.float32)
            if nought is not None:
                real -= nought
            errors[index] = columns[index] - real * of(scale, index)
    return codes


def _factor(gram: Floats, damping: float) -> Floats:
    """The upper triangular M with M·Mᵀ = `gram` + damping, float32 [in, in]."""
    exact = gram.astype(np.float64)
    if not np.isfinite(exact).all() or (np.diagonal(exact) < 0).any():
        raise UnsupportedError(
            "The inputs of a layer gave sums that are not finite.", hint="Leave out compensation, or give other texts."
        )
    mean = float(np.diagonal(exact).mean()) or 1.0
    silent = np.flatnonzero(np.diagonal(exact) == 0)
    for more in DAMPINGS:
        damped = exact + np.diag(np.full(len(exact), damping * more * mean))
        damped[silent, silent] = mean
        try:
            lower = np.linalg.cholesky(damped[::-1, ::-1])
        except np.linalg.LinAlgError:
            continue
        return np.ascontiguousarray(lower[::-1, ::-1], np.float32)
    raise UnsupportedError(
        "The Gram matrix of a layer's inputs is not positive, however it is damped.",
        hint="Leave out compensation, or raise damping.",
    )
