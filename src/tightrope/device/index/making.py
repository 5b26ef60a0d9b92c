"""Indexes made, opened and made anew for another model."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from tightrope.device.index import places, schema
from tightrope.device.index.opened import Index
from tightrope.device.index.store import set_about
from tightrope.errors import SearchError

Embed = Callable[[list[str]], "np.ndarray[tuple[int, int], np.dtype[np.float32]]"]
"""Texts to vectors float32 [n, width]: `Embedder.embed`, or a way to a server's queue."""

Reserve = Callable[[int], None]


def open_index(
    path: Path | str, *, writing: bool = True, digest: str | None = None, reserve: Reserve | None = None
) -> Index:
    """Open an index: for writing, which one may at a time, or for reading beside a writer.

    Damaged codes are made again from the store. `digest` is that of the bundle whose vectors it shall be searched with.
    Raises `SearchError` for an index that is not there, broken, being written by another or made for another model.
    """
    folder = Path(path)
    places.current(folder)
    lock = places.Lock(folder) if writing else None
    try:
        if lock is not None:
            places.remove_others(folder)
        opened = Index(folder, places.current(folder), lock=lock, reserve=reserve)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    if digest is not None and opened.digest != digest:
        opened.close()
        raise foreign(folder, opened.digest, digest)
    return opened


def foreign(path: Path, digest: str, wanted: str) -> SearchError:
    """The error for an index whose vectors are another model's."""
    return SearchError(
        f"{path} holds vectors of the model {digest[:12]}…, not of {wanted[:12]}….",
        hint=f"Search it with its own model, or: tightrope index rebuild {path} --model BUNDLE",
    )


class Making:
    """A generation in the making, beside the one that counts, if there is one. `seal` lets it count.

    A context manager: whatever happens before `seal`, nothing is left behind, and the older one is as it was.
    """

    def __init__(self, path: Path, *, digest: str, width: int, lock: places.Lock | None = None) -> None:
        self.path = path
        self._own_lock = lock is None
        self._lock = lock or places.Lock(path)
        self._fresh = not (path / "current").exists()
        self._sealed = False
        self._generation: Path | None = None
        self.index: Index | None = None
        try:
            self._generation = places.new_generation(path)
            _describe(self._generation, digest, width)
            self.index = Index(path, self._generation, lock=self._lock)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._sealed:
            self._discard()

    def seal(self, reserve: Reserve | None = None) -> Index:
        """Let this generation count, and open it for writing. The older one goes when a writer opens the index."""
        assert self.index is not None and self._generation is not None
        lock = self._lock
        self.index.give_lock()
        self.index.close()
        places.make_current(self.path, self._generation)
        self._sealed = True
        return Index(self.path, self._generation, lock=lock, reserve=reserve)

    def _discard(self) -> None:
        if self.index is not None:
            self.index.give_lock()
            self.index.close()
        if self._generation is not None and not self._counts():
            shutil.rmtree(self._generation, ignore_errors=True)
            if self._fresh:
                shutil.rmtree(self.path, ignore_errors=True)
        if self._own_lock:
            self._lock.release()

    def _counts(self) -> bool:
        """Whether the generation counts after all: an error may come when everything is in place."""
        try:
            return places.current(self.path) == self._generation
        except SearchError:
            return False


def create(path: Path | str, *, digest: str, width: int, force: bool = False) -> Index:
    """An empty index for the vectors of the bundle with this digest, open for writing.

    Raises `OutputError` if something is there already, unless it is an index and `force` allows to replace it.
    """
    folder = Path(path)
    places.prepare(folder, force=force)
    with Making(folder, digest=digest, width=width) as making:
        return making.seal()


def _describe(generation: Path, digest: str, width: int) -> None:
    connection = schema.create(generation / places.STORE)
    try:
        set_about(connection, {"digest": digest, "width": width, "identity": os.urandom(16).hex(), "version": 0})
    finally:
        connection.close()
