"""A graph as TVM is given it: plain ONNX in float, for one text of any length at a time, and what its weights are.

TVM's reader of ONNX knows no shapes that are made at run time, so positions are an input and the sizes behind a
rotation are written out.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, shape_inference

from tightrope.device.runtimes.tvm import POSITIONS
from tightrope.ports import Port
from tightrope.workshop.convert import _attention, _tables
from tightrope.workshop.convert._forms import Form, Layer, is_text, layers, refuse_bits
from tightrope.workshop.graph import Graph, value_info
from tightrope.workshop.numerics.hadamard import hadamard
from tightrope.workshop.numerics.quantized import Quantized, Weight, values

RULE = "its weights are widened when the file is opened, and its input stays in float"


class TvmForm(Form):
    """Walks the graph and writes it in float, for one text of any length at a time."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.in_float: dict[str, str] = {}
        self.approximations: dict[str, str] = {}
        self.stored: dict[str, Weight] = {}
        """Every weight as it is to be stored, by the name under which the library takes it."""
        self.listed: dict[str, tuple[str, int]] = {}
        """Each layer's precision, and its multiply-adds for each token or image."""
        self.limits: dict[str, int] = {}
        self.attention_width = 0
        self.is_text = is_text(graph)
        self._ranks = _ranks(graph)

    def write(self) -> tuple[bytes, bytes]:
        """The whole graph; see `Form.finish`."""
        known = layers(self.graph)
        self.attention_width = sum(block.heads * block.size for block in _attention.blocks(self.graph).values())
        added = {layer.output for layer in known.values() if layer.add is not None}
        tables = {name: _byte_by_byte(weight) for name, weight in self.graph.weights.items()}
        lengths: set[str] = set()
        for node in self.graph.proto.graph.node:
            output = node.output[0]
            if node.op_type == "Gather" and node.input[0] in self.graph.weights and self.is_text:
                self.limits[node.input[1]] = self.graph.weights[node.input[0]].shape[0]
            if output in known:
                self._layer(known[output])
            elif self.is_text and (node.op_type == "Shape" or (node.op_type == "Add" and lengths & {*node.input})):
                lengths.add(output)
            elif node.op_type == "Slice" and len(node.input) > 2 and node.input[2] in lengths:
                self._positions(node)
            elif node.op_type == "Cast" and node.input[0] in self.graph.weights:
                self._keep(output, self.graph.weights[node.input[0]])
            elif output not in added and not _tables.gather(self.build, node, tables):
                self._counted(node)
                self.copy(node)
        for name, value in self.build.weights.items():
            self.stored.setdefault(name, value)
        return self.finish({})

    @property
    def taken(self) -> list[Port]:
        """What the library takes before its weights."""
        if not self.is_text:
            return list(self.graph.inputs)
        texts = [Port(port.name, "int64", (1, "length")) for port in self.graph.inputs]
        return [*texts, Port(POSITIONS, "int64", ("length",))]

    def finish(self, imports: Any) -> tuple[bytes, bytes]:
        """The ONNX file with the inputs that the library takes."""
        whole = onnx.ModelProto()
        whole.CopyFrom(self.graph.proto)
        del whole.graph.input[:]
        whole.graph.input.extend(map(value_info, self.taken))
        graph, self.graph = self.graph, replace(self.graph, proto=whole)
        try:
            return super().finish(imports)
        finally:
            self.graph = graph

    def _keep(self, name: str, weight: Weight) -> None:
        """A weight that the library takes in float, stored as it is annotated."""
        self.build.weights[name] = values(weight)
        is_half = not isinstance(weight, Quantized) and weight.dtype == np.float16
        self.stored[name] = weight if isinstance(weight, Quantized) or is_half else values(weight)

    def _copy_weight(self, name: str) -> None:
        weight = self.graph.weights[name]
        if isinstance(weight, Quantized) or weight.dtype.kind == "f" or weight.dtype.name == "bfloat16":
            self._keep(name, weight)
        else:
            self.build.weights[name] = weight

    # Layers ------------------------------------------------------------------------------------------

    def _layer(self, layer: Layer) -> None:
        weight, scheme, name = self.across(layer), self.scheme(layer), layer.name
        refuse_bits(layer, scheme, "TVM")
        precision = "fp32"
        if isinstance(weight, Quantized):
            precision = "wint4" if weight.bits == 4 else "wint8"
            self.approximations[name] = RULE
        elif scheme.bits is not None:
            self.in_float[name] = "its weights are floats"
        self.count(layer, precision)
        self.listed[name] = precision, int(np.prod(weight.shape))
        kept, bias = self.kept(layer)
        source = self.prepared(layer, without_kept=False)
        stored = f"{name}.across"
        self._keep(stored, weight)
        parts = [self.build.node("MatMul", [source, stored], f"{name}.product.whole"), None, kept]
        if bias is not None:
            parts[1] = self.build.constant(bias.astype(np.float32), f"{name}.offsets")
        self.add(parts, layer)

    def _counted(self, node: onnx.NodeProto) -> None:
        """Note a convolution's weights and precision."""
        weight = self.graph.weights.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None:
            return
        name, precision = node.name or node.output[0], "fp32"
        if isinstance(weight, Quantized):
            precision = "wint4" if weight.bits == 4 else "wint8"
            self.approximations[name] = RULE
        self.runs[precision] += int(np.prod(weight.shape))
        self.listed[name] = precision, int(np.prod(weight.shape)) * self._ranks.get(node.output[0], (1, 1))[1]

    def _positions(self, node: onnx.NodeProto) -> None:
        """The first rows of a table, as many as the text has tokens: those of its positions."""
        table, start = self.graph.weights[node.input[0]], self.graph.weights[node.input[1]]
        assert not isinstance(start, Quantized)
        rows = values(table)[int(start.ravel()[0]) :]
        name = f"{node.output[0]}.rows"
        is_half = not isinstance(table, Quantized) and table.dtype == np.float16
        self._keep(name, rows.astype(np.float16) if is_half else rows)
        self.limits[POSITIONS] = len(rows)
        self.build.node("Gather", [name, POSITIONS], node.output[0], axis=0)

    def _rotated(self, current: str, length: int, name: str) -> str:
        """Each block of features times the Hadamard matrix; TVM reads no shape that is made at run time."""
        build, source = self.build, name.partition(".for.")[0]
        rank = self._ranks.get(source, (3, 1))[0]
        matrix = self.build.constant(hadamard(length), f"hadamard.{length}")
        shape = [1, -1, length] if rank == 3 and self.is_text else [0, -1, length] if rank == 3 else [-1, length]
        blocks = build.node("Reshape", [current, build.constant(shape, f"{name}.in")], f"{name}.blocks")
        turned = build.node("MatMul", [blocks, matrix], f"{name}.turned")
        width = self._width(name)
        back = [*shape[:-1], width]
        return build.node("Reshape", [turned, build.constant(back, f"{name}.out")], f"{name}.rotated")

    def _width(self, name: str) -> int:
        """How many features a layer takes, by the name that its prepared input bears."""
        weight = name.partition(".for.")[2].rpartition(".")[0]
        linear = next(item for item in self.graph.linears() if item.weight == weight)
        return int(self.graph.weights[weight].shape[1 - linear.out_axis])


def _byte_by_byte(weight: Weight) -> Weight:
    """A weight whose codes take a byte each: the operators that would unpack them are not all known to TVM."""
    return replace(weight, bits=8) if isinstance(weight, Quantized) else weight


def _ranks(graph: Graph) -> dict[str, tuple[int, int]]:
    """For each value its number of axes, and the product of the sizes behind the first two, where they are known."""
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    for name, weight in graph.weights.items():
        if not isinstance(weight, Quantized) and weight.dtype.kind in "iu" and weight.size < 64:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
        else:
            proto.graph.input.append(helper.make_tensor_value_info(name, 1, list(weight.shape)))
    found = {}
    for item in shape_inference.infer_shapes(proto).graph.value_info:
        dims = item.type.tensor_type.shape.dim
        found[item.name] = len(dims), int(np.prod([dim.dim_value or 1 for dim in dims[2:]]))
    return found
