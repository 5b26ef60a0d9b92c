"""The plain executable reference of an annotated model: what every engine's form is held against.

Weights on a grid are written as DequantizeLinear (ONNX opset 21, blocked and 4-bit where they are), a layer's
scheme as plain arithmetic on its input: shift, smooth, rotation, and rounding to the grid and back. Any conforming
engine can execute it; it is slow and true.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from tightrope.workshop.graph import Graph, tensor, widenings
from tightrope.workshop.model import Linear, Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.hadamard import hadamard
from tightrope.workshop.numerics.quantized import Array, Quantized, Scheme, kept_name

LEAST = 1e-12
"""No range is narrower: a tensor of zeros has a grid too."""


def reference(model: Model) -> onnx.ModelProto:
    """The model as plain ONNX: float arithmetic on quantised values."""
    graph = lower(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    linears = [linear for linear in graph.linears() if linear.weight in graph.schemes]
    rounded = {linear.weight: _rounding(graph, linear, linears) for linear in linears}
    rounded |= _convolution_roundings(graph)
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
        if node.op_type in ("MatMul", "Gemm", "Conv") and weight_name in rounded:
            extra, constants, output = rounded[weight_name]
            if output not in written:
                proto.graph.node.extend(extra)
                proto.graph.initializer.extend(tensor(key, value) for key, value in constants.items())
                written.add(output)
            node.input[0] = output
            if graph.schemes[weight_name].kept is not None:
                after = _add_kept(node, kept_name(weight_name))
        for place, name in enumerate(node.output):
            if name in graph.schemes:
                node.output[place] = f"{name}.exact"
                after += _handed_on(proto, name, graph.schemes[name])
        proto.graph.node.append(node)
        proto.graph.node.extend(after)
    return proto


def _convolution_roundings(graph: Graph) -> dict[str, tuple[list[onnx.NodeProto], dict[str, Array], str]]:
    """By weight, as `_rounding` gives them; a scheme of a convolution does nothing but round."""
    found = {}
    for convolution in graph.convolutions():
        scheme = graph.schemes.get(convolution.weight)
        if scheme is not None:
            assert scheme.static is not None and scheme.shift is None and scheme.smooth is None
            written = _Rounding(f"{convolution.source}.for.{convolution.weight}", scheme)
            output = written.rounded(convolution.source, 0)
            found[convolution.weight] = (written.nodes, written.constants, output)
    return found


def _handed_on(proto: onnx.ModelProto, name: str, scheme: Scheme) -> list[onnx.NodeProto]:
    """The rounding of a value, which is `<name>.exact` before it."""
    written = _Rounding(f"{name}.exact", scheme)
    output = written.rounded(f"{name}.exact", 0)
    proto.graph.initializer.extend(tensor(key, value) for key, value in written.constants.items())
    written.nodes[-1].output[0] = name
    assert output == written.nodes[-1].name
    return written.nodes


def opened(proto: onnx.ModelProto, *, threads: int = 0) -> Any:
    """A session of ONNX Runtime that executes a reference as it is written; `threads` 0 leaves their number to it.

    Only basic optimisation: beyond it ONNX Runtime (seen in 1.31) turns DequantizeLinear and MatMul into MatMulNBits,
    which rounds the layer's input to eight bits though nobody asked for it.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


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


def _rounding(
    graph: Graph, linear: Linear, linears: Sequence[Linear]
) -> tuple[list[onnx.NodeProto], dict[str, Array], str]:
    """Nodes that prepare and round the layer's input; layers that share an input and a scheme share them."""
    scheme = graph.schemes[linear.weight]
    sharing = (item for item in linears if item.source == linear.source and graph.schemes[item.weight] is scheme)
    written = _Rounding(f"{linear.source}.for.{next(sharing).weight}", scheme)
    output = written.rounded(linear.source, graph.weights[linear.weight].shape[1 - linear.out_axis])
    return written.nodes, written.constants, output


class _Rounding:
    """Writes one scheme as nodes, whose names all begin with `base`."""

    def __init__(self, base: str, scheme: Scheme) -> None:
        self.base, self.scheme = base, scheme
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def rounded(self, source: str, width: int) -> str:
        """The input, `width` features wide, as the layer takes it: prepared, and on its grid if it has one."""
        current, scheme = self._prepared(source), self.scheme
        if scheme.kept is not None:
            others = np.ones(width, np.float32)
            others[scheme.kept] = 0
            self._node("Gather", "kept", current, self._constant(scheme.kept, "kept.index", np.int64), axis=-1)
            current = self._node("Mul", "others", current, self._constant(others, "kept.mask"))
        if scheme.bits is None:
            return current
        return self._symmetric(current) if scheme.symmetric else self._asymmetric(current)

    def _prepared(self, current: str) -> str:
        if self.scheme.shift is not None:
            current = self._node("Sub", "shifted", current, self._constant(self.scheme.shift, "shift"))
        if self.scheme.smooth is not None:
            current = self._node("Div", "smoothed", current, self._constant(self.scheme.smooth, "smooth"))
        if self.scheme.rotation is not None:
            current = self._rotated(current, self.scheme.rotation)
        return current

    def _rotated(self, current: str, length: int) -> str:
        shape = self._node("Shape", "shape", current)
        blocks = self._node("Reshape", "blocks", current, self._constant([-1, length], "block", np.int64))
        turned = self._node("MatMul", "turned", blocks, self._constant(hadamard(length), "hadamard"))
        return self._node("Reshape", "rotated", turned, shape)

    def _symmetric(self, current: str) -> str:
        most = self._levels // 2
        if self.scheme.static is not None:
            scale = self._constant(max(*map(abs, self.scheme.static), LEAST) / most, "scale")
        else:
            largest = self._over_range("ReduceMax", "most", self._node("Abs", "abs", current))
            largest = self._node("Max", "range", largest, self._constant(LEAST, "least"))
            scale = self._node("Div", "scale", largest, self._constant(most, "levels"))
        codes = self._node("Round", "rounded", self._node("Div", "scaled", current, scale))
        codes = self._node("Clip", "clipped", codes, self._constant(-most, "low"), self._constant(most, "high"))
        return self._node("Mul", "restored", codes, scale)

    def _asymmetric(self, current: str) -> str:
        scale, zero = self._static_grid() if self.scheme.static is not None else self._dynamic_grid(current)
        codes = self._node("Round", "rounded", self._node("Div", "scaled", current, scale))
        codes = self._node("Add", "shifted.codes", codes, zero)
        codes = self._node(
            "Clip", "codes", codes, self._constant(0.0, "code.low"), self._constant(self._levels, "code.high")
        )
        return self._node("Mul", "restored", self._node("Sub", "centred", codes, zero), scale)

    def _static_grid(self) -> tuple[str, str]:
        assert self.scheme.static is not None
        low, high = min(self.scheme.static[0], 0.0), max(self.scheme.static[1], 0.0)
        step = max((high - low) / self._levels, LEAST)
        return self._constant(step, "scale"), self._constant(np.round(-low / step), "zero")

    def _dynamic_grid(self, current: str) -> tuple[str, str]:
        nought = self._constant(0.0, "nought")
        low = self._node("Min", "low", self._over_range("ReduceMin", "min", current), nought)
        high = self._node("Max", "high", self._over_range("ReduceMax", "max", current), nought)
        span = self._node("Max", "range", self._node("Sub", "span", high, low), self._constant(LEAST, "least"))
        scale = self._node("Div", "scale", span, self._constant(self._levels, "levels"))
        zero = self._node("Neg", "zero.exact", self._node("Div", "low.scaled", low, scale))
        return scale, self._node("Round", "zero", zero)

    @property
    def _levels(self) -> int:
        assert self.scheme.bits is not None
        return (1 << self.scheme.bits) - 1

    def _over_range(self, op: str, suffix: str, current: str) -> str:
        """Over the last axis for a token's range, over everything for a tensor's."""
        token = self.scheme.granularity == "token"
        return self._node(op, suffix, current, *([self._constant([-1], "axis", np.int64)] if token else []), keepdims=1)

    def _node(self, op: str, suffix: str, *inputs: str, **attributes: object) -> str:
        name = f"{self.base}.{suffix}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def _constant(self, value: object, suffix: str, dtype: type = np.float32) -> str:
        self.constants[f"{self.base}.{suffix}"] = np.asarray(value, dtype)
        return f"{self.base}.{suffix}"
