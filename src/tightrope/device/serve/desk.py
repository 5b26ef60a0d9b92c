"""What the threads of a service share, under one lock: the queue, the requests on their way, the models in their lanes.

Nothing here computes. A future is never settled while the lock is held: whoever waits for it may do anything then.
"""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tightrope.device.model import Floats
from tightrope.device.serve.arrivals import together
from tightrope.device.serve.attempt import Errors, Model
from tightrope.device.serve.fair_queue import Part
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.pace import Lane
from tightrope.device.serve.scheduler import Batch, Scheduler
from tightrope.device.serve.work import Work
from tightrope.errors import DataError, RefusedError, TightropeError

Parts = Sequence[tuple[Part, Work]]


class Loaded:
    """A model in its lane, the name under which its answers are remembered, and how many threads use it."""

    __slots__ = ("model", "name", "users")

    def __init__(self, model: Model, name: bytes | None) -> None:
        self.model = model
        self.name = name
        self.users = 0


class Turn(NamedTuple):
    """A batch to compute: with which model, for whom, and how many tokens, padding counted, at once."""

    batch: Batch
    loaded: Loaded
    parts: Parts
    batch_tokens: int


class Desk:
    """Where requests are left, and batches are picked up and handed in. Safe for use from many threads."""

    def __init__(self, limits: Limits, metrics: Metrics, clock: Callable[[], float], workers: int) -> None:
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._arrival = threading.Condition(self._lock)
        self._departure = threading.Condition(self._lock)
        self._scheduler = Scheduler(limits, workers=workers)
        self._lanes: dict[str, Loaded] = {}
        self._works: dict[int, Work] = {}
        self._closing = False

    def close(self) -> None:
        """Take nothing more; who waits in `next` is sent home."""
        with self._lock:
            self._closing = True
            self._arrival.notify_all()

    # Lanes ----------------------------------------------------------------------------------------------

    def add(self, lane: str, loaded: Loaded, form: Lane) -> None:
        """Open a lane."""
        with self._lock:
            assert lane not in self._lanes, lane
            self._scheduler.add_lane(lane, form)
            self._lanes[lane] = loaded

    def remove(self, lane: str) -> None:
        """Close a lane: what waits is refused, and this returns when nobody uses the model any more."""
        with self._lock:
            loaded = self._lanes.pop(lane, None)
            if loaded is None:
                return
            dropped = [self._works[request.number] for request in self._scheduler.drop_lane(lane)]
        for work in dropped:
            self.fail(work, unavailable(lane))
        with self._lock:
            self._departure.wait_for(lambda: loaded.users == 0)

    def lanes(self) -> tuple[str, ...]:
        """The lanes that are open."""
        with self._lock:
            return tuple(self._lanes)

    def form(self, lane: str) -> Lane:
        """How a lane is batched. Raises `RefusedError` if it is not open."""
        with self._lock:
            if lane not in self._lanes:
                raise unavailable(lane)
            return self._scheduler.form(lane)

    def reform(self, lane: str, batch_tokens: int) -> None:
        """Change the size of a lane's batches, if it is still open."""
        with self._lock:
            if lane in self._lanes:
                self._scheduler.resize(lane, batch_tokens)

    # Requests -------------------------------------------------------------------------------------------

    def enter(self, lane: str) -> Loaded:
        """Keep a model from going away, until `leave`. Raises `RefusedError` if there is none, or no room in line."""
        with self._lock:
            loaded = self._lanes.get(lane)
            if loaded is None or self._closing:
                raise unavailable(lane)
            self._scheduler.check_room(self._clock())
            loaded.users += 1
            return loaded

    def leave(self, loaded: Loaded) -> None:
        """Use a model no longer."""
        with self._lock:
            self._leave(loaded)

    def put(self, work: Work) -> None:
        """Put a request in line. Raises `RefusedError` as `Scheduler.admit` does."""
        with self._lock:
            if work.request.lane not in self._lanes:
                raise unavailable(work.request.lane)
            self._scheduler.admit(work.request, self._clock())
            self._works[work.request.number] = work
            self._arrival.notify()

    def forget(self, number: int) -> None:
        """Take a request out of line, with what is left of it."""
        with self._lock:
            self._scheduler.cancel(number)
            self._works.pop(number, None)

    def fail(self, work: Work, error: TightropeError) -> None:
        """Forget a request, and tell whoever still waits for it."""
        self.forget(work.request.number)
        if work.fail(error) and isinstance(error, RefusedError):
            self._metrics.refused.add(reason=error.reason)

    # Batches --------------------------------------------------------------------------------------------

    def next(self) -> Turn | None:
        """Wait for a batch; `None` at the end. To be told to `finished`, whatever happens."""
        while True:
            with self._lock:
                now = self._clock()
                expired = [self._works[request.number] for request in self._scheduler.expire(now)]
                found = None if expired else self._scheduler.next_batch(now)
                if isinstance(found, Batch):
                    return self._begin(found, now)
                if not expired:
                    if self._closing:
                        return None
                    self._arrival.wait(None if found is None else max(0.0, found - now))
            for work in expired:
                self._metrics.deadline_missed.add()
                self.fail(work, _expired())

    def hand_in(self, parts: Parts, rows: Floats, errors: Errors, seconds: float) -> None:
        """Give the rows of a batch to those who asked; of a request with an error, only the error."""
        done, failed, first = [], [], 0
        with self._lock:  # two workers may have parts of one request
            for part, work in parts:
                last = first + part.stop - part.start
                wrong = min((place for place in errors if first <= place < last), default=None)
                if wrong is not None:
                    place = int(work.places[part.start + wrong - first])
                    failed.append((work, failure(errors[wrong], place, len(work.rows))))
                elif work.add(part.start, rows[first:last], seconds):
                    self._works.pop(part.request.number, None)
                    done.append(work)
                first = last
        with together():
            for work in done:
                work.succeed()
                self._metrics.queue_seconds.observe(work.queued_s)
            for work, error in failed:
                self.fail(work, error)

    def finished(self, turn: Turn, *, failed: bool, crashed: bool) -> None:
        """A batch is over; see `Scheduler.finished`."""
        with self._lock:
            self._scheduler.finished(turn.batch, self._clock(), failed=failed, crashed=crashed)
            self._leave(turn.loaded)

    def _begin(self, batch: Batch, now: float) -> Turn:
        loaded = self._lanes[batch.lane]
        loaded.users += 1
        if len(self._scheduler.queue):  # more came than one batch: another worker may be asleep
            self._arrival.notify()
        parts = [(part, self._works[part.request.number]) for part in batch.parts]
        for _, work in parts:
            work.begin(now, batch.texts)
        return Turn(batch, loaded, parts, self._scheduler.form(batch.lane).batch_tokens)

    def _leave(self, loaded: Loaded) -> None:
        loaded.users -= 1
        if not loaded.users:
            self._departure.notify_all()

    # What can be seen -----------------------------------------------------------------------------------

    def waiting(self) -> tuple[int, int]:
        """Requests and tokens in line."""
        with self._lock:
            return len(self._scheduler.queue), self._scheduler.queue.tokens

    def drain_s(self) -> float:
        """Seconds until all that waits and runs would be done."""
        with self._lock:
            return self._scheduler.drain_s(self._clock())

    def predicted_wait_s(self, lane: str, lengths: Sequence[int], flow: tuple[str, int]) -> float:
        """As `Scheduler.predicted_wait_s`."""
        with self._lock:
            if lane not in self._lanes:
                raise unavailable(lane)
            return self._scheduler.predicted_wait_s(lane, lengths, self._clock(), flow=flow)


def unavailable(lane: str) -> RefusedError:
    """For a model that is not there now."""
    return RefusedError(
        f"{lane} is not served now.", hint="Try again in a moment.", reason="unavailable", retry_after_s=1.0
    )


def failure(error: Exception, place: int = 0, count: int = 1) -> TightropeError:
    """For an input that could not be answered; of several, which one. A `DataError` where the input is to blame."""
    which = "The input" if count == 1 else f"Input {place} (counted from 0)"
    if isinstance(error, DataError):
        return DataError(f"{which} cannot be answered: {error.message}", hint=error.hint)
    if isinstance(error, TightropeError):
        return RefusedError(f"{which} could not be answered: {error.message}", hint=error.hint)
    what = f"{type(error).__name__}: {error}"[:300]
    return RefusedError(f"{which} could not be answered: {what}", hint="See the server's log.")


def _expired() -> RefusedError:
    return RefusedError(
        "The deadline passed before the request was begun.",
        hint="Allow more time, or send less at a time.",
        reason="deadline",
    )
