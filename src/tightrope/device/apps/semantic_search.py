"""Search by meaning, by words, or by both."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from tightrope.device.index.codes import Floats
from tightrope.device.index.documents import Hit
from tightrope.device.index.model import for_questions
from tightrope.device.index.opened import MOST, Index, Where
from tightrope.errors import DataError


class Mode(StrEnum):
    """What is compared: vectors, words, or both, which is best on most collections (docs/guide/search.md)."""

    HYBRID = "hybrid"
    VECTOR = "vector"
    WORDS = "words"


class Model(Protocol):
    """What makes vectors: an `Embedder`."""

    @property
    def prompts(self) -> tuple[str, ...]: ...

    def embed(self, texts: Sequence[str], *, prompt: str | None = None) -> Floats: ...


def search(
    index: Index, model: Model, query: str, k: int = 10, *, where: Where = None, mode: Mode = Mode.HYBRID
) -> list[Hit]:
    """The `k` best documents for a query, each by its best passage, the best first.

    Raises `DataError` for an empty query, and as `Index.search` does.
    """
    vector = None if mode is Mode.WORDS else model.embed([asked(query)], prompt=for_questions(model))[0]
    return found(index, vector, query, k, where=where, mode=mode)


def found(
    index: Index, vector: Floats | None, query: str, k: int, *, where: Where = None, mode: Mode = Mode.HYBRID
) -> list[Hit]:
    """The same for a query whose vector is known; search by words needs none."""
    deep = k if not isinstance(k, int) or k > MOST // 4 else 4 * k  # passages of one document stand for each other
    if vector is None or mode is Mode.WORDS:
        hits = index.matching(query, deep, where)
    elif mode is Mode.VECTOR:
        hits = index.search(vector, deep, where)
    else:
        hits = index.hybrid(vector, query, deep, where)
    best = dict[str, Hit]()
    for hit in hits:
        best.setdefault(hit.key, hit)
    return list(best.values())[:k]


def asked(query: str) -> str:
    """The query, if it asks anything. Raises `DataError` if not."""
    if not isinstance(query, str) or not query.strip():
        raise DataError(f"{query!r:.60} asks nothing.", hint="Give a text.")
    return query
