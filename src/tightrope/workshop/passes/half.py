"""Weights in sixteen bits: half the size, and next to the same answers (Micikevicius et al. 2017, arXiv:1710.03740).

Only what is stored shrinks: a CPU without half-precision arithmetic widens the weights when it loads them.
"""

from dataclasses import dataclass
from typing import TypeVar

import ml_dtypes
import numpy as np

from tightrope.errors import RecipeError, UnsupportedError
from tightrope.workshop.graph import is_float
from tightrope.workshop.model import Model
from tightrope.workshop.numerics.quantized import Quantized, Weight, values
from tightrope.workshop.observe import Observer

M = TypeVar("M", bound=Model)
FORMATS = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
LEAST_ELEMENTS = 1024
"""Smaller weights (biases, norms, constants) weigh nothing and stay as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`format`: `fp16` is finer, `bf16` has the range of float32."""

    format: str = "fp16"


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with its large float32 weights in half precision.

    Raises `RecipeError` for an unknown format, `UnsupportedError` for a weight that leaves the format's range.
    """
    if options.format not in FORMATS:
        raise RecipeError(f"format is {options.format!r}.", hint=f"Known: {', '.join(FORMATS)}.")
    weights: dict[str, Weight] = {}
    for name, weight in model.weights.items():
        if isinstance(weight, Quantized) or not is_float(weight) or weight.size < LEAST_ELEMENTS:
            continue
        with np.errstate(over="ignore"):
            narrow = values(weight).astype(FORMATS[options.format])
        if not np.isfinite(narrow.astype(np.float32)).all():
            raise UnsupportedError(f"{name} has values beyond {options.format}.", hint="Use half(format=bf16).")
        weights[name] = narrow
    return model.rewrite(weights=weights)
