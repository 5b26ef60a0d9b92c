"""Assemble: a converted model, its senses, its lineage and the proof of what it answers, sealed as a bundle."""

import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.bundle import Artefact, Bundle, Content, Writer
from tightrope.bundle import Model as BundleModel
from tightrope.device.classifier import open_any
from tightrope.device.meter.run import Place, Plan
from tightrope.device.model import Floats
from tightrope.recipe import Recipe
from tightrope.workshop.benches.answering import LIMIT_S, open_on_bench
from tightrope.workshop.convert.native import packed_tokenizer
from tightrope.workshop.converted import Converted
from tightrope.workshop.model import Model, TextSenses
from tightrope.workshop.verify import stand_in
from tightrope.workshop.verify.answers import one_by_one

TOLERANCE = {"embedding": 0.999, "scoring": 0.05, "classification": 0.99}
"""How far a device may be from the answers recorded here: least cosine of a vector or of logits, largest difference of
a score."""


MODEL_NAMES = {"embedding": "encoder", "scoring": "encoder", "classification": "classifier"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Texts (pairs, or images as bytes of arrays) whose answers go into the bundle.

    `original`: the answers of the fp32 original to them, if known.
    """

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
    model: Model,
    converted: Converted,
    origin: Origin,
    vectors: Vectors,
    out: Path,
    *,
    force: bool = False,
    place: Place | None = None,
    limit_s: float = LIMIT_S,
) -> Bundle:
    """Write the bundle. On the way it is opened in a process of its own, and what it answers is recorded in it.

    `place` is where that process runs, by default here; `limit_s` how long it may take to open the bundle, or to
    answer once.
    """
    with Writer(out, force=force) as writer:
        content = _content(model, converted, origin, writer)
        with open_on_bench(writer.draft(content), place or Place(), Plan(), limit_s) as opened:
            expected = one_by_one(opened, vectors.inputs)
        recorded = {"expected": writer.add(_npy(expected), "npy")} | _vectors(model, vectors, writer)
        return writer.seal(replace(content, vectors=recorded, files=writer.files))


def assemble_unopened(
    model: Model, converted: Converted, origin: Origin, vectors: Vectors, out: Path, *, force: bool = False
) -> Bundle:
    """Write a bundle that cannot be opened here: it holds the original's answers, and a stand-in's if there is one."""
    with Writer(out, force=force) as writer:
        content = _content(model, converted, origin, writer)
        recorded = _vectors(model, vectors, writer)
        if stand_in.needed(converted.engine):
            recorded["expected"] = writer.add(_npy(_stood_in(writer.draft(content), vectors)), "npy")
        return writer.seal(replace(content, vectors=recorded, files=writer.files))


def _stood_in(draft: Bundle, vectors: Vectors) -> Floats:
    """The answers as the files say them, by what stands in for an engine that cannot run here."""
    with open_any(draft, runtime=stand_in.runtime) as opened:
        return one_by_one(opened, vectors.inputs)


def _vectors(model: Model, vectors: Vectors, writer: Writer) -> dict[str, Any]:
    recorded: dict[str, Any] = {
        "inputs": [_input(item, writer) for item in vectors.inputs],
        "tolerance": TOLERANCE[model.task.name],
    }
    if vectors.original is not None:
        recorded["original"] = writer.add(_npy(vectors.original), "npy")
    return recorded


def _input(item: Any, writer: Writer) -> Any:
    """An input as the manifest holds it; an image is a file of its own."""
    if isinstance(item, bytes):
        return writer.add(item, "npy")
    return list(item) if isinstance(item, tuple) else item


def _senses(model: Model, converted: Converted, artefact: Artefact, writer: Writer) -> dict[str, Any]:
    """The senses as the manifest holds them, and the tokenizer's files where there is one."""
    if not isinstance(model.senses, TextSenses):
        return model.senses.to_json()
    senses = model.senses.to_json() | {"tokenizer": writer.add(model.senses.tokenizer, "json")}
    if converted.tokenizer is not None:
        senses["wordpiece"] = artefact.files[converted.tokenizer]
    elif (packed := packed_tokenizer(model.senses.tokenizer)) is not None:
        senses["wordpiece"] = writer.add(packed, "tightrope")
    return senses


def _content(model: Model, converted: Converted, origin: Origin, writer: Writer) -> Content:
    artefact = Artefact(
        engine=converted.engine,
        precision=converted.precision,
        files={role: writer.add(data, suffix) for role, (suffix, data) in converted.files.items()},
        settings=converted.settings,
        requires=converted.requires,
    )
    return Content(
        task=model.task.to_json(),
        senses=_senses(model, converted, artefact, writer),
        models=(
            BundleModel(
                name=MODEL_NAMES[model.task.name],
                inputs=converted.inputs,
                outputs=converted.outputs,
                artefacts=(artefact,),
            ),
        ),
        recipe=str(origin.recipe),
        lineage=_lineage(model, converted, origin),
        vectors={},
        files=writer.files,
    )


def _lineage(model: Model, converted: Converted, origin: Origin) -> dict[str, Any]:
    return {
        "source": origin.source,
        "source_digest": model.origin,
        "model_digest": model.digest,
        "calibration": dict(origin.calibration),
        "target": origin.target,
        "made_on": platform.machine(),
        "tools": tools() | {converted.engine: converted.engine_version},
        **({"answers": stand_in.UNPROVEN[converted.engine]} if stand_in.needed(converted.engine) else {}),
        "floats": dict(converted.floats),
        "approximations": dict(converted.approximations),
        **origin.notes,
    }


def tools() -> dict[str, str]:
    """The versions of what has a say in a bundle's bytes, besides the engine."""
    return {name: version(name) for name in ("tightrope", "numpy", "onnx", "tokenizers")}


def _npy(array: Floats) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array, "<f4"), allow_pickle=False)
    return stream.getvalue()
