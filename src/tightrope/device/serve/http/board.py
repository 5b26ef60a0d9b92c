"""The dashboard's document: kept up to date once for all who look at it, and what it says of models and indexes."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tightrope.device import machine
from tightrope.device.serve.deltas import Feed, Json, diff
from tightrope.device.serve.http.routes import State
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.page import status


class Board:
    """The dashboard's document, kept up to date once for all who look at it, and its history."""

    def __init__(self, metrics: Metrics, describe: Callable[[], dict[str, Any]]) -> None:
        self._metrics = metrics
        self._describe = describe
        self._history = status.History(metrics)
        self._feeds: set[Feed] = set()
        self._last: Json = None
        self.readers = 0
        """Streams of any kind that are open."""

    def document(self) -> dict[str, Any]:
        """Everything as it is now."""
        return status.document(self._metrics, self._history, **self._describe())

    @contextmanager
    def watched(self, feed: Feed) -> Iterator[None]:
        """Keep a reader's feed up to date."""
        if not self._feeds:
            self._last = self.document()
        feed.push(self._last)
        self._feeds.add(feed)
        try:
            yield
        finally:
            self._feeds.discard(feed)

    async def run(self) -> None:
        """Add a point of history every `PERIOD_S`, and tell those who look; until it is cancelled."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(status.PERIOD_S)
            now = time.monotonic()
            self._history.sample(now - before)
            before = now
            if self._feeds:
                document = self.document()
                changes = diff(self._last, document)
                for feed in self._feeds:
                    feed.push(document, since=self._last, changes=changes)
                self._last = document


def describe(state: State) -> dict[str, Any]:
    """What the dashboard's document says of the server, its models and indexes; asks no model anything."""
    readiness = state.catalogue.readiness
    choices = {}
    for lane, choice in state.service.choices().items():
        words = "; ".join((*choice.reasons, *((choice.limited,) if choice.limited else ())))
        choices[lane] = f"{choice.batch_tokens} tokens a batch{f': {words}' if words else ''}"
    if state.reasons:
        choices["threads and workers"] = "; ".join(state.reasons)
    return {
        "server": {
            "version": state.version,
            "ready": readiness is None or readiness.ready,
            "reason": "" if readiness is None else readiness.reason,
            "uptime_s": round(time.monotonic() - state.started_s),
            "keys": state.keys is not None,
            "processor": machine.this_machine().processor,
            "choices": choices,
        },
        "models": [_model(item) for item in state.catalogue.models()],
        "indexes": [_index(name, shelf) for name, shelf in state.indexes.items()],
    }


def _index(name: str, shelf: Any) -> dict[str, Any]:
    with shelf.pair() as pair:
        sizes = {"passages": pair.index.passages, "bytes": pair.index.size_bytes}
        return {"id": name, "name": name, "model": shelf.name, "version": pair.version, "state": shelf.state, **sizes}


def _model(item: Any) -> dict[str, Any]:
    task = item.source.content.task if item.source is not None else {}
    engines = item.source.content.models[0].artefacts if item.source is not None else ()
    return {
        "id": item.name,
        "name": item.name,
        "task": task.get("name", ""),
        "width": task.get("width"),
        "versions": [
            {
                "id": one.version,
                "version": one.version,
                "state": one.state,
                "digest": one.digest,
                "engine": engines[0].engine if engines and one.version == item.current else "",
                "bytes": one.loaded_bytes,
                "share": one.canary,
                "reason": one.reason,
                "evidence": _evidence(one.evidence),
            }
            for one in item.versions
        ],
    }


def _evidence(found: Any) -> dict[str, Any] | None:
    if not found:
        return None
    return {
        "agreement": found.get("agreement"),
        "latency_ratio": found.get("latency_ratio"),
        "seen": found.get("pairs", 0),
        "needed": 500,
    }
