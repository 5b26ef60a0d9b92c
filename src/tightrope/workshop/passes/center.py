"""The mean of each input feature taken away before rounding, which the bias makes good.

What a layer norm gives has features far from zero for every token alike; a grid that must reach them is coarse for
the rest. The shift is that of outlier suppression+ (Wei et al. 2023, arXiv:2304.09145), with the mean for the centre.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tightrope.errors import RecipeError
from tightrope.workshop.model import Linear, Model
from tightrope.workshop.narrowing import open_linears
from tightrope.workshop.numerics.quantized import Floats, Scheme, Weight, values
from tightrope.workshop.observe import Observer

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`keep`: words divided by spaces; a layer whose name holds one of them is left alone."""

    keep: str = ""


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with centred inputs; layers that share an input share one shift, and each needs a bias.

    Raises `RecipeError` after `rotate`, which has mixed the features, `DataError` if there are no calibration texts.
    """
    groups: defaultdict[tuple[str, int], list[Linear]] = defaultdict(list)
    for linear in open_linears(model, options.keep):
        groups[linear.source, id(model.schemes.get(linear.weight))].append(linear)
    weights: dict[str, Weight] = {}
    schemes: dict[str, Scheme] = {}
    for linears in groups.values():
        if any(linear.bias is None for linear in linears):
            continue
        old = model.schemes.get(linears[0].weight) or Scheme()
        if old.rotation is not None:
            raise RecipeError("center stands after rotate, which has mixed the features.", hint="Centre first.")
        mean = observer.inputs[linears[0].weight].prepared(old).mean
        weights |= _biases(model, linears, mean)
        schemes |= dict.fromkeys((linear.weight for linear in linears), _after(old, mean))
    return model.rewrite(weights=weights, schemes=schemes)


def _biases(model: Model, linears: Sequence[Linear], mean: Floats) -> dict[str, Weight]:
    """The biases with what the layers would have made of the mean."""
    found: dict[str, Weight] = {}
    for linear in linears:
        assert linear.bias is not None
        weight = values(model.weights[linear.weight])
        rows = weight if linear.out_axis == 0 else weight.T
        before = found.get(linear.bias, model.weights[linear.bias])
        found[linear.bias] = (values(before) + rows @ mean).astype(np.float32)
    return found


def _after(old: Scheme, mean: Floats) -> Scheme:
    """(x - s) / m - mean = (x - (s + m·mean)) / m."""
    shift = mean if old.smooth is None else old.smooth * mean
    return replace(old, shift=shift if old.shift is None else old.shift + shift)
