"""Float weights stored in sixteen bits: half the size, for nearly the same answers.

`fp16` (IEEE 754 binary16) has three decimal digits up to 65,504; `bf16` (bfloat16) has two, and the range of float32.
Engines that cannot calculate in sixteen bits widen the weights as they load them.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from onnx import TensorProto, helper

from tightrope.errors import UnsupportedError
from tightrope.recipe import one_of
from tightrope.workshop.model import Model
from tightrope.workshop.numerics.quantized import Array, Quantized
from tightrope.workshop.observe import Observer

M = TypeVar("M", bound=Model)
BFLOAT16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`dtype`: fp16 or bf16."""

    dtype: str = "fp16"

    def __post_init__(self) -> None:
        one_of("half's dtype", self.dtype, ("fp16", "bf16"))


def apply(model: M, options: Options, observer: Observer) -> M:
    """The model with all float32 weights but single numbers in sixteen bits; what is quantised stays so.

    Raises `UnsupportedError` for a weight that fp16 cannot hold.
    """
    weights = {
        name: _narrowed(name, weight, options.dtype)
        for name, weight in model.weights.items()
        if not isinstance(weight, Quantized) and weight.dtype == np.float32 and weight.size > 1
    }
    return model.rewrite(weights=weights)


def _narrowed(name: str, weight: Array, dtype: str) -> Array:
    if dtype == "bf16":
        return weight.astype(BFLOAT16)
    most = float(np.abs(weight).max())
    if most > float(np.finfo(np.float16).max):
        raise UnsupportedError(f"{name} holds {most:g}, which fp16 cannot.", hint="Use half(dtype=bf16).")
    return weight.astype(np.float16)
