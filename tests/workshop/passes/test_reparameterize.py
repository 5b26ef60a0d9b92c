"""Branches become one convolution: the same answers, fewer convolutions, and nothing merged that may not be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tightrope.device.senses.image import ImageSenses
from tightrope.errors import RecipeError, UnsupportedError
from tightrope.recipe import Recipe
from tightrope.workshop.compress import apply_step
from tightrope.workshop.graph import IR_VERSION, OPSET, Graph
from tightrope.workshop.load import load
from tightrope.workshop.model import Task
from tightrope.workshop.network import Network
from tightrope.workshop.observe import Observer
from tightrope.workshop.passes import reparameterize
from tightrope.workshop.reference import opened, reference

EXACT = 1e-4
STEP = Recipe.parse("reparameterize -> onnxruntime").steps[0]


def answer(graph: Graph, pixels: Any) -> Any:
    return opened(reference(graph), threads=1).run(None, {graph.inputs[0].name: pixels})[0]


def block(branches: list[dict[str, Any]], *, width: int, side: int, seed: int) -> Graph:
    """A graph of one sum of these branches of `x` [1, width, side, side]."""
    random, nodes, weights, names = np.random.default_rng(seed), [], {}, []
    for place, branch in enumerate(branches):
        kind, name = branch["kind"], f"branch{place}"
        current = "x"
        if kind == "conv":
            kernel, stride, groups, out = branch["kernel"], branch["stride"], branch["groups"], branch["out"]
            weights[f"{name}.weight"] = random.normal(size=(out, width // groups, kernel, kernel)).astype(np.float32)
            inputs = ["x", f"{name}.weight"]
            if branch["bias"]:
                weights[f"{name}.bias"] = random.normal(size=out).astype(np.float32)
                inputs.append(f"{name}.bias")
            settings = {"pads": [kernel // 2] * 4, "strides": [stride] * 2, "group": groups}
            current = f"{name}.conv"
            nodes.append(helper.make_node("Conv", inputs, [current], name=current, **settings))
        if branch.get("norm"):
            size = branch.get("out", width)
            for part, low in zip("gbmv", (0.5, -1, -1, 0.5), strict=True):
                weights[f"{name}.{part}"] = random.uniform(low, 1.5, size).astype(np.float32)
            inputs = [current, *(f"{name}.{part}" for part in "gbmv")]
            nodes.append(helper.make_node("BatchNormalization", inputs, [name], name=name))
            current = name
        names.append(current)
    total = names[0]
    for place, name in enumerate(names[1:]):
        nodes.append(helper.make_node("Add", [total, name], [f"sum{place}"], name=f"sum{place}"))
        total = f"sum{place}"
    nodes.append(helper.make_node("Relu", [total], ["y"], name="relu"))
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width, side, side])]
    graph = helper.make_graph(nodes, "block", ports, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    senses = ImageSenses(
        height=side, width=side, resize=0, colours="rgb", layout="nchw", mean=(0.0,) * 3, std=(1.0,) * 3
    )
    task = Task(name="classification", width=1)
    return Graph(proto=proto, weights=weights, senses=senses, task=task, origin="0" * 64, digest="0" * 64)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[dict[str, Any]], int, int, int]:
    """Branches that are one convolution: any odd kernels, strides, groups, biases, norms, the input itself."""
    groups = draw(st.sampled_from([1, 2, 4]))
    width = groups * draw(st.integers(1, 3))
    stride = draw(st.sampled_from([1, 1, 2]))
    out = width if stride == 1 else groups * draw(st.integers(1, 3))
    conv = st.fixed_dictionaries(
        {
            "kind": st.just("conv"),
            "kernel": st.sampled_from([1, 3, 5]),
            "stride": st.just(stride),
            "groups": st.just(groups),
            "out": st.just(out),
            "bias": st.booleans(),
            "norm": st.booleans(),
        }
    )
    branches = draw(st.lists(conv, min_size=1, max_size=3))
    if stride == 1 and draw(st.booleans()):
        branches.insert(draw(st.integers(0, len(branches))), {"kind": "identity", "norm": draw(st.booleans())})
    return branches, width, draw(st.integers(5, 9)), draw(st.integers(0, 999))


@settings(max_examples=60)
@given(blocks())
def test_any_block_of_linear_branches_is_one_convolution_with_the_same_answers(
    drawn: tuple[list[dict[str, Any]], int, int, int],
) -> None:
    branches, width, side, seed = drawn
    graph = block(branches, width=width, side=side, seed=seed)
    merged = reparameterize.merged(graph)
    assert [node.op_type for node in merged.proto.graph.node] == ["Conv", "Relu"]
    pixels = np.random.default_rng(seed).normal(size=(1, width, side, side)).astype(np.float32)
    before, after = answer(graph, pixels), answer(merged, pixels)
    assert before.shape == after.shape
    assert np.abs(before - after).max() <= EXACT * max(1.0, np.abs(before).max())
    taken = {name for node in merged.proto.graph.node for name in node.input}
    assert set(merged.weights) <= taken  # nothing is carried along that nobody takes


WIDE = {"kind": "conv", "kernel": 3, "stride": 1, "groups": 1, "out": 4, "bias": True, "norm": False}


def test_branches_that_group_channels_otherwise_stay_apart() -> None:
    graph = block([WIDE, WIDE | {"groups": 2}], width=4, side=6, seed=1)
    assert reparameterize.merged(graph).proto.graph.node == graph.proto.graph.node


def test_a_branch_that_somebody_else_takes_stays() -> None:
    graph = block([WIDE, WIDE | {"kernel": 1}], width=4, side=6, seed=2)
    extra = helper.make_node("Add", ["y", "branch0.conv"], ["z"], name="z")
    graph.proto.graph.node.append(extra)
    graph.proto.graph.output[0].name = "z"
    merged = reparameterize.merged(graph)
    assert len(merged.convolutions()) == 2
    pixels = np.ones((1, 4, 6, 6), np.float32)
    assert np.allclose(answer(graph, pixels), answer(merged, pixels), atol=1e-5)


def test_a_residual_of_two_convolutions_in_a_row_is_left_alone(tiny_cnn: Path) -> None:
    graph = load(str(tiny_cnn))
    assert isinstance(graph, Graph) and reparameterize.applies(graph)
    merged = apply_step(graph, STEP, Observer(graph, ()))
    before, after = ({conv.name for conv in model.convolutions()} for model in (graph, merged))
    assert before - after == {"point"}
    pixels = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    assert np.abs(answer(graph, pixels) - answer(merged, pixels)).max() <= EXACT
    assert not reparameterize.applies(merged)


def test_it_stands_before_rounding_and_is_for_graphs(tiny_cnn: Path, tiny_bert: Network) -> None:
    graph = load(str(tiny_cnn))
    rounded = apply_step(graph, Recipe.parse("int8(activations=none) -> onnxruntime").steps[0], Observer(graph, ()))
    with pytest.raises(RecipeError, match="first"):
        apply_step(rounded, STEP, Observer(graph, ()))
    with pytest.raises(UnsupportedError):
        apply_step(tiny_bert, STEP, Observer(tiny_bert, ()))
