"""Folding: batch normalisations taken in by the convolutions before them.

Answers change by no more than float32 rounds (Jacob et al. 2018, arXiv:1712.05877, 3.2).
"""

from collections import Counter

import onnx

from tightrope.workshop.numerics.batch_norm import affine, folded
from tightrope.workshop.numerics.quantized import Array


def fold_batch_norms(graph: onnx.GraphProto, weights: dict[str, Array]) -> None:
    """Fold each batch normalisation into the convolution that alone feeds it; the others stay."""
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(item.name for item in graph.output)
    makers = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    gone = []
    for norm in graph.node:
        conv = makers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or uses[norm.input[0]] != 1 or uses[conv.input[1]] != 1 or conv.input[1] not in weights:
            continue
        if any(name not in weights for name in (*norm.input[1:], *conv.input[2:])):
            continue
        epsilon = next((item.f for item in norm.attribute if item.name == "epsilon"), 1e-5)
        gain, shift, mean, variance = (weights[name] for name in norm.input[1:5])
        factor, offset = affine(gain, shift, mean, variance, epsilon)
        bias = weights[conv.input[2]] if len(conv.input) > 2 else None
        weight, shifted = folded(weights[conv.input[1]], bias, factor, offset)
        name = f"{conv.input[1]}.bias"
        weights[conv.input[1]], weights[name] = weight, shifted
        conv.input[:] = [*conv.input[:2], name]
        conv.output[0] = norm.output[0]
        gone.append(norm)
    for norm in gone:
        graph.node.remove(norm)
