"""MNN: an ONNX file read by its converter's library, then our own codes and scales put in.

MNN's converter rounds weights by a rule of its own. It is given the values on our grid instead; where the floats that
it stored are exactly these, our codes and scales take their place. Its library is called in this process: the commands
of its Python package install packages and report usage over the network.
"""

import hashlib
from dataclasses import replace

import numpy as np
import onnx

from tightrope.device.runtimes.mnn import BETWEEN, version
from tightrope.ports import listed
from tightrope.workshop.convert import _tables
from tightrope.workshop.convert._forms import Form, Layer, layers, refuse_bits
from tightrope.workshop.convert._mnn_file import Net, converted
from tightrope.workshop.converted import Converted, file_name
from tightrope.workshop.graph import Graph, is_float
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.numerics.quantized import Array, Quantized, Weight, values

RULE = "its weights are widened when the file is opened, and its input stays in float"


def convert(model: Model) -> Converted:
    """The structure as .mnn, all large arrays beside it."""
    form = _MnnForm(lower(model))
    proto, data = form.write()
    file, weights = converted(proto, (file_name(data, "bin"), data), form.settle)
    return Converted(
        engine="mnn",
        engine_version=version(),
        precision=form.precision,
        files={"model": ("mnn", file), "weights": ("bin", weights)},
        inputs=form.graph.inputs,
        outputs=form.graph.outputs,
        settings={
            "inputs": listed(form.graph.inputs),
            "outputs": listed(form.graph.outputs),
            "weights_bytes": len(weights),
            "precision": "high",
            "memory": "low",
        },
        floats=form.in_float,
        approximations=form.approximations,
    )


class _MnnForm(Form):
    """Walks the graph and writes it in float, remembering which weight of ours each product has."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.in_float: dict[str, str] = {}
        self.approximations: dict[str, str] = {}
        self._stored: dict[str, tuple[str, Weight]] = {}
        """By the digest of its values as [out, …]: what to store a product's weight as, and the layer's name."""

    def write(self) -> tuple[bytes, bytes]:
        """The whole graph; see `Form.finish`."""
        known = layers(self.graph)
        added = {layer.output for layer in known.values() if layer.add is not None}
        tables = {name: _byte_by_byte(weight) for name, weight in self.graph.weights.items()}
        for node in self.graph.proto.graph.node:
            output = node.output[0]
            if output in known:
                self._layer(known[output])
            elif node.op_type == "Conv":
                self._convolution(node)
            elif node.op_type == "Gelu" and not any(item.s == b"tanh" for item in node.attribute):
                self._gelu(node)
            elif node.op_type == "ReduceSumSquare":
                self._sum_of_squares(node)
            elif node.op_type == "Cast" and node.input[0] in self.graph.weights:
                self.build.weight(output, values(self.graph.weights[node.input[0]]))
            elif output not in added and not _tables.gather(self.build, node, tables):
                self.copy(node)
        return self.finish({})

    # Layers ------------------------------------------------------------------------------------------

    def _layer(self, layer: Layer) -> None:
        weight, scheme, name = self.across(layer), self.scheme(layer), layer.name
        refuse_bits(layer, scheme, "MNN")
        across = weight.transpose() if isinstance(weight, Quantized) else weight.T
        if scheme.bits is not None and not isinstance(weight, Quantized):
            self.in_float[name] = "its weights are floats"
        self._remember(name, across)
        kept, bias = self.kept(layer)
        source = self.prepared(layer, without_kept=False)
        stored = self.build.weight(f"{name}.across", values(weight))
        parts = [self.build.node("MatMul", [source, stored], f"{name}.whole"), None, kept]
        if bias is not None:
            parts[1] = self.build.constant(bias.astype(np.float32), f"{name}.offsets")
        self.add(parts, layer)

    def _convolution(self, node: onnx.NodeProto) -> None:
        """A convolution with its weight's values."""
        weight = self.graph.weights.get(node.input[1])
        if weight is not None:
            self._remember(node.name or node.input[1], weight)
        self.copy(node)

    def _copy_weight(self, name: str) -> None:
        """MNN is given floats of four bytes, whatever the grid: its constants have no others (3.6.1)."""
        weight = self.graph.weights[name]
        is_plain = not isinstance(weight, Quantized) and not is_float(weight)
        self.build.weights[name] = weight if is_plain else values(weight)

    def _remember(self, name: str, weight: Weight) -> None:
        """Note how a product's weight [out, …] is to be stored."""
        precision, reason = "fp32", None
        if isinstance(weight, Quantized):
            width = int(np.prod(weight.shape[1:]))
            if weight.block is None and weight.axis != 0:
                reason = "its scales belong to input features"
            elif weight.block is not None and (weight.axis != 1 or width % weight.block):
                reason = f"its inputs are no whole number of blocks of {weight.block}"
            else:
                precision = "wint4" if weight.bits == 4 else "wint8"
        if reason is not None:
            self.in_float[name] = reason
        elif isinstance(weight, Quantized) or weight.dtype == np.float16:
            self._stored[_digest(values(weight))] = name, weight
        self.runs[precision] += int(np.prod(weight.shape))

    def settle(self, net: Net) -> None:
        """Give each operator the weights that it is to have. Those whose floats are not ours are left as they are."""
        found = set()
        for operator in net.operators:
            if operator["type"] == "MatMul":
                operator["name"] += f".{BETWEEN}"
            if "external" not in operator.get("main", {}):
                continue
            is_product = operator["main_type"] == "Convolution2D"
            digest = _digest(net.array(operator)) if is_product else ""
            if digest not in self._stored:
                net.keep(operator)
                continue
            found.add(digest)
            name, weight = self._stored[digest]
            if isinstance(weight, Quantized):
                operator["name"] = f"{name}.{'wint4' if weight.bits == 4 else 'wint8'}"
                self.approximations[name] = RULE
                net.quantise(operator, weight)
            else:
                net.halve(operator)
        self._lost([self._stored[digest] for digest in self._stored.keys() - found])

    def _lost(self, stored: list[tuple[str, Weight]]) -> None:
        """Say which layers stay in float because MNN changed their weights, or has no operator for them."""
        for name, weight in sorted(stored, key=lambda item: item[0]):
            if isinstance(weight, Quantized):
                self.in_float[name] = "MNN merged its weights with what is around them"
                self.runs["wint4" if weight.bits == 4 else "wint8"] -= int(np.prod(weight.shape))
                self.runs["fp32"] += int(np.prod(weight.shape))

    # Operators that MNN reads wrongly ----------------------------------------------------------------

    def _gelu(self, node: onnx.NodeProto) -> None:
        """By the error function, which it makes one exact operator; ONNX's own becomes the one by tanh (3.6.1)."""
        build, x, name = self.build, node.input[0], node.output[0]
        scaled = build.node("Mul", [x, build.constant(2**-0.5, "gelu.root")], f"{name}.scaled")
        shifted = build.node(
            "Add", [build.node("Erf", [scaled], f"{name}.erf"), build.constant(1.0, "gelu.one")], f"{name}.shifted"
        )
        doubled = build.node("Mul", [shifted, x], f"{name}.doubled")
        build.node("Mul", [doubled, build.constant(0.5, "gelu.half")], name)

    def _sum_of_squares(self, node: onnx.NodeProto) -> None:
        """In two steps: in one it loses the kept axis or the squares (3.6.1)."""
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.op_type = "ReduceSum"
        plain.input[0] = self.build.node("Mul", [node.input[0], node.input[0]], f"{node.output[0]}.squares")
        self.copy(plain)


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, np.float32).tobytes()).hexdigest()


def _byte_by_byte(weight: Weight) -> Weight:
    """A weight whose codes take a byte each: MNN reads no operators on bits."""
    return replace(weight, bits=8) if isinstance(weight, Quantized) else weight
