"""What the bare runtimes share: tokenizing, batches under a token budget, mean pooling, unit length."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.peers.adapters import Floats

Ids = Sequence[Sequence[int]]
MAX_TOKENS = 256
MOST_TEXTS = 32


def by_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches of similar length: at most `budget` padded tokens each, or one text if that is longer.

    >>> by_budget([5, 2, 3, 9], 6)
    [[1, 2], [0], [3]]
    """
    plan: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        fits = plan and len(plan[-1]) < MOST_TEXTS and lengths[index] * (len(plan[-1]) + 1) <= budget
        if fits:
            plan[-1].append(index)
        else:
            plan.append([index])
    return plan


class Direct(ABC):
    """A runtime without a library around it. A batching is a token budget; 0 means one text a call."""

    batchings: Sequence[int] = (0, 256, 512, 1024)
    files: Sequence[Path]
    versions: Mapping[str, str]

    def __init__(self, model: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_padding()  # the file as published pads every text to 128 tokens
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Vectors of one batch, padded to its longest text."""
        return self._embed(self._ids(texts))

    def encode_all(self, texts: Sequence[str], batching: int) -> Floats:
        """All texts, tokenized at once, in batches under the budget."""
        ids = self._ids(texts)
        rows: Floats | None = None
        for batch in by_budget([len(item) for item in ids], batching):
            vectors = self._embed([ids[index] for index in batch])
            if rows is None:
                rows = np.empty((len(texts), vectors.shape[1]), np.float32)
            rows[batch] = vectors
        assert rows is not None
        return rows

    def engine(self, text: str) -> Callable[[], object] | None:
        """The runtime's own call for one text."""
        ids = self._ids([text])
        return lambda: self._hidden(ids)

    @abstractmethod
    def _hidden(self, ids: Ids) -> NDArray[np.float32]:
        """Last hidden states, [n, longest, width]; what stands behind a text's end is not looked at."""

    def _ids(self, texts: Sequence[str]) -> Ids:
        if len(texts) == 1:
            return [self._tokenizer.encode(texts[0]).ids]
        return [item.ids for item in self._tokenizer.encode_batch(list(texts))]

    def _embed(self, ids: Ids) -> Floats:
        hidden = self._hidden(ids)
        if len(ids) == 1:
            pooled = hidden[0].mean(axis=0, keepdims=True)
        else:
            pooled = np.stack([hidden[row, : len(item)].mean(axis=0) for row, item in enumerate(ids)])
        vectors: Floats = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors


def padded(ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, int64 [n, longest]."""
    shape = (len(ids), max(map(len, ids)))
    values, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, item in enumerate(ids):
        values[row, : len(item)] = item
        mask[row, : len(item)] = 1
    return values, mask
