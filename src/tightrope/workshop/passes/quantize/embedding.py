"""The table of word vectors in eight, six or four bits, a scale for each word or for each block of a word's vector.

The table is half of a small encoder, and each word takes one row of it: coarse steps there cost little.
Positions stay in floats: they are few, and every token adds one.
"""

from dataclasses import dataclass
from typing import TypeVar

from tightrope.errors import RecipeError
from tightrope.workshop.model import Model
from tightrope.workshop.numerics.quantized import Quantized, values
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.observe import Observer

M = TypeVar("M", bound=Model)
WIDTHS = (8, 6, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`bits`: 8, 6 or 4. `block`: how many features of a word share a scale; 0 for all of them.

    `symmetric`: no zero points; at four bits and without blocks, zero points are worth their room.
    """

    bits: int = 8
    block: int = 0
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in WIDTHS:
            raise RecipeError(f"embedding's bits is {self.bits}.", hint=f"It can be: {', '.join(map(str, WIDTHS))}.")
        if self.block < 0 or self.block == 1:
            raise RecipeError(f"embedding's block is {self.block}.", hint="Give 0 for a whole row, or 2 and more.")


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with its vocabulary tables on a grid. A table that a linear layer uses too is left in floats."""
    matrices = {linear.weight for linear in model.linears()}
    tables = [item.weight for item in model.tables() if item.is_vocabulary and item.weight not in matrices]
    return model.rewrite(
        weights={
            name: round_to_nearest(
                values(weight), bits=options.bits, block=options.block or None, symmetric=options.symmetric
            )
            for name in tables
            if not isinstance(weight := model.weights[name], Quantized)
        }
    )
