"""A Graph: an ONNX model whose weights stand apart, so that they can be annotated.

The door for any model, and what every Network is lowered to. The proto holds nodes, ports and no
initialisers; `weights` holds every initialiser by name. `reference` puts both together again as plain
ONNX that any conforming engine can execute: the truth that converters and runtimes are held against.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as _replace
from typing import Self

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tightrope.ports import Port
from tightrope.workshop.model import Convolution, Linear, Senses, Table, Task
from tightrope.workshop.numerics.quantized import Array, Quantized, Scheme, Weight

OPSET = 21
IR_VERSION = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """An annotated ONNX model.

    `schemes` is keyed by the weight of the layer whose input it describes. Keyed by a value that a node gives, a scheme
    with a static range says that the value itself is rounded, for whoever takes it: between two convolutions, where
    engines that run on integers throughout need a grid.
    """

    proto: onnx.ModelProto
    weights: Mapping[str, Weight]
    senses: Senses
    task: Task
    origin: str
    digest: str
    schemes: Mapping[str, Scheme] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The ports of the graph's inputs."""
        return tuple(_port(item) for item in self.proto.graph.input)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The ports of the graph's outputs."""
        return tuple(_port(item) for item in self.proto.graph.output)

    def linears(self) -> tuple[Linear, ...]:
        """Every MatMul or Gemm with a constant float matrix on the right."""
        return tuple(_linears(self))

    def convolutions(self) -> tuple[Convolution, ...]:
        """Every Conv with constant float weights."""
        return tuple(_convolutions(self))

    def tables(self) -> tuple[Table, ...]:
        """Every constant matrix that is gathered from; the vocabulary is the one gathered by the ids' port."""
        found = {}
        for node in self.proto.graph.node:
            if node.op_type == "Gather" and node.input[0] in self.weights:
                shape = self.weights[node.input[0]].shape
                if len(shape) == 2:
                    found[node.input[0]] = node.input[1] == "input_ids"
        return tuple(Table(weight=name, is_vocabulary=flag) for name, flag in found.items())

    def rewrite(
        self,
        *,
        weights: Mapping[str, Weight] | None = None,
        schemes: Mapping[str, Scheme] | None = None,
        senses: Senses | None = None,
    ) -> Self:
        """The same graph with some weights, schemes or the senses replaced; see `Model.rewrite`."""
        halved = [
            name for name, weight in (weights or {}).items() if is_half(weight) and not is_half(self.weights[name])
        ]
        return _replace(
            self,
            proto=widen(self.proto, halved) if halved else self.proto,
            weights={**self.weights, **(weights or {})},
            schemes={**self.schemes, **(schemes or {})},
            senses=senses or self.senses,
        )


def _port(item: onnx.ValueInfoProto) -> Port:
    tensor = item.type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return Port(item.name, dtype, tuple(dim.dim_param or int(dim.dim_value) for dim in tensor.shape.dim))


def _linears(graph: Graph) -> Iterator[Linear]:
    nodes = graph.proto.graph.node
    widened = widenings(graph)
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def own_bias(name: str, width: int) -> str | None:
        """A vector that this layer alone adds, and that may therefore be rewritten for it."""
        stored = widened.get(name, name)
        alone = len(consumers[name]) == 1 and len(consumers[stored]) == 1
        return stored if alone and stored in graph.weights and graph.weights[stored].shape == (width,) else None

    for node in nodes:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        weight = widened.get(node.input[1], node.input[1])
        settings = {item.name: item.i if item.name.startswith("trans") else item.f for item in node.attribute}
        if settings.get("transA", 0) or settings.get("alpha", 1) != 1 or settings.get("beta", 1) != 1:
            continue  # a scaled product is no plain linear layer
        if weight not in graph.weights or not _is_matrix(graph.weights[weight]) or node.input[0] in graph.weights:
            continue
        out_axis = 0 if settings.get("transB", 0) else 1
        width = graph.weights[weight].shape[out_axis]
        bias = own_bias(node.input[2], width) if node.op_type == "Gemm" and len(node.input) > 2 else None
        following = consumers.get(node.output[0], [])
        if node.op_type == "MatMul" and len(following) == 1 and following[0].op_type == "Add":
            bias = next((found for name in following[0].input if (found := own_bias(name, width))), None)
        yield Linear(
            name=node.name or weight,
            weight=weight,
            bias=bias,
            source=node.input[0],
            out_axis=out_axis,
        )


ACTIVATIONS = ("Relu", "Clip")
"""What an engine does while it writes a convolution's result, and a grid that ends where they do makes needless."""


def _convolutions(graph: Graph) -> Iterator[Convolution]:
    nodes = graph.proto.graph.node
    widened = widenings(graph)
    ends = {item.name for item in graph.proto.graph.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in nodes:
        weight = widened.get(node.input[1], node.input[1]) if node.op_type == "Conv" else ""
        if weight not in graph.weights or node.input[0] in graph.weights:
            continue
        following = users.get(node.output[0], [])
        acts = len(following) == 1 and following[0].op_type in ACTIVATIONS and node.output[0] not in ends
        bias = node.input[2] if len(node.input) > 2 else None
        yield Convolution(
            name=node.name or weight,
            weight=weight,
            bias=None if bias is None else widened.get(bias, bias),
            source=node.input[0],
            output=following[0].output[0] if acts else node.output[0],
            groups=next((item.i for item in node.attribute if item.name == "group"), 1),
        )


def between(graph: Graph, weights: Collection[str] | None = None) -> tuple[str, ...]:
    """What convolutions and the sums of what they give hand on, behind the Relu or Clip that a sum alone feeds.

    Of the convolutions with these weights, or of all of them; never what the graph itself gives.
    """
    found = {conv.output: None for conv in graph.convolutions() if weights is None or conv.weight in weights}
    ends = set(found)
    uses: Counter[str] = Counter(name for node in graph.proto.graph.node for name in node.input)
    sums: set[str] = set()
    for node in graph.proto.graph.node:
        if node.op_type == "Add" and not ends.isdisjoint(node.input):
            sums.add(node.output[0])
        elif node.op_type in ACTIVATIONS and node.input[0] in sums and uses[node.input[0]] == 1:
            del found[node.input[0]]
        else:
            continue
        ends.add(node.output[0])
        found[node.output[0]] = None
    outputs = {item.name for item in graph.proto.graph.output}
    return tuple(name for name in found if name not in outputs)


def _is_matrix(weight: Weight) -> bool:
    return len(weight.shape) == 2 and (isinstance(weight, Quantized) or is_float(weight))


def widenings(graph: Graph) -> dict[str, str]:
    """The weights that are stored in half precision, by the name of their values in float32."""
    casts = (node for node in graph.proto.graph.node if node.op_type == "Cast" and node.input[0] in graph.weights)
    return {node.output[0]: node.input[0] for node in casts}


def widen(proto: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """The same structure, made for these weights to be stored in half precision: each is cast to float32 for its users.

    Of a table only the rows that were gathered are cast, so that no engine keeps a wide copy of it.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(proto)
    del wide.graph.node[:]
    halved = set(names)
    written: set[str] = set()
    for original in proto.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.op_type == "Gather" and node.input[0] in halved:
            output = node.output[0]
            node.output[0] = f"{output}.half"
            cast = helper.make_node("Cast", [node.output[0]], [output], name=f"{output}.float", to=TensorProto.FLOAT)
            wide.graph.node.extend([node, cast])
            continue
        for index, name in enumerate(node.input):
            if name not in halved:
                continue
            node.input[index] = f"{name}.float"
            if name not in written:
                cast = helper.make_node("Cast", [name], [f"{name}.float"], name=f"{name}.float", to=TensorProto.FLOAT)
                wide.graph.node.append(cast)
                written.add(name)
        wide.graph.node.append(node)
    return wide


class Builder:
    """Collects nodes with readable names; a name given to a node is its output's name too."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Weight] = {}

    def node(self, op: str, inputs: list[str], name: str, *, domain: str = "", **attributes: object) -> str:
        """Append one node with one output and return the output's name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def split(self, op: str, inputs: list[str], names: list[str], **attributes: object) -> list[str]:
        """Append one node with several outputs."""
        self.nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names

    def weight(self, name: str, value: Weight) -> str:
        """Declare a weight; a name may be declared once."""
        assert name not in self.weights, name
        self.weights[name] = value
        return name

    def constant(self, value: Array | list[int] | float, name: str) -> str:
        """Declare a small constant: a list of ints becomes int64, a float float32."""
        array = np.asarray(value, np.int64 if isinstance(value, list) else None)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        if name not in self.weights:
            self.weights[name] = array
        return name

    def proto(self, name: str, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> onnx.ModelProto:
        """The finished structure, without initialisers."""
        graph = helper.make_graph(
            self.nodes, name, [value_info(port) for port in inputs], [value_info(p) for p in outputs]
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="tightrope"
        )


def value_info(port: Port) -> onnx.ValueInfoProto:
    """A port as ONNX declares it."""
    return helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), port.shape)


def tensor(name: str, array: Array, onnx_type: int | None = None) -> TensorProto:
    """An initialiser; `onnx_type` INT4 or UINT4 packs one-byte codes two to a byte."""
    if onnx_type in (TensorProto.INT4, TensorProto.UINT4):
        flat = array.astype(np.uint8).ravel() & 15
        padded = np.append(flat, np.zeros(flat.size % 2, np.uint8))
        packed = (padded[0::2] | (padded[1::2] << 4)).tobytes()
        return helper.make_tensor(name, onnx_type, array.shape, packed, raw=True)
    return numpy_helper.from_array(np.asarray(array, order="C"), name)  # ascontiguousarray would turn () into (1,)


def is_float(weight: Weight) -> bool:
    """Whether a weight holds plain floating-point values of any width."""
    return not isinstance(weight, Quantized) and (weight.dtype.kind == "f" or weight.dtype.name == "bfloat16")


def is_half(weight: Weight) -> bool:
    """Whether a weight holds floating-point values of two bytes."""
    return is_float(weight) and not isinstance(weight, Quantized) and weight.dtype.itemsize == 2


def normalized(graph: Graph) -> frozenset[str]:
    """The weights of the linear layers whose input comes straight out of a layer norm."""
    norms = {node.output[0] for node in graph.proto.graph.node if node.op_type == "LayerNormalization"}
    return frozenset(linear.weight for linear in graph.linears() if linear.source in norms)
