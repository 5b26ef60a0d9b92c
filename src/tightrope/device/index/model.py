"""What an index needs of the model that it belongs to: how it counts, and which of its prompts are for what."""

from collections.abc import Callable, Sequence
from typing import Protocol

from tightrope.device.index.chunks import Count, Cutting, cut
from tightrope.device.senses.text import NativeTokenizer, Tokenizer

_QUESTIONS = ("query", "question", "search_query", "s2p_query")
_PASSAGES = ("passage", "document", "search_document", "corpus")
_MOST_PASSAGE = 256
"""Longer passages say too many things for one vector, whatever the model can read."""


Cutter = Callable[[str], list[str]]
"""A text to the passages that a model reads in whole."""


class Prompted(Protocol):
    """A model with prompts, or what knows them."""

    @property
    def prompts(self) -> tuple[str, ...]: ...


def for_questions(model: Prompted) -> str | None:
    """The prompt that the model has for questions, if it has one."""
    return next((name for name in _QUESTIONS if name in model.prompts), None)


def for_passages(model: Prompted) -> str | None:
    """The prompt that the model has for what is searched, if it has one."""
    return next((name for name in _PASSAGES if name in model.prompts), None)


def counting(tokenizer: Tokenizer | NativeTokenizer) -> tuple[Count, int]:
    """How the model counts tokens, without those around each text, and how many of them it reads."""
    (around,) = tokenizer.encode([""], types=False).ids.lengths.tolist()
    limit = tokenizer.max_length - around

    def count(texts: Sequence[str]) -> list[int]:
        encoded = tokenizer.encode(texts, types=False)
        lengths = [length - around for length in encoded.ids.lengths.tolist()]
        # what was cut to the limit is larger than it; how much larger, nobody needs to know
        return [
            length if length < limit else limit + 1 + len(text) for length, text in zip(lengths, texts, strict=True)
        ]

    return count, limit - 1


def cutter(
    tokenizer: Tokenizer | NativeTokenizer, *, before: str = "", tokens: int | None = None, overlap: int | None = None
) -> Cutter:
    """`cutter(…)(text)`: the passages of a text for this tokenizer, `before` being put before each.

    Left out, a passage has what the model reads, 256 tokens at most, and an eighth of it comes from the one before.
    """
    count, limit = counting(tokenizer)
    room = limit - (count([before])[0] if before else 0)
    most = min(tokens or _MOST_PASSAGE, room)
    how = Cutting(tokens=most, overlap=most // 8 if overlap is None else overlap)
    return lambda text: cut(text, how, count)
