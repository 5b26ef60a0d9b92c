"""Outliers moved from inputs into weights, feature by feature, before both are rounded (SmoothQuant).

Xiao et al. 2022, arXiv:2211.10438: x·W = (x / s)·(s·W). With s = max|x|^alpha / max|W|^(1 - alpha) for each input
feature, both sides become about equally hard to round. The function stays what it was.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tightrope.errors import RecipeError
from tightrope.workshop.graph import normalized
from tightrope.workshop.model import Linear, Model
from tightrope.workshop.narrowing import open_linears
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Floats, Scheme, Weight, values
from tightrope.workshop.numerics.smoothing import migration
from tightrope.workshop.observe import Inputs, Observer

M = TypeVar("M", bound=Model)
INPUTS = ("norms", "all")
STATISTICS = ("max", "rms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`alpha`: how much of the difficulty goes to the weights, 0 to 1.

    `inputs`: `norms` smooths what comes out of a layer norm, as the paper does; `all` every layer's input. `statistic`:
    the features' size by `max` or by `rms`. `shift`: also subtract each feature's mean, which the bias makes good.
    `keep`: words divided by spaces; a layer whose name holds one of them is left alone.
    """

    alpha: float = 0.5
    inputs: str = "norms"
    statistic: str = "max"
    shift: bool = False
    keep: str = ""


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with smoothed inputs; layers that share an input share one vector.

    Raises `RecipeError` for an option's value, `DataError` if there are no calibration texts.
    """
    _check(options)
    used = Counter([linear.weight for linear in model.linears()] + [table.weight for table in model.tables()])
    groups: defaultdict[tuple[str, int], list[Linear]] = defaultdict(list)
    for linear in open_linears(model, options.keep):
        if used[linear.weight] == 1:  # a weight that something else uses too cannot answer to one layer's input
            groups[linear.source, id(model.schemes.get(linear.weight))].append(linear)
    wanted = normalized(lower(model))
    weights: dict[str, Weight] = {}
    schemes: dict[str, Scheme] = {}
    for linears in groups.values():
        if options.inputs == "norms" and linears[0].weight not in wanted:
            continue
        inputs = observer.inputs[linears[0].weight].prepared(model.schemes.get(linears[0].weight))
        scheme, changed = _smooth(model, linears, inputs, options)
        weights |= changed
        schemes |= dict.fromkeys((linear.weight for linear in linears), scheme)
    return model.rewrite(weights=weights, schemes=schemes)


def _check(options: Options) -> None:
    if not 0 <= options.alpha <= 1:
        raise RecipeError(f"alpha is {options.alpha}.", hint="Give a number from 0 to 1, such as 0.5.")
    for name, known in (("inputs", INPUTS), ("statistic", STATISTICS)):
        if getattr(options, name) not in known:
            raise RecipeError(f"{name} is {getattr(options, name)!r}.", hint=f"Known: {', '.join(known)}.")


def _smooth(
    model: Model, linears: Sequence[Linear], inputs: Inputs, options: Options
) -> tuple[Scheme, dict[str, Weight]]:
    """One scheme for layers that share an input, and their weights and biases as they answer to it."""
    shifts = options.shift and all(linear.bias is not None for linear in linears)
    shift = inputs.mean if shifts else np.zeros_like(inputs.mean)
    matrices = {linear.weight: _rows(model, linear) for linear in linears}
    tallest = np.max([np.abs(matrix).max(axis=0) for matrix in matrices.values()], axis=0)
    smooth = migration(_size(inputs, shift, options.statistic), tallest, options.alpha)
    changed: dict[str, Weight] = {}
    for linear in linears:
        rows = matrices[linear.weight]
        changed[linear.weight] = _stored(rows * smooth, linear)
        if shifts and linear.bias is not None:
            bias = changed.get(linear.bias, model.weights[linear.bias])
            changed[linear.bias] = (values(bias) + rows @ shift).astype(np.float32)
    return _after(model.schemes.get(linears[0].weight), smooth, shift if shifts else None), changed


def _after(old: Scheme | None, smooth: Floats, shift: Floats | None) -> Scheme:
    """One scheme for the old one and a new step: ((x - s) / m - s') / m' = (x - (s + m·s')) / (m·m')."""
    if old is None:
        return Scheme(smooth=smooth, shift=shift)
    if old.rotation is not None:
        raise RecipeError("smooth stands after rotate, which has mixed the features.", hint="Smooth first.")
    if shift is not None and old.smooth is not None:
        shift = old.smooth * shift
    if shift is not None and old.shift is not None:
        shift = old.shift + shift
    return replace(
        old,
        smooth=smooth if old.smooth is None else old.smooth * smooth,
        shift=old.shift if shift is None else shift,
    )


def _rows(model: Model, linear: Linear) -> Floats:
    weight = values(model.weights[linear.weight])
    return weight if linear.out_axis == 0 else weight.T


def _stored(rows: Floats, linear: Linear) -> Floats:
    return np.ascontiguousarray(rows if linear.out_axis == 0 else rows.T)


def _size(inputs: Inputs, shift: Floats, statistic: str) -> Floats:
    if statistic == "max":
        return np.asarray(np.maximum(inputs.high - shift, shift - inputs.low), np.float32)
    squares = np.diagonal(inputs.gram) - 2 * shift * inputs.mean + shift**2
    return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float32)
