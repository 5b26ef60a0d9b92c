"""ONNX's convolutions and poolings as functions on torch tensors: padding on one side and `auto_pad` included."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from tightrope.errors import UnsupportedError
from tightrope.workshop.torch_nodes import Node, Operator, Value, tensor, whole


def _before_and_after(node: Node, x: torch.Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """What is padded before and after each spatial axis. `auto_pad` needs sizes that are known."""
    dims, mode = len(kernel), node.attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = list(node.attributes.get("pads", [0] * 2 * dims)) if mode == "NOTSET" else [0] * 2 * dims
        return pads[:dims], pads[dims:]
    strides, dilations = _steps(node, dims)
    before, after = [], []
    for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        whole = max((-(-size // stride) - 1) * stride + dilation * (width - 1) + 1 - size, 0)
        small, large = whole // 2, whole - whole // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before, after


def _steps(node: Node, dims: int) -> tuple[list[int], list[int]]:
    """Strides and dilations."""
    return list(node.attributes.get("strides", [1] * dims)), list(node.attributes.get("dilations", [1] * dims))


def _padded(x: torch.Tensor, before: Sequence[int], after: Sequence[int], value: float) -> torch.Tensor:
    pads = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
    return functional.pad(x, pads, value=value) if any(pads) else x


def conv(node: Node, x: torch.Tensor, weight: torch.Tensor, bias: Value = None) -> torch.Tensor:
    dims = weight.ndim - 2
    before, after = _before_and_after(node, x, weight.shape[2:])
    strides, dilations = _steps(node, dims)
    if before != after:
        x, before = _padded(x, before, after, 0.0), [0] * dims
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[dims - 1]
    bias = None if bias is None else tensor(bias)
    return function(x, weight, bias, strides, before, dilations, node.attributes.get("group", 1))


def batch_norm(node: Node, x: torch.Tensor, scale: Value, bias: Value, mean: Value, var: Value) -> torch.Tensor:
    mean, var, scale, bias = map(tensor, (mean, var, scale, bias))
    return functional.batch_norm(x, mean, var, scale, bias, False, 0.0, node.attributes.get("epsilon", 1e-5))


def max_pool(node: Node, x: torch.Tensor) -> torch.Tensor:
    kernel = node.attributes["kernel_shape"]
    before, after = _before_and_after(node, x, kernel)
    strides, dilations = _steps(node, len(kernel))
    function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(kernel) - 1]
    if before != after:
        x, before = _padded(x, before, after, -math.inf), [0] * len(kernel)
    return function(x, kernel, strides, before, dilations, bool(node.attributes.get("ceil_mode", 0)))


def average_pool(node: Node, x: torch.Tensor) -> torch.Tensor:
    kernel, counted = node.attributes["kernel_shape"], bool(node.attributes.get("count_include_pad", 0))
    before, after = _before_and_after(node, x, kernel)
    strides, dilations = _steps(node, len(kernel))
    if any(size != 1 for size in dilations) or (before != after and not counted):
        raise UnsupportedError(
            f"{node.name} (AveragePool) is dilated, or padded on one side without counting.", hint="Pad evenly."
        )
    if before != after:
        x, before = _padded(x, before, after, 0.0), [0] * len(kernel)
    function: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(kernel) - 1]
    return function(x, kernel, strides, before, bool(node.attributes.get("ceil_mode", 0)), counted)


def global_pool(function: Callable[..., torch.Tensor]) -> Operator:
    return lambda _, x: function(x, list(range(2, x.ndim)), True)


def pad(node: Node, x: torch.Tensor, pads: Value = None, value: Value = None, axes: Value = None) -> torch.Tensor:
    sizes = [whole(size) for size in (node.attributes["pads"] if pads is None else pads)]
    chosen = list(range(x.ndim)) if axes is None else [int(axis) % x.ndim for axis in axes]
    before, after = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(chosen):
        before[axis], after[axis] = sizes[place], sizes[place + len(chosen)]
    mode = node.attributes.get("mode", "constant")
    if mode != "constant":
        raise UnsupportedError(f"{node.name} (Pad) pads by {mode}.", hint="Pad with a constant.")
    return _padded(x, before, after, 0.0 if value is None else float(value))
