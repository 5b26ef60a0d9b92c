"""What each operation of Core ML's intermediate language computes, in numpy.

Written from the language's own description of its operations, not from the converter, so that one checks the other.
Only what the converter, and coremltools' passes after it, can write is here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = Any
Inputs = Mapping[str, Any]
"""An operation's inputs by their names; one that was not given is `None`."""

_error_function: Any = np.frompyfunc(math.erf, 1, 1)


def _erf(x: Array) -> Array:
    return _error_function(x).astype(np.float32)


def _gelu(given: Inputs) -> Array:
    x = given["x"]
    match given["mode"]:
        case "TANH_APPROXIMATION":
            return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        case "SIGMOID_APPROXIMATION":
            return x / (1 + np.exp(-1.702 * x))
    return 0.5 * x * (1 + _erf(x / np.sqrt(np.float32(2))))


def _softmax(given: Inputs) -> Array:
    x, axis = given["x"], given["axis"]
    shifted = np.exp(x - x.max(axis, keepdims=True))
    return shifted / shifted.sum(axis, keepdims=True)


def _layer_norm(given: Inputs) -> Array:
    x, axes = given["x"], tuple(given["axes"])
    centred = x - x.mean(axes, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + given["epsilon"])
    y = y if given["gamma"] is None else y * given["gamma"]
    return y if given["beta"] is None else y + given["beta"]


def _batch_norm(given: Inputs) -> Array:
    x = given["x"]
    shape = (1, -1, *(1 for _ in x.shape[2:]))

    def along(value: Array | None, default: float) -> Array:
        return default if value is None else np.reshape(value, shape)

    scale = along(given["gamma"], 1.0) / np.sqrt(along(given["variance"], 1.0) + given["epsilon"])
    return (x - along(given["mean"], 0.0)) * scale + along(given["beta"], 0.0)


def _linear(given: Inputs) -> Array:
    product = given["x"] @ given["weight"].T
    return product if given["bias"] is None else product + given["bias"]


def _matmul(given: Inputs) -> Array:
    x, y = given["x"], given["y"]
    x = np.swapaxes(x, -1, -2) if given["transpose_x"] else x
    y = np.swapaxes(y, -1, -2) if given["transpose_y"] else y
    return x @ y


# Shapes ------------------------------------------------------------------------------------------------


def _reshape(given: Inputs) -> Array:
    x = given["x"]
    shape = [x.shape[index] if size == 0 else int(size) for index, size in enumerate(given["shape"])]
    return x.reshape(shape)


def _squeeze(given: Inputs) -> Array:
    return np.squeeze(given["x"], None if given["axes"] is None else tuple(given["axes"]))


def _slice(given: Inputs) -> Array:
    x = given["x"]

    def bound(name: str, axis: int) -> int | None:
        mask = given[f"{name}_mask"]
        return None if mask is not None and mask[axis] else int(given[name][axis])

    steps = [1] * x.ndim if given["stride"] is None else given["stride"]
    squeezed = given["squeeze_mask"]
    parts: list[Any] = []
    for axis in range(x.ndim):
        if squeezed is not None and squeezed[axis]:
            parts.append(int(given["begin"][axis]))
        else:
            parts.append(slice(bound("begin", axis), bound("end", axis), int(steps[axis])))
    return x[tuple(parts)]


def _gather(given: Inputs) -> Array:
    assert not given["batch_dims"]
    return np.take(given["x"], np.asarray(given["indices"], np.int64), axis=int(given["axis"]))


def _split(given: Inputs) -> list[Array]:
    if given["split_sizes"] is not None:
        return np.split(given["x"], np.cumsum(given["split_sizes"])[:-1], int(given["axis"]))
    return np.split(given["x"], int(given["num_splits"]), int(given["axis"]))


def _pad(given: Inputs) -> Array:
    x, pairs = given["x"], np.reshape(given["pad"], (-1, 2))
    around = [(0, 0)] * (x.ndim - len(pairs)) + [(int(a), int(b)) for a, b in pairs]
    if given["mode"] == "constant":
        return np.pad(x, around, constant_values=given["constant_val"])
    mode: Any = {"reflect": "reflect", "replicate": "edge"}[given["mode"]]
    return np.pad(x, around, mode=mode)


def _reduce(function: Callable[..., Array]) -> Callable[[Inputs], Array]:
    def rule(given: Inputs) -> Array:
        axes = None if given["axes"] is None else tuple(given["axes"])
        return function(given["x"], axis=axes, keepdims=bool(given["keep_dims"]))

    return rule


def _squares(x: Array, **where: Any) -> Array:
    return (x**2).sum(**where)


def _length(x: Array, **where: Any) -> Array:
    return np.sqrt((x**2).sum(**where))


# Windows -----------------------------------------------------------------------------------------------


def _around(given: Inputs, sizes: list[int], dilations: list[int]) -> list[tuple[int, int]]:
    """How much is added at both ends of each spatial axis."""
    x, strides = given["x"], given["strides"]
    kind, spatial = given["pad_type"], len(sizes)
    if kind == "valid":
        return [(0, 0)] * spatial
    if kind == "custom":
        pairs = [(int(a), int(b)) for a, b in np.reshape(given["pad"], (-1, 2))]
    else:
        pairs = []
        for axis, size in enumerate(sizes):
            length, stride = x.shape[2 + axis], int(strides[axis])
            total = max((-(-length // stride) - 1) * stride + (size - 1) * dilations[axis] + 1 - length, 0)
            small, large = total // 2, total - total // 2
            pairs.append((large, small) if kind == "same_lower" else (small, large))
    if given.get("ceil_mode"):
        pairs = [_reaching(pair, x.shape[2 + axis], sizes[axis], int(strides[axis])) for axis, pair in enumerate(pairs)]
    return pairs


def _reaching(pair: tuple[int, int], length: int, size: int, stride: int) -> tuple[int, int]:
    """With room at the end for a last window that begins inside."""
    over = (length + sum(pair) - size) % stride
    begins_inside = over and (length + sum(pair) - size) // stride * stride + stride < length + pair[0]
    return (pair[0], pair[1] + (stride - over if begins_inside else 0))


def _windows(x: Array, sizes: list[int], strides: Array, dilations: list[int]) -> Array:
    """[batch, channels, *places, *sizes]: what each window sees."""
    spans = [(size - 1) * step + 1 for size, step in zip(sizes, dilations, strict=True)]
    axes = tuple(range(2, 2 + len(sizes)))
    seen = sliding_window_view(x, spans, axis=axes)
    places = tuple(slice(None, None, int(stride)) for stride in strides)
    inside = tuple(slice(None, None, step) for step in dilations)
    return seen[(slice(None), slice(None), *places, *inside)]


def _conv(given: Inputs) -> Array:
    x, weight, groups = given["x"], given["weight"], int(given["groups"])
    sizes, dilations = list(weight.shape[2:]), [int(step) for step in given["dilations"]]
    padded = np.pad(x, [(0, 0), (0, 0), *_around(given, sizes, dilations)])
    seen = _windows(padded, sizes, given["strides"], dilations)
    places, spatial = seen.shape[2 : 2 + len(sizes)], len(sizes)
    batch, inner, outer = x.shape[0], x.shape[1] // groups, weight.shape[0] // groups
    columns = np.moveaxis(seen.reshape(batch, groups, inner, *places, *sizes), 2, 2 + spatial)
    columns = columns.reshape(batch, groups, math.prod(places), inner * math.prod(sizes))
    kernels = weight.reshape(groups, outer, -1)
    found = np.swapaxes(columns @ np.swapaxes(kernels, 1, 2), 2, 3).reshape(batch, groups * outer, *places)
    return found if given["bias"] is None else found + given["bias"].reshape(1, -1, *([1] * spatial))


def _pool(given: Inputs, empty: float) -> tuple[Array, Array]:
    """What each window sees, and which of it is part of the image."""
    sizes = [int(size) for size in given["kernel_sizes"]]
    ones = [1] * len(sizes)
    around = [(0, 0), (0, 0), *_around(given, sizes, ones)]
    seen = _windows(np.pad(given["x"], around, constant_values=empty), sizes, given["strides"], ones)
    real = _windows(np.pad(np.ones_like(given["x"]), around), sizes, given["strides"], ones)
    return seen, real


def _max_pool(given: Inputs) -> Array:
    seen, _ = _pool(given, -np.inf)
    return seen.max(tuple(range(-len(given["kernel_sizes"]), 0)))


def _avg_pool(given: Inputs) -> Array:
    seen, real = _pool(given, 0.0)
    axes = tuple(range(-len(given["kernel_sizes"]), 0))
    return seen.sum(axes) / (
        real.sum(axes) if given["exclude_padding_from_average"] else math.prod(seen.shape[-len(axes) :])
    )


# Integers ----------------------------------------------------------------------------------------------


def _quantize(given: Inputs) -> Array:
    zero = 0 if given["zero_point"] is None else np.float32(given["zero_point"])
    kind = np.iinfo(given["output_dtype"])
    return np.clip(np.rint(given["input"] / given["scale"]) + zero, kind.min, kind.max).astype(kind.dtype)


def _dequantize(given: Inputs) -> Array:
    zero = 0 if given["zero_point"] is None else np.float32(given["zero_point"])
    return ((given["input"].astype(np.float32) - zero) * given["scale"]).astype(np.float32)


def _blockwise(given: Inputs) -> Array:
    """scale · (data - offset), each scale for its block."""
    data = np.asarray(given["data"]).astype(np.float32)

    def spread(value: Array) -> Array:
        value = np.asarray(value).astype(np.float32)
        for axis, (size, count) in enumerate(zip(data.shape, value.shape, strict=True)):
            value = np.repeat(value, size // count, axis)
        return value

    offset = 0 if given["offset"] is None else spread(given["offset"])
    return spread(given["scale"]) * (data - offset)


_CASTS = {
    "fp32": np.float32,
    "fp16": np.float16,
    "int32": np.int32,
    "bool": np.bool_,
    "int16": np.int16,
    "uint16": np.uint16,
}


def _cast(given: Inputs) -> Array:
    return np.asarray(given["x"]).astype(_CASTS[given["dtype"]])


def _both(function: Callable[[Array, Array], Array]) -> Callable[[Inputs], Array]:
    return lambda given: function(given["x"], given["y"])


def _each(function: Callable[[Array], Array]) -> Callable[[Inputs], Array]:
    return lambda given: function(given["x"])


TABLE: dict[str, Callable[[Inputs], Any]] = {
    "add": _both(np.add),
    "sub": _both(np.subtract),
    "mul": _both(np.multiply),
    "real_div": _both(np.divide),
    "floor_div": _both(np.floor_divide),
    "pow": _both(np.power),
    "maximum": _both(np.maximum),
    "minimum": _both(np.minimum),
    "equal": _both(np.equal),
    "greater": _both(np.greater),
    "less": _both(np.less),
    "greater_equal": _both(np.greater_equal),
    "less_equal": _both(np.less_equal),
    "logical_and": _both(np.logical_and),
    "logical_or": _both(np.logical_or),
    "logical_not": _each(np.logical_not),
    "relu": _each(lambda x: np.maximum(x, 0)),
    "relu6": _each(lambda x: np.clip(x, 0, 6)),
    "tanh": _each(np.tanh),
    "sigmoid": _each(lambda x: 1 / (1 + np.exp(-x))),
    "erf": _each(_erf),
    "exp": _each(np.exp),
    "sqrt": _each(np.sqrt),
    "abs": _each(np.abs),
    "round": _each(np.rint),
    "floor": _each(np.floor),
    "ceil": _each(np.ceil),
    "softsign": _each(lambda x: x / (1 + np.abs(x))),
    "identity": _each(lambda x: x),
    "clip": lambda given: np.clip(given["x"], given["alpha"], given["beta"]),
    "leaky_relu": lambda given: np.where(given["x"] > 0, given["x"], given["x"] * given["alpha"]),
    "sigmoid_hard": lambda given: np.clip(given["alpha"] * given["x"] + given["beta"], 0, 1),
    "select": lambda given: np.where(given["cond"], given["a"], given["b"]),
    "shape": lambda given: np.array(given["x"].shape, np.int32),
    "transpose": lambda given: np.transpose(given["x"], given["perm"]),
    "expand_dims": lambda given: np.expand_dims(given["x"], tuple(given["axes"])),
    "concat": lambda given: np.concatenate([np.asarray(value) for value in given["values"]], int(given["axis"])),
    "tile": lambda given: np.tile(given["x"], given["reps"]),
    "gelu": _gelu,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "linear": _linear,
    "matmul": _matmul,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "slice_by_index": _slice,
    "gather": _gather,
    "split": _split,
    "pad": _pad,
    "cast": _cast,
    "conv": _conv,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "reduce_sum": _reduce(np.sum),
    "reduce_mean": _reduce(np.mean),
    "reduce_max": _reduce(np.max),
    "reduce_min": _reduce(np.min),
    "reduce_sum_square": _reduce(_squares),
    "reduce_l2_norm": _reduce(_length),
    "quantize": _quantize,
    "dequantize": _dequantize,
    "constexpr_blockwise_shift_scale": _blockwise,
}
