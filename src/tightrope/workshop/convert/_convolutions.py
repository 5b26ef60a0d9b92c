"""Convolutions on integers as ONNX says them: QuantizeLinear and DequantizeLinear around each, codes for its weights.

Engines recognise the pairs and multiply integers. A value that is on a grid is written once as codes for all who take
it. A Relu or Clip before a grid that ends where it would cut is left out: rounding does the same. The bias becomes
int32 in units of the product, which is where integer kernels add it.
"""

from collections import Counter

import numpy as np
import onnx
from onnx import helper

from tightrope.workshop.convert._forms import identity, static_grid
from tightrope.workshop.graph import ACTIVATIONS, Graph
from tightrope.workshop.model import Convolution
from tightrope.workshop.numerics.quantized import Array, Floats, Quantized, Scheme, Weight, values

MOST_BIAS = 2**30
"""In units of the product; a bias beyond it would leave int32 together with the sum."""


def expanded(graph: Graph) -> Graph:
    """The graph with its integer convolutions and its values on grids written as such; linear layers stay annotated.

    What is left in `schemes` are the schemes of linear layers. A graph without any of it is returned as it is.
    """
    known = {conv.weight: conv for conv in graph.convolutions() if _is_integer(graph, conv)}
    gridded = [node for node in graph.proto.graph.node if not graph.schemes.keys().isdisjoint(node.output)]
    return _Expansion(graph, known).graph() if known or gridded else graph


def precisions(graph: Graph) -> Counter[str]:
    """The weights of a graph's convolutions by the precision in which their products run, before it is expanded."""
    found: Counter[str] = Counter()
    for conv in graph.convolutions():
        weight = graph.weights[conv.weight]
        kind = "int8" if _is_integer(graph, conv) else "wint8" if isinstance(weight, Quantized) else "fp32"
        found[kind] += int(np.prod(weight.shape))
    return found


def in_float(graph: Graph) -> dict[str, str]:
    """The convolutions with a grid for their input whose weights are floats, with the reason, by name."""
    return {
        conv.name: "its weights are floats"
        for conv in graph.convolutions()
        if conv.weight in graph.schemes and not isinstance(graph.weights[conv.weight], Quantized)
    }


def _is_integer(graph: Graph, conv: Convolution) -> bool:
    return conv.weight in graph.schemes and isinstance(graph.weights[conv.weight], Quantized)


class _Expansion:
    """Walks the nodes in running order and writes each anew."""

    def __init__(self, graph: Graph, known: dict[str, Convolution]) -> None:
        self._old, self._known = graph, known
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, Weight] = dict(graph.weights)
        self._grids: dict[object, str] = {}
        self._uses = Counter(name for node in graph.proto.graph.node for name in node.input)

    def graph(self) -> Graph:
        """The expanded graph."""
        skipped: dict[str, str] = {}
        for original in self._old.proto.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            value = node.output[0]
            scheme = self._old.schemes.get(value)
            if scheme is not None and self._is_needless(node, scheme):
                skipped[value] = node.input[0]
            else:
                if node.op_type == "Conv" and node.input[1] in self._known:
                    self._convolution(node, self._known[node.input[1]])
                if scheme is not None:
                    node.output[0] = f"{value}.exact"
                self._nodes.append(node)
            if scheme is not None:
                self._pair(skipped.get(value, f"{value}.exact"), scheme, value)
        proto = onnx.ModelProto()
        proto.CopyFrom(self._old.proto)
        del proto.graph.node[:], proto.graph.value_info[:]
        proto.graph.node.extend(self._nodes)
        layers = {linear.weight for linear in self._old.linears()}
        schemes = {name: scheme for name, scheme in self._old.schemes.items() if name in layers}
        return Graph(
            proto=proto,
            weights=self._weights,
            senses=self._old.senses,
            task=self._old.task,
            origin=self._old.origin,
            digest=self._old.digest,
            schemes=schemes,
        )

    def _is_needless(self, node: onnx.NodeProto, scheme: Scheme) -> bool:
        """Whether a grid behind this activation holds no value that it would change."""
        if node.op_type not in ACTIVATIONS or self._uses[node.input[0]] != 1 or scheme.static is None:
            return False
        limits = [0.0, np.inf] if node.op_type == "Relu" else self._limits(node)
        scale, zero = static_grid(scheme)
        low, high = (np.array([0, 255], np.float64) - float(zero)) * float(scale)
        return limits is not None and low >= limits[0] and high <= limits[1] * (1 + 1e-6)

    def _limits(self, node: onnx.NodeProto) -> list[float] | None:
        """Where a Clip cuts; `None` if that is not known."""
        found = [-np.inf, np.inf]
        for place, name in enumerate(node.input[1:3]):
            if name and name not in self._old.weights:
                return None
            if name:
                found[place] = float(values(self._old.weights[name]))
        return found

    def _convolution(self, node: onnx.NodeProto, conv: Convolution) -> None:
        """Integers for the input, the weights and the bias of a convolution, in place."""
        scheme, weight = self._old.schemes[conv.weight], self._old.weights[conv.weight]
        assert isinstance(weight, Quantized)
        bias = None if conv.bias is None else values(self._old.weights[conv.bias])
        scale, _ = static_grid(scheme)
        codes, scales = _room_for(bias, weight, float(scale))
        node.input[0] = self._gridded(conv.source, scheme)
        node.input[1] = self._dequantized(conv.weight, codes, scales)
        if bias is not None:
            units = (scales * scale).astype(np.float32)
            whole = np.clip(np.rint(bias / units), -MOST_BIAS, MOST_BIAS).astype(np.int32)
            node.input[2] = self._dequantized(f"{conv.weight}.offsets", whole, units)

    def _dequantized(self, name: str, codes: Array, scales: Floats) -> str:
        """Codes with a scale for each of their rows."""
        wide = f"{name}.wide"
        self._weights |= {f"{name}.codes": codes, f"{name}.scales": scales}
        inputs = [f"{name}.codes", f"{name}.scales"]
        self._nodes.append(helper.make_node("DequantizeLinear", inputs, [wide], name=wide, axis=0))
        return wide

    def _gridded(self, source: str, scheme: Scheme) -> str:
        """A value on a grid; one that is on the same grid already is taken as it is."""
        own = self._old.schemes.get(source)
        if own is not None and identity(own) == identity(scheme):
            return source
        key = (source, identity(scheme))
        if key not in self._grids:
            self._grids[key] = self._pair(source, scheme, f"{source}.grid.{len(self._grids)}")
        return self._grids[key]

    def _pair(self, source: str, scheme: Scheme, name: str) -> str:
        """A value to codes and back, called `name`."""
        scale, zero = static_grid(scheme)
        self._weights |= {f"{name}.scale": scale, f"{name}.zero": zero}
        grid = [f"{name}.scale", f"{name}.zero"]
        codes = f"{name}.codes"
        self._nodes.append(helper.make_node("QuantizeLinear", [source, *grid], [codes], name=codes))
        self._nodes.append(helper.make_node("DequantizeLinear", [codes, *grid], [name], name=f"{name}.restored"))
        return name


def _room_for(bias: Floats | None, weight: Quantized, scale: float) -> tuple[Array, Floats]:
    """Codes and scales of the weights, coarser where a channel's bias would not fit into int32 beside its products.

    Such a channel is dead but for its bias: what is lost of its weights is no more than the bias itself is rounded by.
    """
    if bias is None:
        return weight.codes, weight.scale
    dead = ~weight.codes.reshape(len(weight.codes), -1).any(axis=1)
    least = np.maximum(np.abs(bias) / (MOST_BIAS * scale), np.float32(1e-30)).astype(np.float32)
    scales = np.where(dead, least, np.maximum(weight.scale, least)).astype(np.float32)
    if (scales == weight.scale).all():
        return weight.codes, weight.scale
    ratio = (weight.scale / scales).reshape(-1, *[1] * (weight.codes.ndim - 1))
    codes = np.where(dead.reshape(ratio.shape), 0, np.rint(weight.codes * ratio))
    return codes.astype(np.int8), scales
