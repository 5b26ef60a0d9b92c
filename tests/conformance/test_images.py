"""Every converter that takes a graph, on a convolutional classifier: the answers of the reference, or a refusal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope.device.senses.image import ImageSenses, packed
from tightrope.errors import UnsupportedError
from tightrope.recipe import Recipe
from tightrope.workshop.compress import compress
from tightrope.workshop.graph import Graph
from tightrope.workshop.load import load
from tightrope.workshop.observe import Observer
from tightrope.workshop.pictures import pictures
from tightrope.workshop.reference import opened as executable
from tightrope.workshop.reference import reference

pytestmark = pytest.mark.engine

RECIPES = {
    "fp32": "original",
    "merged": "reparameterize",
    "static": "int8(activations=static)",
    "static, symmetric": "int8(activations=static, inputs=symmetric)",
    "static, merged": "reparameterize + int8(activations=static, calibration=percentile)",
    "static, one layer in float": "int8(activations=static, keep=project)",
    "weights of 8 bits": "int8(activations=none)",
    "fp16": "half",
}
WHOLE = ("fp32", "merged")
MUST = ("onnxruntime", "openvino")
"""Engines that may refuse nothing of this; another may, by a layer's name and with a way out."""


@pytest.fixture(scope="module")
def model(tiny_cnn: Path) -> Graph:
    found = load(str(tiny_cnn))
    assert isinstance(found, Graph)
    return found


@pytest.fixture(scope="module")
def observer(model: Graph) -> Observer:
    return Observer(model, (), (), [packed(item) for item in pictures(16, 16, 3, 16, seed=1)])


def names(graph: Graph) -> set[str]:
    return {name for node in graph.proto.graph.node for name in (node.name, *node.output) if name}


@pytest.mark.parametrize("form", RECIPES)
def test_an_engine_classifies_as_the_reference_does(
    graph_engine: str, opened: Any, model: Graph, observer: Observer, form: str
) -> None:
    changed = compress(model, Recipe.parse(f"{RECIPES[form]} -> {graph_engine}").steps, observer)
    assert isinstance(changed, Graph) and isinstance(model.senses, ImageSenses)
    try:
        found = opened(changed, graph_engine)
    except UnsupportedError as error:
        if graph_engine in MUST:
            raise
        assert any(name in error.message for name in names(changed)) and error.hint
        pytest.skip(f"{graph_engine} refuses this form by name, which was checked")
    truth = executable(reference(changed), threads=1)
    for pixels in pictures(16, 16, 3, 6, seed=2):
        given = {model.inputs[0].name: model.senses.prepare(pixels)}
        expected, answer = truth.run(None, given)[0], found.run(given)
        assert answer.shape == expected.shape == (1, 5)
        if form in WHOLE:
            assert np.abs(answer - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
        else:
            cosine = (answer * expected).sum() / (np.linalg.norm(answer) * np.linalg.norm(expected))
            assert cosine > 0.998, (form, cosine)


@pytest.mark.parametrize("form", ["fp32", "static, merged"])
def test_the_same_model_is_written_as_the_same_bytes(
    graph_engine: str, opened: Any, model: Graph, observer: Observer, form: str
) -> None:
    changed = compress(model, Recipe.parse(f"{RECIPES[form]} -> {graph_engine}").steps, observer)
    try:
        first, second = (opened(changed, graph_engine).converted for _ in range(2))
    except UnsupportedError:
        pytest.skip(f"{graph_engine} refuses this form")
    assert first.files == second.files
