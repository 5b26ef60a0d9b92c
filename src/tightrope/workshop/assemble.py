"""Assemble: a converted model, its senses, its lineage and the proof of what it answers, sealed as a bundle."""

import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.bundle import Artefact, Bundle, Content, Writer
from tightrope.bundle import Model as BundleModel
from tightrope.device.model import Floats, open_bundle
from tightrope.device.proof import answers
from tightrope.recipe import Recipe
from tightrope.workshop.converted import Converted
from tightrope.workshop.model import Model

TOLERANCE = {"embedding": 0.999, "scoring": 0.05}
"""How far a device may be from the answers recorded here: least cosine of a vector, largest difference of a score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Texts (or pairs) whose answers go into the bundle, and the answers of the fp32 original to them, if known."""

    inputs: Sequence[Any]
    original: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a bundle comes from: what the user wrote, the recipe, the calibration texts, and for which target."""

    source: str
    recipe: Recipe
    calibration: Mapping[str, Any]
    target: str = "any"
    notes: Mapping[str, Any] = field(default_factory=dict)


def assemble(
    model: Model, converted: Converted, origin: Origin, vectors: Vectors, out: Path, *, force: bool = False
) -> Bundle:
    """Write the bundle. It is opened once on the way, and its own answers to the proof's texts are recorded in it."""
    with Writer(out, force=force) as writer:
        content = _content(model, converted, origin, writer)
        with open_bundle(Bundle(path=writer.folder, content=content, digest=content.digest)) as opened:
            expected = answers(opened, vectors.inputs)
        recorded = {
            "inputs": [list(item) if isinstance(item, tuple) else item for item in vectors.inputs],
            "expected": writer.add(_npy(expected), "npy"),
            "tolerance": TOLERANCE[model.task.name],
        }
        if vectors.original is not None:
            recorded["original"] = writer.add(_npy(vectors.original), "npy")
        return writer.seal(_content(model, converted, origin, writer, recorded))


def _content(
    model: Model, converted: Converted, origin: Origin, writer: Writer, vectors: Mapping[str, Any] | None = None
) -> Content:
    artefact = Artefact(
        engine=converted.engine,
        precision=converted.precision,
        files={role: writer.add(data, suffix) for role, (suffix, data) in converted.files.items()},
        settings=converted.settings,
        requires=converted.requires,
    )
    tokenizer = writer.add(model.senses.tokenizer, "json")
    return Content(
        task=model.task.to_json(),
        senses=model.senses.to_json() | {"tokenizer": tokenizer},
        models=(
            BundleModel(name="encoder", inputs=converted.inputs, outputs=converted.outputs, artefacts=(artefact,)),
        ),
        recipe=str(origin.recipe),
        lineage=_lineage(model, converted, origin),
        vectors=vectors or {},
        files=writer.files,
    )


def _lineage(model: Model, converted: Converted, origin: Origin) -> dict[str, Any]:
    tools = {name: version(name) for name in ("tightrope", "numpy", "onnx", "tokenizers")}
    return {
        "source": origin.source,
        "source_digest": model.origin,
        "model_digest": model.digest,
        "calibration": dict(origin.calibration),
        "target": origin.target,
        "made_on": platform.machine(),
        "tools": tools | {converted.engine: converted.engine_version},
        "floats": dict(converted.floats),
        "approximations": dict(converted.approximations),
        **origin.notes,
    }


def _npy(array: Floats) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array, "<f4"), allow_pickle=False)
    return stream.getvalue()
