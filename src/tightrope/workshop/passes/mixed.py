"""Each linear layer in as few bits as it can bear: 4, 8 or its floats (adaptive, mixed-precision quantisation).

What a layer can bear is measured: how far the answers move when it alone is reduced. The cheapest reductions, in loss
for each byte saved, are taken first, and as many as keep the answers within the limit when all are taken together; this
too is measured (the greedy allocation of HAWQ-V2, Dong et al. 2020, arXiv:1911.03852, with losses in place of traces).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

from tightrope.errors import RecipeError
from tightrope.workshop.model import Linear, Model
from tightrope.workshop.narrowing import Grid, check, dynamic_schemes, narrow, open_linears
from tightrope.workshop.numerics.allocation import Choice, moves, settle
from tightrope.workshop.numerics.quantized import Quantized, size_bytes
from tightrope.workshop.observe import Observer
from tightrope.workshop.probe import Probe

M = TypeVar("M", bound=Model)
WIDTHS = (8, 4)
_found: WeakKeyDictionary[Observer, dict[tuple[str, ...], float]] = WeakKeyDictionary()
"""Losses by model digest, grid and layer: a search asks for several limits on the same model, and measures once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`loss`: how far the answers may move on average, as 1 - cosine; the rounding of inputs is not counted.

    `method` and `block` are those of four bits (eight bits have a scale for each row); `activations` and `keep` as in
    int4, for the layers that leave floats.
    """

    loss: float = 0.005
    method: str = "gptq"
    block: int = 32
    activations: str = "none"
    keep: str = ""


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with each linear weight in the width that the limit allows it.

    Raises `RecipeError` for an option's value, `DataError` if there are no calibration texts.
    """
    check(method=options.method, block=options.block, activations=options.activations)
    if not (math.isfinite(options.loss) and options.loss >= 0):
        raise RecipeError(f"loss is {options.loss}.", hint="Give zero or more, such as 0.005.")
    linears = open_linears(model, options.keep)
    if not linears:
        return model.rewrite()
    integers = _within(model, linears, options, observer)
    left = [linear for linear in linears if linear.weight in integers]
    schemes = dynamic_schemes(model, left) if options.activations == "dynamic" else {}
    return model.rewrite(weights=integers, schemes=schemes)


def sensitivity(model: Model, observer: Observer, bits: int = 4) -> dict[str, float]:
    """For each linear layer in floats, by name: 1 - mean cosine of the answers when it alone is rounded to `bits`.

    Plain rounding, in blocks of 32 below eight bits. Raises `DataError` if there are no calibration texts.
    """
    linears = open_linears(model)
    if not linears:
        return {}
    grid = _grid(bits, Options().block)
    narrowed = {linear.weight: narrow(model, linear, grid, "nearest", observer) for linear in linears}
    losses = _losses(Probe(model, linears, observer), narrowed, (model.digest, "nearest", str(grid)), observer)
    return {linear.name: losses[linear.weight] for linear in linears}


def _within(model: Model, linears: Sequence[Linear], options: Options, observer: Observer) -> dict[str, Quantized]:
    """The weights that leave floats, by name, as integers."""
    probe = Probe(model, linears, observer)
    widths: list[dict[str, Quantized]] = []
    losses: list[dict[str, float]] = []
    for bits in WIDTHS:
        grid = _grid(bits, options.block)
        widths.append({linear.weight: narrow(model, linear, grid, options.method, observer) for linear in linears})
        losses.append(_losses(probe, widths[-1], (model.digest, options.method, str(grid)), observer))
    choices = {
        linear.weight: [
            Choice(size_bytes(model.weights[linear.weight]), 0.0),
            *(
                Choice(narrowed[linear.weight].size_bytes, loss[linear.weight])
                for narrowed, loss in zip(widths, losses, strict=True)
            ),
        ]
        for linear in linears
    }
    steps = moves(choices)

    def after(number: int) -> dict[str, Quantized]:
        settled = settle(choices, steps[:number])
        return {name: widths[index - 1][name] for name, index in settled.items() if index}

    def loss_after(number: int) -> float:
        return probe.loss({name: weight.dequantize() for name, weight in after(number).items()})

    return after(_most(len(steps), lambda number: loss_after(number) <= options.loss))


def _grid(bits: int, block: int) -> Grid:
    """A scale for each row where eight bits leave room, for each block where they do not."""
    return Grid(bits=bits, block=None, symmetric=True) if bits >= 8 else Grid(bits=bits, block=block, symmetric=False)


def _losses(
    probe: Probe, narrowed: Mapping[str, Quantized], key: tuple[str, ...], observer: Observer
) -> dict[str, float]:
    """What the answers lose by each weight alone."""
    known = _found.setdefault(observer, {})
    for name, weight in narrowed.items():
        if (*key, name) not in known:
            known[*key, name] = probe.loss({name: weight.dequantize()})
    return {name: known[*key, name] for name in narrowed}


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number of steps that fits, found by halving; none always does."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
