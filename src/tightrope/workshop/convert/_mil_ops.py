"""What each ONNX operation is in MIL: one rule an operation, for encoders and for convolutional networks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from tightrope.workshop.convert._mil import Call, Grid, Rule, narrow, shape_of

# isort: split
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import types

_TYPES = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp32",  # the precision of the whole program decides
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int32",
    TensorProto.BOOL: "bool",
}


# Element by element ------------------------------------------------------------------------------------


def _binary(operation: Callable[..., Any]) -> Rule:
    """Two inputs; more of them for Max, Min and Sum are taken in one after another."""

    def rule(call: Call) -> Any:
        result = call.variable(0)
        for index in range(1, len(call.taken)):
            name = call.name if index == len(call.taken) - 1 else f"{call.name}_{index}"
            result = operation(x=result, y=call.variable(index), name=name)
        return result

    return rule


def _unary(operation: Callable[..., Any], **fixed: Any) -> Rule:
    return lambda call: operation(x=call.variable(), name=call.name, **fixed)


def _compared(operation: Callable[..., Any]) -> Rule:
    return lambda call: operation(x=call.variable(0), y=call.variable(1), name=call.name)


def _identity(call: Call) -> Any:
    return Builder.identity(x=call.variable(), name=call.name)


def _neg(call: Call) -> Any:
    x = call.variable()
    minus = np.float32(-1) if _is_float(x) else np.int32(-1)
    return Builder.mul(x=x, y=minus, name=call.name)


def _reciprocal(call: Call) -> Any:
    return Builder.real_div(x=np.float32(1), y=call.variable(), name=call.name)


def _div(call: Call) -> Any:
    x, y = call.variable(0), call.variable(1)
    return (Builder.real_div if _is_float(x) else Builder.floor_div)(x=x, y=y, name=call.name)


def _clip(call: Call) -> Any:
    low, high = call.constant(1), call.constant(2)
    low = call.attributes.get("min", np.finfo(np.float32).min if low is None else low)
    high = call.attributes.get("max", np.finfo(np.float32).max if high is None else high)
    low, high = float(low), float(high)
    if low == 0 and high == 6:
        return Builder.relu6(x=call.variable(), name=call.name)
    return Builder.clip(x=call.variable(), alpha=np.float32(low), beta=np.float32(high), name=call.name)


def _gelu(call: Call) -> Any:
    mode = "TANH_APPROXIMATION" if call.attributes.get("approximate", b"none") == b"tanh" else "EXACT"
    return Builder.gelu(x=call.variable(), mode=mode, name=call.name)


def _hard_sigmoid(call: Call) -> Any:
    alpha, beta = call.attributes.get("alpha", 0.2), call.attributes.get("beta", 0.5)
    return Builder.sigmoid_hard(x=call.variable(), alpha=np.float32(alpha), beta=np.float32(beta), name=call.name)


def _hard_swish(call: Call) -> Any:
    x = call.variable()
    gate = Builder.sigmoid_hard(x=x, alpha=np.float32(1 / 6), beta=np.float32(0.5), name=f"{call.name}_gate")
    return Builder.mul(x=x, y=gate, name=call.name)


def _leaky(call: Call) -> Any:
    return Builder.leaky_relu(x=call.variable(), alpha=np.float32(call.attributes.get("alpha", 0.01)), name=call.name)


def _softmax(call: Call) -> Any:
    return Builder.softmax(x=call.variable(), axis=call.attributes.get("axis", -1), name=call.name)


def _cast(call: Call) -> Any:
    to = call.attributes["to"]
    call.refuse_unless(to in _TYPES, f"it has no type {TensorProto.DataType.Name(to)}")
    return Builder.cast(x=call.variable(), dtype=_TYPES[to], name=call.name)


def _where(call: Call) -> Any:
    return Builder.select(cond=call.variable(0), a=call.variable(1), b=call.variable(2), name=call.name)


def _is_float(x: Any) -> bool:
    return bool(x.dtype.kind == "f" if isinstance(x, np.ndarray | np.generic) else types.is_float(x.dtype))


# Quantised ---------------------------------------------------------------------------------------------


def _quantize(call: Call) -> Any:
    scale, zero = _grid(call)
    return Builder.quantize(input=call.variable(), scale=scale, zero_point=zero, output_dtype="int8", name=call.name)


def _dequantize(call: Call) -> Any:
    scale, zero = _grid(call)
    return Builder.dequantize(input=call.variable(), scale=scale, zero_point=zero, name=call.name)


def _grid(call: Call) -> tuple[Any, Any]:
    """Scale and zero point of a tensor's range, which is always written on signed bytes: the grid is the same."""
    scale, zero = call.constant(1), call.constant(2, np.uint8(0))
    one = scale.size == 1 and zero.size == 1 and zero.dtype in (np.int8, np.uint8)
    call.refuse_unless(one, "its range is not one of 8 bits for a whole tensor")
    return np.float32(scale.item()), np.int8(int(zero.item()) - (128 if zero.dtype == np.uint8 else 0))


# Shapes ------------------------------------------------------------------------------------------------


def _shape(call: Call) -> Any:
    x = call.variable()
    rank = len(x.shape)
    start, end = call.attributes.get("start", 0), call.attributes.get("end", rank)
    sizes = shape_of(x)[start:end]
    if None not in sizes:
        return np.array(sizes, np.int32)
    whole = Builder.shape(x=x, name=f"{call.name}_whole")
    start, end = (value + rank if value < 0 else min(value, rank) for value in (start, end))
    return Builder.slice_by_index(x=whole, begin=[start], end=[end], name=call.name)


def _reshape(call: Call) -> Any:
    x, wanted = call.variable(0), call.taken[1]
    if not isinstance(wanted, np.ndarray):
        return Builder.reshape(x=x, shape=call.variable(1), name=call.name)
    sizes = shape_of(x)
    target = [sizes[index] if size == 0 else int(size) for index, size in enumerate(wanted.tolist())]
    unknown = sum(size is None or size == -1 for size in target)
    call.refuse_unless(unknown <= 1, "more than one size of its result is known at run time only")
    return Builder.reshape(x=x, shape=[-1 if size is None else size for size in target], name=call.name)


def _flatten(call: Call) -> Any:
    axis = call.attributes.get("axis", 1)
    sizes = shape_of(call.variable())
    front, back = sizes[:axis], sizes[axis:]
    call.refuse_unless(None not in front or None not in back, "its sizes are known at run time only")
    shape = [-1, int(np.prod(back))] if None in front else [int(np.prod(front)), -1]  # type: ignore[arg-type]
    return Builder.reshape(x=call.variable(), shape=shape, name=call.name)


def _transpose(call: Call) -> Any:
    x = call.variable()
    return Builder.transpose(x=x, perm=call.attributes.get("perm", list(range(len(x.shape)))[::-1]), name=call.name)


def _unsqueeze(call: Call) -> Any:
    return Builder.expand_dims(x=call.variable(), axes=_axes(call), name=call.name)


def _squeeze(call: Call) -> Any:
    return Builder.squeeze(x=call.variable(), axes=_axes(call), name=call.name)


def _axes(call: Call) -> list[int]:
    """Axes, which older ONNX has as an attribute and newer as an input; none means all."""
    found = call.attributes.get("axes", call.constant(1))
    return list(range(len(call.variable().shape))) if found is None else [int(axis) for axis in found]


def _concat(call: Call) -> Any:
    values = [call.variable(index) for index in range(len(call.taken))]
    return Builder.concat(values=values, axis=call.attributes["axis"], name=call.name)


def _split(call: Call) -> Any:
    axis, sizes = call.attributes.get("axis", 0), call.attributes.get("split", call.constant(1))
    parts = {"num_splits": len(call.node.output)} if sizes is None else {"split_sizes": [int(size) for size in sizes]}
    return Builder.split(x=call.variable(), axis=axis, name=call.name, **parts)


def _slice(call: Call) -> Any:
    """One run along each named axis; a bound may be known at run time only."""
    x = call.variable()
    rank = len(x.shape)
    axes = [int(axis) % rank for axis in call.constant(3, np.arange(rank))]
    strides, steps = [1] * rank, call.constant(4)
    for axis, step in zip(axes, [1] * len(axes) if steps is None else steps, strict=True):
        strides[axis] = int(step)
    call.refuse_unless(all(step > 0 for step in strides), "it goes backwards")
    begin, begin_open = _bounds(call, 1, axes, rank)
    end, end_open = _bounds(call, 2, axes, rank)
    limits = {"begin": begin, "end": end, "stride": strides, "begin_mask": begin_open, "end_mask": end_open}
    return Builder.slice_by_index(x=x, name=call.name, **limits)


def _bounds(call: Call, index: int, axes: Sequence[int], rank: int) -> tuple[Any, list[bool]]:
    """A bound for each axis of x, and which axes have none."""
    is_open = [axis not in axes for axis in range(rank)]
    given = call.variable(index)
    if isinstance(given, np.ndarray):
        whole = np.zeros(rank, np.int32)
        whole[axes] = given
        if index == 2:
            is_open = [is_open[axis] or whole[axis] == 2**31 - 1 for axis in range(rank)]
            whole[is_open] = 0
        return whole, is_open
    call.refuse_unless(len(axes) == 1, "bounds of several axes are known at run time only")
    around = [np.zeros(axes[0], np.int32), given, np.zeros(rank - 1 - axes[0], np.int32)]
    parts = [part for part in around if not isinstance(part, np.ndarray) or part.size]
    whole = given if len(parts) == 1 else Builder.concat(values=parts, axis=0, name=f"{call.name}_bounds_{index}")
    return whole, is_open


def _gather(call: Call) -> Any:
    table, axis = call.taken[0], call.attributes.get("axis", 0)
    x = table.variable() if isinstance(table, Grid) else call.variable(0)
    return Builder.gather(x=x, indices=call.variable(1), axis=axis, name=call.name)


def _expand(call: Call) -> Any:
    sizes, target = shape_of(call.variable()), call.constant(1)
    call.refuse_unless(len(sizes) == len(target) and None not in sizes, "its sizes are known at run time only")
    times = [int(want) if size == 1 else 1 for size, want in zip(sizes, target, strict=True)]
    return Builder.tile(x=call.variable(), reps=times, name=call.name)


def _pad(call: Call) -> Any:
    amounts, mode = call.attributes.get("pads", call.constant(1)), call.attributes.get("mode", b"constant").decode()
    call.refuse_unless(mode == "constant" and call.constant(3) is None, f"it pads by {mode}")
    rank = len(amounts) // 2
    pairs = [int(amounts[axis + side * rank]) for axis in range(rank) for side in (0, 1)]
    value = call.attributes.get("value", call.constant(2, 0.0))
    return Builder.pad(x=call.variable(), pad=pairs, constant_val=np.float32(value), name=call.name)


def _reduce(operation: Callable[..., Any]) -> Rule:
    def rule(call: Call) -> Any:
        keep = bool(call.attributes.get("keepdims", 1))
        return operation(x=call.variable(), axes=_axes(call), keep_dims=keep, name=call.name)

    return rule


# Layers ------------------------------------------------------------------------------------------------


def _matmul(call: Call) -> Any:
    weight = call.taken[1]
    if isinstance(weight, Grid) and weight.codes.ndim == 2:
        return Builder.linear(x=call.variable(0), weight=weight.variable(turned=True), name=call.name)
    if isinstance(weight, np.ndarray) and weight.ndim == 2:
        return Builder.linear(x=call.variable(0), weight=np.ascontiguousarray(weight.T), name=call.name)
    return Builder.matmul(x=call.variable(0), y=call.variable(1), name=call.name)


def _gemm(call: Call) -> Any:
    options, weight = call.attributes, call.taken[1]
    plain = options.get("alpha", 1.0) == 1 and options.get("beta", 1.0) == 1 and not options.get("transA", 0)
    call.refuse_unless(plain, "it scales or turns its input")
    turned = not options.get("transB", 0)
    if isinstance(weight, Grid):
        stored = weight.variable(turned=turned)
    else:
        array = call.constant(1)
        stored = np.ascontiguousarray(array.T if turned else array)
    if not call.has(2):
        return Builder.linear(x=call.variable(0), weight=stored, name=call.name)
    product = Builder.linear(x=call.variable(0), weight=stored, name=f"{call.name}_product")
    return Builder.add(x=product, y=call.variable(2), name=call.name)


def _window(call: Call) -> dict[str, Any]:
    """Strides and padding of a window that moves over an image, as ONNX gives them."""
    spatial = len(call.variable().shape) - 2
    auto = call.attributes.get("auto_pad", b"NOTSET").decode()
    call.refuse_unless(auto in ("NOTSET", "VALID", "SAME_LOWER", "SAME_UPPER"), f"it pads by {auto}")
    strides = list(call.attributes.get("strides", [1] * spatial))
    if auto in ("SAME_LOWER", "SAME_UPPER"):
        return {"strides": strides, "pad_type": "same_lower" if auto == "SAME_LOWER" else "same"}
    pads = list(call.attributes.get("pads", [0] * 2 * spatial)) if auto == "NOTSET" else [0] * 2 * spatial
    pairs = [int(pads[axis + side * spatial]) for axis in range(spatial) for side in (0, 1)]
    return {"strides": strides, "pad_type": "custom", "pad": pairs}


def _conv(call: Call) -> Any:
    weight = call.taken[1]
    stored = weight.variable() if isinstance(weight, Grid) else narrow(call.constant(1))
    spatial = len(shape_of(call.variable())) - 2
    options = _window(call) | {
        "dilations": list(call.attributes.get("dilations", [1] * spatial)),
        "groups": call.attributes.get("group", 1),
    }
    if call.has(2):
        bias = call.taken[2]
        options["bias"] = narrow(bias if isinstance(bias, np.ndarray) else call.constant(2))
    return Builder.conv(x=call.variable(), weight=stored, name=call.name, **options)


def _batch_norm(call: Call) -> Any:
    gamma, beta, mean, variance = (narrow(call.constant(index)) for index in (1, 2, 3, 4))
    epsilon = np.float32(call.attributes.get("epsilon", 1e-5))
    given = {"mean": mean, "variance": variance, "gamma": gamma, "beta": beta, "epsilon": epsilon}
    return Builder.batch_norm(x=call.variable(), name=call.name, **given)


def _layer_norm(call: Call) -> Any:
    x, axis = call.variable(), call.attributes.get("axis", -1)
    rank = len(x.shape)
    axes = list(range(axis % rank, rank))
    epsilon = np.float32(call.attributes.get("epsilon", 1e-5))
    gains = {"gamma": narrow(call.constant(1))} | ({"beta": narrow(call.constant(2))} if call.has(2) else {})
    return Builder.layer_norm(x=x, axes=axes, epsilon=epsilon, name=call.name, **gains)


def _max_pool(call: Call) -> Any:
    ones = all(step == 1 for step in call.attributes.get("dilations", [1]))
    call.refuse_unless(ones and len(call.node.output) == 1, "its window has gaps, or places are asked for")
    ceil = bool(call.attributes.get("ceil_mode", 0))
    sizes = list(call.attributes["kernel_shape"])
    return Builder.max_pool(x=call.variable(), kernel_sizes=sizes, ceil_mode=ceil, name=call.name, **_window(call))


def _average_pool(call: Call) -> Any:
    call.refuse_unless(all(step == 1 for step in call.attributes.get("dilations", [1])), "its window has gaps")
    options = {
        "ceil_mode": bool(call.attributes.get("ceil_mode", 0)),
        "exclude_padding_from_average": not call.attributes.get("count_include_pad", 0),
    }
    sizes = list(call.attributes["kernel_shape"])
    return Builder.avg_pool(x=call.variable(), kernel_sizes=sizes, name=call.name, **options, **_window(call))


def _global(operation: Callable[..., Any]) -> Rule:
    def rule(call: Call) -> Any:
        axes = list(range(2, len(call.variable().shape)))
        return operation(x=call.variable(), axes=axes, keep_dims=True, name=call.name)

    return rule


TABLE: dict[str, Rule] = {
    "Add": _binary(Builder.add),
    "Sub": _binary(Builder.sub),
    "Mul": _binary(Builder.mul),
    "Div": _div,
    "Pow": _binary(Builder.pow),
    "Max": _binary(Builder.maximum),
    "Min": _binary(Builder.minimum),
    "Sum": _binary(Builder.add),
    "Equal": _compared(Builder.equal),
    "Greater": _compared(Builder.greater),
    "Less": _compared(Builder.less),
    "GreaterOrEqual": _compared(Builder.greater_equal),
    "LessOrEqual": _compared(Builder.less_equal),
    "And": _compared(Builder.logical_and),
    "Or": _compared(Builder.logical_or),
    "Not": _unary(Builder.logical_not),
    "Relu": _unary(Builder.relu),
    "Sigmoid": _unary(Builder.sigmoid),
    "Tanh": _unary(Builder.tanh),
    "Erf": _unary(Builder.erf),
    "Exp": _unary(Builder.exp),
    "Sqrt": _unary(Builder.sqrt),
    "Abs": _unary(Builder.abs),
    "Round": _unary(Builder.round),
    "Floor": _unary(Builder.floor),
    "Ceil": _unary(Builder.ceil),
    "Softsign": _unary(Builder.softsign),
    "Identity": _identity,
    "Dropout": _identity,
    "Neg": _neg,
    "Reciprocal": _reciprocal,
    "Clip": _clip,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky,
    "Softmax": _softmax,
    "Cast": _cast,
    "Where": _where,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Shape": _shape,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
    "Pad": _pad,
    "ReduceSum": _reduce(Builder.reduce_sum),
    "ReduceMean": _reduce(Builder.reduce_mean),
    "ReduceMax": _reduce(Builder.reduce_max),
    "ReduceMin": _reduce(Builder.reduce_min),
    "ReduceL2": _reduce(Builder.reduce_l2_norm),
    "ReduceSumSquare": _reduce(Builder.reduce_sum_square),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(Builder.reduce_mean),
    "GlobalMaxPool": _global(Builder.reduce_max),
}
