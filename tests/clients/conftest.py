"""Real servers around small real models, for clients from the package index."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tightrope
from tightrope.bundle import Bundle, Writer
from tightrope.device.model import open_bundle
from tightrope.device.proof import answers
from tightrope.device.serve.server import Server
from tightrope.recipe import Recipe
from tightrope.workshop.assemble import Origin, _content, _npy
from tightrope.workshop.converted import convert
from tightrope.workshop.model import Task

PAIRS = [["the cat", "sat"], ["a mat", "the cat sat on it"], ["no", "dogs bark"]]


@pytest.fixture(scope="session")
def bundle(native_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small embedder."""
    return native_bundle(tmp_path_factory.mktemp("clients") / "tiny.bundle")


@pytest.fixture(scope="session")
def seal_scorer(bundle: Bundle, tiny_bert: Any) -> Callable[[Path, int, str], Bundle]:
    """`seal_scorer(path, labels, activation)`: a small cross-encoder."""

    def seal(path: Path, labels: int, activation: str) -> Bundle:
        random = np.random.default_rng(17)
        shapes = {"pooler.dense": (32, 32), "classifier": (labels, 32)}
        weights = {f"{name}.weight": random.normal(0, 0.3, shape) for name, shape in shapes.items()}
        weights |= {f"{name}.bias": random.normal(0, 0.3, shape[0]) for name, shape in shapes.items()}
        task = Task(name="scoring", width=labels, activation=activation)
        drawn = {name: value.astype(np.float32) for name, value in weights.items()}
        network = replace(tiny_bert.rewrite(weights=drawn), task=task, origin="1" * 64)
        with Writer(path, force=True) as writer:
            about = Origin(source="tiny", recipe=Recipe.parse("original -> native"), calibration={})
            content = _content(network, convert(network, "native"), about, writer)
            with open_bundle(writer.draft(content)) as model:
                recorded = writer.add(_npy(answers(model, PAIRS)), "npy")
            vectors = {"inputs": PAIRS, "tolerance": 0.05, "expected": recorded, "original": recorded}
            return writer.seal(replace(content, vectors=vectors, files=writer.files))

    return seal


@pytest.fixture(scope="session")
def server(bundle: Bundle) -> Iterator[Server]:
    """A server for the embedder alone."""
    with tightrope.serve(bundle.path, threads=1) as running:
        yield running


@pytest.fixture(scope="session")
def models(
    native_bundle: Callable[..., Bundle],
    seal_scorer: Callable[[Path, int, str], Bundle],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder of models: an embedder in two versions, one that ranks, one with three labels."""
    folder = tmp_path_factory.mktemp("models")
    native_bundle(folder / "tiny" / "1.bundle")
    native_bundle(folder / "tiny" / "2.bundle", noise=0.01)
    seal_scorer(folder / "ranks" / "1.bundle", 1, "sigmoid")
    seal_scorer(folder / "labels" / "1.bundle", 3, "identity")
    return folder


@pytest.fixture(scope="session")
def many(models: Path) -> Iterator[Server]:
    """A server for all of them."""
    with tightrope.serve(models, threads=1) as running:
        yield running
