"""Proof: does a bundle answer here as it did where it was made, and as the original did?

A bundle records texts with its own answers and those of the fp32 original. Another processor or another version of
the engine may round differently; more than the recorded tolerance is a fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tightrope.bundle import Bundle
from tightrope.device import machine
from tightrope.device.classifier import Classifier, open_any
from tightrope.device.model import Embedder, Floats, Scorer
from tightrope.errors import BundleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Answers compared over `n` texts: the least and mean cosine of vectors, the largest difference of any number."""

    n: int
    cosine_min: float
    cosine_mean: float
    largest_difference: float

    @staticmethod
    def of(answers: Floats, expected: Floats) -> "Agreement":
        """Compare rows [n, width] with rows of the same shape."""
        norms = np.linalg.norm(answers, axis=1) * np.linalg.norm(expected, axis=1)
        cosines = (answers * expected).sum(1) / np.maximum(norms, 1e-12)
        return Agreement(
            n=len(answers),
            cosine_min=float(cosines.min()),
            cosine_mean=float(cosines.mean()),
            largest_difference=float(np.abs(answers - expected).max()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What `prove` found. `holds`: the answers are within the recorded tolerance of those recorded.

    `saturating_layers`: how many of the engine's layers have products that this processor may cut off in 16 bits.
    """

    engine: str
    holds: bool
    expected: Agreement
    original: Agreement | None
    saturating_layers: int = 0


def prove(source: Bundle, *, threads: int = 1, engine: str | None = None) -> Proof:
    """Open the bundle and answer its own texts. Raises `BundleError` if it holds no proof or cannot run here."""
    asked = texts(source)
    with open_any(source, threads=threads, engine=engine) as opened:
        found = judge(source, answers(opened, asked), opened.engine)
        return replace(found, saturating_layers=saturating_layers(source, opened.engine, machine.this_machine()))


def saturating_layers(source: Bundle, engine: str, here: machine.Machine) -> int:
    """How many layers of the bundle's artefact for an engine have products that may saturate on a machine."""
    if not machine.saturates(here):
        return 0
    artefact = next(item for item in source.content.models[0].artefacts if item.engine == engine)
    return int(artefact.settings.get("saturating_layers", 0))


def texts(source: Bundle) -> Sequence[Any]:
    """The texts (pairs, or images as bytes) whose answers are recorded.

    Raises `BundleError` if the bundle holds no proof.
    """
    found = inputs(source)
    if not found or "expected" not in source.content.vectors or "tolerance" not in source.content.vectors:
        raise BundleError(f"{source.path} holds no texts with expected answers.", hint="Make the bundle anew.")
    return found


def inputs(source: Bundle) -> Sequence[Any]:
    """What a bundle carries to be asked: texts, pairs, or images as bytes; nothing if it carries none."""
    found: Sequence[Any] = source.content.vectors.get("inputs", ())
    if source.content.task["name"] == "classification":
        return [source.file(path).read_bytes() for path in found]
    return found


def judge(source: Bundle, found: Floats, engine: str) -> Proof:
    """Compare what an engine said to the bundle's own texts, float32 [n, width], with what is recorded."""
    expected, original = recorded(source, "expected"), recorded(source, "original")
    assert expected is not None
    agreement = Agreement.of(found, expected)
    return Proof(
        engine=engine,
        holds=within(source, agreement) and bool(np.isfinite(found).all()),
        expected=agreement,
        original=None if original is None else Agreement.of(found, original),
    )


def within(source: Bundle, agreement: Agreement) -> bool:
    """Whether answers agree with the recorded ones as well as the bundle asks for: by cosine, or by score."""
    tolerance = float(source.content.vectors["tolerance"])
    if source.content.task["name"] == "scoring":
        return agreement.largest_difference <= tolerance
    return agreement.cosine_min >= tolerance


def answers(opened: Embedder | Scorer | Classifier, asked: Sequence[Any]) -> Floats:
    """What an opened bundle says to its inputs, one at a time, so that no batch has a say: float32 [n, width]."""
    if isinstance(opened, Classifier):
        return opened.logits(asked)
    if isinstance(opened, Scorer):
        return np.concatenate([opened.score([tuple(pair)]).reshape(1, -1) for pair in asked])
    return np.concatenate([opened.embed([text]) for text in asked])


def recorded(source: Bundle, name: str) -> Floats | None:
    """The recorded answers `expected` or `original`, float32 [n, width], or `None` if there are none.

    Raises `BundleError` if what is recorded is no such array.
    """
    path = source.content.vectors.get(name)
    if path is None:
        return None
    shape = (len(source.content.vectors.get("inputs", ())), source.content.task["width"])
    try:
        found = np.asarray(np.load(source.file(path), allow_pickle=False), np.float32)
    except (ValueError, TypeError, OSError, EOFError, MemoryError) as error:
        raise BundleError(
            f"{path} in {source.path} holds no array: {error}.", hint="Fetch the bundle again."
        ) from error
    if found.shape != shape:
        raise BundleError(f"{path} in {source.path} is {found.shape}, not {shape}.", hint="Make the bundle anew.")
    return found
