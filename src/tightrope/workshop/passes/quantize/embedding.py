"""The vocabulary's table in few bits, a scale for each row or each block of a row.

A table is only gathered from, so fewer bits cost no speed; it is half of a small encoder's size. Guan et al. 2019,
arXiv:1911.02079, go to four bits by row; blocks keep more of the answers for a little more size. Scales are values that
float16 holds, so that an engine may store them as such.
"""

from dataclasses import dataclass
from typing import TypeVar

from tightrope.errors import RecipeError
from tightrope.workshop.model import Model
from tightrope.workshop.numerics.quantized import Quantized, Weight, values
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.observe import Observer

M = TypeVar("M", bound=Model)
BITS = (8, 6, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`block`: features that share a scale, 0 for the whole row. `symmetric`: no zero points."""

    bits: int = 8
    block: int = 0
    symmetric: bool = True


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with every vocabulary table that is still in float, and only gathered from, on an integer grid.

    Raises `RecipeError` for an option's value.
    """
    if options.bits not in BITS:
        raise RecipeError(f"bits is {options.bits}.", hint=f"Known: {', '.join(map(str, BITS))}.")
    if options.block and (options.block < 16 or options.block & (options.block - 1)):
        raise RecipeError(f"block is {options.block}.", hint="Give 0 for whole rows, or a power of two from 16 up.")
    multiplied = {linear.weight for linear in model.linears()}
    weights: dict[str, Weight] = {}
    for table in model.tables():
        weight = model.weights[table.weight]
        if table.is_vocabulary and table.weight not in multiplied and not isinstance(weight, Quantized):
            weights[table.weight] = round_to_nearest(
                values(weight),
                bits=options.bits,
                block=options.block or None,
                symmetric=options.symmetric,
                half_scales=True,
            )
    return model.rewrite(weights=weights)
