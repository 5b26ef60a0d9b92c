"""Answering: a request for a model on its way to the version that answers it, and on to another one if need be."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from tightrope.device.senses.text import Encoded
from tightrope.device.serve import logs
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.loader import Loader
from tightrope.device.serve.mirror import Sample
from tightrope.device.serve.releases import Release
from tightrope.device.serve.rollout import Rollout
from tightrope.device.serve.service import Answer, Service
from tightrope.errors import DataError, RefusedError, TightropeError

Inputs = Sequence[Any] | Encoded

_USERS_OWN = ("deadline", "cancelled", "too_large")
"""Refusals that another version would give as well."""
_OPENERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An answer, and which model gave it."""

    answer: Answer
    name: str
    version: str
    digest: str


class Flight(Future[Served]):
    """A request under way. `candidate` is asked first, if there is one; cancelling drops the work."""

    def __init__(
        self,
        *,
        current: Release,
        candidate: Release | None,
        mirrored: bool,
        inputs: Inputs,
        options: dict[str, Any],
        until_s: float,
    ) -> None:
        super().__init__()
        self.current = current
        self.candidate = candidate
        self.mirrored = mirrored
        self.inputs = inputs
        self.options = options
        self.until_s = until_s
        self.below: Future[Answer] | None = None
        """The request in the service, once it is there."""

    def cancel(self) -> bool:
        """As every future; the work is dropped as well."""
        cancelled, below = super().cancel(), self.below
        if cancelled and below is not None:
            below.cancel()
        return cancelled


class Answering:
    """Brings requests to loaded versions; opens those that are not loaded, on threads of its own."""

    def __init__(
        self, service: Service, loader: Loader, rollout: Rollout, limits: Limits, clock: Callable[[], float]
    ) -> None:
        self._service = service
        self._loader = loader
        self._rollout = rollout
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = 0
        self._openers = ThreadPoolExecutor(_OPENERS, thread_name_prefix="tightrope-opener")

    def close(self) -> None:
        """Let the requests that wait for a model be refused, and end the threads."""
        self._openers.shutdown(cancel_futures=True)

    def start(self, flight: Flight) -> Flight:
        """Submit a request. Raises what the service raises, if its version is loaded; else the future holds it."""
        release = flight.candidate or flight.current
        if not self._loader.take(release.lane):
            self._open(flight, release)
            return flight
        try:
            self._submit(flight, release)
        except (DataError, RefusedError) as error:
            if not self._another_way(flight, error):
                raise
        return flight

    def _another_way(self, flight: Flight, error: TightropeError) -> bool:
        """Whether there is another way for a request that was not taken because of a version on trial."""
        if flight.candidate is not None:
            self._later(flight, lambda: self._fall_back(flight, error))
            return True
        if isinstance(error, RefusedError) and error.reason == "memory" and self._loader.guests():
            self._later(flight, lambda: self._make_room(flight))
            return True
        return False

    def _make_room(self, flight: Flight) -> None:
        """Versions on trial leave the memory to the request."""
        self._rollout.squeezed()
        if not self._loader.take(flight.current.lane):
            self._loader.load(flight.current, patience_s=flight.until_s - self._clock())
        self._submit(flight, flight.current)

    def _submit(self, flight: Flight, release: Release) -> None:
        """To a version that is loaded and taken."""
        try:
            left = flight.until_s - self._clock()
            inner = self._service.submit(release.lane, flight.inputs, deadline_s=left, **flight.options)
        except BaseException:
            self._loader.give(release.lane)
            raise
        flight.below = inner
        if flight.cancelled():
            inner.cancel()
        inner.add_done_callback(partial(self._done, flight, release))

    def _done(self, flight: Flight, release: Release, done: "Future[Answer]") -> None:
        """On a worker's thread: nothing here may wait."""
        self._loader.give(release.lane)
        flight.below = None  # they would hold each other
        if done.cancelled():
            flight.cancel()
            return
        error = done.exception()
        if error is None:
            self._served(flight, release, done.result())
        elif release is flight.candidate and isinstance(error, TightropeError) and not _users_own(error):
            self._later(flight, lambda: self._fall_back(flight, error))
        else:
            _fail(flight, error)

    def _served(self, flight: Flight, release: Release, answer: Answer) -> None:
        served = Served(answer=answer, name=release.name, version=release.version, digest=release.digest)
        with suppress(InvalidStateError):  # nobody waits for it any more
            flight.set_result(served)
        if release is flight.candidate:
            self._rollout.answered(release.name, release.version)
        if flight.mirrored and (sample := Sample.of(flight.inputs, flight.options["prompt"])):
            self._rollout.offer(release.name, sample)

    def _fall_back(self, flight: Flight, error: TightropeError) -> None:
        """The candidate did not answer: the current version does. That it can is what makes it the candidate's fault.

        Raises what the current version says to it.
        """
        candidate, flight.candidate = flight.candidate, None
        assert candidate is not None
        if not self._loader.take(flight.current.lane):
            self._loader.load(flight.current, patience_s=flight.until_s - self._clock())
        self._submit(flight, flight.current)
        if not isinstance(error, RefusedError) or error.reason == "failed":
            self._rollout.failed(candidate.name, candidate.version)

    def _open(self, flight: Flight, release: Release) -> None:
        with self._lock:
            if self._waiting >= self._limits.queue_requests:
                raise RefusedError(
                    f"{self._waiting} requests wait for models to be opened.",
                    hint="Try again later.",
                    reason="overloaded",
                    retry_after_s=1.0,
                )
            self._waiting += 1
        flight.add_done_callback(self._landed)
        self._later(flight, lambda: self._opened(flight, release))

    def _landed(self, _: "Future[Served]") -> None:
        with self._lock:
            self._waiting -= 1

    def _opened(self, flight: Flight, release: Release) -> None:
        """Open a version, or find it open, and go on with the request."""
        try:
            if not self._loader.take(release.lane):
                patience_s = min(self._limits.queue_s, flight.until_s - self._clock())
                self._loader.load(release, patience_s=patience_s)
        except TightropeError as error:
            if release is flight.candidate:
                self._fall_back(flight, error)
                return
            if isinstance(error, RefusedError):
                raise
            logs.event("model.failed", level="error", model=release.name, version=release.version, reason=error.message)
            raise RefusedError(error.message, hint=error.hint, reason="unavailable", retry_after_s=5.0) from error
        try:
            self._submit(flight, release)
        except (DataError, RefusedError) as error:
            if release is not flight.candidate:
                raise
            self._fall_back(flight, error)

    def _later(self, flight: Flight, step: Callable[[], None]) -> None:
        def run() -> None:
            if flight.cancelled():
                return
            try:
                step()
            except BaseException as error:  # the future is where it belongs
                _fail(flight, error)

        try:
            self._openers.submit(run).add_done_callback(
                lambda done: _fail(flight, _closing()) if done.cancelled() else None
            )
        except RuntimeError:  # the threads have ended
            _fail(flight, _closing())


def _users_own(error: TightropeError) -> bool:
    return isinstance(error, RefusedError) and error.reason in _USERS_OWN


def _fail(flight: Flight, error: BaseException) -> None:
    with suppress(InvalidStateError):  # nobody waits for it any more
        flight.set_exception(error)


def _closing() -> RefusedError:
    return RefusedError("The server is stopping.", hint="Try again later.", reason="unavailable", retry_after_s=1.0)
