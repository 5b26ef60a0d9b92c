"""Text → token ids, by the bundle's own tokenizer, without padding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightrope import plugins
from tightrope.device.engine import Model as NativeModel
from tightrope.device.session import Ragged
from tightrope.errors import BundleError, DataError

Text = str
Pair = tuple[str, str]
_AT_ONCE = 128
"""Texts whose encodings are kept at once: what the tokenizer notes about each takes far more memory than the ids."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids, segment numbers of the same shape, and how many texts were longer than the model's limit.

    Rows of segment numbers are empty if nobody asked for them.
    """

    ids: Ragged
    types: Ragged
    truncated: int

    def __len__(self) -> int:
        return len(self.ids.offsets) - 1

    def slice(self, start: int, stop: int) -> "Encoded":
        """The texts from `start` to before `stop`, without a copy."""
        return Encoded(self.ids.slice(start, stop), self.types.slice(start, stop), 0)

    def take(self, rows: NDArray[np.int64]) -> "Encoded":
        """The chosen texts in the chosen order."""
        return Encoded(self.ids.take(rows), self.types.take(rows), 0)

    @staticmethod
    def join(parts: "Sequence[Encoded]") -> "Encoded":
        """The texts of all parts, one part after another."""
        if len(parts) == 1:
            return parts[0]
        return Encoded(Ragged.join([part.ids for part in parts]), Ragged.join([part.types for part in parts]), 0)


class Tokenizer:
    """A tokenizer that cuts at `max_length` tokens and never pads."""

    def __init__(self, source: Path | bytes, max_length: int) -> None:
        tokenizers = plugins.import_optional("tokenizers", wanted_by="this tokenizer")
        try:
            text = source if isinstance(source, bytes) else source.read_bytes()
            self._engine: Any = tokenizers.Tokenizer.from_str(text.decode())
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(f"The tokenizer cannot be read: {error}.", hint="Make the bundle anew.") from error
        self._engine.no_padding()
        self._engine.enable_truncation(max_length)
        self.max_length = max_length
        self.vocabulary = int(self._engine.get_vocab_size(with_added_tokens=True))
        """Ids are below this."""

    def encode(self, inputs: Sequence[Text] | Sequence[Pair], *, types: bool = True) -> Encoded:
        """Ids of texts or of pairs, and unless told otherwise their segment numbers.

        Raises `DataError` for anything that is not text.
        """
        ids, segments, truncated = [Ragged.of([])], [Ragged.of([])], 0
        for start in range(0, len(inputs), _AT_ONCE):
            encodings = [self._encode(item) for item in inputs[start : start + _AT_ONCE]]
            ids.append(Ragged.of([item.ids for item in encodings]))
            segments.append(Ragged.of([item.type_ids if types else () for item in encodings]))
            truncated += sum(bool(item.overflowing) for item in encodings)
        return Encoded(ids=Ragged.join(ids), types=Ragged.join(segments), truncated=truncated)

    def close(self) -> None:
        """Nothing is held that would not go by itself."""

    def _encode(self, item: Text | Pair) -> Any:
        """One at a time: the engine's own batches run on as many threads as an environment variable lets them."""
        clean = clean_text(item) if isinstance(item, str) else clean_pair(item)
        return self._engine.encode(clean) if isinstance(clean, str) else self._engine.encode(*clean)


class NativeTokenizer:
    """The same for WordPiece, by the native engine over a mapped vocabulary; `model` holds it. Never pads."""

    def __init__(self, model: NativeModel, max_length: int) -> None:
        self._model = model
        self.max_length = max_length
        self.vocabulary = model.vocabulary
        """Ids are below this."""

    def encode(self, inputs: Sequence[Text] | Sequence[Pair], *, types: bool = True) -> Encoded:
        """Ids of texts or of pairs, and unless told otherwise their segment numbers.

        Raises `DataError` for anything that is not text.
        """
        pairs = bool(inputs) and not isinstance(inputs[0], str)
        texts = (
            [part for item in inputs for part in clean_pair(item)] if pairs else [clean_text(item) for item in inputs]
        )
        ids, segments, offsets, cut = self._model.tokenize(texts, pairs=pairs, max_length=self.max_length)
        nothing = Ragged(segments[:0], np.zeros(len(offsets), np.int64))
        return Encoded(ids=Ragged(ids, offsets), types=Ragged(segments, offsets) if types else nothing, truncated=cut)

    def close(self) -> None:
        """Unmap the vocabulary."""
        self._model.close()


def clean_text(item: object) -> Text:
    """Text as UTF-8 can hold it: a lone surrogate, which no tokenizer takes, becomes U+FFFD. Else a `DataError`."""
    if not isinstance(item, str):
        raise DataError(f"{type(item).__name__} {item!r:.60} is not text.", hint="Give strings.")
    return item if item.isascii() else item.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean_pair(item: object) -> Pair:
    """Two texts, each as UTF-8 can hold it. Raises `DataError` for anything else, one text of two letters too."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{type(item).__name__} {item!r:.60} is not a pair of texts.", hint="Give pairs of strings.")
    return clean_text(item[0]), clean_text(item[1])


def prompt_text(prompts: Mapping[str, str], name: str | None) -> str:
    """What is put before a text: the prompt of that name, and nothing if none is named.

    >>> prompt_text({"query": "query: "}, "query"), prompt_text({"query": "query: "}, None)
    ('query: ', '')
    """
    return prompts[name] if name else ""


def batches(lengths: NDArray[np.int64], token_budget: int) -> list[NDArray[np.int64]]:
    """Rows in batches of similar length, so that padding costs next to nothing.

    A batch holds at most `token_budget` tokens, padding counted; a longer row is a batch of its own. The longest
    come first, so that memory reaches its peak at once.

    >>> [batch.tolist() for batch in batches(np.array([3, 9, 4, 8]), 16)]
    [[1], [3, 2], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    cuts, start = [], 0
    for position in range(1, len(order) + 1):
        full = position < len(order) and (position - start + 1) * lengths[order[start]] > token_budget
        if full or position == len(order):
            cuts.append(order[start:position])
            start = position
    return cuts


def of_length(
    tokenizer: Tokenizer, texts: Sequence[Text], tokens: int, *, pair: bool = False, before: str = ""
) -> Text | Pair | None:
    """A text of exactly `tokens` tokens with `before` before it, or a pair whose first part is a quarter of the words.

    It is made from the words of the given texts, again and again if need be, and a few short ones at the end where
    no word of theirs fits. `None` if the model takes no input of that length.
    """
    words = " ".join(texts).split()

    def count(candidate: list[str]) -> float:
        return _count(tokenizer, _joined(candidate, pair) if pair else f"{before}{_joined(candidate, pair)}")

    low, high = 0, 1
    while words and high < tokens and count(_first(words, high)) <= tokens:
        high *= 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if count(_first(words, middle)) <= tokens else (low, middle)
    chosen = _first(words, low)
    for filler in _FILLERS:
        while count([*chosen, filler]) <= tokens and count([*chosen, filler]) > count(chosen):
            chosen.append(filler)
    return _joined(chosen, pair) if count(chosen) == tokens else None


_FILLERS = ("the", "a", "的", ".")
"""Words that are one token each in nearly every vocabulary; an unknown one is a token too."""


def _first(words: list[str], count: int) -> list[str]:
    """The first `count` words; after the last one the first comes again."""
    return (words * (count // max(1, len(words)) + 1))[:count]


def _joined(words: list[str], pair: bool) -> Text | Pair:
    cut = max(1, len(words) // 4)
    return (" ".join(words[:cut]), " ".join(words[cut:])) if pair else " ".join(words)


def _count(tokenizer: Tokenizer, item: Text | Pair) -> float:
    """Tokens of one input, special ones included; infinite if it would be cut."""
    items: Any = [item]
    encoded = tokenizer.encode(items)
    return float("inf") if encoded.truncated else len(encoded.ids.values)
