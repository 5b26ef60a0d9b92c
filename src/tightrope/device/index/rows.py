"""The rows of codes as memory knows them: which are in use, and what their products are worth."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tightrope.device.index.codes import Quantized
from tightrope.device.index.graph import Graph
from tightrope.device.index.mapped import Codes, damaged
from tightrope.device.index.scan import scan
from tightrope.device.index.store import Slots, Store

_OVERHEAD_BYTES = 3_000_000
"""Pages that SQLite keeps (1 MB a connection), and what a search takes for itself."""
_AT_ONCE = 1024


class Rows:
    """Codes, scales and which slots are in use. Scanning needs no lock; changing is for who holds the index's.

    `reserve(bytes)` is called with what all of it takes before it grows; what that raises stops it.
    """

    def __init__(
        self, index: Path, store: Store, codes: Codes, reserve: Callable[[int], None], *, writing: bool
    ) -> None:
        self._index, self._store, self._reserve, self._writing = index, store, reserve, writing
        self.codes = codes
        self.scales: NDArray[np.float32] = np.zeros(0, np.float32)
        self.alive: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.graph: Graph | None = None
        """What finds candidates without reading every row, if it was asked for."""
        self._fresh: NDArray[np.bool_] = np.zeros(0, np.bool_)
        """Slots that changed after the graph was made."""
        self.repaired = 0
        """How many rows of codes were damaged, and were made again."""
        self.load(verify=True)

    @property
    def size_bytes(self) -> int:
        """The memory that is taken when every page has been read."""
        return self._need(len(self.alive))

    def scan(self, query: Quantized, most: int, only: Slots | None) -> Slots:
        """The slots whose codes are most like the query's, of those that are allowed, the best first."""
        codes, scales, allowed = self.codes.rows, self.scales, self.alive
        count = min(len(codes), len(scales), len(allowed))  # another thread may be making room
        if self.graph is not None and only is None:
            fresh = self._fresh
            known = self.graph.nearest(query.coarse[0, : query.exact.shape[1]], most)
            known = known[(known < len(fresh)) & ~fresh[np.minimum(known, len(fresh) - 1)]]
            late = scan(codes[:count], scales[:count], query.coarse[0], most, (allowed & fresh[: len(allowed)])[:count])
            return np.concatenate([known, late[0]])
        if only is not None:
            mask = np.zeros(len(allowed), np.bool_)
            mask[only[only < len(allowed)]] = True
            allowed = mask & allowed
        return scan(codes[:count], scales[:count], query.coarse[0], most, allowed[:count])[0]

    def free(self, count: int) -> Slots:
        """Slots that no document uses: those between others first, then new ones at the end. There is room for them."""
        free = np.flatnonzero(~self.alive)[:count]
        new = np.arange(len(self.alive), len(self.alive) + count - len(free))
        slots = np.concatenate([free, new]).astype(np.int64)
        self._grow(int(slots.max(initial=-1)) + 1)
        return slots

    def take(self, slots: Slots, scales: NDArray[np.float32], freed: list[int]) -> None:
        """From now on these slots are searched, and the freed ones are not."""
        if len(self._fresh):
            self._fresh[slots] = True
        self.scales[slots] = scales
        self.alive[slots] = True
        self.alive[freed] = False

    def load(self, *, verify: bool) -> None:
        """Learn from the store which slots are in use, and hold their codes against their checksums."""
        count = self._store.slots_end()
        self._reserve(self._need(count))
        self.codes.map()
        scales, alive = np.zeros(count, np.float32), np.zeros(count, np.bool_)

        def known() -> Iterator[tuple[int, int]]:
            for slot, scale, crc in self._store.slots():
                if 0 <= slot < count:  # what came in between is found by the next look
                    scales[slot], alive[slot] = scale, True
                    yield slot, crc

        short = len(self.codes.rows)
        wrong = self.codes.wrong(known()) if verify else [slot for slot, _ in known() if slot >= short]
        if wrong:
            self._repair(wrong)
        self.scales, self.alive = scales, alive
        if self.graph is not None:
            self.use(self.graph)

    def use(self, graph: Graph) -> None:
        """Find candidates by a graph from now on, and scan only what came after it."""
        fresh = np.zeros(len(self.alive), np.bool_)
        late = self._store.later(graph.version)
        fresh[late[late < len(fresh)]] = True
        self._fresh, self.graph = fresh, graph

    def differing(self) -> Iterator[str]:
        """What in the codes does not come from the exact vectors, in words."""
        slots = np.flatnonzero(self.alive)
        for start in range(0, len(slots), _AT_ONCE):
            there, rows = self._store.exact(slots[start : start + _AT_ONCE].tolist())
            if not np.array_equal(self.codes.rows[there], rows.coarse):
                yield f"Codes of slots {there[0]} to {there[-1]} differ from their vectors."

    def _repair(self, slots: list[int]) -> None:
        """Make codes again from the exact vectors. Raises `SearchError` for who may not write."""
        if not self._writing:
            raise damaged(self._index)
        for start in range(0, len(slots), _AT_ONCE):
            found, rows = self._store.exact(slots[start : start + _AT_ONCE])
            self.codes.write(found, rows.coarse)
        self.repaired += len(slots)

    def _grow(self, count: int) -> None:
        """Room for so many slots. Arrays that a search holds stay as they are."""
        if count <= len(self.alive):
            return
        more = max(count, len(self.alive) + min(1024, len(self.alive) // 8)) - len(self.alive)
        self._reserve(self._need(len(self.alive) + more))
        self.scales = np.concatenate([self.scales, np.zeros(more, np.float32)])
        if len(self._fresh):
            self._fresh = np.concatenate([self._fresh, np.zeros(more, np.bool_)])
        self.alive = np.concatenate([self.alive, np.zeros(more, np.bool_)])

    def _need(self, slots: int) -> int:
        return slots * (self.codes.stride + self.scales.itemsize + self.alive.itemsize) + _OVERHEAD_BYTES
