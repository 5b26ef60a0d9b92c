"""The file of eight-bit codes: rows of one stride, mapped for reading, written beside the mapping.

The file is not the truth. Everything in it can be made again from the store, which says what checksum each row must
have: so a write that was torn, a changed bit or a file that is gone costs a repair, never an index. A row in use is
never overwritten; a replacement goes to a free one.
"""

import mmap
import os
import struct
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tightrope.device.index.codes import checksum, stride_of
from tightrope.errors import SearchError
from tightrope.places import cannot_write

_MAGIC = b"tightrope index\n"
_HEAD = struct.Struct("<16s16sII")
"""Magic, the store's identity, width, stride; then zeros up to the first row."""
FIRST_ROW = 4096
_GROWTH = 1024


class Codes:
    """Rows of codes in a file. Reading needs no lock: `rows` is a view that is good as long as it is held."""

    def __init__(self, descriptor: int, path: Path, width: int) -> None:
        self._descriptor = descriptor
        self._path = path
        self.stride = stride_of(width)
        self.rows: NDArray[np.int8] = np.empty((0, self.stride), np.int8)
        """int8 [rows in the file, stride]; what no document uses holds anything."""

    @classmethod
    def open(cls, path: Path, identity: bytes, width: int, *, writing: bool) -> Self:
        """Open the file; for writing, make it when it is not there, and anew when it is not this store's.

        Raises `SearchError` where a file that is not right cannot be made anew, `OutputError` if the system refuses.
        """
        head = _HEAD.pack(_MAGIC, identity, width, stride_of(width))
        try:
            flags = os.O_RDWR | os.O_CREAT if writing else os.O_RDONLY
            descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            if writing:
                raise cannot_write(path, error) from error
            raise damaged(path.parent.parent) from error
        opened = cls(descriptor, path, width)
        try:
            if os.pread(descriptor, len(head), 0) != head:
                if not writing:
                    raise damaged(path.parent.parent)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, head.ljust(FIRST_ROW, b"\0"), 0)
            opened.map()
        except OSError as error:
            opened.close()
            raise cannot_write(path, error) from error
        except BaseException:
            opened.close()
            raise
        return opened

    def map(self) -> None:
        """Map what the file has by now. A reader calls it when the store has more rows than it can see."""
        count = max(os.fstat(self._descriptor).st_size - FIRST_ROW, 0) // self.stride
        if count == len(self.rows):
            return
        if not count:
            self.rows = np.empty((0, self.stride), np.int8)
            return
        whole = mmap.mmap(self._descriptor, FIRST_ROW + count * self.stride, access=mmap.ACCESS_READ)
        self.rows = np.frombuffer(whole, np.int8, count * self.stride, FIRST_ROW).reshape(count, self.stride)

    def write(self, slots: NDArray[np.int64], rows: NDArray[np.int8]) -> None:
        """Put rows into their slots and make them durable. The file grows as needed.

        Raises `OutputError` if the system refuses, as a full disk does: then rows in use are as they were.
        """
        try:
            needed = int(slots.max(initial=-1)) + 1
            if needed > len(self.rows):
                count = max(needed, len(self.rows) + max(_GROWTH, len(self.rows) // 8))
                os.ftruncate(self._descriptor, FIRST_ROW + count * self.stride)
            for first, last in runs(slots):
                _write_all(self._descriptor, rows[first:last].tobytes(), FIRST_ROW + int(slots[first]) * self.stride)
            os.fsync(self._descriptor)
            self.map()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def wrong(self, expected: Iterable[tuple[int, int]]) -> list[int]:
        """The slots, of (slot, checksum), whose rows are not what they should be."""
        return [
            slot for slot, crc in expected if slot >= len(self.rows) or checksum(memoryview(self.rows[slot])) != crc
        ]

    def close(self) -> None:
        """Give the descriptor back; the mapping goes with the last view of it."""
        self.rows = self.rows[:0].copy()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def runs(slots: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where consecutive slots begin and end among these.

    >>> runs(np.array([4, 5, 6, 9, 2, 3]))
    [(0, 3), (3, 4), (4, 6)]
    """
    breaks = np.flatnonzero(np.diff(slots) != 1) + 1
    edges = [0, *breaks.tolist(), len(slots)]
    return [(first, last) for first, last in pairwise(edges) if first < last]


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def damaged(index: Path) -> SearchError:
    """The error for an index whose codes are not right, seen by who may not repair them."""
    return SearchError(f"The codes of {index} are damaged.", hint=f"Repair them: tightrope index check {index}")
