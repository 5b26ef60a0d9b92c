"""Text → token ids, by the bundle's own tokenizer, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightrope.device.session import Ragged
from tightrope.errors import BundleError, DataError

Text = str
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids, segment numbers of the same shape, and how many texts were longer than the model's limit."""

    ids: Ragged
    types: Ragged
    truncated: int


class Tokenizer:
    """A tokenizer that cuts at `max_length` tokens and never pads."""

    def __init__(self, source: Path | bytes, max_length: int) -> None:
        from tokenizers import Tokenizer as Engine

        try:
            text = source if isinstance(source, bytes) else source.read_bytes()
            self._engine: Any = Engine.from_str(text.decode())
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(f"The tokenizer cannot be read: {error}.", hint="Make the bundle anew.") from error
        self._engine.no_padding()
        self._engine.enable_truncation(max_length)
        self.max_length = max_length

    def encode(self, inputs: Sequence[Text] | Sequence[Pair]) -> Encoded:
        """Ids of texts or of pairs. Raises `DataError` for anything that is not text."""
        encodings = self._engine.encode_batch([_clean(item) for item in inputs])
        return Encoded(
            ids=Ragged.of([item.ids for item in encodings]),
            types=Ragged.of([item.type_ids for item in encodings]),
            truncated=sum(bool(item.overflowing) for item in encodings),
        )


def _clean(item: object) -> str | Pair:
    """Text as UTF-8 can hold it: a lone surrogate, which no tokenizer takes, becomes U+FFFD."""
    if isinstance(item, str):
        return item if item.isascii() else item.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(part, str) for part in item):
        return str(_clean(item[0])), str(_clean(item[1]))
    raise DataError(f"{type(item).__name__} {item!r:.60} is not text.", hint="Give strings, or pairs of strings.")


def batches(lengths: NDArray[np.int64], token_budget: int) -> list[NDArray[np.int64]]:
    """Rows in batches of similar length, so that padding costs next to nothing.

    A batch holds at most `token_budget` tokens, padding counted; a longer row is a batch of its own. The longest
    come first, so that memory reaches its peak at once.

    >>> [batch.tolist() for batch in batches(np.array([3, 9, 4, 8]), 16)]
    [[1], [3], [2, 0]]
    """
    order = np.argsort(-lengths, kind="stable")
    cuts, start = [], 0
    for position in range(1, len(order) + 1):
        full = position < len(order) and (position - start + 1) * lengths[order[start]] > token_budget
        if full or position == len(order):
            cuts.append(order[start:position])
            start = position
    return cuts


def of_length(tokenizer: Tokenizer, texts: Sequence[str], tokens: int) -> str:
    """A text of exactly `tokens` tokens if words allow it, else the nearest shorter one, made from the given texts."""
    words = " ".join(texts).split()
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if len(tokenizer.encode([" ".join(words[:middle])]).ids.values) <= tokens:
            low = middle
        else:
            high = middle - 1
    text = " ".join(words[:low])
    for filler in (" a", " the", " of", "."):  # single tokens in most vocabularies
        while len(tokenizer.encode([text + filler]).ids.values) <= tokens < tokenizer.max_length + 1:
            longer = text + filler
            if len(tokenizer.encode([longer]).ids.values) == len(tokenizer.encode([text]).ids.values):
                break
            text = longer
    return text
