"""An open index: searched from any number of threads, changed by one at a time.

A search scans the eight-bit codes, which lie in memory, and judges the best few again by their exact vectors, which do
not: so the answer is that of exact vectors, and a row that changed in between can at most be missed, never be taken
for another.
"""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tightrope.device.index import graph, places, store
from tightrope.device.index.codes import Floats, Quantized, checksum, cosines, quantize
from tightrope.device.index.documents import Document, Hit, checked
from tightrope.device.index.fusion import fused
from tightrope.device.index.lexicon import Lexicon
from tightrope.device.index.mapped import Codes
from tightrope.device.index.rows import Rows
from tightrope.device.index.schema import closed
from tightrope.device.index.store import Slots, Store
from tightrope.errors import DataError, SearchError

MOST = 1000
"""Hits of one search."""
Where = Mapping[str, Any] | None
"""A filter on metadata, as `filters` reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an index says of itself."""

    digest: str
    """The digest of the bundle whose vectors it holds; no other model's vectors can be compared with them."""
    width: int
    documents: int
    passages: int
    settings: Mapping[str, Any]
    """How texts were cut, thresholds … : what its maker wrote down."""


class Index:
    """An open index. A context manager; closing it lets others write it.

    `reserve(bytes)` is called with the memory that the index will take before it grows; what it raises stops that.
    """

    def __init__(
        self, path: Path, generation: Path, *, lock: places.Lock | None, reserve: Callable[[int], None] | None = None
    ) -> None:
        self.path, self.generation, self.lock = path, generation, lock
        self._retired = self._closed = False
        self._changing = threading.RLock()
        self._store = Store(path, generation / places.STORE, writing=self.writable)
        self._lexicon = Lexicon(self._store)
        try:
            self.digest, self.width, self._version, identity = _described(self._store, path)
            codes = Codes.open(generation / places.CODES, identity, self.width, writing=self.writable)
            try:
                self._rows = Rows(path, self._store, codes, reserve or (lambda _: None), writing=self.writable)
            except BaseException:
                codes.close()
                raise
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def writable(self) -> bool:
        """Whether documents can be added here."""
        return self.lock is not None

    @property
    def about(self) -> About:
        """What the index holds by now."""
        said = self._store.about()
        documents, passages = self._store.counts()
        settings = {name.removeprefix("set:"): value for name, value in said.items() if name.startswith("set:")}
        return About(digest=self.digest, width=self.width, documents=documents, passages=passages, settings=settings)

    @property
    def size_bytes(self) -> int:
        """The memory that the index takes when every page of it has been read."""
        return self._rows.size_bytes

    @property
    def passages(self) -> int:
        """How many passages can be found now; asks the memory only, where `about` asks the disk."""
        return int(np.count_nonzero(self._rows.alive))

    @property
    def repaired(self) -> int:
        """How many rows of codes were damaged when the index was opened, and were made again."""
        return self._rows.repaired

    # Searching ------------------------------------------------------------------------------------------

    def search(self, vector: Floats, k: int = 10, where: Where = None) -> list[Hit]:
        """The `k` passages whose vectors are most like this one [width], by cosine, the best first.

        `where` filters on metadata (see `filters`). Raises `DataError` for a vector, `k` or filter that does not fit.
        """
        return self._store.hits(dict(self._nearest(vector, _checked(k), where)))

    def matching(self, text: str, k: int = 10, where: Where = None) -> list[Hit]:
        """The `k` passages that have the text's words, by BM25, the best first."""
        return self._store.hits(dict(self._matching(text, _checked(k), where)))

    def hybrid(self, vector: Floats, text: str, k: int = 10, where: Where = None) -> list[Hit]:
        """The `k` passages that are best in both ways: see `fusion.fused`, which also says what their scores are."""
        deep = max(50, 2 * _checked(k))
        both = fused(self._nearest(vector, deep, where), self._matching(text, deep, where))
        return self._store.hits(dict(both[:k]))

    def vectors(self, keys: Sequence[str]) -> dict[str, Floats]:
        """The unit vectors of the documents that are there, float32 [passages, width] each."""
        self._check_open()
        found = dict[str, Floats]()
        for key, slots in self._store.slots_of(keys).items():
            order, rows = self._store.exact(slots)
            whole = (rows.exact * rows.scales[:, None]).astype(np.float32)
            found[key] = whole[np.searchsorted(order, [slot for slot in slots if slot in order])]
        return found

    def _nearest(self, vector: Floats, k: int, where: Where) -> list[tuple[int, float]]:
        """Slots and cosines of the nearest passages, the best first."""
        self._check_open()
        query = quantize(np.asarray(vector)[None], self.width)
        if not self.writable and not self._retired and self._store.changed():
            self._rows.load(verify=False)
        only = None if where is None else self._store.allowed(where)
        candidates = self._rows.scan(query, k + max(20, k // 2), only)
        slots, rows = self._store.exact(candidates.tolist())
        if not len(slots):
            return []
        scores = cosines(rows, query)
        best = np.lexsort((slots, -scores))[:k]
        return list(zip(slots[best].tolist(), scores[best].tolist(), strict=True))

    def _matching(self, text: str, k: int, where: Where) -> list[tuple[int, float]]:
        """Slots and BM25 scores, the best first; none for a text without words."""
        self._check_open()
        return self._lexicon.matching(text, k, where, int(np.count_nonzero(self._rows.alive)))

    # Changing -------------------------------------------------------------------------------------------

    def add(self, documents: Sequence[Document], vectors: Floats) -> None:
        """Put documents in that are not there: all of them, or none. Searches find them when this returns.

        `vectors` [passages of all documents, width] are in the order of the passages. When this returns, what was added
        survives a power cut. Raises `DataError` for a key that is there or occurs twice, or vectors that do not fit.
        """
        self._put(documents, vectors, replacing=False)

    def replace(self, documents: Sequence[Document], vectors: Floats) -> None:
        """The same for documents that may be there already: the new ones take their place."""
        self._put(documents, vectors, replacing=True)

    def delete(self, keys: Iterable[str]) -> int:
        """Take documents out; how many of them were there."""
        with self._transaction() as writer:
            freed = [slots for key in dict.fromkeys(keys) if (slots := store.remove(writer, key))]
        self._rows.take(np.zeros(0, np.int64), np.zeros(0, np.float32), [slot for slots in freed for slot in slots])
        return len(freed)

    def note(self, **settings: str | float) -> None:
        """Write down settings, which `about` gives back."""
        with self._transaction() as writer:
            store.set_about(writer, {f"set:{name}": value for name, value in settings.items()})

    def _put(self, documents: Sequence[Document], vectors: Floats, *, replacing: bool) -> None:
        given = [checked(document) for document in documents]
        keys = [document.key for document in given]
        if len(set(keys)) != len(keys):
            raise DataError("A key occurs twice among the documents.", hint="Give every document a key of its own.")
        rows = quantize(vectors, self.width)
        if len(rows.exact) != sum(len(document.passages) for document in given):
            raise DataError(
                f"{len(rows.exact)} vectors do not fit the documents' passages.", hint="Give one for each passage."
            )
        with self._changing:
            self._check_writable()
            there = self._store.slots_of(keys)
            if there and not replacing:
                raise DataError(f"{next(iter(there))!r:.60} is in the index already.", hint="Replace it, or delete it.")
            slots, coarse = self._rows.free(len(rows.exact)), rows.coarse
            self._rows.codes.write(slots, coarse)
            with self._transaction() as writer:
                freed = [slot for key in there for slot in store.remove(writer, key)]
                self._insert(writer, given, slots, rows, coarse)
            self._rows.take(slots, rows.coarse_scales, freed)

    def _insert(
        self,
        writer: sqlite3.Connection,
        documents: Sequence[Document],
        slots: Slots,
        rows: Quantized,
        coarse: NDArray[np.int8],
    ) -> None:
        start = 0
        for document in documents:
            end = start + len(document.passages)
            store.insert(writer, document, slots[start:end].tolist())
            start = end
        store.insert_vectors(writer, slots, rows, (checksum(row.tobytes()) for row in coarse), self._version + 1)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A change of the store, which gets the next version; durable at the end, or undone."""
        with self._changing:
            self._check_writable()
            with self._store.writing() as writer:
                yield writer
                store.set_about(writer, {"version": self._version + 1})
            self._version += 1

    def make_graph(self) -> None:
        """Make the graph for approximate search, and use it. Raises `MissingExtraError` without the extra `ann`."""
        with self._changing:
            self._check_writable()
            slots = np.flatnonzero(self._rows.alive)
            graph.make(self.generation, self._rows.codes.rows[slots, : self.width], slots, self._version)
            self.use_graph()

    def use_graph(self) -> bool:
        """Search approximately from now on where no filter is given, if there is a graph; whether there is one."""
        found = graph.opened(self.generation, self.width)
        if found is not None:
            self._rows.use(found)
        return found is not None

    # For who makes another of it --------------------------------------------------------------------------

    def numbered(self, after: int, most: int) -> list[tuple[int, Document]]:
        """Documents with their numbers, in the order in which they came, those after one number."""
        self._check_open()
        return self._store.numbered(after, most)

    def all_keys(self) -> Iterator[list[str]]:
        """All keys in their order, some at a time."""
        last = ""
        while some := self._store.keys(last, 512):
            yield some
            last = some[-1]

    def present(self, keys: Sequence[str]) -> set[str]:
        """Which of these documents are there."""
        self._check_open()
        return set(self._store.slots_of(keys))

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Nobody else changes the index until the end."""
        with self._changing:
            yield

    def give_lock(self) -> places.Lock | None:
        """Hand the right to write over to who asks; from here on the index is for reading."""
        with self._changing:
            lock, self.lock = self.lock, None
            return lock

    def retire(self) -> None:
        """Another generation counts from now on: this one answers until it is closed, which removes it."""
        with self._changing:
            self.lock, self._retired = None, True

    # Closing ----------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """What is wrong with the index, looked at in full: nothing if it is whole."""
        self._check_open()
        try:
            return [*self._store.check(), *self._rows.differing()]
        except SearchError as error:
            return [error.message]

    def close(self) -> None:
        """Give memory and lock back. A search that is under way fails; twice does nothing."""
        with self._changing:
            if self._closed:
                return
            self._closed = True
            self._store.close()
            self._rows.codes.close()
            if self._retired:
                shutil.rmtree(self.generation, ignore_errors=True)
            if self.lock is not None:
                self.lock.release()

    def _check_open(self) -> None:
        if self._closed:
            raise closed(self.path)

    def _check_writable(self) -> None:
        self._check_open()
        if not self.writable:
            raise SearchError(f"{self.path} is open for reading only.", hint="Open it for writing.")


def _described(opened: Store, path: Path) -> tuple[str, int, int, bytes]:
    """Digest, width, version and identity, as the store has them."""
    said = opened.about()
    try:
        return str(said["digest"]), int(said["width"]), int(said["version"]), bytes.fromhex(said["identity"])
    except (KeyError, ValueError, TypeError) as error:
        raise SearchError(f"{path} does not say what it is.", hint="Build it anew from its documents.") from error


def _checked(k: int) -> int:
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MOST:
        raise DataError(f"{k!r:.60} hits cannot be found.", hint=f"Ask for 1 to {MOST}.")
    return k
