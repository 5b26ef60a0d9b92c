"""The plain executable reference of an annotated model: what every engine's form is held against.

Weights on a grid are written as DequantizeLinear (ONNX opset 21, blocked and 4-bit where they are), a layer's
scheme as plain arithmetic on its input: shift, smooth, and rounding to the grid and back. Any conforming engine
can execute it; it is slow and true.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper

from tightrope.workshop.graph import Graph, tensor, widenings
from tightrope.workshop.model import Linear, Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Array, Quantized, Scheme, kept_name


def reference(model: Model) -> onnx.ModelProto:
    """The model as plain ONNX: float arithmetic on quantised values."""
    graph = lower(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    rounded = {linear.weight: _rounding(graph, linear) for linear in graph.linears() if linear.weight in graph.schemes}
    for name, weight in graph.weights.items():
        if isinstance(weight, Quantized):
            initialisers, node = _dequantize(name, weight)
            proto.graph.initializer.extend(initialisers)
            proto.graph.node.append(node)
        else:
            proto.graph.initializer.append(tensor(name, weight))
    written: set[str] = set()
    widened = widenings(graph)
    for node in nodes:
        after: list[onnx.NodeProto] = []
        weight_name = widened.get(node.input[1], node.input[1]) if len(node.input) > 1 else ""
        if node.op_type in ("MatMul", "Gemm") and weight_name in rounded:
            extra, constants, output = rounded[weight_name]
            if output not in written:
                proto.graph.node.extend(extra)
                proto.graph.initializer.extend(tensor(key, value) for key, value in constants.items())
                written.add(output)
            node.input[0] = output
            if graph.schemes[weight_name].kept is not None:
                after = _add_kept(node, kept_name(weight_name))
        proto.graph.node.append(node)
        proto.graph.node.extend(after)
    return proto


def _add_kept(node: onnx.NodeProto, weight: str) -> list[onnx.NodeProto]:
    """The product of the features that stay float, added to the layer's; the layer's node is renamed in place."""
    name, features = node.output[0], f"{node.input[0].rpartition('.')[0]}.kept"
    node.output[0] = f"{name}.rounded"
    product = helper.make_node("MatMul", [features, weight], [f"{name}.kept"], name=f"{name}.kept")
    return [product, helper.make_node("Add", [f"{name}.rounded", f"{name}.kept"], [name], name=f"{name}.sum")]


def _dequantize(name: str, weight: Quantized) -> tuple[list[TensorProto], onnx.NodeProto]:
    """The codes, scale and zero point as initialisers, and the node whose output bears the weight's name."""
    signed = weight.codes.dtype == np.int8
    packed = (TensorProto.INT4 if signed else TensorProto.UINT4) if weight.bits == 4 else None
    parts = [tensor(f"{name}.codes", weight.codes, packed), tensor(f"{name}.scale", weight.scale)]
    inputs = [f"{name}.codes", f"{name}.scale"]
    if weight.zero_point is not None:
        parts.append(tensor(f"{name}.zero", weight.zero_point, packed))
        inputs.append(f"{name}.zero")
    attributes = {"axis": weight.axis} | ({"block_size": weight.block} if weight.block else {})
    return parts, helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}.dequantize", **attributes)


def _rounding(graph: Graph, linear: Linear) -> tuple[list[onnx.NodeProto], dict[str, Array], str]:
    """Nodes that prepare and round the layer's input; layers that share an input and a scheme share them."""
    scheme = graph.schemes[linear.weight]
    base = f"{linear.source}.for.{_label(graph, linear)}"
    constants: dict[str, Array] = {}
    width = graph.weights[linear.weight].shape[1 - linear.out_axis]
    nodes = list(_round_nodes(linear.source, base, scheme, width, constants))
    return nodes, constants, nodes[-1].output[0] if nodes else linear.source


def _label(graph: Graph, linear: Linear) -> str:
    """The first layer with the same source and the very same scheme."""
    scheme = graph.schemes[linear.weight]
    for other in graph.linears():
        if other.source == linear.source and graph.schemes.get(other.weight) is scheme:
            return other.weight
    return linear.weight


def _round_nodes(
    source: str, base: str, scheme: Scheme, width: int, constants: dict[str, Array]
) -> Iterator[onnx.NodeProto]:
    current = source

    def node(op: str, inputs: list[str], suffix: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [f"{base}.{suffix}"], name=f"{base}.{suffix}", **attributes)

    def constant(value: object, suffix: str, dtype: type = np.float32) -> str:
        constants[f"{base}.{suffix}"] = np.asarray(value, dtype)
        return f"{base}.{suffix}"

    if scheme.shift is not None:
        yield node("Sub", [current, constant(scheme.shift, "shift")], "shifted")
        current = f"{base}.shifted"
    if scheme.smooth is not None:
        yield node("Div", [current, constant(scheme.smooth, "smooth")], "smoothed")
        current = f"{base}.smoothed"
    if scheme.bits is None:
        return
    if scheme.kept is not None:
        mask = np.ones(width, np.float32)
        mask[scheme.kept] = 0
        yield node("Gather", [current, constant(scheme.kept, "kept.index", np.int64)], "kept", axis=-1)
        yield node("Mul", [current, constant(mask, "kept.mask")], "others")
        current = f"{base}.others"
    levels = 2**scheme.bits - 1
    if scheme.symmetric:
        most = levels // 2
        if scheme.static is not None:
            scale = constant(max(abs(scheme.static[0]), abs(scheme.static[1]), 1e-12) / most, "scale")
        else:
            yield node("Abs", [current], "abs")
            yield _reduce("ReduceMax", f"{base}.abs", base, "most", scheme, constants)
            yield node("Max", [f"{base}.most", constant(1e-12, "least")], "range")
            yield node("Div", [f"{base}.range", constant(most, "levels")], "scale")
            scale = f"{base}.scale"
        yield node("Div", [current, scale], "scaled")
        yield node("Round", [f"{base}.scaled"], "rounded")
        yield node("Clip", [f"{base}.rounded", constant(-most, "low"), constant(most, "high")], "clipped")
        yield node("Mul", [f"{base}.clipped", scale], "restored")
        return
    if scheme.static is not None:
        low, high = min(scheme.static[0], 0.0), max(scheme.static[1], 0.0)
        step = max((high - low) / levels, 1e-12)
        scale, zero = constant(step, "scale"), constant(np.round(-low / step), "zero")
    else:
        yield _reduce("ReduceMin", current, base, "min", scheme, constants)
        yield _reduce("ReduceMax", current, base, "max", scheme, constants)
        yield node("Min", [f"{base}.min", constant(0.0, "nought")], "low")
        yield node("Max", [f"{base}.max", f"{base}.nought"], "high")
        yield node("Sub", [f"{base}.high", f"{base}.low"], "span")
        yield node("Max", [f"{base}.span", constant(1e-12, "least")], "range")
        yield node("Div", [f"{base}.range", constant(levels, "levels")], "scale")
        yield node("Div", [f"{base}.low", f"{base}.scale"], "low.scaled")
        yield node("Neg", [f"{base}.low.scaled"], "zero.exact")
        yield node("Round", [f"{base}.zero.exact"], "zero")
        scale, zero = f"{base}.scale", f"{base}.zero"
    yield node("Div", [current, scale], "scaled")
    yield node("Round", [f"{base}.scaled"], "rounded")
    yield node("Add", [f"{base}.rounded", zero], "shifted.codes")
    yield node("Clip", [f"{base}.shifted.codes", constant(0.0, "code.low"), constant(levels, "code.high")], "codes")
    yield node("Sub", [f"{base}.codes", zero], "centred")
    yield node("Mul", [f"{base}.centred", scale], "restored")


def _reduce(
    op: str, current: str, base: str, suffix: str, scheme: Scheme, constants: dict[str, Array]
) -> onnx.NodeProto:
    """Over the last axis for a token's range, over everything for a tensor's."""
    inputs = [current]
    if scheme.granularity == "token":
        constants[f"{base}.axis"] = np.array([-1], np.int64)
        inputs.append(f"{base}.axis")
    return helper.make_node(op, inputs, [f"{base}.{suffix}"], name=f"{base}.{suffix}", keepdims=1)
