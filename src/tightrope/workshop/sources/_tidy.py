"""A convolutional graph made plain: one image, known shapes, and nothing that a convolution can take in.

What only depends on shapes or constants is worked out. What merely hands on its input is cut out. Padding before a
convolution becomes its own, and a batch normalisation behind it is folded into its weights (Jacob et al. 2018,
arXiv:1712.05877, 3.2), which changes answers by no more than float32 rounds.
"""

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from tightrope.workshop.folding import fold_batch_norms
from tightrope.workshop.graph import tensor
from tightrope.workshop.numerics.quantized import Array

MOST_ELEMENTS = 1 << 24
"""Of a constant that is worked out; a larger one is left to the engine."""
_ROUNDS = 8
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")

Weights = dict[str, Array]


def tidy(proto: onnx.ModelProto, weights: Weights) -> None:
    """Make the graph plain, in place; its input must have its shape."""
    for _ in range(_ROUNDS):
        if not _work_out(proto, weights):
            break
    graph = proto.graph
    _hand_on(graph)
    _take_in_padding(graph, weights)
    fold_batch_norms(graph, weights)


# Constants ----------------------------------------------------------------------------------------------


def _work_out(proto: onnx.ModelProto, weights: Weights) -> bool:
    """Turn what depends on shapes and constants alone into weights; whether there was any."""
    shapes = _shapes(proto, weights)
    kept = []
    opset = {item.domain: item.version for item in proto.opset_import}
    for node in proto.graph.node:
        found = _value_of(node, shapes, weights, opset)
        if found is None:
            kept.append(node)
        else:
            weights[node.output[0]] = found
    changed = len(kept) < len(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return changed


def _shapes(proto: onnx.ModelProto, weights: Weights) -> dict[str, tuple[int, ...]]:
    """The shapes that are known throughout; small weights are looked into, for they may be shapes themselves."""
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    for name, value in weights.items():
        if value.size <= 64:
            probe.graph.initializer.append(tensor(name, value))
        else:
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            probe.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
    inferred = shape_inference.infer_shapes(probe, data_prop=True).graph
    found = {}
    for item in (*inferred.input, *inferred.value_info):
        dims = item.type.tensor_type.shape.dim
        if item.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[item.name] = tuple(int(dim.dim_value) for dim in dims)
    return found


def _value_of(
    node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], weights: Weights, opset: dict[str, int]
) -> Array | None:
    """What a node gives, if that is known before it runs."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        ends = {item.name: item.i for item in node.attribute}
        return np.array(shapes[node.input[0]][ends.get("start", 0) : ends.get("end")], np.int64)
    given = [name for name in node.input if name]
    if len(node.output) != 1 or node.domain not in ("", "ai.onnx") or node.op_type in _RANDOM:
        return None
    if any(name not in weights for name in given) or any(item.HasField("g") for item in node.attribute):
        return None
    if (
        node.op_type in ("DequantizeLinear", "QuantizeLinear")
        or sum(weights[name].size for name in given) > MOST_ELEMENTS
    ):
        return None
    graph = helper.make_graph([node], "constant", [], [onnx.ValueInfoProto(name=node.output[0])])
    graph.initializer.extend(numpy_helper.from_array(weights[name], name) for name in dict.fromkeys(given))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset.get("", opset.get("ai.onnx", 21)))])
    try:
        value = ReferenceEvaluator(model).run(None, {})[0]
    except Exception:  # what the evaluator cannot do, the engine will
        return None
    return value if isinstance(value, np.ndarray) else np.asarray(value)


# Nodes --------------------------------------------------------------------------------------------------


def _hand_on(graph: onnx.GraphProto) -> None:
    """Cut out nodes that give what they take. A graph's output keeps its name."""
    outputs = {item.name for item in graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type in ("Identity", "Dropout") and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _take_in_padding(graph: onnx.GraphProto, weights: Weights) -> None:
    """Zeros that a Pad puts around what one convolution takes become the convolution's own padding."""
    uses = Counter(name for node in graph.node for name in node.input)
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad" and uses[node.output[0]] == 1}
    gone = []
    for node in graph.node:
        pad = pads.get(node.input[0]) if node.op_type == "Conv" else None
        around = None if pad is None else _zeros_around(pad, weights)
        settings = {item.name: item for item in node.attribute}
        if pad is None or around is None or settings.get("auto_pad", onnx.AttributeProto(s=b"NOTSET")).s != b"NOTSET":
            continue
        own = list(settings["pads"].ints) if "pads" in settings else [0] * len(around)
        if "pads" in settings:
            node.attribute.remove(settings["pads"])
        total = [first + second for first, second in zip(own, around, strict=True)]
        node.attribute.append(helper.make_attribute("pads", total))
        node.input[0] = pad.input[0]
        gone.append(pad)
    for pad in gone:
        graph.node.remove(pad)


def _zeros_around(pad: onnx.NodeProto, weights: Weights) -> list[int] | None:
    """How many zeros a Pad puts before and behind each spatial axis; `None` if it does something else."""
    mode = next((item.s for item in pad.attribute if item.name == "mode"), b"constant")
    if mode != b"constant" or pad.input[1] not in weights or len(pad.input) > 3:
        return None
    if len(pad.input) > 2 and pad.input[2] and np.any(weights.get(pad.input[2], np.ones(1))):
        return None
    sizes = weights[pad.input[1]].tolist()
    rank = len(sizes) // 2
    if rank < 3 or min(sizes) < 0 or any(sizes[axis] or sizes[rank + axis] for axis in (0, 1)):
        return None
    return [*sizes[2:rank], *sizes[rank + 2 :]]
