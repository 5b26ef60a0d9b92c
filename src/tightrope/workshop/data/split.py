"""Two disjoint parts of one sample set: what the search sees, and what the report quotes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from tightrope.errors import DataError
from tightrope.samples import LabelledImages, LabelledPairs, Retrieval, ScoredPairs, TextPair, Texts

S = TypeVar("S", bound=Texts | ScoredPairs | LabelledPairs | Retrieval)
L = TypeVar("L", bound=Texts | ScoredPairs | LabelledPairs)
R = TypeVar("R", bound=Retrieval)
LARGEST_GROUP = 0.6
"""A group of pairs that share texts is cut apart when it holds more than this share of all pairs."""

ATTEMPTS = 20
MOST_CALIBRATING = 256
"""Images to calibrate by; of more, the others help to choose."""


def split(samples: S, seed: int = 0) -> tuple[S, S]:
    """Cut samples into a seen and a reported half, so that no text is in both; the same seed cuts the same.

    Pairs that share a text stay together. Where nearly all pairs hang together by shared texts, the texts are dealt
    out instead, and pairs that would lie across are dropped. Of a retrieval collection the queries are divided; both
    halves search the same documents. Raises `DataError` if a half would have nothing to judge by.
    """
    generator = np.random.default_rng(seed)
    if isinstance(samples, Texts):
        order = generator.permutation(len(samples.texts))
        _check(len(order) >= 8, f"{len(order)} texts")
        first, second = (sorted(part) for part in np.array_split(order, 2))
        return _take(samples, first), _take(samples, second)
    if isinstance(samples, Retrieval):
        groups = _equal_queries(samples)
        _check(len(groups) >= 2, f"{len(groups)} queries")
        first, second = (sorted(part) for part in np.array_split(generator.permutation(len(groups)), 2))
        return _ask(samples, [groups[place] for place in first]), _ask(samples, [groups[place] for place in second])
    for _ in range(ATTEMPTS):
        halves = [_take(samples, places) for places in _split_pairs(samples.pairs, generator)]
        if all(_judgeable(half) for half in halves):
            return halves[0], halves[1]
    raise _too_few(f"{len(samples.pairs)} pairs")


LEAST_IMAGES = 12


def split_images(samples: LabelledImages, seed: int = 0) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """Cut images in three: to calibrate by (a quarter, 256 at most), to choose by, to quote (a half); by seed.

    Each class is dealt out by itself, so that every part has as even a share of it as there are images; none is in two
    parts.
    """
    _check(len(samples.labels) >= LEAST_IMAGES, f"{len(samples.labels)} images")
    generator = np.random.default_rng(seed)
    labels = np.array(samples.labels)
    classes = generator.permutation(np.unique(labels))
    order = np.concatenate([generator.permutation(np.flatnonzero(labels == label)) for label in classes])
    quoted, seen = order[0::2], order[1::2]
    every = max(2, -(-len(seen) // MOST_CALIBRATING))
    first = np.zeros(len(seen), bool)
    first[::every] = True
    parts = (seen[first], seen[~first], quoted)
    return _images(samples, parts[0]), _images(samples, parts[1]), _images(samples, parts[2])


def _images(samples: LabelledImages, places: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> LabelledImages:
    chosen = sorted(places.tolist())
    return LabelledImages(
        paths=tuple(samples.paths[place] for place in chosen),
        digests=tuple(samples.digests[place] for place in chosen),
        labels=tuple(samples.labels[place] for place in chosen),
    )


def _too_few(what: str) -> DataError:
    return DataError(
        f"{what} are too few to be cut in two.", hint="Give more, or give the second part apart with --report-data."
    )


def _check(fine: bool, what: str) -> None:
    if not fine:
        raise _too_few(what)


def _equal_queries(samples: Retrieval) -> list[list[str]]:
    """The names of the queries by their text."""
    by_text: dict[str, list[str]] = {}
    for name, text in samples.queries.items():
        by_text.setdefault(text, []).append(name)
    return list(by_text.values())


def _ask(samples: R, groups: Sequence[Sequence[str]]) -> R:
    names = [name for group in groups for name in group]
    return replace(
        samples,
        queries={name: samples.queries[name] for name in names},
        judgements={name: samples.judgements[name] for name in names if name in samples.judgements},
    )


def _take(samples: L, places: Sequence[int]) -> L:
    if isinstance(samples, Texts):
        return replace(samples, texts=tuple(samples.texts[place] for place in places))
    pairs = tuple(samples.pairs[place] for place in places)
    if isinstance(samples, ScoredPairs):
        return replace(samples, pairs=pairs, scores=tuple(samples.scores[place] for place in places))
    return replace(samples, pairs=pairs, labels=tuple(samples.labels[place] for place in places))


def _judgeable(half: ScoredPairs | LabelledPairs) -> bool:
    return len(set(half.labels if isinstance(half, LabelledPairs) else half.scores)) > 1


def _split_pairs(pairs: Sequence[TextPair], generator: np.random.Generator) -> tuple[list[int], list[int]]:
    groups = _groups(pairs)
    if max(map(len, groups)) > LARGEST_GROUP * len(pairs):
        return _deal_texts(pairs, generator)
    halves: tuple[list[int], list[int]] = ([], [])
    shuffled = [groups[place] for place in generator.permutation(len(groups))]
    for group in sorted(shuffled, key=len, reverse=True):
        min(halves, key=len).extend(group)
    return sorted(halves[0]), sorted(halves[1])


def _groups(pairs: Sequence[TextPair]) -> list[list[int]]:
    """The pairs by connected texts (union-find with path halving)."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        parent.setdefault(text, text)
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for first, second in pairs:
        parent[root(second)] = root(first)
    groups: dict[str, list[int]] = {}
    for place, (first, _) in enumerate(pairs):
        groups.setdefault(root(first), []).append(place)
    return list(groups.values())


def _deal_texts(pairs: Sequence[TextPair], generator: np.random.Generator) -> tuple[list[int], list[int]]:
    counts = Counter(text for pair in pairs for text in pair)
    side = dict(zip(counts, generator.integers(0, 2, len(counts)), strict=True))
    kept = [place for place, (first, second) in enumerate(pairs) if side[first] == side[second]]
    return [place for place in kept if side[pairs[place][0]] == 0], [
        place for place in kept if side[pairs[place][0]] == 1
    ]
