"""Layer normalisation that prepares the input of the layers behind it, so that shift and smoothing cost nothing there.

x' = (x - shift) / smooth is affine, as the end of a layer normalisation is: gain and bias take it in. Whoever else
needs x, as the sum around a layer does, has it given back: times smooth, and plus shift, which the bias of the layer
on the other side of a sum takes in where there is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from tightrope.workshop.convert._forms import Layer, consumers, identity
from tightrope.workshop.graph import Graph, is_float
from tightrope.workshop.numerics.quantized import Floats, Scheme, values


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A layer normalisation that is to give x'. `carrier`: the output of the layer whose bias takes the shift in."""

    node: onnx.NodeProto
    layer: Layer
    scheme: Scheme
    gain: Floats
    bias: Floats
    is_wanted_whole: bool
    carrier: str | None


def norms(graph: Graph, known: Mapping[str, Layer]) -> dict[str, Norm]:
    """The normalisations that can take a scheme in, by their output."""
    users = consumers(graph)
    outputs = {item.name for item in graph.proto.graph.output}
    found = {}
    for node in graph.proto.graph.node:
        if node.op_type != "LayerNormalization" or node.output[0] in outputs or len(node.input) < 3:
            continue
        gain, bias = (graph.weights.get(name) for name in node.input[1:3])
        behind = [known[user.output[0]] for user in users.get(node.output[0], ()) if user.output[0] in known]
        if gain is None or bias is None or not (is_float(gain) and is_float(bias)) or not behind:
            continue
        schemes = [graph.schemes.get(layer.linear.weight, Scheme()) for layer in behind]
        scheme = schemes[0]
        if any(identity(item) != identity(scheme) for item in schemes) or scheme.kept is not None:
            continue
        if scheme.rotation is not None or (scheme.smooth is None and scheme.shift is None):
            continue  # a rotation mixes features: no gain can take it in
        others = [user for user in users[node.output[0]] if user.output[0] not in known]
        found[node.output[0]] = Norm(
            node=node,
            layer=behind[0],
            scheme=scheme,
            gain=values(gain),
            bias=values(bias),
            is_wanted_whole=bool(others),
            carrier=_carrier(node.output[0], others, known, users) if scheme.shift is not None else None,
        )
    return found


def _carrier(
    output: str,
    others: Sequence[onnx.NodeProto],
    known: Mapping[str, Layer],
    users: Mapping[str, Sequence[onnx.NodeProto]],
) -> str | None:
    """The layer with a bias that is summed with the normalised value, if that is all that happens to either."""
    if len(others) != 1 or others[0].op_type != "Add":
        return None
    other = next((name for name in others[0].input if name != output), None)
    layer = next((item for item in known.values() if item.output == other), None)
    if layer is None or layer.linear.bias is None or len(users[layer.output]) != 1:
        return None
    return layer.output


def factors(norm: Norm) -> tuple[Floats, Floats]:
    """Smooth and shift, ones and zeros where the scheme has none."""
    smooth = np.ones_like(norm.gain) if norm.scheme.smooth is None else norm.scheme.smooth
    shift = np.zeros_like(norm.gain) if norm.scheme.shift is None else norm.scheme.shift
    return smooth, shift
