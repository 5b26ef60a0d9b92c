"""The inputs of linear layers rotated block by block, so that no single feature decides how coarse a token's grid is.

QuaRot, Ashkboos et al. 2024, arXiv:2404.00456: x·W = (x·H)·(Hᵀ·W) for any orthonormal H. With Hadamard's matrix an
outlier is spread over its whole block, on the side of the weights as well, and no calibration is needed. The weights
take their half in; the device rotates the inputs as it rounds them.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tightrope.errors import RecipeError
from tightrope.workshop.model import Linear, Model
from tightrope.workshop.narrowing import open_linears
from tightrope.workshop.numerics.hadamard import block_of, rotated
from tightrope.workshop.numerics.quantized import Floats, Scheme, Weight, values
from tightrope.workshop.observe import Observer

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`block`: features that are mixed, a power of two; where it does not divide a layer's input, the largest smaller
    one that does. `keep`: words divided by spaces; a layer whose name holds one of them is left alone.
    """

    block: int = 128
    keep: str = ""


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with rotated inputs, whatever was done to them before; layers that share one share its rotation.

    Raises `RecipeError` for an option's value, or for an input that is rotated already.
    """
    if not 2 <= options.block <= 4096 or options.block & (options.block - 1):
        raise RecipeError(f"block is {options.block}.", hint="Give a power of two from 2 to 4096, such as 128.")
    used = Counter([linear.weight for linear in model.linears()] + [table.weight for table in model.tables()])
    weights: dict[str, Weight] = {}
    schemes: dict[str, Scheme] = {}
    shared: dict[tuple[str, int], Scheme] = {}
    for linear in open_linears(model, options.keep):
        if used[linear.weight] > 1:  # a weight that something else uses too cannot answer to one layer's input
            continue
        weight = values(model.weights[linear.weight])
        block = block_of(weight.shape[1 - linear.out_axis], options.block)
        if block < 2:
            continue
        old = model.schemes.get(linear.weight)
        if old is not None and old.rotation is not None:
            raise RecipeError(f"The input of {linear.name} is rotated already.", hint="Write rotate once.")
        weights[linear.weight] = _turned(weight, linear, block)
        new = replace(old or Scheme(), rotation=block)
        schemes[linear.weight] = shared.setdefault((linear.source, id(old)), new)
    return model.rewrite(weights=weights, schemes=schemes)


def _turned(weight: Floats, linear: Linear, block: int) -> Floats:
    """The weight as it answers to a rotated input; Hadamard's matrix is symmetric."""
    rows = weight if linear.out_axis == 0 else weight.T
    turned = rotated(np.ascontiguousarray(rows), block)
    return np.ascontiguousarray(turned if linear.out_axis == 0 else turned.T)
