"""Answers of before: what a model said to the same text, as long as there is memory to spare.

A text is known by its token ids, which is what the model sees: the model's own tokenizer and prompt decide which texts
are the same, so that an answer from here is the answer that would have been computed, to the bit. The ids are kept as
a digest of 16 bytes, and nobody's text is.
"""

import hashlib
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from tightrope.device.senses.text import Encoded
from tightrope.device.serve.ledger import CACHES, Ledger

_ENTRY_BYTES = 200
"""What an entry takes besides its row: two objects of bytes and its place in the dictionary (CPython 3.11, 64 bits)."""
_STEP_BYTES = 65_536
"""The books are kept in steps of this size."""


class AnswerCache:
    """Rows by the digest of a model and of a text's ids; the least recently used go first. Thread-safe.

    It grows only into memory that nobody else wants, up to `limit_bytes`, and gives all of it back on the first demand.
    """

    def __init__(self, ledger: Ledger, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held = ledger.reserve("cache", 0)
        self._rows: OrderedDict[bytes, bytes] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()
        ledger.on_shortage("cache", CACHES, self.free)

    def __len__(self) -> int:
        with self._lock:
            return len(self._rows)

    def find(self, name: bytes) -> NDArray[np.float32] | None:
        """The row of that name (see `names`), float32 [width], or `None`."""
        with self._lock:
            row = self._rows.get(name)
            if row is None:
                return None
            self._rows.move_to_end(name)
        return np.frombuffer(row, np.float32)

    def keep(self, name: bytes, row: NDArray[np.float32]) -> None:
        """Remember a row, at the cost of older ones if need be."""
        data = row.tobytes()
        size = len(data) + _ENTRY_BYTES
        with self._lock:
            if name in self._rows or not self._make_room(size):
                return
            self._rows[name] = data
            self._used += size

    def free(self, wanted: int) -> int:
        """Forget what was not used for longest, until so many bytes are free; how many that are."""
        with self._lock:
            before = self._held.size_bytes
            while self._rows and before - self._steps(self._used) < wanted:
                self._forget_oldest()
            self._held.resize(self._steps(self._used))
            return before - self._held.size_bytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows.clear()
            self._used = 0
            self._held.resize(0)

    def _make_room(self, size: int) -> bool:
        if size > self.limit_bytes:
            return False
        while self._used + size > self.limit_bytes:
            self._forget_oldest()
        while self._used + size > self._held.size_bytes and not self._held.fit(self._steps(self._used + size)):
            if not self._rows:
                return False
            self._forget_oldest()
        return True

    def _forget_oldest(self) -> None:
        _, row = self._rows.popitem(last=False)
        self._used -= len(row) + _ENTRY_BYTES

    def _steps(self, size: int) -> int:
        return min(-(-size // _STEP_BYTES) * _STEP_BYTES, max(size, self.limit_bytes))


def names(model: bytes, encoded: Encoded) -> list[bytes]:
    """The name of each text of a batch, for the model whose digest and engine are in `model`.

    Ids and segments need no mark between them: a model takes both of one length, or ids alone.
    """
    start, found = hashlib.blake2b(model, digest_size=16), []
    for row in range(len(encoded)):
        name = start.copy()
        name.update(encoded.ids.slice(row, row + 1).values.data)
        name.update(encoded.types.slice(row, row + 1).values.data)
        found.append(name.digest())
    return found
