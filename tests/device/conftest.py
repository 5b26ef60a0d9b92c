"""A bundle for an engine that is made up here, so that opening and answering are tested without one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tightrope import plugins
from tightrope.bundle import Artefact, Bundle, Content, Model, Requirements, Writer
from tightrope.ports import Port
from tightrope.testing import FakeSession

IDS = Port("input_ids", "int64", ("batch", "length"))
MASK = Port("attention_mask", "int64", ("batch", "length"))


def sums(feeds: Any) -> dict[str, Any]:
    """Two numbers a text: the sum of its ids, and how many there are."""
    parts = feeds["input_ids"].sum(1), feeds["attention_mask"].sum(1)
    return {"rows": np.stack(parts, axis=1).astype(np.float32)}


@dataclass
class Engine:
    """The made-up engine: the sessions that it opened, what they answer and take."""

    answer: Callable[[Any], dict[str, Any]] = sums
    inputs: tuple[Port, ...] = (IDS, MASK)
    sessions: list[FakeSession] = field(default_factory=list)

    def open_artefact(self, *_: object, **__: object) -> FakeSession:
        """A session of its own for each that is asked for."""
        outputs = (Port("rows", "float32", ("batch", 2)),)
        self.sessions.append(FakeSession(self.answer, self.inputs, outputs))
        return self.sessions[-1]


@pytest.fixture
def made_up_engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine named `fake`, which is there wherever a runtime is asked for."""
    engine, real = Engine(), plugins.load
    monkeypatch.setattr(plugins, "load", lambda room, name: engine if name == "fake" else real(room, name))
    return engine


@pytest.fixture
def seal_for_engine(tmp_path: Path, tiny_bert: Any, made_up_engine: Engine) -> Callable[..., Bundle]:
    """`seal_for_engine(task=…, tokenizer=…, requires=…, vectors=…, prompts=…)`: a bundle for the made-up engine."""

    def seal(**given: Any) -> Bundle:
        what = SimpleNamespace(
            **{"task": "embedding", "tokenizer": tiny_bert.senses.tokenizer, "requires": (Requirements(),)} | given
        )
        with Writer(tmp_path / "made.bundle", force=True) as writer:
            files = {"model": writer.add(b"no model at all", "bin")}
            first = Artefact(engine="fake", precision="fp32", files=files)
            model = Model(
                name="encoder",
                inputs=(IDS, MASK),
                outputs=(Port("rows", "float32", ("batch", 2)),),
                artefacts=tuple(replace(first, requires=item) for item in what.requires),
            )
            senses = {"kind": "text", "tokenizer": writer.add(what.tokenizer, "json"), "max_length": 64}
            content = Content(
                task={"name": what.task, "width": 2, "normalize": True},
                senses=senses | {"prompts": {"query": "the cat "}, "default_prompt": None},
                models=(model,),
                recipe="original -> fake",
                lineage={},
                vectors={},
                files=writer.files,
            )
            vectors = {
                key: writer.add(value, "npy") if isinstance(value, bytes) else value
                for key, value in given.get("vectors", {}).items()
            }
            return writer.seal(replace(content, vectors=vectors, files=writer.files))

    return seal


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bert: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny BERT in fp32 for ONNX Runtime, with its own answers to two texts."""
    from tightrope.recipe import Recipe
    from tightrope.workshop.assemble import Origin, Vectors, assemble
    from tightrope.workshop.converted import convert

    origin = Origin(source="tiny", recipe=Recipe.parse("original -> onnxruntime"), calibration={})
    path = tmp_path_factory.mktemp("opened") / "tiny.bundle"
    return assemble(tiny_bert, convert(tiny_bert, "onnxruntime"), origin, Vectors(inputs=("the cat", "sat")), path)
