"""What an index holds and what it gives back: documents, and the hits of a search."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tightrope.device.senses.text import clean_text
from tightrope.errors import DataError

Scalar = str | int | float | bool
Metadata = Mapping[str, Scalar | Sequence[Scalar]]

MAX_KEY = 512
MAX_PASSAGES = 10_000
MAX_METADATA_BYTES = 16_384
MAX_FIELDS = 64
_LARGEST_INTEGER = 2**63 - 1
"""SQLite's integers have 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One thing that can be found by the vectors of its passages.

    `answer` is what is shown for it when that is not its text: the answer to a question, whose vector is searched.
    """

    key: str
    passages: tuple[str, ...]
    title: str = ""
    answer: str = ""
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that was found. `score` is a cosine, a BM25 score or a fused one: what the search says it is."""

    key: str
    text: str
    title: str
    answer: str
    position: int
    """Which passage of its document it is, from 0."""
    metadata: Metadata
    score: float


def checked(document: Document) -> Document:
    """The document as an index can hold it, lone surrogates replaced. Raises `DataError` for one that it cannot."""
    key = clean_text(document.key)
    if not 0 < len(key) <= MAX_KEY or "\0" in key:
        raise DataError(f"{key!r:.60} is no key of a document.", hint=f"Give 1 to {MAX_KEY} characters, no NUL.")
    if not 0 < len(document.passages) <= MAX_PASSAGES:
        raise DataError(
            f"{key!r:.60} has {len(document.passages)} passages.", hint=f"Give it 1 to {MAX_PASSAGES}: divide it."
        )
    return replace(
        document,
        key=key,
        passages=tuple(clean_text(passage) for passage in document.passages),
        title=clean_text(document.title),
        answer=clean_text(document.answer),
        metadata=_metadata(key, document.metadata),
    )


def _metadata(key: str, given: Metadata) -> Metadata:
    if not isinstance(given, Mapping) or len(given) > MAX_FIELDS:
        raise DataError(
            f"The metadata of {key!r:.60} is no object of at most {MAX_FIELDS} fields.", hint="Give names and values."
        )
    clean = {clean_text(name): _value(name, value) for name, value in given.items()}
    if len(json.dumps(clean)) > MAX_METADATA_BYTES:
        raise DataError(
            f"The metadata of {key!r:.60} is larger than {MAX_METADATA_BYTES} bytes.", hint="Keep long texts elsewhere."
        )
    return clean


def _value(name: str, value: object) -> Scalar | tuple[Scalar, ...]:
    if isinstance(value, list | tuple):
        return tuple(scalar(name, item) for item in value)
    return scalar(name, value)


def scalar(name: str, value: object) -> Scalar:
    """A value that metadata may have. Raises `DataError` for anything else: nan, null, a number of over 64 bits …"""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST_INTEGER:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise DataError(
        f"{name!r:.60} is {value!r:.60}, which metadata cannot hold.",
        hint="Give texts, finite numbers, true or false, or lists of them.",
    )


def is_scalar(value: object) -> bool:
    """Whether metadata can have this value."""
    try:
        scalar("", value)
    except DataError:
        return False
    return True
