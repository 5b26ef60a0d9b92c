"""Weights of linear layers in eight bits, a scale for each output; their inputs too, at run time or by calibration.

After Jacob et al. 2018 (arXiv:1712.05877), with a range for each token where the engine can: a token with an outlier
then costs no other token its precision.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tightrope.errors import RecipeError
from tightrope.recipe import one_of
from tightrope.workshop.model import Linear, Model
from tightrope.workshop.narrowing import Grid, narrow, open_linears
from tightrope.workshop.numerics import ranges
from tightrope.workshop.numerics.quantized import Scheme
from tightrope.workshop.observe import Inputs, Observer

M = TypeVar("M", bound=Model)
BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`weights`, `inputs`: symmetric or asymmetric. `activations`: dynamic, static, or none for weights alone.

    `granularity` of dynamic ranges: token or tensor. `calibration` of static ones: minmax, percentile (the middle
    `percentile` per cent), entropy or mse. `compensation`: none or gptq, which needs calibration texts. `keep`: words
    divided by spaces, commas or semicolons; a layer whose name holds one of them stays in floats.
    """

    weights: str = "symmetric"
    activations: str = "dynamic"
    granularity: str = "token"
    inputs: str = "symmetric"
    calibration: str = "minmax"
    percentile: float = 99.99
    compensation: str = "none"
    keep: str = ""

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            one_of(f"int8's {name}", getattr(self, name), known)
        if not 50 < self.percentile <= 100:
            raise RecipeError(
                f"int8's percentile is {self.percentile}.", hint="Give more than 50 and at most 100, such as 99.99."
            )


_KNOWN = {
    "weights": ("symmetric", "asymmetric"),
    "activations": ("dynamic", "static", "none"),
    "granularity": ("token", "tensor"),
    "inputs": ("symmetric", "asymmetric"),
    "calibration": ("minmax", "percentile", "entropy", "mse"),
    "compensation": ("none", "gptq"),
}


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with every linear weight that is still in floats on an eight-bit grid, and its input's scheme.

    Raises `RecipeError` for a word to keep that is in no name, `DataError` if texts are needed and there are none.
    """
    linears = open_linears(model, options.keep)
    grid = Grid(bits=BITS, block=None, symmetric=options.weights == "symmetric")
    method = "gptq" if options.compensation == "gptq" else "nearest"
    weights = {linear.weight: narrow(model, linear, grid, method, observer) for linear in linears}
    schemes = {} if options.activations == "none" else _schemes(model, linears, options, observer)
    return model.rewrite(weights=weights, schemes=schemes)


def _schemes(model: Model, linears: tuple[Linear, ...], options: Options, observer: Observer) -> dict[str, Scheme]:
    """A scheme for each weight; layers that share an input, and its preparation, share the very same value."""
    shared: dict[tuple[str, int], Scheme] = {}
    found = {}
    for linear in linears:
        old = model.schemes.get(linear.weight)
        key = (linear.source, id(old))
        if key not in shared:
            shared[key] = _scheme(linear, old, options, observer)
        found[linear.weight] = shared[key]
    return found


def _scheme(linear: Linear, old: Scheme | None, options: Options, observer: Observer) -> Scheme:
    static = options.activations == "static"
    return replace(
        old or Scheme(),
        bits=BITS,
        granularity="token" if options.granularity == "token" and not static else "tensor",
        symmetric=options.inputs == "symmetric",
        static=static_range(observer.inputs[linear.weight].prepared(old), options) if static else None,
    )


def static_range(inputs: Inputs, options: Options) -> ranges.Range:
    """The limits of a calibrated input. `minmax` looks at every token, the others at the sampled rows."""
    symmetric = options.inputs == "symmetric"
    if options.calibration == "percentile":
        return ranges.percentile(inputs.rows, options.percentile)
    if options.calibration == "entropy":
        return ranges.entropy(inputs.rows, bits=BITS, symmetric=symmetric)
    if options.calibration == "mse":
        return ranges.mse(inputs.rows, bits=BITS, symmetric=symmetric)
    return ranges.minmax(np.concatenate([inputs.low, inputs.high]))
