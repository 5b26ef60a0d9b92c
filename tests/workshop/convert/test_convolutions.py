"""Convolutions as Q and DQ: pairs where the annotation says so, biases as integers, nothing needless."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.senses.image import ImageSenses, packed
from tightrope.recipe import Recipe
from tightrope.workshop.compress import apply_step
from tightrope.workshop.convert import _convolutions
from tightrope.workshop.graph import Graph
from tightrope.workshop.load import load
from tightrope.workshop.numerics.quantized import Quantized
from tightrope.workshop.observe import Observer
from tightrope.workshop.pictures import pictures
from tightrope.workshop.reference import opened, reference


@pytest.fixture(scope="module")
def rounded(tiny_cnn: Path) -> Graph:
    """The tiny classifier in eight bits."""
    graph = load(str(tiny_cnn))
    assert isinstance(graph, Graph)
    observer = Observer(graph, (), (), [packed(item) for item in pictures(16, 16, 3, 6)])
    steps = Recipe.parse("reparameterize + int8(activations=static) -> onnxruntime").steps
    return apply_step(apply_step(graph, steps[0], observer), steps[1], observer)


def test_every_convolution_takes_and_hands_on_codes(rounded: Graph) -> None:
    expanded = _convolutions.expanded(rounded)
    makers = {name: node for node in expanded.proto.graph.node for name in node.output}
    convolutions = [node for node in expanded.proto.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == len(rounded.convolutions()) == 5
    for node in convolutions:
        assert {makers[name].op_type for name in node.input} == {"DequantizeLinear"}
        kinds = [np.asarray(expanded.weights[makers[name].input[0]]).dtype for name in node.input[1:]]
        assert kinds == [np.int8, np.int32][: len(kinds)]
        users = [item.op_type for item in expanded.proto.graph.node if node.output[0] in item.input]
        assert users == ["QuantizeLinear"]
    assert not {"Relu", "Clip"} & {node.op_type for node in expanded.proto.graph.node}  # grids begin at zero
    assert set(expanded.schemes) == {"dense.weight"}


def test_what_is_written_answers_as_the_reference_does(rounded: Graph) -> None:
    expanded = _convolutions.expanded(rounded)
    assert isinstance(rounded.senses, ImageSenses)
    sessions = [opened(reference(graph), threads=1) for graph in (rounded, expanded)]
    for image in pictures(16, 16, 3, 6, seed=3):
        feeds = {"image": rounded.senses.prepare(image)}
        first, second = (session.run(None, feeds)[0] for session in sessions)
        assert np.abs(first - second).max() < 0.02  # a bias is rounded to the product's units


def test_a_graph_without_annotations_is_left_alone(tiny_cnn: Path) -> None:
    graph = load(str(tiny_cnn))
    assert isinstance(graph, Graph)
    assert _convolutions.expanded(graph) is graph
    assert _convolutions.precisions(graph).keys() == {"fp32"}


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3),
    st.lists(st.sampled_from([1e-12, 1e-6, 0.01, 1.0]), min_size=3, max_size=3),
    st.floats(1e-4, 10),
    st.booleans(),
)
def test_a_bias_always_has_room_beside_its_products(
    biases: list[float], scales: list[float], scale: float, dead: bool
) -> None:
    bias = np.array(biases, np.float32)
    codes = np.full((3, 2, 1, 1), 0 if dead else 100, np.int8)
    weight = Quantized(codes=codes, scale=np.array(scales, np.float32))
    found, wider = _convolutions._room_for(bias, weight, scale)
    units = wider.astype(np.float64) * scale
    whole = np.rint(bias / units)
    assert np.abs(whole).max() <= _convolutions.MOST_BIAS * 1.001
    assert np.abs(whole * units - bias).max() <= max(1e-5, np.abs(bias).max() * 1e-4, units.max())
    lost = np.abs(found * wider[:, None, None, None] - codes * weight.scale[:, None, None, None]).max()
    assert lost <= wider.max() * 0.51
