"""Ours: a bundle, opened as any user does. It batches by itself, so there is one batching only."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tightrope
from benchmarks.peers.adapters import Floats, Peer, versions_of


class _Tightrope:
    batchings: Sequence[int] = (0,)

    def __init__(self, bundle: Path) -> None:
        self._model = tightrope.open(bundle)
        artefact = next(
            item for item in self._model.bundle.content.models[0].artefacts if item.engine == self._model.engine
        )
        self.files = [self._model.bundle.file(path) for path in artefact.files.values()]
        self.versions = versions_of("tightrope", *_package_of(artefact.engine))

    def encode(self, texts: Sequence[str]) -> Floats:
        return self._model.embed(texts)

    def encode_all(self, texts: Sequence[str], batching: int) -> Floats:
        return self._model.embed(texts)

    def engine(self, text: str) -> Callable[[], object] | None:
        feeds = self._model.feeds(self._model.tokenizer.encode([text]))
        session = self._model._session  # no public door leads past the tokenizer
        return lambda: session.run(feeds)


def _package_of(engine: str) -> tuple[str, ...]:
    """The package that an engine comes in, besides our own."""
    return () if engine == "native" else (engine,)


def open_peer(options: Mapping[str, Any]) -> Peer:
    """`bundle`: the folder of the bundle."""
    return _Tightrope(Path(options["bundle"]))
