"""Long texts in passages that the model reads in whole, each repeating the end of the one before.

A cut is made where a reader would make it: between paragraphs, else between sentences, else between words. Tokens are
counted by the model's own tokenizer.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tightrope.errors import DataError

_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])")
_WORDS = re.compile(r"\s+")

Count = Callable[[Sequence[str]], list[int]]
"""Tokens of each text, those that the model puts around it not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How texts are cut: `tokens` at most in a passage, of which `overlap` come from the one before."""

    tokens: int
    overlap: int

    def __post_init__(self) -> None:
        if not (self.tokens >= 8 and 0 <= self.overlap <= self.tokens // 2):
            raise DataError(
                f"Passages of {self.tokens} tokens that share {self.overlap} cannot be made.",
                hint="Give at least 8 tokens, at most half of them shared.",
            )


def cut(text: str, cutting: Cutting, count: Count) -> list[str]:
    """The passages of a text, in order; none for one without words.

    >>> words = lambda texts: [len(text.split()) for text in texts]
    >>> cut("One two three. Four five six seven. Eight nine.", Cutting(tokens=8, overlap=3), words)
    ['One two three. Four five six seven.', 'Eight nine.']
    """
    parts = _parts(text, cutting.tokens, count)
    passages: list[str] = []
    taken: list[tuple[str, int]] = []
    fresh = False
    for part, size in parts:
        if fresh and sum(length for _, length in taken) + size > cutting.tokens:
            passages.append(_joined(taken))
            taken = _tail(taken, min(cutting.overlap, cutting.tokens - size))
        taken.append((part, size))
        fresh = True
    return [*passages, _joined(taken)] if taken else passages


def _tail(taken: list[tuple[str, int]], room: int) -> list[tuple[str, int]]:
    """The last parts that there is room for: whole sentences only."""
    kept: list[tuple[str, int]] = []
    for part, size in reversed(taken):
        if size > room:
            break
        room -= size
        kept.insert(0, (part, size))
    return kept


def _joined(taken: list[tuple[str, int]]) -> str:
    return " ".join(part for part, _ in taken)


def _parts(text: str, most: int, count: Count) -> list[tuple[str, int]]:
    """The text in pieces of at most so many tokens, as large as a paragraph where that fits."""
    found = [(piece, 0) for piece in (" ".join(item.split()) for item in _PARAGRAPHS.split(text)) if piece]
    sized = _sized([piece for piece, _ in found], count)
    for pattern in (_SENTENCES, _WORDS):
        if all(size <= most for _, size in sized):
            return sized
        sized = [small for large in sized for small in _divided(large, pattern, most, count)]
    return [small for large in sized for small in _halved(large, most, count)]


def _divided(piece: tuple[str, int], pattern: re.Pattern[str], most: int, count: Count) -> list[tuple[str, int]]:
    """A piece that is too large, in smaller ones; words are put together again until a quarter of a passage is full."""
    if piece[1] <= most:
        return [piece]
    small = _sized([item for item in pattern.split(piece[0]) if item], count)
    if pattern is _SENTENCES:
        return small
    groups: list[tuple[str, int]] = []
    for text, size in small:
        if groups and groups[-1][1] + size <= max(1, most // 4):
            groups[-1] = (f"{groups[-1][0]} {text}", groups[-1][1] + size)
        else:
            groups.append((text, size))
    return groups


def _halved(piece: tuple[str, int], most: int, count: Count) -> list[tuple[str, int]]:
    """A word that alone is too large: a long number, or a script without spaces."""
    text, size = piece
    if size <= most or len(text) == 1:
        return [piece]
    halves = _sized([text[: len(text) // 2], text[len(text) // 2 :]], count)
    return [small for half in halves for small in _halved(half, most, count)]


def _sized(texts: list[str], count: Count) -> list[tuple[str, int]]:
    return list(zip(texts, count(texts), strict=True)) if texts else []
