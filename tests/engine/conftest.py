"""The native engine's tests: models annotated in every way that its file can hold, and processes of their own.

What must hold of a whole process (an instruction set that is forced, memory, a fork) is said by a short program, which
a child process runs. Under a sanitizer (`engine/sanitize.sh`) figures of memory and time say nothing, and are skipped.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope.bundle import Artefact, Bundle, Content, Writer
from tightrope.bundle import Model as BundleModel
from tightrope.device import engine
from tightrope.errors import MissingExtraError
from tightrope.ports import Port
from tightrope.workshop.converted import convert
from tightrope.workshop.model import Task
from tightrope.workshop.network import Network
from tightrope.workshop.numerics.hadamard import block_of, rotated
from tightrope.workshop.numerics.quantized import Scheme, Weight, values
from tightrope.workshop.numerics.rounding import round_to_nearest

ROUNDED = Scheme(bits=8)
WORDS = "embeddings.word_embeddings.weight"
LAYER = "encoder.layer.{}."


def on_integers(network: Network, *, rotation: int = 0, table: int | None = 8) -> Network:
    """All layers on eight bits, their inputs too, turned by as much of `rotation` as divides them."""
    weights, schemes = dict[str, Weight](), dict[str, Scheme]()
    for linear in network.linears():
        rows = values(network.weights[linear.weight])
        length = block_of(rows.shape[1], rotation) if rotation else 1
        weights[linear.weight] = round_to_nearest(
            rotated(rows, length) if length > 1 else rows, bits=8, block=None, symmetric=True
        )
        schemes[linear.weight] = replace(ROUNDED, rotation=length if length > 1 else None)
    return with_table(network.rewrite(weights=weights, schemes=schemes), table)


def with_table(network: Network, bits: int | None) -> Network:
    """The vocabulary in codes, of a group of 32 each where they are fewer than eight bits."""
    if bits is None:
        return network
    rows = values(network.weights[WORDS])
    table = round_to_nearest(rows, bits=bits, block=None if bits == 8 else 32, symmetric=bits == 8)
    return network.rewrite(weights={WORDS: table})


def in_floats(network: Network, dtype: type) -> Network:
    """All layers and the vocabulary as floats of a type."""
    names = [WORDS, *(linear.weight for linear in network.linears())]
    return network.rewrite(weights={name: values(network.weights[name]).astype(dtype) for name in names})


def in_nibbles(network: Network) -> Network:
    """All layers on four bits in blocks of 16, with zero points; the vocabulary too."""
    weights = {
        linear.weight: round_to_nearest(values(network.weights[linear.weight]), bits=4, block=16, symmetric=False)
        for linear in network.linears()
    }
    return with_table(network.rewrite(weights=weights), 4)


def mixed(network: Network) -> Network:
    """Query, key and value each of another kind, so that they are three layers; inputs shifted and scaled."""
    network = on_integers(network, table=6)
    halves, nibbles = dict[str, Weight](), dict[str, Weight]()
    for index in (0, 1):
        key, value, down = (
            LAYER.format(index) + part
            for part in ("attention.self.key.weight", "attention.self.value.weight", "output.dense.weight")
        )
        halves |= {key: values(network.weights[key]).astype(np.float16)}
        nibbles |= {value: round_to_nearest(values(network.weights[value]), bits=4, block=16, symmetric=True)}
        nibbles |= {down: values(network.weights[down])}
    random = np.random.default_rng(11)
    ports = [linear.weight for linear in network.linears() if ".self." in linear.weight]
    moved = Scheme(
        bits=8,
        smooth=random.uniform(0.5, 2, 32).astype(np.float32),
        shift=random.normal(0, 0.3, 32).astype(np.float32),
    )
    floats = {name: Scheme() for name in nibbles if name.endswith("output.dense.weight")}
    return network.rewrite(weights={**halves, **nibbles}, schemes=dict.fromkeys(ports, moved) | floats)


def pruned(network: Network) -> Network:
    """Layer 0 keeps 3 of 4 heads and 48 of 64 neurons, layer 1 all heads and 17 neurons."""
    weights = dict[str, Weight]()
    for index, heads, inner in ((0, 24, 48), (1, 32, 17)):
        layer = LAYER.format(index)
        for part in ("query", "key", "value"):
            for kind in ("weight", "bias"):
                name = f"{layer}attention.self.{part}.{kind}"
                weights[name] = values(network.weights[name])[:heads]
        for name, cut in (
            (f"{layer}attention.output.dense.weight", np.s_[:, :heads]),
            (f"{layer}intermediate.dense.weight", np.s_[:inner]),
            (f"{layer}intermediate.dense.bias", np.s_[:inner]),
            (f"{layer}output.dense.weight", np.s_[:, :inner]),
        ):
            weights[name] = np.ascontiguousarray(values(network.weights[name])[cut])
    return network.rewrite(weights=weights)


def dense(network: Network) -> Network:
    """Two layers after the pooling, the first wider than the encoder."""
    random = np.random.default_rng(13)
    shapes = {"dense.0": (80, 32), "dense.1": (24, 80)}
    weights = {f"{name}.weight": random.normal(0, 0.2, shape) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": random.normal(0, 0.2, shape[0]) for name, shape in shapes.items()}
    task = Task(name="embedding", width=24, pooling="mean_sqrt_len", normalize=False, dense=("tanh", "relu"))
    return replace(network.rewrite(weights={name: v.astype(np.float32) for name, v in weights.items()}), task=task)


def scorer(network: Network) -> Network:
    """A cross-encoder with two token types and one score."""
    random = np.random.default_rng(17)
    shapes = {"pooler.dense": (32, 32), "classifier": (1, 32)}
    weights = {f"{name}.weight": random.normal(0, 0.3, shape) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": random.normal(0, 0.3, shape[0]) for name, shape in shapes.items()}
    task = Task(name="scoring", width=1, activation="sigmoid")
    return replace(network.rewrite(weights={name: v.astype(np.float32) for name, v in weights.items()}), task=task)


def pooled(network: Network, pooling: str) -> Network:
    return replace(network, task=replace(network.task, pooling=pooling))


FORMS: Mapping[str, Callable[[Network], Network]] = {
    "integers": on_integers,
    "rotated": lambda network: on_integers(network, rotation=32, table=6),
    "floats": lambda network: in_floats(network, np.float32),
    "halves": lambda network: in_floats(network, np.float16),
    "nibbles": in_nibbles,
    "mixed": mixed,
    "pruned": lambda network: on_integers(pruned(network), rotation=16),
    "dense": lambda network: on_integers(dense(network), table=None),
    "scorer": lambda network: on_integers(scorer(network), rotation=8),
    "largest": lambda network: on_integers(pooled(network, "max")),
    "first": lambda network: in_floats(pooled(network, "cls"), np.float32),
}


@pytest.fixture(scope="session", autouse=True)
def _library() -> None:
    """These tests need the library."""
    try:
        engine.library()
    except MissingExtraError as error:
        pytest.skip(error.message)


@pytest.fixture
def plain_build() -> None:
    """Go on only without a sanitizer, whose own memory and time would be measured."""
    if "ASAN_OPTIONS" in os.environ:
        pytest.skip("a sanitizer has memory and time of its own")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files lie."""
    return tmp_path_factory.mktemp("native")


@pytest.fixture(scope="session")
def file_of(folder: Path, tiny_bert: Network) -> Callable[[str], Path]:
    """`file_of(form)`: the tiny BERT in one of `FORMS`, as the engine's file."""

    @cache
    def make(form: str) -> Path:
        path = folder / f"{form}.tightrope"
        path.write_bytes(native(FORMS[form](tiny_bert)))
        return path

    return make


@pytest.fixture(scope="session")
def big_file(folder: Path, tiny_bert: Network) -> Path:
    """A file of 16 MB, nearly all of it vocabulary."""
    rows = np.random.default_rng(19).normal(0, 0.2, (131_072, 32)).astype(np.float32)
    path = folder / "big.tightrope"
    path.write_bytes(native(tiny_bert.rewrite(weights={WORDS: rows})))
    return path


@pytest.fixture(scope="session")
def native_form() -> Callable[..., bytes]:
    """`native_form(network, **options)`: a network on integers, as the engine's file."""
    return lambda network, **options: native(on_integers(network, **options))


def native(network: Network) -> bytes:
    return convert(network, "native").files["model"][1]


@pytest.fixture
def sealed(tmp_path: Path, file_of: Callable[[str], Path]) -> Callable[[str], Bundle]:
    """`sealed(form)`: the file of a form in a bundle, its tokenizer too."""

    def seal(form: str) -> Bundle:
        with Writer(tmp_path / f"{form}.bundle") as writer:
            path, scores = writer.add(file_of(form).read_bytes(), "tightrope"), form == "scorer"
            inputs = [Port("input_ids", "int32", ("tokens",)), Port("offsets", "int64", ("texts",))]
            inputs += [Port("token_type_ids", "int32", ("tokens",))] * scores
            width = 1 if scores else 32
            output = Port("scores" if scores else "embedding", "float32", ("texts", width))
            artefact = Artefact(engine="native", precision="int8", files={"model": path})
            model = BundleModel(name="encoder", inputs=tuple(inputs), outputs=(output,), artefacts=(artefact,))
            task = {"name": "scoring" if scores else "embedding", "width": width}
            senses = {"kind": "text", "max_length": 64, "prompts": {}, "default_prompt": None, "wordpiece": path}
            content = Content(
                task=task if scores else task | {"normalize": True},
                senses=senses | {"tokenizer": writer.add(b"{}", "json")},
                models=(model,),
                recipe="original -> native",
                lineage={},
                vectors={},
                files=writer.files,
            )
            return writer.seal(content)

    return seal


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Each form in turn."""
    return str(request.param)


@pytest.fixture
def opened() -> Iterator[Callable[..., engine.Model]]:
    """Opens files; they are closed at the end."""
    models = []

    def open_one(path: Path, **options: Any) -> engine.Model:
        models.append(engine.Model.open(path, **options))
        return models[-1]

    yield open_one
    for model in models:
        model.close()


class Rows:
    """Token ids of texts, made up, as the engine takes them: all in one run, or some of them."""

    def __init__(self, lengths: Any, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.ids = [random.integers(0, 60, length).astype(np.int32) for length in lengths]

    def answers(self, model: engine.Model, order: Any = None) -> Any:
        """Rows of the texts in an order, all in one call."""
        chosen = [self.ids[index] for index in (range(len(self.ids)) if order is None else order)]
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in chosen])]).astype(np.int64)
        ids = np.concatenate([np.zeros(0, np.int32), *chosen])
        return model.run(ids, offsets, ids % 2 if model.types else None)

    def alone(self, model: engine.Model) -> Any:
        """Rows of the texts, a call each."""
        return np.concatenate([self.answers(model, [index]) for index in range(len(self.ids))])


@pytest.fixture(scope="session")
def rows() -> type[Rows]:
    """`rows(lengths, seed)`: see `Rows`."""
    return Rows


@pytest.fixture(scope="session")
def child() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`child(program, *arguments, **environment)`: runs a Python program in a process of its own."""

    def run(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program]
        return subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **environment},
            check=False,
        )

    return run
