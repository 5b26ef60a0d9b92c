"""Rollout: a new version beside the old one, verified, tried, and then promoted or taken back, by itself.

What is decided is in the journal before it is done; what was taken back is remembered by its digest. A thread of its
own mirrors requests and decides, so that neither a worker nor a request ever waits for the disk. A candidate with which
the process dies again and again is taken back at the next start.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tightrope.device.serve import evidence as evidences
from tightrope.device.serve import logs
from tightrope.device.serve.evidence import DEATHS, Evidence
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.loader import Loader
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.mirror import Mirror, Sample
from tightrope.device.serve.releases import Release, rejected
from tightrope.device.serve.service import Service
from tightrope.device.serve.store import Store
from tightrope.device.serve.verification import Verifier
from tightrope.errors import RefusedError, ServeError

KEPT_EVERY = 25
"""Pairs after which the evidence is written down, so that a restart does not begin anew."""
SQUEEZED_S = 1.0
"""How long a request that found no room waits for a version on trial to leave the memory, and how long that rests."""
RETRY_S = 1.0
_SAMPLES = 8
_TICK_S = 0.25


@dataclass(slots=True)
class Running:
    """A candidate that is being tried."""

    release: Release
    shadow: bool
    canary: float
    stage: str = "verifying"
    evidence: Evidence = field(default_factory=lambda: Evidence.begin(None))
    mirror: Mirror | None = None
    kept: int = 0
    """Pairs of which the evidence was written down."""
    resumes: bool = False
    """It was being tried when the process ended, and has not been verified in this one."""


class Rollout:
    """Candidates and what becomes of them. Safe for use from any thread; `start` begins to mirror, `close` ends it."""

    def __init__(
        self,
        service: Service,
        ledger: Ledger,
        metrics: Metrics,
        loader: Loader,
        store: Store,
        *,
        boot: str | None = None,
    ) -> None:
        self._service = service
        self._ledger = ledger
        self._metrics = metrics
        self._loader = loader
        self._store = store
        self._verifier = Verifier(service, loader, ledger)
        self._boot = boot_id() if boot is None else boot
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._running: dict[str, Running] = {}
        self._samples: deque[tuple[str, Sample]] = deque(maxlen=_SAMPLES)
        self._due: set[str] = set()
        self._closing = False
        self._rests_until_s = 0.0
        self._changed: list[Callable[[str, str], None]] = []
        self._thread = threading.Thread(target=self._serve, name="tightrope-rollout", daemon=True)

    def on_change(self, listener: Callable[[str, str], None]) -> None:
        """Tell the name and the digest whenever another version has become current."""
        self._changed.append(listener)

    def recover(self) -> None:
        """After the process ended, however it did: finish what was decided, and know what was being tried."""
        for name, model in self._store.releases.models.items():
            current = self._current(name)
            if current is not None and current.digest in self._store.releases.rejected and model.before is not None:
                self._store.record({"op": "current", "name": name, "version": model.before}, durable=False)
                self._drop(current)
            if model.trial is not None:
                self._resume(model.releases[model.trial.version])
            self._prune(name)

    def _resume(self, candidate: Release) -> None:
        name = candidate.name
        self._store.record({"op": "resumed", "name": name, "boot": self._boot}, durable=False)
        trial = self._store.releases.models[name].trial
        assert trial is not None
        known = self._store.releases.rejected.get(candidate.digest)
        if known or trial.deaths > DEATHS:
            self._forget(candidate, known.reason if known else "errors")
            return
        with self._lock:
            self._running[name] = Running(candidate, trial.shadow, trial.canary, resumes=True)
            self._due.add(name)

    def start(self) -> None:
        """Begin to mirror, and go on with what was being tried."""
        self._thread.start()

    def close(self) -> None:
        """Stop mirroring; a trial goes on at the next start."""
        with self._lock:
            self._closing = True
            self._work.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        for name, running in self._running.items():
            self._keep(name, running)
            self._store.record({"op": "paused", "name": name}, durable=False)

    def running(self, name: str) -> Running | None:
        """The candidate of a model that is being tried."""
        with self._lock:
            return self._running.get(name)

    # Beginning ------------------------------------------------------------------------------------------

    def begin(self, release: Release, *, shadow: bool, canary: float) -> None:
        """Verify a version that the store has got, and try it, or make it current if no trial is asked for.

        Raises `ServeError` if it is not what its bundle says, and has then taken it back; other errors (no room in
        memory, on disk, or in a queue) leave it as if it had never been deployed.
        """
        facts = {"version": release.version, "shadow": shadow, "canary": canary, "boot": self._boot}
        self._store.record({"op": "trial", "name": release.name, **facts})
        running = Running(release, shadow, canary)
        with self._lock:
            self._running[release.name] = running
        try:
            self._verify(running)
        except BaseException:
            if self.running(release.name) is running:  # it was not taken back: nothing is wrong with it
                self._withdraw(release)
            raise

    def _verify(self, running: Running) -> None:
        release = running.release
        self._loader.invite(release.lane)
        current = self._current(release.name)
        found = self._verifier.verify(release, current)
        if found.reason:
            self._forget(release, found.reason)
            raise ServeError(found.message, hint=found.hint)
        trial = self._store.releases.models[release.name].trial
        if trial is None or self.running(release.name) is not running:
            raise ServeError(f"{release.lane} was withdrawn meanwhile.", hint="Deploy it again.")
        seen = _known(trial.evidence) or Evidence.begin(found.expected)
        if current is None or not (running.shadow or running.canary):
            self.promote(release.name)
            return
        with self._lock:
            running.evidence = seen
            running.mirror = Mirror(self._service, self._loader, current, release)
            running.stage = evidences.stage(seen, shadow=running.shadow, canary=running.canary)
            running.resumes = False
        logs.event("rollout.begun", model=release.name, version=release.version, stage=running.stage)

    # While it is tried ----------------------------------------------------------------------------------

    def offer(self, name: str, sample: Sample) -> None:
        """A request that was answered: it may be mirrored. Never waits; the oldest gives way to the newest."""
        with self._lock:
            self._samples.append((name, sample))
            self._work.notify()

    def answered(self, name: str, version: str) -> None:
        """A candidate has answered a request for real."""
        self._see(name, version, Evidence.saw_answer)

    def failed(self, name: str, version: str) -> None:
        """A candidate has failed a request for real, and the current version answers it."""
        self._see(name, version, Evidence.saw_failure)

    def squeezed(self) -> None:
        """A request found no room in memory while versions are on trial: they go, for now. May take its time."""
        self._rests_until_s = time.monotonic() + SQUEEZED_S
        for lane in self._loader.guests():
            self._loader.unload(lane, wait_s=SQUEEZED_S)
            name, _, version = lane.partition("@")
            self._see(name, version, lambda seen: seen.saw_memory(True))
        self._ledger.check()

    def _see(self, name: str, version: str, more: Callable[[Evidence], Evidence]) -> None:
        with self._lock:
            running = self._running.get(name)
            if running is not None and running.release.version == version and running.stage != "verifying":
                running.evidence = more(running.evidence)
                self._due.add(name)
                self._work.notify()

    def _serve(self) -> None:
        while (found := self._next()) is not None:
            try:
                for name in found[0]:
                    self._decide(name)
                for name, sample in found[1]:
                    self._mirrored(name, sample)
                self._loader.sweep()
            except Exception as error:  # a full disk, mostly: it is tried again with the next request
                logs.event("rollout.failed", level="error", kind=type(error).__name__, reason=str(error))

    def _next(self) -> tuple[list[str], list[tuple[str, Sample | None]]] | None:
        """Wait for something to decide or to mirror; `None` at the end. A `None` for a sample: catch up."""
        with self._lock:
            while not self._closing:
                behind: list[tuple[str, Sample | None]] = [
                    (name, None) for name, item in self._running.items() if item.mirror and item.mirror.waiting
                ]
                if self._due or self._samples:
                    due, self._due = list(self._due), set()
                    samples = [self._samples.popleft()] if self._samples else []
                    return due, [*samples, *behind]
                idle = not behind and not self._loader.leaving()
                if not self._work.wait(None if idle else _TICK_S):
                    return [], behind
            return None

    def _mirrored(self, name: str, sample: Sample | None) -> None:
        with self._lock:
            running = self._running.get(name)
            mirror = running.mirror if running else None
        if running is None or mirror is None or time.monotonic() < self._rests_until_s:
            return
        for outcome in mirror.catch_up() if sample is None else mirror.show(sample):
            with self._lock:
                seen = running.evidence
                running.evidence = seen.saw_failure() if outcome is None else seen.saw(outcome)
        there = running.release.lane in self._loader.loaded()
        over = self._ledger.check() > 0
        if there and running.release.lane not in self._loader.loaded():
            over = True  # it was in the memory, and had to leave so that the process fits into its budget
        with self._lock:
            running.evidence = running.evidence.saw_memory(over)
        self._decide(name)

    def _decide(self, name: str) -> None:
        """Go back, go on, or make it current."""
        with self._lock:
            running = self._running.get(name)
        if running is None:
            return
        if running.stage == "verifying":
            if running.resumes:
                self._go_on(running)
            return
        seen = running.evidence
        if seen.verdict:
            self.take_back(name, seen.verdict)
            return
        if seen.pairs >= running.kept + KEPT_EVERY:
            self._keep(name, running)
        stage = evidences.stage(seen, shadow=running.shadow, canary=0.0 if self._in_turns(running) else running.canary)
        if stage == "current":
            self.promote(name)
        elif stage != running.stage:
            running.stage = stage

    def _go_on(self, running: Running) -> None:
        """Verify what was being tried when the process ended; if there is no room for that now, a little later."""
        try:
            self._verify(running)
        except RefusedError as error:
            logs.event("rollout.waits", level="warning", model=running.release.name, reason=error.message)
            with self._lock:
                self._due.add(running.release.name)
                if not self._closing:
                    self._work.wait(RETRY_S)

    # Ending ---------------------------------------------------------------------------------------------

    def promote(self, name: str) -> None:
        """Make the candidate current. Raises `OutputError` if that cannot be remembered: then nothing changes."""
        running, before = self.running(name), self._current(name)
        if running is None:
            raise ServeError(f"The trial of {name} has ended.", hint="See `tightrope model list`.")
        self._store.record({"op": "current", "name": name, "version": running.release.version})
        self._loader.dismiss(running.release.lane)
        with self._lock:
            self._running.pop(name, None)
        logs.event("rollout.promoted", model=name, version=running.release.version, **running.evidence.figures())
        self._settle(name, before)

    def go_back(self, name: str) -> Release:
        """Make the version before the current one current again, and remember the current one's digest."""
        model = self._store.releases.models[name]
        assert model.before is not None and model.current is not None
        current, before = model.releases[model.current], model.releases[model.before]
        self._store.record(rejected(current, "asked"), {"op": "current", "name": name, "version": before.version})
        self._metrics.rollbacks.add(reason="asked")
        self._settle(name, current)
        self._drop(current)
        return before

    def take_back(self, name: str, reason: str) -> None:
        """End a trial: the candidate goes, and its digest must not return unless somebody insists."""
        running = self.running(name)
        if running is None:
            return
        logs.event("rollout.taken_back", level="warning", model=name, reason=reason, **running.evidence.figures())
        self._forget(running.release, reason)

    def _forget(self, release: Release, reason: str) -> None:
        self._store.record(rejected(release, reason), {"op": "ended", "name": release.name}, durable=False)
        self._metrics.rollbacks.add(reason=reason)
        self._leave(release)
        self._drop(release)

    def _withdraw(self, release: Release) -> None:
        """Nothing was wrong with it, but it cannot be tried now."""
        self._store.record({"op": "ended", "name": release.name}, durable=False)
        self._leave(release)
        self._loader.retire(release.lane)
        self._prune(release.name)
        self.wake()

    def _leave(self, release: Release) -> None:
        with self._lock:
            self._running.pop(release.name, None)
        self._loader.dismiss(release.lane)

    def _drop(self, release: Release) -> None:
        """Give a version's memory and its copy back, when its last request is answered."""
        self._loader.retire(release.lane)
        self._store.remove(release)
        self.wake()

    def _settle(self, name: str, old: Release | None) -> None:
        """After another version has become current: the old one leaves the memory, those before it the disk."""
        if old is not None:
            self._loader.retire(old.lane)
        self._prune(name)
        self.wake()
        current = self._current(name)
        for listener in self._changed if current else ():
            assert current is not None
            listener(name, current.digest)

    def _prune(self, name: str) -> None:
        """Remove the server's own copies of versions that are neither current, nor the one before, nor on trial."""
        model = self._store.releases.models[name]
        running = self.running(name)
        used = {model.current, model.before, running.release.version if running else None}
        for release in [item for item in model.releases.values() if item.kept and item.version not in used]:
            self._drop(release)

    def wake(self) -> None:
        """Let the thread look whether a version can leave the memory now."""
        with self._lock:
            self._work.notify()

    def _keep(self, name: str, running: Running) -> None:
        if running.stage != "verifying":
            running.kept = running.evidence.pairs
            facts = {"version": running.release.version, "evidence": running.evidence.to_json()}
            self._store.record({"op": "evidence", "name": name, **facts}, durable=False)

    def _current(self, name: str) -> Release | None:
        model = self._store.releases.models[name]
        return None if model.current is None else model.releases[model.current]

    def _in_turns(self, running: Running) -> bool:
        return running.mirror is not None and running.mirror.in_turns


def _known(evidence: Mapping[str, Any] | None) -> Evidence | None:
    """What was seen before a restart, unless another version of this program wrote it in another way."""
    try:
        return None if evidence is None else Evidence.from_json(evidence)
    except (KeyError, TypeError):
        return None


def boot_id() -> str:
    """Which start of the machine this is; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
