"""Weights of linear layers in four bits, a scale for each block (round-to-nearest, HQQ, or GPTQ with compensation).

`method=gptq` (Frantar et al. 2022, arXiv:2210.17323) lets later columns make up for earlier ones' errors on the
calibration texts; `hqq` (Badri & Shaji 2023) needs no texts; `nearest` is what the others are measured against.
"""

from dataclasses import dataclass
from typing import TypeVar

from tightrope.workshop.model import Model
from tightrope.workshop.narrowing import Grid, check, dynamic_schemes, narrow, open_linears
from tightrope.workshop.observe import Observer

M = TypeVar("M", bound=Model)
BITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`block`: input features that share a scale, and a zero point unless `symmetric`.

    `activations`: `none` leaves inputs in floats, `dynamic` rounds them to eight bits a token. `keep`: words divided by
    spaces; a layer whose name holds one of them is left alone.
    """

    method: str = "gptq"
    block: int = 32
    symmetric: bool = False
    activations: str = "none"
    keep: str = ""


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with every linear weight that is still in floats put on a four-bit grid.

    Raises `RecipeError` for an option's value, `DataError` if the method needs calibration texts and there are none.
    """
    check(method=options.method, block=options.block, activations=options.activations)
    grid = Grid(bits=BITS, block=options.block, symmetric=options.symmetric)
    linears = open_linears(model, options.keep)
    weights = {linear.weight: narrow(model, linear, grid, options.method, observer) for linear in linears}
    schemes = dynamic_schemes(model, linears) if options.activations == "dynamic" else {}
    return model.rewrite(weights=weights, schemes=schemes)
