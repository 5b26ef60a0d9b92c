"""ONNX's operators as functions on torch tensors: what a Graph needs to run, and to be trained, as a torch module.

A function takes its node and the node's inputs, an absent one as `None`, and gives its output, or a tuple of several.
Sizes and axes reach it as numpy arrays, everything else as tensors or, where a constant is one number, as a number;
so what an exporter traces has its shapes in the open. `HOSTED` says which inputs are sizes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tightrope.errors import UnsupportedError
from tightrope.workshop import torch_convolutions as convolutions
from tightrope.workshop.torch_nodes import Node, Operator, Value, tensor, whole

HOSTED: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "ReduceL2": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
}
"""The inputs of an operator that are sizes or axes, by position."""

_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""ONNX's numbers of element types."""


def _plain(function: Callable[..., Value]) -> Operator:
    """A function of tensors that needs nothing of the node."""
    return lambda _, *values: function(*values)


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    """A function of one tensor."""
    return lambda _, x: function(tensor(x))


def _axes(node: Node, given: Value) -> list[int] | None:
    """The axes of a reduction, which were an attribute before opset 13 (of most) or 18."""
    found = node.attributes.get("axes") if given is None else given
    return None if found is None or not len(found) else [int(axis) for axis in found]


def _reduce(function: Callable[..., torch.Tensor]) -> Operator:
    def reduce(node: Node, x: torch.Tensor, axes: Value = None) -> torch.Tensor:
        chosen, keep = _axes(node, axes), bool(node.attributes.get("keepdims", 1))
        if chosen is None and node.attributes.get("noop_with_empty_axes", 0):
            return x
        return function(x, list(range(x.ndim)) if chosen is None else chosen, keep)

    return reduce


def _product(x: torch.Tensor, axes: Sequence[int], keep: bool) -> torch.Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep)
    return x


# Arithmetic --------------------------------------------------------------------------------------------


def _div(_: Node, x: Value, y: Value) -> Value:
    is_float = any(isinstance(v, float) or (isinstance(v, torch.Tensor) and v.is_floating_point()) for v in (x, y))
    return x / y if is_float else torch.div(x, y, rounding_mode="trunc")


def _extreme(pair: Callable[..., torch.Tensor], limit: str) -> Operator:
    """The greatest or least of several values, of which some may be numbers."""

    def extreme(_: Node, *values: Value) -> Value:
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        found = tensors[0]
        for other in tensors[1:]:
            found = pair(found, other)
        for number in (value for value in values if not isinstance(value, torch.Tensor)):
            found = torch.clamp(found, **{limit: number})
        return found

    return extreme


def _clip(node: Node, x: torch.Tensor, low: Value = None, high: Value = None) -> torch.Tensor:
    low = node.attributes.get("min") if low is None else low
    high = node.attributes.get("max") if high is None else high
    return x if low is None and high is None else torch.clamp(x, low, high)


def _cast(node: Node, x: Value, *_: Value) -> torch.Tensor:
    wanted = node.attributes["to"]
    if wanted not in _DTYPES:
        raise UnsupportedError(f"{node.name} casts to ONNX's type {wanted}.", hint="Cast to a float or an integer.")
    return tensor(x).to(_DTYPES[wanted])


def _gelu(node: Node, x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate=node.attributes.get("approximate", "none"))


def _hard_sigmoid(node: Node, x: torch.Tensor) -> torch.Tensor:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:  # the only one that engines have a kernel for
        return functional.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0, 1)


def _prelu(_: Node, x: torch.Tensor, slope: Value) -> torch.Tensor:
    return torch.clamp(x, min=0) + slope * torch.clamp(x, max=0)


def _gemm(node: Node, a: torch.Tensor, b: torch.Tensor, c: Value = None) -> torch.Tensor:
    a = a.T if node.attributes.get("transA", 0) else a
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    if node.attributes.get("transB", 0) and alpha == beta == 1 and (c is None or tensor(c).ndim == 1):
        return functional.linear(a, b, None if c is None else tensor(c))
    product = a @ (b.T if node.attributes.get("transB", 0) else b)
    product = product if alpha == 1 else product * alpha
    return product if c is None else product + (c if beta == 1 else c * beta)


def _layer_norm(node: Node, x: torch.Tensor, scale: Value, bias: Value = None) -> torch.Tensor:
    axis = node.attributes.get("axis", -1) % x.ndim
    shape = x.shape[axis:]
    bias = None if bias is None else tensor(bias)
    return functional.layer_norm(x, shape, tensor(scale), bias, node.attributes.get("epsilon", 1e-5))


def _dequantize(node: Node, codes: torch.Tensor, scale: Value, zero: Value = None) -> torch.Tensor:
    axis, block = node.attributes.get("axis", 1), node.attributes.get("block_size", 0)
    scale, zero = tensor(scale), None if zero is None else tensor(zero)

    def spread(parameter: torch.Tensor) -> torch.Tensor:
        if block:
            return parameter.repeat_interleave(block, axis).narrow(axis, 0, codes.shape[axis])
        shape = [1] * codes.ndim
        if parameter.ndim:
            shape[axis] = -1
        return parameter.reshape(shape)

    values = codes.to(torch.float32)
    return (values if zero is None else values - spread(zero).to(torch.float32)) * spread(scale)


# Shapes ------------------------------------------------------------------------------------------------


def _shape(node: Node, x: torch.Tensor) -> np.ndarray[Any, Any]:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(list(x.shape)[start:end], object)


def _reshape(node: Node, x: torch.Tensor, shape: Value) -> torch.Tensor:
    sizes = list(shape)
    if not node.attributes.get("allowzero", 0):
        sizes = [
            x.shape[i] if isinstance(size, int | np.integer) and size == 0 else size for i, size in enumerate(sizes)
        ]
    return x.reshape([int(size) if isinstance(size, np.integer) else size for size in sizes])


def _expand(_: Node, x: Value, shape: Value) -> torch.Tensor:
    sizes = [int(size) if isinstance(size, np.integer) else size for size in shape]
    x = tensor(x)
    own = [1] * (len(sizes) - x.ndim) + list(x.shape)
    sizes = [1] * (len(own) - len(sizes)) + sizes  # ONNX broadcasts both ways
    return x.expand(
        [mine if isinstance(size, int) and size == 1 else size for mine, size in zip(own, sizes, strict=True)]
    )


def _slice(
    node: Node, x: torch.Tensor, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None
) -> torch.Tensor:
    starts = node.attributes.get("starts") if starts is None else starts
    ends = node.attributes.get("ends") if ends is None else ends
    axes = node.attributes.get("axes", range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step <= 0:
            raise UnsupportedError(f"{node.name} (Slice) walks backwards, by {step}.", hint="Export without it.")
        index: list[slice] = [slice(None)] * x.ndim
        index[int(axis)] = slice(whole(start), whole(end), int(step))
        x = x[tuple(index)]
    return x


def _unsqueeze(node: Node, x: Value, axes: Value = None) -> torch.Tensor:
    chosen, x = _axes(node, axes) or [], tensor(x)
    rank = x.ndim + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _squeeze(node: Node, x: torch.Tensor, axes: Value = None) -> torch.Tensor:
    chosen = _axes(node, axes)
    return x.squeeze() if chosen is None else x.squeeze([axis % x.ndim for axis in chosen])


def _split(node: Node, x: torch.Tensor, sizes: Value = None) -> tuple[torch.Tensor, ...]:
    axis = node.attributes.get("axis", 0)
    given = node.attributes.get("split") if sizes is None else sizes
    if given is not None:
        return tuple(torch.split(x, [whole(size) for size in given], axis))
    count = node.attributes.get("num_outputs", len(node.outputs))
    return tuple(torch.split(x, -(-x.shape[axis] // count), axis))


def _gather(node: Node, x: Value, index: Value) -> torch.Tensor:
    axis = node.attributes.get("axis", 0)
    x = tensor(x)
    if isinstance(index, int):  # select keeps what is static static
        return x.select(axis, index)
    index = tensor(index)
    if axis == 0 and x.ndim == 2 and index.ndim:
        return functional.embedding(index, x) if x.is_floating_point() else x[index]
    if index.ndim <= 1:
        return x.index_select(axis, index) if index.ndim else x.index_select(axis, index[None]).squeeze(axis)
    flat = x.index_select(axis, index.reshape(-1))
    axis %= x.ndim
    return flat.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _transpose(node: Node, x: torch.Tensor) -> torch.Tensor:
    return x.permute(node.attributes.get("perm", list(range(x.ndim))[::-1]))


def _flatten(node: Node, x: torch.Tensor) -> torch.Tensor:
    axis = node.attributes.get("axis", 1) % (x.ndim + 1)
    return x.flatten(axis) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


def _concat(node: Node, *values: Value) -> torch.Tensor:
    return torch.cat([tensor(value) for value in values], node.attributes["axis"])


def _constant_of_shape(node: Node, shape: Value) -> torch.Tensor:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return torch.full([whole(size) for size in shape], value.item(), dtype=torch.from_numpy(value).dtype)


OPERATORS: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _plain(lambda x, y: x + y),
    "And": _plain(torch.logical_and),
    "AveragePool": convolutions.average_pool,
    "BatchNormalization": convolutions.batch_norm,
    "BitwiseAnd": _plain(lambda x, y: x & y),
    "Cast": _cast,
    "CastLike": lambda _, x, like: tensor(x).to(like.dtype),
    "Ceil": _unary(torch.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": convolutions.conv,
    "Cos": _unary(torch.cos),
    "CumSum": _plain(lambda x, axis: torch.cumsum(x, int(axis))),
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Dropout": _plain(lambda x, *_: x),
    "Elu": lambda node, x: functional.elu(x, node.attributes.get("alpha", 1.0)),
    "Equal": _plain(lambda x, y: x == y),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _unary(torch.floor),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": convolutions.global_pool(torch.mean),
    "GlobalMaxPool": convolutions.global_pool(torch.amax),
    "Greater": _plain(lambda x, y: x > y),
    "GreaterOrEqual": _plain(lambda x, y: x >= y),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _plain(lambda x: x),
    "IsNaN": _unary(torch.isnan),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, x: functional.leaky_relu(x, node.attributes.get("alpha", 0.01)),
    "Less": _plain(lambda x, y: x < y),
    "LessOrEqual": _plain(lambda x, y: x <= y),
    "Log": _unary(torch.log),
    "LogSoftmax": lambda node, x: torch.log_softmax(x, node.attributes.get("axis", -1)),
    "MatMul": _plain(lambda x, y: x @ y),
    "Max": _extreme(torch.maximum, "min"),
    "MaxPool": convolutions.max_pool,
    "Min": _extreme(torch.minimum, "max"),
    "Mish": _unary(functional.mish),
    "Mul": _plain(lambda x, y: x * y),
    "Neg": _plain(lambda x: -x),
    "Not": _unary(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "PRelu": _prelu,
    "Pad": convolutions.pad,
    "Pow": _plain(lambda x, y: x**y),
    "Range": _plain(lambda *sizes: torch.arange(*(whole(size[0]) for size in sizes))),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.sqrt(torch.sum(x * x, axes, keep))),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(torch.sum),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: torch.sum(x * x, axes, keep)),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Round": _unary(torch.round),
    "Shape": _shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Slice": _slice,
    "Softmax": lambda node, x: torch.softmax(x, node.attributes.get("axis", -1)),
    "Softplus": _unary(functional.softplus),
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(lambda x, y: x - y),
    "Sum": _plain(lambda *values: sum(values[1:], values[0])),
    "Tanh": _unary(torch.tanh),
    "Tile": _plain(lambda x, repeats: x.repeat([whole(size) for size in repeats])),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(lambda where, x, y: torch.where(where, x, y)),
}
"""The function of each operator of ONNX that a module can be made of."""
