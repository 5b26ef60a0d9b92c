"""Answers: what a model gives for a sample set, in a fixed order, from a bundle or from the plain reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tightrope.device.senses.text import prompt_text
from tightrope.errors import DataError, EngineError
from tightrope.samples import LabelledImages, Retrieval, Samples, TextPair, Texts
from tightrope.workshop.model import Model, text_senses
from tightrope.workshop.network import lower
from tightrope.workshop.verify.plain import Plain

Floats = NDArray[np.float32]

CANDIDATES = 30
"""Documents that a cross-encoder ranks beside the judged ones of a query."""

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@runtime_checkable
class Embeds(Protocol):
    """Anything that turns texts into vectors: an open bundle, or `open_reference`."""

    @property
    def truncated(self) -> int: ...
    @property
    def prompts(self) -> tuple[str, ...]: ...

    def embed(self, texts: Sequence[str], *, prompt: str | None = None) -> Floats: ...


@runtime_checkable
class Scores(Protocol):
    """Anything that scores pairs of texts: an open bundle of a cross-encoder, or `open_reference`."""

    @property
    def truncated(self) -> int: ...

    def score(self, pairs: Sequence[TextPair]) -> Floats: ...


@runtime_checkable
class Classifies(Protocol):
    """Anything that tells images apart: an open bundle, or `open_reference`."""

    @property
    def truncated(self) -> int: ...

    def logits(self, images: Sequence[bytes]) -> Floats: ...


Asked = Embeds | Scores | Classifies


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a model gave for a sample set: float32, finite.

    `embedding`: values [n, width], one row for each of `samples.texts`; of a retrieval set one for each query, then
    one for each document. `scoring`: values [n] (or [n, labels]), one for each of `pairs_of(samples)`.
    `classification`: logits [n, classes], one row for each image.
    """

    kind: Literal["embedding", "scoring", "classification"]
    values: Floats
    truncated: int = 0
    """How many texts were longer than the model's limit, and were cut."""

    def __post_init__(self) -> None:
        wrong = int((~np.isfinite(self.values.reshape(len(self.values), -1))).any(axis=1).sum())
        if wrong:
            raise EngineError(
                f"{wrong} of {len(self.values)} answers are not finite numbers.",
                hint="The recipe leaves the range of a number format; take another one, or another engine.",
            )


def answers_of(model: Asked, samples: Samples) -> Answers:
    """Ask a model for everything that judging it on these samples needs.

    Queries and documents get the prompts of those names where the model has them. Raises `EngineError` if an
    answer is not finite.
    """
    before = model.truncated
    if isinstance(model, Classifies):
        if not isinstance(samples, LabelledImages):
            raise DataError(f"{type(samples).__name__} hold no images.", hint="Give a folder of labelled images.")
        return Answers(kind="classification", values=np.asarray(model.logits(samples.images), np.float32))
    if isinstance(model, Scores):
        values = np.asarray(model.score(pairs_of(samples)), np.float32)
        return Answers(kind="scoring", values=values, truncated=model.truncated - before)
    if isinstance(samples, Retrieval):
        queries = model.embed(list(samples.queries.values()), prompt=_prompt(model, QUERY_PROMPTS))
        documents = model.embed(list(samples.documents.values()), prompt=_prompt(model, DOCUMENT_PROMPTS))
        values = np.concatenate([queries, documents])
    else:
        values = model.embed(list(samples.texts))
    return Answers(kind="embedding", values=values, truncated=model.truncated - before)


def one_by_one(model: Asked, inputs: Sequence[Any]) -> Floats:
    """The answers to texts, pairs or images, each asked alone, so that no batch has a say: float32 [n, width]."""
    if isinstance(model, Classifies):
        return model.logits(inputs)
    if isinstance(model, Scores):
        return np.concatenate([np.reshape(model.score([tuple(pair)]), (1, -1)) for pair in inputs])
    return np.concatenate([model.embed([text]) for text in inputs])


def _prompt(model: Embeds, wanted: tuple[str, ...]) -> str | None:
    """The first of these prompts that the model has; `None` leaves it to the model's default."""
    return next((name for name in wanted if name in model.prompts), None)


def pairs_of(samples: Samples) -> list[TextPair]:
    """The pairs that a cross-encoder is asked about.

    Its own pairs; of a retrieval set each query with its candidates (`candidates`); of plain texts each with the
    next two, with its first half, and its halves with each other, so that far, near and nearest all occur.
    """
    if isinstance(samples, Retrieval):
        return [
            (samples.queries[query], samples.documents[document])
            for query, documents in candidates(samples).items()
            for document in documents
        ]
    if isinstance(samples, Texts):
        return [pair for place in range(len(samples.texts)) for pair in _pairs_around(samples.texts, place)]
    pairs: tuple[TextPair, ...] = getattr(samples, "pairs", ())
    if not pairs:
        raise DataError(f"{type(samples).__name__} hold no pairs.", hint="Give pairs of texts.")
    return list(pairs)


PAIRS_PER_TEXT = 4


def _pairs_around(texts: tuple[str, ...], place: int) -> list[TextPair]:
    text = texts[place]
    words = text.split() if " " in text else list(text)
    joint = " " if " " in text else ""
    middle = (len(words) + 1) // 2
    first, second = joint.join(words[:middle]), joint.join(words[middle:]) or text
    neighbours = [(text, texts[(place + step) % len(texts)]) for step in (1, 2)]
    return [*neighbours, (text, first), (first, second)]


def candidates(samples: Retrieval) -> dict[str, list[str]]:
    """For each query its judged documents, and others evenly spread over those judged for any query."""
    pool = list(dict.fromkeys(name for judged in samples.judgements.values() for name in judged))
    pool = [name for name in pool if name in samples.documents]
    chosen = {}
    for place, (query, judged) in enumerate(samples.judgements.items()):
        step = max(1, len(pool) // CANDIDATES)
        others = pool[place % step :: step][:CANDIDATES]
        chosen[query] = list(dict.fromkeys([name for name in judged if name in samples.documents] + others))
    return chosen


def open_reference(model: Model, *, threads: int = 1) -> "ReferenceEmbedder | ReferenceScorer | ReferenceClassifier":
    """A model as its plain executable reference: slow and true, what every engine's form is held against."""
    if model.task.name == "classification":
        return ReferenceClassifier(model, threads)
    return (ReferenceScorer if model.task.name == "scoring" else ReferenceEmbedder)(model, threads)


class _Reference:
    """The reference, run in this process."""

    def __init__(self, model: Model, threads: int) -> None:
        self._plain = Plain(lower(model), threads=threads)
        self._model, self._width = model, model.task.width

    @property
    def truncated(self) -> int:
        """How many inputs so far were longer than the model's limit, and were cut."""
        return self._plain.truncated

    def _run(self, inputs: Sequence[str] | Sequence[TextPair] | Sequence[bytes]) -> Floats:
        rows = np.empty((len(inputs), self._width), np.float32)
        for batch, _, outputs in self._plain.run(inputs):
            rows[batch] = outputs[0]
        return rows


class ReferenceEmbedder(_Reference):
    """Texts to vectors, by the reference."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The names of the model's prompts."""
        return tuple(text_senses(self._model).prompts)

    def embed(self, texts: Sequence[str], *, prompt: str | None = None) -> Floats:
        """Vectors of the texts, float32 [n, width], of unit length."""
        senses = text_senses(self._model)
        name = senses.default_prompt if prompt is None else prompt
        before = prompt_text(senses.prompts, name)
        rows = self._run([before + text for text in texts])
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


class ReferenceScorer(_Reference):
    """Pairs of texts to scores, by the reference."""

    def score(self, pairs: Sequence[TextPair]) -> Floats:
        """Scores of the pairs, float32 [n], or [n, labels]."""
        rows = self._run(pairs)
        return rows[:, 0] if rows.shape[1] == 1 else rows


class ReferenceClassifier(_Reference):
    """Images to logits, by the reference."""

    def logits(self, images: Sequence[bytes]) -> Floats:
        """Logits of the images, float32 [n, classes]."""
        return self._run(images)
