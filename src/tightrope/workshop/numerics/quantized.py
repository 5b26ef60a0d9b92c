"""Integers that stand for floats, and how a linear layer's input is to be quantised.

`real = (code - zero_point) * scale`, with the meaning of axis and block of ONNX's
DequantizeLinear (opset 21), so that what is annotated here can be said there.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tightrope.workshop.numerics.hadamard import rotated

Array = NDArray[Any]
Floats = NDArray[np.float32]
Codes = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantized:
    """A weight as integer codes.

    `codes`: int8 (signed) or uint8, one code a byte whatever `bits` says, the weight's own shape.
    `scale`: float32. Without `block`: shape (shape[axis],), one for each index along `axis`. With `block`:
    the weight's shape with `axis` divided (rounded up) by `block`, one for each run of `block` codes along `axis`.
    `zero_point`: the codes' dtype and the scale's shape, or `None` for zero.
    """

    codes: Codes
    scale: Floats
    zero_point: Codes | None = None
    axis: int = 0
    block: int | None = None
    bits: int = 8

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return self.codes.shape

    @property
    def size_bytes(self) -> int:
        """What codes, scales and zero points take when packed to their bits."""
        zeros = 0 if self.zero_point is None else (self.zero_point.size * self.bits + 7) // 8
        return (self.codes.size * self.bits + 7) // 8 + self.scale.size * 4 + zeros

    def dequantize(self) -> Floats:
        """The float32 values on the grid, in the weight's own shape."""
        scale, zero = self.scale, self.zero_point
        if self.block is None:
            shape = [1] * self.codes.ndim
            shape[self.axis] = -1
            scale = scale.reshape(shape)
            zero = None if zero is None else zero.reshape(shape)
        else:
            length = self.codes.shape[self.axis]
            scale = np.repeat(scale, self.block, self.axis).take(range(length), self.axis)
            zero = None if zero is None else np.repeat(zero, self.block, self.axis).take(range(length), self.axis)
        values = self.codes.astype(np.float32)
        if zero is not None:
            values -= zero.astype(np.float32)
        values *= scale
        return values

    def transpose(self) -> "Quantized":
        """The transposed matrix with the same values; only for two dimensions."""
        blocked = self.block is not None
        zero = self.zero_point
        return replace(
            self,
            codes=np.ascontiguousarray(self.codes.T),
            scale=np.ascontiguousarray(self.scale.T) if blocked else self.scale,
            zero_point=np.ascontiguousarray(zero.T) if blocked and zero is not None else zero,
            axis=1 - self.axis,
        )


Weight = Array | Quantized
"""A weight as it is stored: float32, float16 or bfloat16 values, or codes."""


def values(weight: Weight) -> Floats:
    """The float32 values of a weight, however it is stored."""
    return weight.dequantize() if isinstance(weight, Quantized) else np.asarray(weight, np.float32)


def size_bytes(weight: Weight) -> int:
    """What a weight takes on disk when packed."""
    return weight.size_bytes if isinstance(weight, Quantized) else int(weight.nbytes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scheme:
    """How the input x of a linear layer is prepared and quantised; the layer's weight and bias already answer to it.

    First x' = (x - shift) / smooth, then, if `rotation` is set, its Hadamard transform over blocks of so many features
    (`numerics.hadamard`). Then, if `bits` is set, x' is rounded to integers: with a `static` range (float
    limits of x'), or dynamically with a range read from each tensor or each token at run time.

    `kept`: the few features of x' that carry outliers and stay float (LLM.int8(), Dettmers et al. 2022,
    arXiv:2208.07339). They take no part in the range; the layer's codes are zero for them, and their float weights
    are the model's weight `kept_name(weight)`, [kept, out] whatever the layer's own layout.
    """

    bits: int | None = None
    granularity: Literal["tensor", "token"] = "token"
    symmetric: bool = True
    static: tuple[float, float] | None = None
    smooth: Floats | None = None
    shift: Floats | None = None
    kept: NDArray[np.int64] | None = None
    rotation: int | None = None

    @property
    def is_dynamic(self) -> bool:
        """Whether the range is read at run time."""
        return self.bits is not None and self.static is None


def kept_name(weight: str) -> str:
    """The name of the float weights of the features that a layer's scheme keeps."""
    return f"{weight}.kept"


def prepared(x: Floats, scheme: Scheme) -> Floats:
    """x' of a scheme: rows [n, in] with the shift taken away, the smoothing divided out, and rotated."""
    if scheme.shift is not None:
        x = x - scheme.shift
    if scheme.smooth is not None:
        x = x / scheme.smooth
    return x if scheme.rotation is None else rotated(x, scheme.rotation)
