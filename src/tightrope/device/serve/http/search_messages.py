"""What the native routes take and give. Bodies refuse fields that they do not have."""

from typing import Any

import msgspec

from tightrope.device.apps import recommender
from tightrope.device.apps.semantic_search import Mode

Where = dict[str, Any]

# Bodies -----------------------------------------------------------------------------------------------------


class Search(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /v1/search."""

    query: str
    k: int = 10
    index: str | None = None
    where: Where | None = None
    mode: Mode = Mode.HYBRID


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /v1/ask."""

    question: str
    k: int = 3
    index: str | None = None
    where: Where | None = None


class Liked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /v1/recommend: keys of documents, the oldest first."""

    history: list[str]
    k: int = 10
    half_life: float | None = recommender.HALF_LIFE
    diversity: float = recommender.DIVERSITY
    index: str | None = None
    where: Where | None = None


class Pairs(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /v1/pairs."""

    pairs: list[tuple[str, str]]
    model: str | None = None


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """A document as it comes: its text is cut here."""

    key: str
    text: str
    title: str = ""
    answer: str = ""
    metadata: dict[str, Any] = {}


class Documents(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST and PUT /v1/documents."""

    documents: list[Text]
    index: str | None = None


class Keys(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /v1/documents/delete."""

    keys: list[str]
    index: str | None = None


# Answers ----------------------------------------------------------------------------------------------------


class Found(msgspec.Struct):
    """A passage that was found. `id` is its own, `key` its document's."""

    id: str
    key: str
    score: float
    title: str
    text: str
    answer: str
    position: int
    metadata: dict[str, Any]


class Hits(msgspec.Struct):
    """The answer of /v1/recommend."""

    hits: list[Found]


class SearchHits(msgspec.Struct):
    """The answer of /v1/search; `mode` is how it was searched in the end."""

    hits: list[Found]
    mode: Mode


class Reply(msgspec.Struct):
    """The answer of /v1/ask: null where nothing in the index is similar enough."""

    answer: str | None
    known: bool
    score: float
    threshold: float
    hits: list[Found]


class Scores(msgspec.Struct):
    """The answer of /v1/pairs: a number a pair, or as many as the model has labels."""

    model: str
    scores: list[float | list[float]]


class Written(msgspec.Struct):
    """How many documents were written, and of how many passages they are."""

    documents: int
    passages: int


class Deleted(msgspec.Struct):
    """How many documents there were to take out."""

    deleted: int


class IndexState(msgspec.Struct):
    """An index, and the version of the model whose vectors it holds."""

    name: str
    model: str
    version: str
    digest: str
    state: str
    documents: int
    passages: int
    memory_bytes: int


class IndexList(msgspec.Struct):
    """The answer of /v1/indexes."""

    indexes: list[IndexState]
