"""Which parts of a foreign ONNX model are layers and tables, and what may be rewritten."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tightrope.workshop.graph import Graph, is_half, widen
from tightrope.workshop.model import Task, TextSenses


def graph(nodes, **weights):
    """A Graph of these nodes, with `x` [rows, 4] coming in."""
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    proto = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
    )
    return Graph(
        proto=helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)]),
        weights=arrays,
        senses=TextSenses(tokenizer=b"{}", max_length=8),
        task=Task(name="embedding", width=3),
        origin="o",
        digest="o",
    )


W, B = np.ones((4, 3), np.float32), np.zeros(3, np.float32)


def test_a_product_and_a_sum_are_a_layer_in_either_order():
    for inputs in (["p", "b"], ["b", "p"]):
        nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="m"), helper.make_node("Add", inputs, ["y"])]
        (layer,) = graph(nodes, w=W, b=B).linears()
        assert (layer.name, layer.weight, layer.bias, layer.source, layer.out_axis) == ("m", "w", "b", "x", 1)


def test_gemm_knows_which_axis_is_the_outputs():
    (layer,) = graph([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], w=W.T.copy(), b=B).linears()
    assert (layer.out_axis, layer.bias, layer.name) == (0, "b", "w")


@pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}])
def test_a_scaled_product_is_no_layer(attributes):
    assert graph([helper.make_node("Gemm", ["x", "w", "b"], ["y"], **attributes)], w=W, b=B).linears() == ()


def test_integers_and_stacked_matrices_are_no_layers():
    cast = [helper.make_node("Cast", ["w"], ["f"], to=1), helper.make_node("MatMul", ["x", "f"], ["y"])]
    assert graph(cast, w=W.astype(np.int8)).linears() == ()
    assert graph([helper.make_node("MatMul", ["x", "w"], ["y"])], w=np.ones((2, 4, 3), np.float32)).linears() == ()


def test_a_bias_that_others_add_too_or_that_broadcasts_belongs_to_no_layer():
    def add(product, bias, name):
        return helper.make_node("Add", [product, bias], [name])

    first, second = (helper.make_node("MatMul", ["x", "w"], [name]) for name in ("p", "q"))
    shared = graph([first, add("p", "b", "s"), second, add("q", "b", "t"), add("s", "t", "y")], w=W, b=B)
    assert [layer.bias for layer in shared.linears()] == [None, None]
    assert graph([first, add("p", "b", "y")], w=W, b=B[:1]).linears()[0].bias is None


def test_halving_a_weight_keeps_the_graph_whole():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="m"), helper.make_node("Add", ["p", "b"], ["y"])]
    before = graph(nodes, w=W, b=B)
    after = before.rewrite(weights={"w": W.astype(np.float16), "b": B.astype(np.float16)})
    assert after.linears() == before.linears()
    assert all(is_half(weight) for weight in after.weights.values())
    again = after.rewrite(weights={"w": (2 * W).astype(np.float16)})
    assert again.proto is after.proto  # it is cast already
    casts = {node.input[0] for node in after.proto.graph.node if node.op_type == "Cast"}
    assert casts == {"w", "b"}


def test_a_weight_used_twice_is_cast_once():
    nodes = [helper.make_node("MatMul", ["x", "w"], [name], name=name) for name in ("p", "q")]
    wide = widen(graph([*nodes, helper.make_node("Add", ["p", "q"], ["y"])], w=W).proto, ["w"])
    assert [node.op_type for node in wide.graph.node] == ["Cast", "MatMul", "MatMul", "Add"]
    assert [node.input[1] for node in wide.graph.node[1:3]] == ["w.float", "w.float"]


def test_widening_leaves_the_original_alone():
    proto = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], w=W).proto
    before = proto.SerializeToString(deterministic=True)
    assert isinstance(widen(proto, ["w"]), onnx.ModelProto)
    assert proto.SerializeToString(deterministic=True) == before
