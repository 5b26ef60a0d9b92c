"""The same documents for another model, made beside the index that goes on answering.

    with Rebuild(index, model.bundle.digest, width, model.embed, cut) as made:
        made.copy()                     # takes as long as it takes; documents may change meanwhile
        index_of_new_model = made.swap()    # what changed is copied, then the new one counts

A caller that swaps a model as well does both in the same moment: the old index is good until it is closed.
"""

from collections.abc import Callable
from typing import Self

from tightrope.device.index.documents import Document
from tightrope.device.index.making import Embed, Making, Reserve
from tightrope.device.index.model import Cutter
from tightrope.device.index.opened import Index
from tightrope.errors import SearchError

_AT_ONCE = 64


class Rebuild:
    """An index in the making from another one. A context manager: left before `swap`, nothing has happened."""

    def __init__(self, old: Index, digest: str, width: int, embed: Embed, cut: Cutter) -> None:
        if old.lock is None:
            raise SearchError(f"{old.path} is open for reading only.", hint="Open it for writing.")
        self._old, self._embed, self._cut = old, embed, cut
        self._making = Making(old.path, digest=digest, width=width, lock=old.lock)
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._making.__exit__()

    def copy(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """Embed and copy the documents that were added since the last time.

        `progress` is called with the number of documents done by this call.
        """
        new, done = self._making.index, 0
        assert new is not None
        while found := self._old.numbered(self._last, _AT_ONCE):
            documents = [self._fitted(document) for _, document in found]
            new.replace(documents, self._embed([text for document in documents for text in document.passages]))
            self._last = found[-1][0]
            done += len(found)
            progress(done)

    def swap(self, reserve: Reserve | None = None) -> Index:
        """Copy what changed, let the new index count, and open it for writing.

        Nobody can write meanwhile. The old one goes on answering; closing it removes its files.
        """
        new = self._making.index
        assert new is not None
        with self._old.quiet():
            self.copy()
            for keys in new.all_keys():
                new.delete(set(keys).difference(self._old.present(keys)))
            new.note(**{name: value for name, value in self._old.about.settings.items() if name != "threshold"})
            opened = self._making.seal(reserve)
            self._old.retire()
        return opened

    def _fitted(self, document: Document) -> Document:
        passages = tuple(part for passage in document.passages for part in self._cut(passage))
        return Document(
            key=document.key,
            passages=passages,
            title=document.title,
            answer=document.answer,
            metadata=document.metadata,
        )
