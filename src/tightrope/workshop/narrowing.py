"""The weight of one linear layer put on an integer grid, by any of the methods: what `int4` and `mixed` share."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from tightrope.errors import RecipeError
from tightrope.workshop.model import Convolution, Linear, Model
from tightrope.workshop.numerics.gptq import compensate
from tightrope.workshop.numerics.hqq import half_quadratic
from tightrope.workshop.numerics.quantized import Quantized, Scheme, values
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.observe import Observer

METHODS = ("nearest", "hqq", "gptq")
"""Plain rounding; fitted to the weights alone; fitted to what enters the layer."""
ACTIVATIONS = ("none", "dynamic")
SMALLEST_BLOCK = 16
"""What the engines' kernels take: a power of two, and no fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How a weight is to be stored: `block` input features share a scale, or a whole row if `None`."""

    bits: int
    block: int | None
    symmetric: bool


def check(*, method: str, block: int, activations: str) -> None:
    """Raise `RecipeError` for an option with a value that it cannot have."""
    if method not in METHODS:
        raise RecipeError(f"method is {method!r}.", hint=f"Known: {', '.join(METHODS)}.")
    if activations not in ACTIVATIONS:
        raise RecipeError(f"activations is {activations!r}.", hint=f"Known: {', '.join(ACTIVATIONS)}.")
    if block < SMALLEST_BLOCK or block & (block - 1):
        raise RecipeError(f"block is {block}.", hint=f"Give a power of two from {SMALLEST_BLOCK} up, such as 32.")


def open_linears(model: Model, keep: str = "") -> tuple[Linear, ...]:
    """The layers whose weight is still in floats, less those whose name holds one of the words in `keep`.

    Words are divided by spaces, commas or semicolons. Raises `RecipeError` for a word that no layer's name holds.
    """
    return _still_open(model, model.linears(), keep)


def open_convolutions(model: Model, keep: str = "") -> tuple[Convolution, ...]:
    """The same of the convolutions."""
    return _still_open(model, model.convolutions(), keep)


L = TypeVar("L", Linear, Convolution)


def _still_open(model: Model, layers: Sequence[L], keep: str) -> tuple[L, ...]:
    words = re.split(r"[\s,;]+", keep.strip(" ,;")) if keep.strip(" ,;") else []
    every: tuple[Linear | Convolution, ...] = (*model.linears(), *model.convolutions()) if words else ()
    names = [layer.name for layer in every]
    unknown = [word for word in words if not any(word in name for name in names)]
    if unknown:
        some = ", ".join(names[:4])
        raise RecipeError(f"keep says {unknown[0]!r}, but no layer's name holds it.", hint=f"Layers are: {some} …")
    return tuple(
        layer
        for layer in layers
        if not isinstance(model.weights[layer.weight], Quantized) and not any(word in layer.name for word in words)
    )


def narrow(model: Model, linear: Linear, grid: Grid, method: str, observer: Observer) -> Quantized:
    """The layer's weight on a grid, in the layout in which the model stores it. Calibrates only if the method does."""
    weight = values(model.weights[linear.weight])
    rows = np.ascontiguousarray(weight if linear.out_axis == 0 else weight.T)
    fields: dict[str, Any] = {"bits": grid.bits, "block": grid.block, "symmetric": grid.symmetric}
    if method == "gptq":
        inputs = observer.inputs[linear.weight].prepared(model.schemes.get(linear.weight))
        stored = compensate(rows, inputs.gram, **fields)
    elif method == "hqq":
        stored = half_quadratic(rows, **fields)
    else:
        stored = round_to_nearest(rows, **fields)
    return stored if linear.out_axis == 0 else stored.transpose()


def dynamic_schemes(model: Model, linears: Iterable[Linear]) -> dict[str, Scheme]:
    """Inputs rounded to eight bits a token at run time, for each layer's weight; what else a scheme says stays.

    Layers that shared one scheme, or share one input without any, share the new one.
    """
    shared: dict[tuple[str, int], Scheme] = {}
    found = {}
    for linear in linears:
        old = model.schemes.get(linear.weight)
        new = replace(old or Scheme(), bits=8, granularity="token", symmetric=True, static=None)
        found[linear.weight] = shared.setdefault((linear.source, id(old)), new)
    return found
