"""What converters that go through torch share: a graph as nodes for the bridge, its linear layers as nodes of our own.

A layer is `Linear` where its weights are floats. For weights on a grid an engine's form says by `integers` what they
become: an operator of its own, or a `Linear` on the same values, whose codes take their place later.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import torch
from torch.nn import functional

from tightrope.errors import UnsupportedError
from tightrope.workshop.convert import _tables
from tightrope.workshop.convert._forms import Form, Layer, layers, refuse_bits
from tightrope.workshop.graph import Graph
from tightrope.workshop.numerics.quantized import Array, Floats, Quantized, Weight, values
from tightrope.workshop.torch_bridge import Bridge, ports, read
from tightrope.workshop.torch_nodes import Node, Operator, Value, tensor
from tightrope.workshop.torch_operators import OPERATORS


def rule(weight: Quantized) -> str:
    """How XNNPACK, which LiteRT and ExecuTorch both multiply with, rounds the input of a layer with such a weight."""
    whole = "its input is rounded to 8 bits by token, on a range with a zero that is read at run time"
    return whole if weight.block is None else f"{whole}; the scales of its blocks are rounded to bfloat16"


def linear(_: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    """x·Wᵀ + b, the weight as [out, in]."""
    return functional.linear(tensor(x), tensor(weight), None if bias is None else tensor(bias))


def apart(_: Node, x: Value) -> Value:
    """The same values, behind an operator that keeps what is before it from being merged with what comes after."""
    return torch.clamp(x, min=torch.finfo(torch.float32).min)


OWN: Mapping[str, Operator] = {"Linear": linear, "BlockSums": lambda node, x: _block_sums(node, x)}
"""Our own nodes."""


class TorchForm(Form):
    """Walks a graph and writes it for the bridge. `engine` is what errors call it."""

    engine = "The engine"

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.in_float: dict[str, str] = {}
        self.approximations: dict[str, str] = {}

    def module(self, operators: Mapping[str, Operator]) -> Bridge:
        """The whole graph as a module; `operators` are those of the engine's own nodes."""
        known = layers(self.graph)
        done = {layer.output for layer in known.values() if layer.add is not None}
        for node in self.graph.proto.graph.node:
            output = node.output[0]
            if output in known:
                self._layer(known[output])
            elif output not in done and not self.table(node):
                self.copy(node)
        inputs, outputs = ports(self.graph)
        nodes = _alive([read(node) for node in self.build.nodes], outputs)
        used = {name for node in nodes for name in node.inputs}
        held: dict[int, Array] = {}
        arrays = {
            name: held.setdefault(id(weight), self.held(weight))
            for name, weight in self.build.weights.items()
            if name in used
        }
        bridge = Bridge(nodes, arrays, (inputs, outputs), operators={**OPERATORS, **OWN, **operators})
        bridge.eval()
        return bridge

    def held(self, weight: Weight) -> Array:
        """A weight as the module holds it: floats of any width as float32."""
        is_wide = not isinstance(weight, Quantized) and weight.dtype.kind in "iub"
        return np.asarray(weight) if is_wide else values(weight)

    def copy(self, node: onnx.NodeProto) -> None:
        """The node as it is; whole numbers that only stand for a bias become the floats that they are."""
        name, output = node.input[0] if node.input else "", node.output[0]
        weight = self.graph.weights.get(name)
        if node.op_type == "DequantizeLinear" and isinstance(weight, np.ndarray) and weight.dtype == np.int32:
            scale = values(self.graph.weights[node.input[1]])
            self.build.weight(output, weight.astype(np.float32) * scale)
            return
        super().copy(node)

    def _copy_weight(self, name: str) -> None:
        """A weight on a grid that no layer of ours takes is given back its values."""
        weight = self.graph.weights[name]
        if isinstance(weight, Quantized) and len(weight.shape) == 2:
            self.in_float[name] = "only linear layers and gathered rows keep their codes"
        self.build.weight(name, values(weight) if isinstance(weight, Quantized) else weight)

    def table(self, node: onnx.NodeProto) -> bool:
        """Gather rows of a quantised table, if that is what the node does: whether it was written."""
        return _tables.gather(self.build, node, self.graph.weights)

    def integers(self, layer: Layer, x: str, weight: Quantized, bias: str | None) -> str | None:
        """The product with a weight [out, in] around zero; `None` if the engine has no form for it."""
        raise NotImplementedError

    def _layer(self, layer: Layer) -> None:
        scheme, weight = self.scheme(layer), self.across(layer)
        refuse_bits(layer, scheme, self.engine)
        if isinstance(weight, Quantized) and weight.block is None and weight.axis == 0:
            self.in_float[layer.name] = "its scales belong to input features"
            weight = values(weight)
        elif not isinstance(weight, Quantized) and scheme.bits is not None:
            self.in_float[layer.name] = "its weights are floats"
        kept, bias = self.kept(layer)
        is_rounded = isinstance(weight, Quantized)
        x = self.prepared(layer, without_kept=is_rounded and scheme.kept is not None)
        added = None if bias is None else self.build.constant(bias.astype(np.float32), f"{layer.name}.bias.whole")
        if isinstance(weight, Quantized):
            centred, offset = around_zero(weight.transpose())
            product = self.integers(layer, x, centred, added)
            if product is None:
                raise UnsupportedError(
                    f"{self.engine} cannot run {layer.name} with {_words(weight)}.",
                    hint="Give it one scale for each row, or choose another engine.",
                )
            self.add([product, kept, self._offset(x, centred, offset, layer)], layer)
            return
        self.count(layer, "fp32")
        self.add([self.floating(layer, x, np.ascontiguousarray(weight.T), added), kept], layer)

    def floating(self, layer: Layer, x: str, weight: Array, bias: str | None) -> str:
        """The product with a weight [out, in] of floats."""
        name = f"{layer.linear.weight}.rows"
        if name not in self.build.weights:
            self.build.weight(name, weight)
        return self.build.node("Linear", [x, name, *([bias] if bias else [])], f"{layer.name}.whole")

    def _offset(self, x: str, weight: Quantized, offset: Floats | None, layer: Layer) -> str | None:
        """What zero points add: the sum of a row's inputs, or of each block of them, times what zero stands for."""
        if offset is None:
            return None
        build, name = self.build, layer.name
        last = build.constant([-1], "axis.last")
        if weight.block is None:
            sums = build.node("ReduceSum", [x, last], f"{name}.sums", keepdims=1)
            return build.node("Mul", [sums, build.constant(offset, f"{name}.zeros")], f"{name}.offset")
        sums = build.node("BlockSums", [x], f"{name}.sums", block=weight.block)
        zeros = build.constant(offset, f"{name}.zeros")
        return build.node("Linear", [sums, zeros], f"{name}.offset")


def around_zero(weight: Quantized) -> tuple[Quantized, Floats | None]:
    """A weight's codes as int8 with zero for zero, and what is missing then: -zero·scale, shaped as the scale."""
    codes = weight.codes.astype(np.int16)
    zero = np.zeros(weight.scale.shape, np.int16) if weight.zero_point is None else weight.zero_point.astype(np.int16)
    if weight.codes.dtype == np.uint8:
        codes, zero = codes - 2 ** (weight.bits - 1), zero - 2 ** (weight.bits - 1)
    centred = replace(weight, codes=codes.astype(np.int8), zero_point=None)
    return centred, (-zero * weight.scale).astype(np.float32) if zero.any() else None


def _block_sums(node: Node, x: Value) -> Value:
    return tensor(x).unflatten(-1, (-1, node.attributes["block"])).sum(-1)


def _words(weight: Quantized) -> str:
    blocks = f" in blocks of {weight.block}" if weight.block else ""
    return f"weights of {weight.bits} bits{blocks}"


def _alive(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """The nodes that the outputs need."""
    wanted, found = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            found.append(node)
    return found[::-1]
