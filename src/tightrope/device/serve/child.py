"""Sessions in processes of their own, for engines whose native code may crash: it then takes no server with it.

The child is the meter's worker, which opens the artefact and runs feeds; texts are tokenised here. When it dies,
whoever waits for it is told at once to come back (`unavailable`), and another is started: by the next batch it is
mostly there. One that dies again and again is started ever more slowly.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tightrope import plugins
from tightrope.bundle import Bundle
from tightrope.device.meter import arrays, memory, sessions
from tightrope.device.meter.bench import Bench
from tightrope.device.meter.protocol import Message, take
from tightrope.device.model import Embedder, Scorer, open_bundle
from tightrope.device.serve import logs
from tightrope.device.serve.ledger import Ledger
from tightrope.device.session import Array, Opener, Session
from tightrope.errors import BenchError, EngineError, RefusedError, TightropeError

IN_PROCESS = ("native",)
"""Engines that run in the server itself: they are tested not to crash, and a child would cost an interpreter."""
LIMIT_S = 30.0
"""How long a child may take for one batch, or for opening an artefact, before it is thought to hang."""
PATIENCE_S = 1.0
"""How long a batch waits for a child that is being started."""
_QUICK_S = 10.0
"""A child that lived shorter than this is started again only after a pause, which doubles each time."""
_PAUSE_S = (0.1, 5.0)


class ChildSession:
    """A session whose engine runs in a supervised child. Safe for use from several threads, which take turns."""

    def __init__(
        self,
        engine: str,
        files: Mapping[str, Path],
        settings: Mapping[str, Any],
        *,
        threads: int,
        ledger: Ledger | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._engine = engine
        self._wanted = sessions.wanted(engine, files, settings, threads)
        self._ledger = ledger
        self._limit_s = limit_s
        self._turn = threading.Lock()
        self._closed = threading.Event()
        self._deaths = 0
        """How many children in a row hardly lived."""
        self._started_s = 0.0
        self._restarter: threading.Thread | None = None
        self._bench, told = self._start()
        self._ready = threading.Event()
        self._ready.set()
        self.inputs = sessions.ports(told, "inputs")
        self.outputs = sessions.ports(told, "outputs")
        self.capabilities = replace(sessions.capabilities(told), parallel=False)

    @property
    def process(self) -> int:
        """The number of the child's process."""
        return self._bench.process

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds. Raises `RefusedError` (unavailable) if the child died of them, or is not there."""
        described, payload = arrays.pack(feeds)
        with self._turn:
            if self._closed.is_set():
                raise EngineError(f"The {self._engine} session is closed.", hint="Open the bundle again.")
            if not self._ready.wait(PATIENCE_S):
                raise self._unavailable("is being started again")
            try:
                answer, data = self._bench.request("run", {"arrays": described}, payload)
                return arrays.unpack(take(answer, "arrays", list), data)
            except BenchError as error:
                if not self._bench.ended:  # the engine threw something that is not ours, and lives
                    raise EngineError(error.message, hint=error.hint) from error
                self._replace(error)
                raise self._unavailable("crashed and is being started again") from error

    def close(self) -> None:
        """End the child, after the batch that it runs."""
        self._closed.set()
        with self._turn:
            if self._restarter is not None:
                self._restarter.join()
            self._end()

    def _start(self) -> tuple[Bench, Message]:
        self._started_s = time.monotonic()
        bench = Bench(limit_s=self._limit_s)
        try:
            told, _ = bench.request("load", self._wanted)
        except BaseException:
            bench.close(gently=False)
            raise
        if self._ledger is not None:
            proc = Path(f"/proc/{bench.process}")
            self._ledger.watch(bench.process, lambda: memory.read(proc).shared_fairly_bytes)
        return bench, told

    def _end(self) -> None:
        if self._ledger is not None:
            self._ledger.unwatch(self._bench.process)
        self._bench.close()

    def _replace(self, error: TightropeError) -> None:
        """Start another child in a thread of its own: at once, or after a pause if the last ones hardly lived."""
        self._ready.clear()
        self._deaths = self._deaths + 1 if time.monotonic() - self._started_s < _QUICK_S else 0
        logs.event("child.crashed", level="error", engine=self._engine, detail=error.message, deaths=self._deaths)
        self._restarter = threading.Thread(target=self._restart, name="tightrope-child", daemon=True)
        self._restarter.start()

    def _restart(self) -> None:
        self._end()
        while not self._closed.wait(_pause_s(self._deaths)):
            try:
                self._bench, _ = self._start()
            except TightropeError as error:
                self._deaths += 1
                logs.event("child.failed", level="error", engine=self._engine, detail=error.message)
                continue
            self._ready.set()
            seconds = time.monotonic() - self._started_s
            logs.event("child.started", engine=self._engine, seconds=seconds)
            return

    def _unavailable(self, what: str) -> RefusedError:
        return RefusedError(
            f"The {self._engine} engine {what}.",
            hint="Try again in a moment.",
            reason="unavailable",
            retry_after_s=max(1.0, _pause_s(self._deaths)),
        )


class Isolated:
    """What opens an engine's artefacts in children."""

    def __init__(self, engine: str, ledger: Ledger | None = None) -> None:
        self._engine = engine
        self._ledger = ledger

    def open_artefact(self, files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> Session:
        """Start a child that opens the files. Raises what the engine in it raises, `BenchError` if it dies of them."""
        return ChildSession(self._engine, files, settings, threads=threads, ledger=self._ledger)


def open_safely(
    source: Bundle | Path | str, *, threads: int = 1, engine: str | None = None, ledger: Ledger | None = None
) -> Embedder | Scorer:
    """Open a bundle: in this process for an engine that does not crash, else in a child. Raises as `open_bundle` does.

    With a ledger, the child's memory is counted.
    """

    def opener(name: str) -> Opener:
        return cast(Opener, plugins.load("runtimes", name)) if name in IN_PROCESS else Isolated(name, ledger)

    return open_bundle(source, threads=threads, engine=engine, runtime=opener)


def _pause_s(deaths: int) -> float:
    """How long to wait before another child is started, after so many that hardly lived."""
    first, most = _PAUSE_S
    return 0.0 if deaths < 2 else min(most, first * 2.0 ** min(deaths - 2, 16))
