"""Convolutions in eight bits: a scale a channel, static grids of every value between two, and answers that stay."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope.device.senses.image import ImageSenses, packed
from tightrope.errors import DataError, RecipeError
from tightrope.recipe import Recipe
from tightrope.workshop.compress import apply_step
from tightrope.workshop.graph import Graph, between
from tightrope.workshop.load import load
from tightrope.workshop.numerics.quantized import Quantized
from tightrope.workshop.observe import Observer
from tightrope.workshop.pictures import pictures
from tightrope.workshop.reference import opened, reference
from tightrope.workshop.verify.parity import first_divergence


@pytest.fixture(scope="module")
def graph(tiny_cnn: Path) -> Graph:
    found = load(str(tiny_cnn))
    assert isinstance(found, Graph)
    return found


@pytest.fixture(scope="module")
def observer(graph: Graph) -> Observer:
    return Observer(graph, (), (), [packed(item) for item in pictures(16, 16, 3, 12, seed=1)])


def step(graph: Graph, written: str, observer: Observer) -> Graph:
    return apply_step(graph, Recipe.parse(f"{written} -> onnxruntime").steps[0], observer)


def answers(graph: Graph, seed: int = 2) -> Any:
    session = opened(reference(graph), threads=1)
    assert isinstance(graph.senses, ImageSenses)
    images = pictures(16, 16, 3, 8, seed=seed)
    return np.concatenate([session.run(None, {"image": graph.senses.prepare(image)})[0] for image in images])


def test_weights_have_a_scale_for_each_channel_and_every_value_a_grid(graph: Graph, observer: Observer) -> None:
    rounded = step(graph, "int8(activations=static)", observer)
    for conv in graph.convolutions():
        weight = rounded.weights[conv.weight]
        assert isinstance(weight, Quantized) and weight.axis == 0 and weight.zero_point is None
        assert weight.codes.dtype == np.int8 and weight.shape == graph.weights[conv.weight].shape
        assert weight.scale.shape == (weight.shape[0],)
        assert rounded.schemes[conv.weight].static is not None
    assert set(between(graph)) <= rounded.schemes.keys()
    assert "logits" not in rounded.schemes
    relus = [rounded.schemes[name].static for name in ("stem.relu", "block", "deep.clip", "head.relu")]
    assert all(limits is not None and limits[0] == 0 for limits in relus)


def least_cosine(one: Graph, other: Graph) -> float:
    first, second = answers(one), answers(other)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(1) / lengths).min())


@pytest.mark.parametrize(
    ("calibration", "least"),
    [("minmax", 0.998), ("percentile", 0.998), ("mse", 0.998), ("entropy", 0.9)],  # which clips most, on few images
)
def test_answers_stay_close(graph: Graph, observer: Observer, calibration: str, least: float) -> None:
    rounded = step(graph, f"int8(activations=static, calibration={calibration})", observer)
    assert least_cosine(graph, rounded) > least


def test_weights_alone_have_no_grids_for_values(graph: Graph) -> None:
    rounded = step(graph, "int8(activations=none)", Observer(graph, ()))
    assert not rounded.schemes
    assert least_cosine(graph, rounded) > 0.999


def test_a_layer_that_is_kept_hands_on_floats(graph: Graph, observer: Observer) -> None:
    rounded = step(graph, "int8(activations=static, keep=stem)", observer)
    assert not isinstance(rounded.weights["stem.weight"], Quantized)
    assert "stem.weight" not in rounded.schemes
    with pytest.raises(RecipeError, match="no layer's name"):
        step(graph, "int8(activations=static, keep=nowhere)", observer)


def test_branches_merged_first_are_calibrated_on_the_original(graph: Graph, observer: Observer) -> None:
    rounded = step(step(graph, "reparameterize", observer), "int8(activations=static)", observer)
    assert all(isinstance(rounded.weights[conv.weight], Quantized) for conv in rounded.convolutions())
    assert least_cosine(graph, rounded) > 0.995


@pytest.mark.parametrize(
    "written", ["int8", "int8(activations=static, weights=asymmetric)", "int8(activations=none, weights=asymmetric)"]
)
def test_what_no_engine_does_is_refused(graph: Graph, observer: Observer, written: str) -> None:
    with pytest.raises(RecipeError):
        step(graph, written, observer)


def test_calibrating_without_images_says_so(graph: Graph) -> None:
    with pytest.raises(DataError, match="no calibration images"):
        step(graph, "int8(activations=static)", Observer(graph, ()))


def test_the_layer_where_it_goes_wrong_is_named(graph: Graph) -> None:
    broken = graph.rewrite(weights={"project.weight": np.asarray(graph.weights["project.weight"]) * 0})
    images = [packed(item) for item in pictures(16, 16, 3, 2)]
    assert first_divergence(broken, graph, images) == "project"
