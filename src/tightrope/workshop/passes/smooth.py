"""Moves outliers from a layer's inputs into its weights, where a scale for each output can bear them (SmoothQuant).

Xiao et al. 2022, arXiv:2211.10438: input feature j is divided by s_j = a_j^alpha / w_j^(1 - alpha), and row j of the
weight multiplied by it, which changes nothing but what rounding does afterwards. With `shift` the mean of each feature
is taken away first and the bias makes up for it (Wei et al. 2023, arXiv:2304.09145).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tightrope.errors import RecipeError
from tightrope.recipe import one_of
from tightrope.workshop.graph import is_float
from tightrope.workshop.model import Linear, Model
from tightrope.workshop.narrowing import open_linears
from tightrope.workshop.numerics.quantized import Array, Floats, Scheme, Weight, values
from tightrope.workshop.observe import Inputs, Observer

M = TypeVar("M", bound=Model)
LEAST, MOST = np.float32(2.0**-12), np.float32(2.0**12)
"""How far a feature may be scaled: half precision, and a feature that calibration never saw, can still bear it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`alpha`: how much moves, from 0 (weights all alike) to 1 (inputs all alike). `statistic`: max or rms.

    `shift`: also take each feature's mean away, where every layer that shares the input has a bias of its own.
    """

    alpha: float = 0.5
    statistic: str = "max"
    shift: bool = False

    def __post_init__(self) -> None:
        one_of("smooth's statistic", self.statistic, ("max", "rms"))
        if not 0 <= self.alpha <= 1:
            raise RecipeError(f"smooth's alpha is {self.alpha}.", hint="Give a number from 0 to 1, such as 0.5.")


def apply(model: M, options: Options, observer: Observer) -> M:
    """The same function, with the inputs of all linear layers that are still in floats made easier to round.

    A weight that another part of the model uses too is left alone. Raises `DataError` if there are no texts.
    """
    weights: dict[str, Weight] = {}
    schemes: dict[str, Scheme] = {}
    for group in _groups(model):
        old = model.schemes.get(group[0].weight)
        inputs = observer.inputs[group[0].weight].prepared(old)
        step = Scheme()
        if options.shift and _can_shift(model, group):
            step = Scheme(shift=inputs.mean)
            weights |= {name: bias for linear in group for name, bias in _shifted_bias(model, linear, inputs.mean)}
            inputs = inputs.prepared(step)
        step = replace(step, smooth=_factors(model, group, inputs, options))
        scheme = _after(old, step)
        for linear in group:
            weights[linear.weight] = _scaled(model, linear, step.smooth)
            schemes[linear.weight] = scheme
    return model.rewrite(weights=weights, schemes=schemes)


def _groups(model: Model) -> list[list[Linear]]:
    """Layers that share an input and what is done to it. A weight that stands in several places is in none of them."""
    uses = [linear.weight for linear in model.linears()] + [table.weight for table in model.tables()]
    groups: dict[tuple[str, int], list[Linear]] = {}
    for linear in open_linears(model):
        if uses.count(linear.weight) == 1:
            groups.setdefault((linear.source, id(model.schemes.get(linear.weight))), []).append(linear)
    return list(groups.values())


def _in_rows(model: Model, linear: Linear) -> Floats:
    """The weight as [in, out]."""
    weight = values(model.weights[linear.weight])
    return weight.T if linear.out_axis == 0 else weight


def _factors(model: Model, group: Sequence[Linear], inputs: Inputs, options: Options) -> Floats:
    """s [in], of geometric mean one: a common factor would change no rounding, only the numbers."""
    if options.statistic == "max":
        size = np.maximum(np.abs(inputs.low), np.abs(inputs.high))
        weight = np.max([np.abs(_in_rows(model, linear)).max(1) for linear in group], axis=0)
    else:
        size = np.sqrt(np.maximum(np.diagonal(inputs.gram), 0))
        weight = np.sqrt(np.mean([np.square(_in_rows(model, linear)).mean(1) for linear in group], axis=0))
    known = (size > 0) & (weight > 0)
    if not known.any():
        return np.ones_like(inputs.mean)
    logarithms = options.alpha * np.log(size[known]) - (1 - options.alpha) * np.log(weight[known])
    factors = np.ones_like(inputs.mean)
    factors[known] = np.clip(np.exp(logarithms - logarithms.mean()), LEAST, MOST)
    return factors


def _scaled(model: Model, linear: Linear, smooth: Floats | None) -> Array:
    assert smooth is not None
    stored = model.weights[linear.weight]
    assert isinstance(stored, np.ndarray)
    scaled: Array = stored * (smooth if linear.out_axis == 0 else smooth[:, None]).astype(stored.dtype)
    return scaled


def _can_shift(model: Model, group: Sequence[Linear]) -> bool:
    biases = [linear.bias for linear in group]
    every = [linear.bias for linear in model.linears()]
    return all(name is not None and every.count(name) == 1 and is_float(model.weights[name]) for name in biases)


def _shifted_bias(model: Model, linear: Linear, mean: Floats) -> list[tuple[str, Array]]:
    """b + mean·W, summed in double precision, under the bias's name."""
    assert linear.bias is not None
    bias = model.weights[linear.bias]
    added = mean.astype(np.float64) @ _in_rows(model, linear).astype(np.float64)
    return [(linear.bias, (values(bias) + added).astype(np.float32))]


def _after(old: Scheme | None, step: Scheme) -> Scheme:
    """One scheme that does what the old one and then the step do: ((x - s)/m - s')/m' = (x - (s + m·s'))/(m·m')."""
    if old is None:
        return step
    assert step.smooth is not None
    smooth = step.smooth if old.smooth is None else old.smooth * step.smooth
    shift = old.shift
    if step.shift is not None:
        moved = step.shift if old.smooth is None else old.smooth * step.shift
        shift = moved if shift is None else shift + moved
    return replace(old, smooth=smooth, shift=shift)
