"""What converters that speak ONNX share: layers with their bias, prepared inputs, tables of few bits, the written file.

A converter walks the nodes of a Graph in running order, writes its engine's form of what it knows (a layer, a table,
an attention block) through a `Form`, and copies the rest.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

from tightrope.errors import UnsupportedError
from tightrope.ports import Port
from tightrope.workshop.converted import file_name
from tightrope.workshop.graph import Builder, Graph, tensor, widenings
from tightrope.workshop.model import Linear
from tightrope.workshop.numerics.hadamard import hadamard
from tightrope.workshop.numerics.quantized import Array, Floats, Quantized, Scheme, kept_name, values

EXTERNAL_BYTES = 1024
"""Tensors from this size on lie in a file beside the ONNX file, which engines map into memory instead of copying."""
ALIGNMENT = 64
CONTRIB = "com.microsoft"


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer where it stands: its product, and the node that adds its bias if the product does not."""

    linear: Linear
    product: onnx.NodeProto
    add: onnx.NodeProto | None

    @property
    def name(self) -> str:
        """What people know the layer by."""
        return str(self.add.name if self.add is not None and self.add.name else self.linear.name)

    @property
    def output(self) -> str:
        """The name of what the layer gives, bias included."""
        return str((self.add or self.product).output[0])


def layers(graph: Graph) -> dict[str, Layer]:
    """The linear layers by the name of their product's output."""
    widened = widenings(graph)
    users = consumers(graph)
    linears = {(linear.source, linear.weight): linear for linear in graph.linears()}
    found = {}
    for node in graph.proto.graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        linear = linears.get((node.input[0], widened.get(node.input[1], node.input[1])))
        if linear is not None:
            add = users[node.output[0]][0] if node.op_type == "MatMul" and linear.bias is not None else None
            found[node.output[0]] = Layer(linear, node, add)
    return found


def consumers(graph: Graph) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that take each value."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.proto.graph.node:
        for name in dict.fromkeys(_taken(node)):
            found.setdefault(name, []).append(node)
    return found


def _taken(node: onnx.NodeProto) -> list[str]:
    """What a node takes, the bodies of its loops and branches included."""
    inner = [part.g for part in node.attribute if part.type == AttributeProto.GRAPH]
    return [*node.input, *(name for body in inner for child in body.node for name in _taken(child))]


class Form:
    """An engine's form of a graph in the making: a `Builder`, and what several layers share."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.build = graph, Builder()
        self.carried: dict[str, Floats] = {}
        """What the bias of a layer is to take in besides, by the layer's output."""
        self.runs: Counter[str] = Counter()
        """The weights of all layers by the precision that their products run in."""
        self._shared: dict[object, str] = {}
        self._kinds: dict[str, int] = {}

    def copy(self, node: onnx.NodeProto) -> None:
        """The node as it is, and the weights that it takes; a quantised one is given back its values."""
        for name in dict.fromkeys(_taken(node)):
            if name in self.graph.weights and ("copied", name) not in self._shared:
                self._shared["copied", name] = name
                self._copy_weight(name)
        self.build.nodes.append(node)

    def _copy_weight(self, name: str) -> None:
        weight = self.graph.weights[name]
        if not isinstance(weight, Quantized):
            self.build.weights[name] = weight
            return
        self.widened(weight, name)

    def widened(self, weight: Quantized, name: str) -> str:
        """The values of a quantised weight behind DequantizeLinear; 4 bits are stored as such."""
        inputs = [self._codes_of(f"{name}.codes", weight.codes, weight.bits)]
        inputs.append(self.build.weight(f"{name}.scale", weight.scale))
        if weight.zero_point is not None:
            inputs.append(self._codes_of(f"{name}.zero", weight.zero_point, weight.bits))
        blocks: dict[str, Any] = {"block_size": weight.block} if weight.block else {}
        return self.build.node("DequantizeLinear", inputs, name, axis=weight.axis, **blocks)

    def _codes_of(self, name: str, codes: Array, bits: int) -> str:
        if bits == 4:
            self._kinds[name] = TensorProto.INT4 if codes.dtype == np.int8 else TensorProto.UINT4
        return self.build.weight(name, codes)

    def count(self, layer: Layer, precision: str) -> None:
        """Note the precision in which the engine runs the layer's products."""
        self.runs[precision] += int(np.prod(self.graph.weights[layer.linear.weight].shape))

    @property
    def precision(self) -> str:
        """The precision of most multiply-adds: `int8`; `wint8` if only the weights are integers; `fp32` …"""
        return self.runs.most_common(1)[0][0] if self.runs else "fp32"

    def scheme(self, layer: Layer) -> Scheme:
        """How the layer's input is prepared; by default not at all."""
        return self.graph.schemes.get(layer.linear.weight, Scheme())

    def across(self, layer: Layer) -> Array | Quantized:
        """The layer's weight as [in, out]."""
        weight = self.graph.weights[layer.linear.weight]
        if layer.linear.out_axis == 1:
            return weight
        return weight.transpose() if isinstance(weight, Quantized) else np.ascontiguousarray(weight.T)

    def shared(self, what: str, layer: Layer, make: Callable[[str], str]) -> str:
        """A value made once for all layers with the same source and an equal scheme; `make` is given a name for it."""
        key = (what, layer.linear.source, identity(self.scheme(layer)))
        if key not in self._shared:
            self._shared[key] = make(f"{layer.linear.source}.for.{layer.linear.weight}.{what}")
        return self._shared[key]

    def share(self, what: str, layer: Layer, name: str) -> None:
        """Let a value that exists already serve as the one that `shared` would make."""
        self._shared[what, layer.linear.source, identity(self.scheme(layer))] = name

    def prepared(self, layer: Layer, *, without_kept: bool) -> str:
        """x' = (x - shift) / smooth, rotated; zero for the kept features if they are to take no part in a range."""
        scheme = self.scheme(layer)
        if scheme.rotation is not None and scheme.kept is not None:
            raise UnsupportedError(
                f"{layer.name} keeps features in float that are rotated.", hint="Rotate, or keep outliers: not both."
            )

        def make(name: str) -> str:
            current = layer.linear.source
            if scheme.shift is not None:
                shift = self.build.constant(scheme.shift, f"{name}.shift")
                current = self.build.node("Sub", [current, shift], f"{name}.shifted")
            factor = None if scheme.smooth is None else (1 / scheme.smooth).astype(np.float32)
            if without_kept and scheme.kept is not None:
                factor = np.ones(self.across(layer).shape[0], np.float32) if factor is None else factor.copy()
                factor[scheme.kept] = 0
            if factor is not None:
                current = self.build.node("Mul", [current, self.build.constant(factor, f"{name}.factor")], name)
            return current if scheme.rotation is None else self._rotated(current, scheme.rotation, name)

        return self.shared("others" if without_kept else "prepared", layer, make)

    def _rotated(self, current: str, length: int, name: str) -> str:
        """Each block of features times the Hadamard matrix."""
        build = self.build
        shape = build.node("Shape", [current], f"{name}.shape")
        blocks = build.node("Reshape", [current, build.constant([-1, length], f"blocks.{length}")], f"{name}.blocks")
        matrix = build.constant(hadamard(length), f"hadamard.{length}")
        turned = build.node("MatMul", [blocks, matrix], f"{name}.turned")
        return build.node("Reshape", [turned, shape], f"{name}.rotated")

    def kept(self, layer: Layer) -> tuple[str | None, Floats | None]:
        """The product of the features that stay float, or `None`; and the layer's bias with what their shift takes.

        Shift and smoothing are folded into the few float weights, so the features are gathered from x itself.
        """
        scheme, linear = self.scheme(layer), layer.linear
        bias = None if linear.bias is None else values(self.graph.weights[linear.bias])
        if layer.output in self.carried:
            assert bias is not None
            bias = bias + self.carried[layer.output]
        if scheme.kept is None:
            return None, bias
        weight = values(self.graph.weights[kept_name(linear.weight)])
        if scheme.smooth is not None:
            weight = weight / scheme.smooth[scheme.kept][:, None]
        if scheme.shift is not None:
            bias = -scheme.shift[scheme.kept] @ weight + (0 if bias is None else bias)
        kept = scheme.kept

        def gather(name: str) -> str:
            index = self.build.constant(kept.astype(np.int64), f"{name}.index")
            return self.build.node("Gather", [linear.source, index], name, axis=-1)

        features = self.shared("kept", layer, gather)
        stored = self.build.weight(kept_name(linear.weight), weight.astype(np.float32))
        return self.build.node("MatMul", [features, stored], f"{layer.name}.kept"), bias

    def add(self, parts: list[str | None], layer: Layer) -> None:
        """The layer's output as the sum of its parts; the last node is given the output's name."""
        present = [part for part in parts if part is not None]
        total = present[0]
        for index, part in enumerate(present[1:], 2):
            name = layer.output if index == len(present) else f"{layer.name}.sum.{index}"
            total = self.build.node("Add", [total, part], name)
        if total != layer.output:
            self.build.nodes[-1].output[0] = layer.output

    def floats(self, layer: Layer) -> None:
        """The layer in float arithmetic, with whatever its scheme does to its input before rounding."""
        scheme = self.scheme(layer)
        is_plain = scheme.smooth is None and scheme.shift is None and scheme.kept is None and scheme.rotation is None
        if is_plain and layer.output not in self.carried:
            self.copy(layer.product)
            if layer.add is not None:
                self.copy(layer.add)
            return
        product, bias = self.kept(layer)
        source = self.prepared(layer, without_kept=False)
        name = layer.name
        stored = self.build.weight(f"{layer.linear.weight}.across", values(self.across(layer)))
        parts = [product, self.build.node("MatMul", [source, stored], f"{name}.product")]
        if bias is not None:
            parts.append(self.build.constant(bias.astype(np.float32), f"{name}.bias.whole"))
        self.add(parts, layer)

    def finish(self, imports: Mapping[str, int]) -> tuple[bytes, bytes]:
        """The ONNX file and the file of its large tensors, which it calls by the name that a bundle gives it."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.graph.proto)
        del proto.graph.node[:], proto.graph.value_info[:]
        proto.graph.node.extend(self.build.nodes)
        proto.ir_version = max(proto.ir_version, 10)
        versions = {item.domain: item.version for item in proto.opset_import} | dict(imports)
        del proto.opset_import[:]
        proto.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())
        tensors = []
        for name, value in self.build.weights.items():
            assert not isinstance(value, Quantized), name  # each engine's form writes codes and scales by itself
            tensors.append(tensor(name, value, self._kinds.get(name)))
        data = _outside(tensors)
        proto.graph.initializer.extend(tensors)
        return proto.SerializeToString(deterministic=True), data


def _outside(tensors: list[TensorProto]) -> bytes:
    """Move the large tensors into one run of bytes."""
    large = [item for item in tensors if len(item.raw_data) >= EXTERNAL_BYTES]
    data, places = bytearray(), []
    for item in large:
        data += b"\0" * (-len(data) % ALIGNMENT)
        places.append(len(data))
        data += item.raw_data
    location = file_name(bytes(data), "bin")
    for item, offset in zip(large, places, strict=True):
        length = len(item.raw_data)
        item.ClearField("raw_data")
        item.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
            item.external_data.add(key=key, value=value)
    return bytes(data)


def is_text(graph: Graph) -> bool:
    """Whether a graph takes token ids."""
    return any(port.name == "input_ids" for port in graph.inputs)


def ragged_ports(graph: Graph) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """What a session takes and gives that answers texts one by one: ids and offsets; of other models what they take."""
    if not is_text(graph):
        return graph.inputs, graph.outputs
    taken = [Port("input_ids", "int32", ("tokens",)), Port("offsets", "int64", ("texts",))]
    if any(port.name == "token_type_ids" for port in graph.inputs):
        taken.append(Port("token_type_ids", "int32", ("tokens",)))
    return tuple(taken), tuple(Port(port.name, port.dtype, ("texts", *port.shape[1:])) for port in graph.outputs)


def identity(scheme: Scheme) -> tuple[object, ...]:
    """A key that equal schemes share."""
    arrays = (scheme.smooth, scheme.shift, scheme.kept)
    plain = (scheme.bits, scheme.granularity, scheme.symmetric, scheme.static, scheme.rotation)
    return plain + tuple(None if item is None else item.tobytes() for item in arrays)


def refuse_bits(layer: Layer, scheme: Scheme, engine: str) -> None:
    """Raise `UnsupportedError` for an input of other than 8 bits."""
    if scheme.bits not in (None, 8):
        raise UnsupportedError(
            f"{engine} cannot run {layer.name} with inputs of {scheme.bits} bits.", hint="Use 8 bits."
        )


def static_grid(scheme: Scheme) -> tuple[Array, Array]:
    """Scale (float32) and zero point (uint8) of a static range, as ONNX's QuantizeLinear takes them."""
    assert scheme.static is not None
    low, high = scheme.static
    if scheme.symmetric:
        return np.array(max(abs(low), abs(high), 1e-12) / 127, np.float32), np.array(128, np.uint8)
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / 255, 1e-12)
    return np.array(step, np.float32), np.array(np.clip(np.round(-low / step), 0, 255), np.uint8)


def signed(weight: Quantized) -> tuple[Array, Array]:
    """Codes as int8 whatever their dtype, and their zero points (zeros if there are none) as int8."""
    zero = np.zeros(weight.scale.shape, weight.codes.dtype) if weight.zero_point is None else weight.zero_point
    if weight.codes.dtype == np.int8 or weight.bits < 8:
        return weight.codes.astype(np.int8), zero.astype(np.int8)
    return (weight.codes ^ 128).view(np.int8), (zero ^ 128).view(np.int8)
