"""Models in memory: opened when somebody needs them, inside the budget, given back by least recent use.

A version is in memory or it is not; who uses it is counted, and what is used is never taken away. Reserving comes
first: when there is no room, versions that nobody uses go, the longest unused first, and their memory with them. Two
versions that do not fit beside each other thus take turns, and a request for one of them waits until it is loaded.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device.model import Embedder, Scorer, open_bundle
from tightrope.device.serve.ledger import IDLE_MODELS, Ledger, Reservation, trim_heap
from tightrope.device.serve.releases import Release
from tightrope.device.serve.service import Service
from tightrope.errors import BundleError, RefusedError, TightropeError, UnsupportedError

Model = Embedder | Scorer
Open = Callable[[Bundle], Model]

QUIET_S = 1.0
"""Who is in no hurry takes the memory only of models that nobody asked for so long."""
AGAIN_S = 5.0
"""A version that cannot be opened is not tried again for so long: reading it all is dear."""
_STEP_S = 0.02


@dataclass(slots=True)
class _Resident:
    """A version in memory: what it holds, how many use it, and when it was last asked for."""

    model: Model
    source: Bundle
    held: Reservation
    users: int
    used_s: float
    leaves: bool = False
    """To be given back as soon as nobody uses it."""


class Loader:
    """The versions in memory, by lane. Safe for use from several threads; `load` and `unload` may take their time."""

    def __init__(
        self,
        service: Service,
        ledger: Ledger,
        *,
        open_model: Open = open_bundle,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._ledger = ledger
        self._open = open_model
        self._clock = clock
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._opening = threading.Lock()
        self._residents: dict[str, _Resident] = {}
        self._going: set[str] = set()
        self._guests: set[str] = set()
        self._failed: dict[str, tuple[float, TightropeError]] = {}
        self._manner = threading.local()
        ledger.on_shortage("idle models", IDLE_MODELS, self.free)

    def take(self, lane: str) -> bool:
        """Use a version that is in memory, until `give`; whether it is there."""
        with self._lock:
            found = self._residents.get(lane)
            if found is None:
                return False
            found.users += 1
            found.used_s = self._clock()
            found.leaves = False
            return True

    def give(self, lane: str) -> None:
        """Use it no longer. May be called from a worker's thread: it never waits."""
        with self._lock:
            if (found := self._residents.get(lane)) is not None:  # else everything was closed meanwhile
                found.users -= 1
            self._left.notify_all()

    def load(self, release: Release, *, patience_s: float = 0.0, hurry: bool = True) -> None:
        """Use a version, opened first if it is not in memory.

        `patience_s`: how long to wait for others to finish when there is no room. Without `hurry` only models that
        were not asked for in the last `QUIET_S` give way. Raises `RefusedError` (memory), `BundleError` for a bundle
        that is not what it was, `EngineError` if the engine fails.
        """
        lane = release.lane
        with self._opening:
            with self._lock:
                self._left.wait_for(lambda: lane not in self._going)
            if self.take(lane):
                return
            failed_s, error = self._failed.get(lane, (-AGAIN_S, None))
            if error is not None and self._clock() - failed_s < AGAIN_S:
                raise error
            try:
                resident = self._opened(release, patience_s, hurry)
            except RefusedError:
                raise
            except TightropeError as error:
                self._failed = {lane: (self._clock(), error)}
                raise
            with self._lock:
                self._residents[lane] = resident

    def _opened(self, release: Release, patience_s: float, hurry: bool) -> _Resident:
        source = bundle.read(Path(release.path))
        if source.digest != release.digest:
            raise BundleError(
                f"{release.path} holds another bundle now: {source.digest:.12}, not {release.digest:.12}.",
                hint="Put the old one back, or deploy the new one.",
            )
        held = self._room(release.lane, footprint_bytes(source), patience_s, hurry)
        try:
            model = self._open(source)
        except BaseException:
            held.release()
            raise
        try:
            self._service.add(release.lane, model)
        except BaseException:
            model.close()
            held.release()
            raise
        return _Resident(model, source, held, users=1, used_s=self._clock())

    @contextmanager
    def using(self, release: Release, *, patience_s: float = 0.0, hurry: bool = True) -> Iterator[tuple[Model, Bundle]]:
        """The model and its bundle, which stay in memory meanwhile. Raises as `load` does."""
        if not self.take(release.lane):
            self.load(release, patience_s=patience_s, hurry=hurry)
        try:
            with self._lock:
                found = self._residents[release.lane]
            yield found.model, found.source
        finally:
            self.give(release.lane)

    def retire(self, lane: str) -> None:
        """Give a version's memory back as soon as nobody uses it: now, or when `sweep` is called after that."""
        with self._lock:
            if lane in self._residents:
                self._residents[lane].leaves = True
        self.sweep()

    def unload(self, lane: str, *, wait_s: float) -> None:
        """The same, and wait so long for those who use it."""
        self.retire(lane)
        with self._lock:
            self._left.wait_for(lambda: lane not in self._residents or not self._residents[lane].users, wait_s)
        self.sweep()

    def sweep(self) -> None:
        """Give back what is to go and is used no longer."""
        gone = False
        while (taken := self._taken(lambda found: found.leaves)) is not None:
            self._close(*taken)
            gone = True
        if gone:
            self._ledger.check()  # so that what it really took is free at once

    def leaving(self) -> bool:
        """Whether something is to go that was used when somebody last looked."""
        with self._lock:
            return any(found.leaves for found in self._residents.values())

    def free(self, wanted_bytes: int) -> int:
        """Give back models that nobody uses until so many bytes are free, or there is none; how many that were."""
        least = 0.0 if getattr(self._manner, "hurry", True) else QUIET_S
        before = self._clock() - least
        freed = 0
        while freed < wanted_bytes and (taken := self._taken(lambda found: found.used_s <= before)) is not None:
            freed += taken[1].held.size_bytes
            self._close(*taken)
        return freed

    def invite(self, lane: str) -> None:
        """A version is on trial: where memory runs short, it gives way before those that answer users."""
        with self._lock:
            self._guests.add(lane)

    def guests(self) -> tuple[str, ...]:
        """The lanes of the versions on trial."""
        with self._lock:
            return tuple(self._guests)

    def dismiss(self, lane: str) -> None:
        """Its trial is over."""
        with self._lock:
            self._guests.discard(lane)

    def quiet_s(self, lane: str) -> float:
        """Seconds since a version that nobody uses was asked for; 0 while somebody does, infinite if not loaded."""
        with self._lock:
            found = self._residents.get(lane)
            if found is None:
                return float("inf")
            return 0.0 if found.users else self._clock() - found.used_s

    def loaded(self) -> dict[str, int]:
        """The bytes reserved for each version in memory."""
        with self._lock:
            return {lane: found.held.size_bytes for lane, found in self._residents.items()}

    def close(self) -> None:
        """Give everything back. Nobody may use anything any more."""
        with self._lock:
            residents, self._residents = self._residents, {}
        for lane, resident in residents.items():
            self._close(lane, resident)

    def _room(self, lane: str, size_bytes: int, patience_s: float, hurry: bool) -> Reservation:
        """Reserve, and wait a while for models that are used to become idle."""
        until = time.monotonic() + patience_s
        while True:
            self._manner.hurry = hurry
            try:
                return self._ledger.reserve(f"model:{lane}", size_bytes)
            except RefusedError as error:
                left = until - time.monotonic()
                if error.retry_after_s is None or left <= 0:
                    raise
                self._ledger.check()
            finally:
                self._manner.hurry = True
            with self._lock:
                self._left.wait(min(left, _STEP_S))

    def _taken(self, fits: Callable[[_Resident], bool]) -> tuple[str, _Resident] | None:
        """Take the longest unused version that fits out of the books, for `_close`; those on trial first."""
        with self._lock:
            idle = [lane for lane, found in self._residents.items() if not found.users and fits(found)]
            if not idle:
                return None
            lane = min(idle, key=lambda lane: (lane not in self._guests, self._residents[lane].used_s))
            self._going.add(lane)
            return lane, self._residents.pop(lane)

    def _close(self, lane: str, resident: _Resident) -> None:
        try:
            self._service.remove(lane)
            resident.model.close()
            resident.held.release()
            trim_heap()
        finally:
            with self._lock:
                self._going.discard(lane)
                self._left.notify_all()


def footprint_bytes(source: Bundle) -> int:
    """What an opened bundle is thought to take, its batches not counted.

    The native engine maps its file and copies nothing. For other engines it is what was measured where the bundle was
    made, if that is attached, else twice the files, since they keep the weights in a form of their own.
    """
    artefact = source.content.models[0].artefacts[0]
    sizes = {item.path: item.size for item in source.content.files}
    senses = source.content.senses
    if source.content.task["name"] == "classification":
        raise UnsupportedError(
            f"{source.path} classifies images; a server answers texts.", hint="Open it with tightrope.open(path)."
        )
    files = {*artefact.files.values(), senses.get("wordpiece", senses["tokenizer"])}
    mapped = sum(sizes.get(path, 0) for path in files)
    if artefact.engine == "native":
        return mapped
    measured = source.attachment("measurement")
    above = (measured or {}).get("memory_above_interpreter_bytes")
    return max(mapped, int(above)) if isinstance(above, int | float) else 2 * mapped
