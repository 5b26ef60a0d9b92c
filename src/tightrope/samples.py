"""Samples: the texts, images and labels that a model is calibrated on and judged by.

A sample set is one of five small values; each can be cut into two disjoint parts,
so that what the search sees is never what the report quotes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tightrope.errors import DataError

TextPair = tuple[str, str]


class Samples(Protocol):
    """What every sample set can do."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text in the set, once, in order of appearance."""
        ...


@dataclass(frozen=True, slots=True)
class Texts:
    """Unlabelled texts: for calibration, and for fidelity to the original."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPairs:
    """Pairs with a graded similarity (any scale): judged by Spearman's rank correlation."""

    pairs: tuple[TextPair, ...]
    scores: tuple[float, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text once, in order of appearance."""
        return _unique(self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPairs:
    """Pairs that match (1) or do not (0): judged by AUC and F1."""

    pairs: tuple[TextPair, ...]
    labels: tuple[int, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text once, in order of appearance."""
        return _unique(self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Documents, queries and graded judgements (`query → document → relevance`): judged by nDCG@10."""

    documents: Mapping[str, str]
    queries: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text once: the queries, then the documents."""
        return tuple(dict.fromkeys((*self.queries.values(), *self.documents.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """Images, each of one class: judged by the share that is told right. What they are is known by their digests."""

    paths: tuple[str, ...] = field(repr=False)
    digests: tuple[str, ...]
    """Of the files' bytes (sha256), so that a set moved elsewhere is the same set."""
    labels: tuple[int, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def images(self) -> tuple[bytes, ...]:
        """The files' bytes, read anew. Raises `DataError` for one that is not there any more."""
        try:
            return tuple(Path(path).read_bytes() for path in self.paths)
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}.", hint="Put it back.") from error


def _unique(pairs: tuple[TextPair, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for pair in pairs for text in pair))
