"""What a model has to do for one input: products by kind, steps, and bytes that are read and written.

Counted on the graph, with the shapes of one run. An engine that merges steps does less than this; rates
are fitted to these counts, so that what an engine always merges is in its rates.
"""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from math import prod
from typing import Any

import numpy as np
import onnx

from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model
from tightrope.workshop.network import lower
from tightrope.workshop.reference import opened, reference

FREE = frozenset(
    ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Shape", "Identity", "Constant", "Dropout", "ConstantOfShape")
)
"""Steps that move no numbers."""

PRODUCTS = ("MatMul", "Gemm", "Conv")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Multiply-adds by kind, and the rest. `once` is 1: what every call costs, whatever the model.

    `linear`: of linear layers; `attention`: between two activations; `convolution`: of whole channels; `depthwise`: of
    convolutions in groups. `weight_bytes`: of the weights that are multiplied; `moved_bytes`: of the activations that
    the steps read and write, four bytes a number.
    """

    once: float = 1.0
    steps: float = 0.0
    linear: float = 0.0
    attention: float = 0.0
    convolution: float = 0.0
    depthwise: float = 0.0
    weight_bytes: float = 0.0
    moved_bytes: float = 0.0

    def __add__(self, other: "Costs") -> "Costs":
        """Both together, called once."""
        return Costs(
            **{name: a + b for name, a, b in zip(NAMES, astuple(self), astuple(other), strict=True)} | {"once": 1.0}
        )


NAMES = tuple(item.name for item in fields(Costs))


def costs(model: Model, tokens: int = 1, *, bits: int = 32) -> Costs:
    """The costs of one input: a text of so many tokens, or one image, whose size the model itself states."""
    graph = lower(model)
    shapes = _shapes(graph, tokens)
    total = Costs()
    for node in graph.proto.graph.node:
        if node.op_type not in FREE:
            total += _node(node, graph.weights, shapes, bits / 8)
    return total


def _node(node: onnx.NodeProto, weights: Mapping[str, Any], shapes: Mapping[str, Shape], each: float) -> Costs:
    out = shapes[node.output[0]]
    activations = [shapes[name] for name in node.input if name and name not in weights]
    if node.op_type == "Gather" and node.input[0] in weights:
        activations = [out]  # the rows that are taken, not the table
    moved = 4.0 * (sum(map(prod, activations)) + sum(prod(shapes.get(name, ())) for name in node.output if name))
    multiplied = [weights[name] for name in node.input if name in weights] if node.op_type in PRODUCTS else []
    return Costs(
        once=0.0,
        steps=1.0,
        moved_bytes=moved,
        weight_bytes=each * sum(prod(weight.shape) for weight in multiplied),
        **dict(_products(node, out, weights, shapes)),
    )


def _products(
    node: onnx.NodeProto, out: Shape, weights: Mapping[str, Any], shapes: Mapping[str, Shape]
) -> Iterator[tuple[str, float]]:
    if node.op_type in ("MatMul", "Gemm"):
        settings = {item.name: item.i for item in node.attribute}
        left = shapes[node.input[0]]
        depth = left[0] if settings.get("transA") else left[-1]
        both_move = node.input[0] not in weights and node.input[1] not in weights
        yield "attention" if both_move else "linear", float(prod(out) * depth)
    elif node.op_type == "Conv":
        _, inner, *kernel = shapes[node.input[1]]
        yield "depthwise" if inner == 1 and out[1] > 1 else "convolution", float(prod(out) * inner * prod(kernel))


def _shapes(graph: Graph, tokens: int) -> dict[str, Shape]:
    """The shape of every value for a batch of one, by running the graph once: no rules, so none is wrong."""
    wanted = list(dict.fromkeys(name for node in graph.proto.graph.node for name in node.output if name))
    feeds = {
        port.name: np.ones([_size(size, axis, tokens) for axis, size in enumerate(port.shape)], port.dtype)
        for port in graph.inputs
    }
    proto = reference(graph)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    outputs = opened(proto).run(wanted, feeds)
    found = {name: value.shape for name, value in zip(wanted, outputs, strict=True)}
    found |= {name: value.shape for name, value in feeds.items()}
    return found | {name: tuple(weight.shape) for name, weight in graph.weights.items()}


def _size(size: int | str, axis: int, tokens: int) -> int:
    """An axis that may be of any length is the batch if it is the first, and the text's tokens if not."""
    return size if isinstance(size, int) else tokens if axis else 1
