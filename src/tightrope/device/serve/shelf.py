"""An index that is served, and the version of the model whose vectors it holds: both are exchanged in one moment.

When another version becomes current, searches go on with the old version and the old index, while the documents are
embedded by the new one; then both change together. What cannot be done (no memory for a second index) is said in
`state`, and the old pair goes on.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tightrope.device.index.making import open_index
from tightrope.device.index.model import Cutter, cutter, for_passages, for_questions
from tightrope.device.index.opened import Index
from tightrope.device.index.rebuild import Rebuild
from tightrope.device.model import Embedder
from tightrope.device.serve import logs
from tightrope.device.serve.catalogue import Catalogue
from tightrope.device.serve.ledger import Ledger, Reservation
from tightrope.errors import RefusedError, SearchError, TightropeError

_AT_ONCE = 32
_BACKGROUND = -2
_PATIENCE_S = 120.0
_RETRIES = 100


class Pair:
    """An index, the version that embeds for it, and what that version wants before questions and passages."""

    def __init__(self, index: Index, version: str, model: Embedder, held: Reservation) -> None:
        self.index, self.version, self.held = index, version, held
        self.for_questions, self.for_passages = for_questions(model), for_passages(model)
        self.users = 1
        """The shelf is one; the last one who goes closes the index."""


class Shelf:
    """One index of a server. A context manager; every method may be called from any thread."""

    def __init__(
        self, path: Path, catalogue: Catalogue, ledger: Ledger, *, sleep: Callable[[float], None] = time.sleep
    ):
        self.path, self.state = path, "current"
        """`state` is "current", "being made anew for VERSION", or why that failed."""
        self._catalogue, self._ledger, self._sleep = catalogue, ledger, sleep
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._renewing: threading.Thread | None = None
        held = ledger.reserve(f"index {path.name}", 0)
        try:
            index = open_index(path, reserve=held.resize)
            try:
                self.name, version = self._owner(index)
                self._pair = self._paired(index, version, held)
            except BaseException:
                index.close()
                raise
        except BaseException:
            held.release()
            raise
        catalogue.on_change(self._changed)
        self._changed(self.name, self._current_digest())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def version(self) -> str:
        """The version that answers now."""
        return self._pair.version

    @contextmanager
    def pair(self) -> Iterator[Pair]:
        """The index and the version that answer now; both stay usable until the end."""
        with self._lock:
            if self._closed.is_set():
                raise RefusedError("The index is closed.", hint="The server stops.", reason="unavailable")
            pair = self._pair
            pair.users += 1
        try:
            yield pair
        finally:
            self._leave(pair)

    @contextmanager
    def cutting(self) -> Iterator[Cutter]:
        """How texts are cut for this model. It may have to be opened: not for the server's loop."""
        with self._catalogue.opened(self.name) as model:
            yield cutter(model.tokenizer)

    def close(self) -> None:
        """Close the index when the last search is done; a renewal that is under way is given up."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._renewing is not None:
            self._renewing.join()
        self._leave(self._pair)

    def _leave(self, pair: Pair) -> None:
        with self._lock:
            pair.users -= 1
            last = pair.users == 0
        if last:
            pair.index.close()
            pair.held.release()

    # Which version it belongs to --------------------------------------------------------------------------

    def _owner(self, index: Index) -> tuple[str, str]:
        """The model and version whose vectors the index holds."""
        for model in self._catalogue.models():
            for version in model.versions:
                if version.digest == index.digest and version.state not in ("rolled_back", "failed"):
                    return model.name, version.version
        raise SearchError(
            f"{index.path} holds vectors of the model {index.digest[:12]}…, which is not served here.",
            hint=f"Serve that one, or make the index anew: tightrope index rebuild {index.path} --model BUNDLE",
        )

    def _paired(self, index: Index, version: str, held: Reservation) -> Pair:
        with self._catalogue.opened(self.name) as model:
            if not isinstance(model, Embedder):
                raise SearchError(f"{self.name} makes no vectors.", hint="Serve a bundle that embeds texts.")
            return Pair(index, version, model, held)

    def _current_digest(self) -> str:
        about = self._catalogue.about(self.name)
        return next((item.digest for item in about.versions if item.version == about.current), "")

    # Another version ------------------------------------------------------------------------------------

    def _changed(self, name: str, digest: str) -> None:
        """A version became current: make the index anew for it, if it is another one, on a thread of its own."""
        with self._lock:
            if name != self.name or digest in ("", self._pair.index.digest) or self._closed.is_set():
                return
            if self._renewing is not None and self._renewing.is_alive():
                return  # it looks once more when it is done
            self._renewing = threading.Thread(target=self._renew, name="tightrope-index", daemon=True)
            self._renewing.start()

    def _renew(self) -> None:
        while not self._closed.is_set():
            about = self._catalogue.about(self.name)
            version = next((item for item in about.versions if item.version == about.current), None)
            if version is None or version.digest == self._pair.index.digest:
                return
            self.state = f"being made anew for {version.version}"
            try:
                self._exchange(version.version, version.digest)
            except TightropeError as error:
                self.state = f"not made anew for {version.version}: {error.message}"
                logs.event("index.not_renewed", level="error", model=self.name, version=version.version)
                return
            self.state = "current"
            logs.event("index.renewed", model=self.name, version=version.version)

    def _exchange(self, version: str, digest: str) -> None:
        old = self._pair
        held = self._ledger.reserve(f"index {self.path.name} {version}", old.index.size_bytes)
        try:
            with self._catalogue.opened(self.name) as model:
                if model.bundle.digest != digest:
                    raise SearchError(f"{self.name} changed again.", hint="Wait for the next.")
                width = model.bundle.content.task["width"]
                prompt = for_passages(model) if isinstance(model, Embedder) else None
                cut = cutter(model.tokenizer, before=model.bundle.content.senses["prompts"].get(prompt, ""))

                def embed(texts: Sequence[str]) -> NDArray[np.float32]:
                    return self._embedded(texts, version, prompt)

                with Rebuild(old.index, digest, width, embed, cut) as made:
                    made.copy()
                    new = self._paired(made.swap(held.resize), version, held)
        except BaseException:
            held.release()
            raise
        with self._lock:
            self._pair = new
        self._leave(old)

    def _embedded(self, texts: Sequence[str], version: str, prompt: str | None) -> NDArray[np.float32]:
        """Vectors by the server's own queue, after everybody else's."""
        rows = []
        for start in range(0, len(texts), _AT_ONCE):
            some = list(texts[start : start + _AT_ONCE])
            rows.append(self._patiently(some, version, prompt))
        return np.concatenate(rows)

    def _patiently(self, texts: list[str], version: str, prompt: str | None) -> NDArray[np.float32]:
        for _ in range(_RETRIES):
            if self._closed.is_set():
                break
            try:
                flight = self._catalogue.answer(
                    self.name, texts, version=version, prompt=prompt, deadline_s=_PATIENCE_S, priority=_BACKGROUND
                )
                return flight.result(_PATIENCE_S + 1).answer.rows
            except RefusedError as error:
                if error.retry_after_s is None and error.reason != "deadline":
                    raise
                self._sleep(error.retry_after_s or 1.0)
        raise SearchError("The index was not made anew: the server is too busy.", hint="It is tried at the next start.")
