"""Weights and inputs of linear layers and convolutions in eight bits, so that the multiplying is done on integers.

Jacob et al. 2018, arXiv:1712.05877. Weights have a scale for each output; inputs a range that is read from each token
or tensor at run time, or a static one that was calibrated. `outliers` keeps a few features in float where that is worth
it (Dettmers et al. 2022, arXiv:2208.07339), and `compensation=gptq` rounds the weights with regard to what enters
(Frantar et al. 2022).

A convolution has a scale for each output channel, and static ranges alone: of what it takes, and of what it hands on to
a sum or a pool, so that an engine stays on integers from one convolution to the next.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import RecipeError
from tightrope.workshop.graph import between
from tightrope.workshop.model import Convolution, Linear, Model
from tightrope.workshop.narrowing import open_convolutions, open_linears
from tightrope.workshop.network import lower
from tightrope.workshop.numerics import ranges
from tightrope.workshop.numerics.gptq import compensate
from tightrope.workshop.numerics.outliers import WORTH, outliers, relief
from tightrope.workshop.numerics.quantized import Floats, Quantized, Scheme, Weight, kept_name, values
from tightrope.workshop.numerics.rounding import round_to_nearest
from tightrope.workshop.observe import Inputs, Observer

M = TypeVar("M", bound=Model)
Kept = NDArray[np.int64]
Memo = dict[str, Any]
CHOICES = {
    "weights": ("symmetric", "asymmetric"),
    "activations": ("dynamic", "static", "none"),
    "granularity": ("token", "tensor"),
    "inputs": ("auto", "symmetric", "asymmetric"),
    "calibration": ("minmax", "percentile", "entropy", "mse"),
    "compensation": ("none", "gptq"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`activations`: `none` leaves inputs in float. `granularity`: what shares a dynamic range; a static one is always
    the tensor's. `inputs`: `auto` is symmetric for a token's grid and asymmetric for a tensor's, which engines do fast.
    `calibration`, `percentile`: how a static range is found. `outliers`: features at most that stay in float in each
    layer. `reduce_range`: seven bits for the weights, still stored as eight, so that two products fit in 16 bits, and
    processors without VNNI neither saturate nor need to work around it. `keep`: words divided by spaces; a layer whose
    name holds one of them is left alone. Of these, convolutions know `activations` (static or none), `inputs`,
    `calibration`, `percentile`, `reduce_range` and `keep`; dynamic leaves them in float in a model of text.
    """

    weights: str = "symmetric"
    activations: str = "dynamic"
    granularity: str = "token"
    inputs: str = "auto"
    calibration: str = "minmax"
    percentile: float = 99.99
    compensation: str = "none"
    outliers: int = 0
    reduce_range: bool = False
    keep: str = ""


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with every linear weight that is still in float on an 8-bit grid, and a scheme for its input.

    Raises `RecipeError` for an option's value, `DataError` if an option needs calibration texts and there are none.
    """
    _check(options)
    groups: defaultdict[tuple[str, int], list[Linear]] = defaultdict(list)
    for linear in open_linears(model, options.keep):
        groups[linear.source, id(model.schemes.get(linear.weight))].append(linear)
    weights: dict[str, Weight] = {}
    schemes: dict[str, Scheme] = {}
    for linears in groups.values():
        old = model.schemes.get(linears[0].weight) or Scheme()
        inputs = observer.inputs[linears[0].weight].prepared(old) if _calibrates(options) else None
        matrices = [_rows(model, linear) for linear in linears]
        kept = _outliers(matrices, inputs, options)
        if options.activations != "none" or kept is not None:
            scheme = _scheme(old, inputs, kept, options)
            schemes |= dict.fromkeys((linear.weight for linear in linears), scheme)
        for linear, rows in zip(linears, matrices, strict=True):
            weights |= _quantized(linear, rows, inputs, kept, options, observer.memo)
    convolutions = open_convolutions(model, options.keep) if _takes_convolutions(model, options) else ()
    for convolution in convolutions:
        weights[convolution.weight] = _filters(model, convolution, options)
    if options.activations == "static":
        schemes |= _spatial_schemes(model, convolutions, observer, options)
    return model.rewrite(weights=weights, schemes=schemes)


def _takes_convolutions(model: Model, options: Options) -> bool:
    """Whether convolutions take part. Raises `RecipeError` where they are all that matters, and cannot."""
    if not model.convolutions():
        return False
    if options.weights != "symmetric":
        raise RecipeError("weights=asymmetric is for linear layers.", hint="Leave it out for a model that convolves.")
    if options.activations != "dynamic":
        return True
    if model.task.name == "classification":
        raise RecipeError("No engine reads a convolution's range at run time.", hint="Use int8(activations=static).")
    return False


def _filters(model: Model, convolution: Convolution, options: Options) -> Quantized:
    """The codes of a convolution, a scale for each output channel."""
    weight = values(model.weights[convolution.weight])
    rows = np.ascontiguousarray(weight.reshape(len(weight), -1))
    stored = round_to_nearest(rows, bits=7 if options.reduce_range else 8, block=None, symmetric=True)
    return replace(stored, codes=stored.codes.reshape(weight.shape), bits=8)


def _spatial_schemes(
    model: Model,
    convolutions: Sequence[Convolution],
    observer: Observer,
    options: Options,
) -> dict[str, Scheme]:
    """The grids of what convolutions take, by their weight, and of what they hand on, by its name."""
    if not convolutions:
        return {}
    sources = {item.source: _grid(observer.values[item.source], options) for item in convolutions}
    found = {item.weight: sources[item.source] for item in convolutions}
    for value in between(lower(model), found.keys()):
        found[value] = sources.get(value) or _grid(observer.values[value], options)
    return found


def _grid(inputs: Inputs, options: Options) -> Scheme:
    symmetric = options.inputs == "symmetric"
    static = _range(inputs, None, symmetric, options)
    return Scheme(bits=8, granularity="tensor", symmetric=symmetric, static=static)


def _check(options: Options) -> None:
    for name, known in CHOICES.items():
        if getattr(options, name) not in known:
            raise RecipeError(f"{name} is {getattr(options, name)!r}.", hint=f"Known: {', '.join(known)}.")
    if not 50 < options.percentile <= 100:
        raise RecipeError(f"percentile is {options.percentile}.", hint="Give more than 50 and 100 at most, as 99.99.")
    if not 0 <= options.outliers <= 64:
        raise RecipeError(f"outliers is {options.outliers}.", hint="Give 0 to 64; a few are enough.")
    if options.reduce_range and options.weights != "symmetric":
        raise RecipeError("reduce_range is for symmetric weights.", hint="Leave out weights=asymmetric.")
    if options.outliers and options.activations == "none":
        raise RecipeError("outliers has no use where inputs stay in float.", hint="Leave it out.")


def _calibrates(options: Options) -> bool:
    return options.activations == "static" or options.compensation == "gptq" or options.outliers > 0


def _rows(model: Model, linear: Linear) -> Floats:
    weight = values(model.weights[linear.weight])
    return weight if linear.out_axis == 0 else np.ascontiguousarray(weight.T)


def _outliers(matrices: Sequence[Floats], inputs: Inputs | None, options: Options) -> Kept | None:
    if inputs is None or not options.outliers:
        return None
    largest = np.maximum(inputs.high, -inputs.low)
    tallest = np.max([np.abs(rows).max(axis=0) for rows in matrices], axis=0)
    found = outliers(largest, tallest, options.outliers)
    if not len(found) or relief(matrices, inputs.low, inputs.high, np.diagonal(inputs.gram), found) < WORTH:
        return None
    return found


def _scheme(old: Scheme, inputs: Inputs | None, kept: Kept | None, options: Options) -> Scheme:
    granularity: Literal["tensor", "token"] = "token" if options.granularity == "token" else "tensor"
    whole = options.granularity == "tensor" or options.activations == "static"
    symmetric = options.inputs == "symmetric" or (options.inputs == "auto" and not whole)
    static = None
    if options.activations == "static":
        assert inputs is not None
        static = _range(inputs, kept, symmetric, options)
    return replace(old, bits=8, granularity=granularity, symmetric=symmetric, static=static, kept=kept)


def _range(inputs: Inputs, kept: Kept | None, symmetric: bool, options: Options) -> tuple[float, float]:
    """The static range of the features that do not stay in float."""
    others = np.ones(len(inputs.mean), bool)
    if kept is not None:
        others[kept] = False
    if options.calibration == "minmax":  # over every token, not only the sampled rows
        return min(float(inputs.low[others].min()), 0.0), max(float(inputs.high[others].max()), 0.0)
    rows = np.ascontiguousarray(inputs.rows[:, others])
    if options.calibration == "percentile":
        return ranges.percentile(rows, options.percentile)
    search = ranges.entropy if options.calibration == "entropy" else ranges.mse
    return search(rows, bits=8, symmetric=symmetric)


def _quantized(
    linear: Linear, rows: Floats, inputs: Inputs | None, kept: Kept | None, options: Options, memo: Memo
) -> dict[str, Weight]:
    """The layer's codes in the model's layout, and the float weights [kept, out] of the features it keeps."""
    found: dict[str, Weight] = {}
    if kept is not None:
        found[kept_name(linear.weight)] = np.ascontiguousarray(rows[:, kept].T)
        rows = rows.copy()
        rows[:, kept] = 0
    symmetric, bits = options.weights == "symmetric", 7 if options.reduce_range else 8
    stored: Quantized
    if options.compensation == "gptq":
        assert inputs is not None
        stored = _compensated(rows, _without(inputs.gram, kept), symmetric, bits, memo)
    else:
        stored = round_to_nearest(rows, bits=bits, block=None, symmetric=symmetric)
    stored = replace(stored, bits=8)
    found[linear.weight] = stored if linear.out_axis == 0 else stored.transpose()
    return found


def _compensated(rows: Floats, gram: Floats, symmetric: bool, bits: int, memo: Memo) -> Quantized:
    """Static and dynamic inputs ask for the same codes; they are found once."""
    key = hashlib.sha256(rows.tobytes() + gram.tobytes() + bytes([symmetric, bits])).hexdigest()
    if key not in memo:
        memo[key] = compensate(rows, gram, bits=bits, block=None, symmetric=symmetric)
    found: Quantized = memo[key]
    return found


def _without(gram: Floats, kept: Kept | None) -> Floats:
    if kept is None:
        return gram
    others = gram.copy()
    others[kept], others[:, kept] = 0, 0
    return others
