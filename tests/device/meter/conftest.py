"""Bundles to measure: one that no engine opens, and a real one."""

from pathlib import Path

import pytest

from tightrope.bundle import Artefact, Bundle, Content, Model, Writer
from tightrope.ports import Port

SENTENCES = (
    "The cat sat on the mat and looked at the rain.",
    "Where is the parcel that I sent last week?",
    "Error 42: disk full",
    "Take the second road on the left, then ask at the inn for the keys to the upper meadow.",
    "ok",
)


def seal_without_engine(path: Path, *, task: str = "embedding", big: bytes = b"no model at all") -> Bundle:
    with Writer(path) as writer:
        files = {"model": writer.add(big, "onnx")}
        artefact = Artefact(engine="fake", precision="fp32", files=files)
        ports = (Port("input_ids", "int64", ("batch", "length")),), (Port("rows", "float32", ("batch", 2)),)
        senses = {"kind": "text", "tokenizer": writer.add(b"{}", "json"), "max_length": 64, "prompts": {}}
        content = Content(
            task={"name": task, "width": 2, "normalize": True},
            senses=senses | {"default_prompt": None},
            models=(Model(name="encoder", inputs=ports[0], outputs=ports[1], artefacts=(artefact,)),),
            recipe="original -> fake",
            lineage={},
            vectors={"inputs": list(SENTENCES)},
            files=writer.files,
        )
        return writer.seal(content, {"measurement": {"made": "up"}})


@pytest.fixture
def sentences() -> tuple[str, ...]:
    """A few texts of all lengths."""
    return SENTENCES


@pytest.fixture
def bundle_without_engine(tmp_path: Path) -> Bundle:
    """A whole bundle, whose model no engine can open."""
    return seal_without_engine(tmp_path / "made.bundle")


@pytest.fixture
def scoring_bundle_without_engine(tmp_path: Path) -> Bundle:
    """The same for a model that scores pairs."""
    return seal_without_engine(tmp_path / "scoring.bundle", task="scoring")


@pytest.fixture(scope="session")
def float_bundle(tiny_bert, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny BERT in fp32 for ONNX Runtime."""
    from tightrope.recipe import Recipe
    from tightrope.workshop.assemble import Origin, Vectors, assemble
    from tightrope.workshop.converted import convert

    recipe = Recipe.parse("original -> onnxruntime")
    origin = Origin(source="tiny", recipe=recipe, calibration={})
    path = tmp_path_factory.mktemp("measured") / "tiny.bundle"
    return assemble(tiny_bert, convert(tiny_bert, "onnxruntime"), origin, Vectors(inputs=SENTENCES), path)
