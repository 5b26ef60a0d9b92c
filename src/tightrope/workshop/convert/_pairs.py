"""Quantised layers in plain ONNX: a pair of rounding and widening around an input, and codes that are widened.

For engines that are told by such pairs what to run on integers. What they cannot be told is left in float or refused,
and said; the rules that differ are what a subclass states.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx

from tightrope.workshop.convert._forms import Form, Layer, layers, refuse_bits
from tightrope.workshop.graph import Graph
from tightrope.workshop.numerics.quantized import Array, Quantized


class PairsForm(Form):
    """Walks the graph; a subclass says how an input is rounded, and which weights may keep their codes."""

    engine = ""
    """The engine's name, for people."""
    unrounded = ""
    """What becomes of an input whose range would be read at run time."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.in_float: dict[str, str] = {}
        self.approximations: dict[str, str] = {}

    def grid(self, layer: Layer) -> tuple[Array, Array] | None:
        """Scale and zero point for the layer's input, if it is to be rounded between a pair."""
        raise NotImplementedError

    def why_float(self, weight: Quantized) -> str | None:
        """Why this weight cannot be stored as codes, or `None` if it can."""
        raise NotImplementedError

    def fill(self) -> None:
        """Write all nodes and weights."""
        known = layers(self.graph)
        done = {layer.output for layer in known.values() if layer.add is not None}
        stored = self.graph.weights.keys()  # a bias in half precision may be widened after the product it is added to
        for node in sorted(self.graph.proto.graph.node, key=lambda node: not stored >= set(node.input)):
            if node.output[0] in known:
                self._layer(known[node.output[0]])
            elif node.output[0] not in done:
                self._other(node)

    def _layer(self, layer: Layer) -> None:
        weight, scheme, name = self.across(layer), self.scheme(layer), layer.name
        refuse_bits(layer, scheme, self.engine)
        reason = self.why_float(weight) if isinstance(weight, Quantized) else "its weights are floats"
        if not isinstance(weight, Quantized) or reason:
            if reason and (isinstance(weight, Quantized) or scheme.bits is not None):
                self.in_float[name] = reason
            self.float_layer(layer)
            return
        weight = centred(weight)
        kept, bias = self.kept(layer)
        x = self._input(layer, weight)
        stored = self.widened(weight, f"{name}.wide")
        parts = [self.build.node("MatMul", [x, stored], f"{name}.whole"), None, kept]
        if centre := self.centre(layer):
            bias = centre * weight.dequantize().sum(0) + (0 if bias is None else bias)
        if bias is not None:
            parts[1] = self.build.constant(bias.astype(np.float32), f"{name}.offsets")
        self.add(parts, layer)

    def float_layer(self, layer: Layer) -> None:
        """The layer in float arithmetic, its weights as values."""
        weight = self.graph.weights[layer.linear.weight]
        self.count(layer, "fp16" if not isinstance(weight, Quantized) and weight.dtype == np.float16 else "fp32")
        self._as_values(layer.linear.weight)
        self.floats(layer)

    def _input(self, layer: Layer, weight: Quantized) -> str:
        """The layer's input, between a pair if its range is static."""
        x, grid = self.prepared(layer, without_kept=False), self.grid(layer)
        plain = weight.bits > 4 and weight.block is None and weight.zero_point is None
        self.count(layer, "int8" if grid is not None and plain else f"wint{4 if weight.bits == 4 else 8}")
        if grid is None:
            if self.scheme(layer).bits is not None:
                self.approximations[layer.name] = self.unrounded
            return x
        return self.shared("rounded", layer, lambda base: self.pair(self._centred(layer, x, base), grid, base))

    def _centred(self, layer: Layer, x: str, base: str) -> str:
        centre = self.centre(layer)
        return (
            self.build.node("Sub", [x, self.build.constant(centre, f"{base}.centre")], f"{base}.off") if centre else x
        )

    def centre(self, layer: Layer) -> float:
        """What is taken from the layer's input before its pair, and given back by the bias: nothing."""
        return 0.0

    def pair(self, x: str, grid: tuple[Array, Array], base: str) -> str:
        """x rounded to a grid and widened again."""
        parts = [
            self.build.constant(value, f"{base}.{what}") for value, what in zip(grid, ("scale", "zero"), strict=True)
        ]
        codes = self.build.node("QuantizeLinear", [x, *parts], f"{base}.codes")
        return self.build.node("DequantizeLinear", [codes, *parts], base)

    def _other(self, node: onnx.NodeProto) -> None:
        """A node as it is; quantised weights that must not keep their codes are given as floats."""
        for name in dict.fromkeys(node.input):
            self._as_values(name)
        self.copy(node)

    def _as_values(self, name: str) -> None:
        """Store a weight that must not keep its codes as floats, if it is one; `copy` then finds it there."""
        weight = self.graph.weights.get(name)
        if isinstance(weight, Quantized) and self.why_float(weight) and name not in self.build.weights:
            self.build.weight(name, weight.dequantize())
            self._shared["copied", name] = name

    @property
    def kinds(self) -> dict[str, int]:
        """The ONNX types of codes of four bits, by the weight's name."""
        return self._kinds

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """What was written, in running order."""
        return iter(self.build.nodes)


def centred(weight: Quantized) -> Quantized:
    """The same values without zero points, if all of them lie in the middle of the codes' range; else as it is."""
    if weight.codes.dtype == np.int8:
        at_zero = weight.zero_point is None or not weight.zero_point.any()
        return replace(weight, zero_point=None) if at_zero else weight
    middle = 2 ** (weight.bits - 1)
    if weight.zero_point is None or (weight.zero_point != middle).any():
        return weight
    return replace(weight, codes=(weight.codes.astype(np.int16) - middle).astype(np.int8), zero_point=None)
