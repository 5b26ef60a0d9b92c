"""Attention blocks are found by their shape, and only where nobody looks inside."""

import numpy as np
import onnx
import pytest

from tightrope.workshop.convert._attention import blocks
from tightrope.workshop.network import Network, lower


def test_each_layer_of_a_bert_has_one(tiny_bert: Network) -> None:
    found = list(blocks(lower(tiny_bert)).values())
    assert [block.query for block in found] == [f"encoder.layer.{i}.attention.self.query" for i in (0, 1)]
    assert {(block.heads, block.size, block.mask) for block in found} == {(4, 8, "mask.additive")}
    assert all(block.scale == pytest.approx(8**-0.5) for block in found)


def test_the_scale_may_stand_after_the_product(tiny_bert: Network) -> None:
    graph = lower(tiny_bert)
    (factor,) = [name for name in graph.weights if name.startswith("scale.")]
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    del proto.graph.node[:]
    for node in graph.proto.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if factor in node.input:
            continue
        if node.name.endswith(".scores"):
            copy.input[0] = copy.input[0].replace(".scaled", ".heads")
            copy.output[0] += ".raw"
            scaled = onnx.helper.make_node("Div", [copy.output[0], factor], [node.output[0]])
            proto.graph.node.extend([copy, scaled])
            continue
        proto.graph.node.append(copy)
    moved = type(graph)(
        proto=proto,
        weights={**graph.weights, factor: np.array(4.0, np.float32)},
        senses=graph.senses,
        task=graph.task,
        origin=graph.origin,
        digest=graph.digest,
    )
    assert [block.scale for block in blocks(moved).values()] == [0.25, 0.25]


@pytest.mark.parametrize("inner", ["probabilities", "scores", "context.heads"])
def test_a_block_that_shows_an_inner_value_is_left_alone(tiny_bert: Network, inner: str) -> None:
    graph = lower(tiny_bert)
    graph.proto.graph.output.append(onnx.helper.make_tensor_value_info(f"encoder.layer.0.{inner}", 1, None))
    (left,) = blocks(graph).values()
    assert left.name == "encoder.layer.1.probabilities"
