"""Worker threads between the queue and the models. It knows nothing of HTTP, of names or of versions.

A request is tokenised where it is submitted, waits as token ids, and is computed in one batch with others or over
several batches; its future holds the answer. A batch that fails is tried again in halves, so that only the text that
is to blame fails. Whoever cancels a future takes its work out of line.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Self

from tightrope.device.model import Embedder, Floats
from tightrope.device.senses.text import Encoded
from tightrope.device.serve.attempt import Errors, Model, attempt
from tightrope.device.serve.fair_queue import Part, Request
from tightrope.device.serve.ledger import Ledger
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.scheduler import Batch, Lane, Scheduler
from tightrope.device.serve.work import Answer, Work, size_bytes
from tightrope.errors import RefusedError, TightropeError

__all__ = ["Answer", "Service"]

_CHECK_S = 1.0
"""How often, at most, the books are compared with the real memory."""


class _Loaded:
    """A model in its lane, and how many threads are at work with it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.users = 0


class Service:
    """Answers requests with the models in its lanes. A context manager: entering starts the worker threads.

    Every method may be called from any thread. `submit` tokenises before it returns.
    """

    def __init__(
        self,
        ledger: Ledger,
        metrics: Metrics,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        workers: int = 1,
    ) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._arrival = threading.Condition(self._lock)
        self._departure = threading.Condition(self._lock)
        self._scheduler = Scheduler(limits, workers=workers)
        self._lanes: dict[str, _Loaded] = {}
        self._works: dict[int, Work] = {}
        self._numbers = itertools.count()
        self._closing = False
        self._checked_s = -math.inf
        self._threads = [
            threading.Thread(target=self._serve, name=f"tightrope-worker-{number}", daemon=True)
            for number in range(workers)
        ]
        metrics.before_reading(self._show)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Refuse what waits, let the batches that run finish, and end the threads. Models are not closed."""
        with self._lock:
            self._closing = True
            self._arrival.notify_all()
        for lane in self.lanes():
            self.remove(lane)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    # Lanes ----------------------------------------------------------------------------------------------

    def add(self, lane: str, model: Model, *, form: Lane | None = None) -> None:
        """Serve a model under the name of a lane. It stays the caller's, to be closed after `remove`."""
        form = form or Lane(batch_tokens=min(model.batch_tokens, self._limits.batch_tokens), batch_texts=_most(model))
        with self._lock:
            assert lane not in self._lanes, lane
            self._scheduler.set_lane(lane, form)
            self._lanes[lane] = _Loaded(model)

    def remove(self, lane: str) -> None:
        """Serve it no longer: what waits is refused, and this returns when nobody uses the model any more."""
        with self._lock:
            loaded = self._lanes.pop(lane, None)
            if loaded is None:
                return
            dropped = [self._works[request.number] for request in self._scheduler.drop_lane(lane)]
        for work in dropped:
            self._fail(work, _unavailable(lane))
        with self._lock:
            self._departure.wait_for(lambda: loaded.users == 0)

    def lanes(self) -> tuple[str, ...]:
        """The lanes that are served."""
        with self._lock:
            return tuple(self._lanes)

    def queue_depth(self) -> int:
        """Requests that wait."""
        with self._lock:
            return len(self._scheduler.queue)

    def drain_s(self) -> float:
        """Seconds until all that waits and runs would be done, as far as speeds are known."""
        with self._lock:
            return self._scheduler.drain_s(self._clock())

    def predicted_wait_s(self, lane: str, lengths: Sequence[int] = (1,), *, key: str = "", priority: int = 0) -> float:
        """Seconds until a request of texts of so many tokens would be answered, if it came now."""
        with self._lock:
            if lane not in self._lanes:
                raise _unavailable(lane)
            return self._scheduler.predicted_wait_s(lane, lengths, self._clock(), flow=(key, priority))

    # Requests -------------------------------------------------------------------------------------------

    def submit(
        self,
        lane: str,
        inputs: Sequence[Any],
        *,
        prompt: str | None = None,
        normalize: bool = True,
        deadline_s: float | None = None,
        key: str = "",
        priority: int = 0,
    ) -> "Future[Answer]":
        """Put texts (pairs, for a scorer) in line for a lane; the future holds their `Answer`, or what went wrong.

        `deadline_s` is from now. Raises `RefusedError` for what is not taken, and `DataError` for inputs that are not
        what the model takes. Cancelling the future takes its work out of line.
        """
        now = self._clock()
        until = now + (self._limits.deadline_s if deadline_s is None else deadline_s)
        loaded = None
        try:
            loaded = self._enter(lane, len(inputs), now)
            encoded = loaded.model.encode(inputs, prompt=prompt)
            lengths = tuple(encoded.ids.lengths.tolist())
            request = Request(
                number=next(self._numbers), lane=lane, lengths=lengths, key=key, priority=priority, deadline_s=until
            )
            work = self._work(request, encoded, loaded.model, now)
            if normalize and isinstance(loaded.model, Embedder):
                work.finish = loaded.model.unit_length
            self._enqueue(work)
        except RefusedError as error:
            self._metrics.refused.add(reason=error.reason)
            raise
        finally:
            if loaded is not None:
                self._leave(loaded)
        return work.future

    def _enter(self, lane: str, count: int, now: float) -> _Loaded:
        """Keep the model from going away while its tokenizer is used; refuse what is not worth that."""
        if count > self._limits.inputs:
            raise RefusedError(
                f"The request has {count:,} inputs; {self._limits.inputs:,} is the most.",
                hint="Send fewer at a time.",
                reason="too_large",
            )
        with self._lock:
            loaded = self._lanes.get(lane)
            if loaded is None or self._closing:
                raise _unavailable(lane)
            self._scheduler.check_room(now)
            loaded.users += 1
            return loaded

    def _leave(self, loaded: _Loaded) -> None:
        with self._lock:
            loaded.users -= 1
            if not loaded.users:
                self._departure.notify_all()

    def _work(self, request: Request, encoded: Encoded, model: Model, now: float) -> Work:
        held = self._ledger.reserve("requests", size_bytes(encoded, model.width))
        return Work(request, encoded, model.width, held, now)

    def _enqueue(self, work: Work) -> None:
        if work.left:
            try:
                with self._lock:
                    if work.request.lane not in self._lanes:
                        raise _unavailable(work.request.lane)
                    self._scheduler.admit(work.request, self._clock())
                    self._works[work.request.number] = work
                    self._arrival.notify()
            except BaseException:
                work.held.release()
                raise
        else:
            work.succeed()
        work.future.add_done_callback(lambda future: self._settled(work, future))

    def _settled(self, work: Work, future: "Future[Answer]") -> None:
        """The future has its answer, or nobody waits for it any more: then its work is dropped."""
        if future.cancelled():
            self._forget(work)
            self._metrics.cancelled.add()
        work.held.release()

    def _forget(self, work: Work) -> None:
        with self._lock:
            self._scheduler.cancel(work.request.number)
            self._works.pop(work.request.number, None)

    def _fail(self, work: Work, error: TightropeError) -> None:
        self._forget(work)
        if work.fail(error) and isinstance(error, RefusedError):
            self._metrics.refused.add(reason=error.reason)

    # Workers --------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while (found := self._next()) is not None:
            self._run(*found)
            self._guard()

    def _next(self) -> tuple[Batch, _Loaded] | None:
        """Wait for a batch; `None` at the end."""
        while True:
            with self._lock:
                now = self._clock()
                expired = [self._works[request.number] for request in self._scheduler.expire(now)]
                found = None if expired else self._scheduler.next_batch(now)
                if isinstance(found, Batch):
                    loaded = self._lanes[found.lane]
                    loaded.users += 1
                    if len(self._scheduler.queue):  # more than one batch came: another worker may be asleep
                        self._arrival.notify()
                    return found, loaded
                if not expired:
                    if self._closing:
                        return None
                    self._arrival.wait(None if found is None else max(0.0, found - now))
            for work in expired:
                self._metrics.deadline_missed.add()
                self._fail(work, _expired())

    def _run(self, batch: Batch, loaded: _Loaded) -> None:
        """Compute one batch and hand out its rows. Whoever went away in the meantime is left out."""
        with self._lock:
            mine = [(part, self._works.get(part.request.number)) for part in batch.parts]
        parts = [(part, work) for part, work in mine if work is not None]
        started = self._clock()
        for _, work in parts:
            work.begin(started, batch.texts)
        failed = True
        try:
            if parts:
                failed = self._compute(loaded.model, parts, started)
        finally:
            with self._lock:
                self._scheduler.finished(batch, self._clock(), failed=failed)
            self._leave(loaded)

    def _compute(self, model: Model, parts: "list[tuple[Part, Work]]", started: float) -> bool:
        """Whether something failed on the way."""
        encoded = Encoded.join([work.encoded.slice(part.start, part.stop) for part, work in parts])
        try:
            rows, errors = attempt(model, encoded)
        except Exception as error:
            refused = error if isinstance(error, RefusedError) else _failure(error)
            for _, work in parts:
                self._fail(work, refused)
            if refused is error:
                return True
            raise  # a mistake of ours
        seconds = self._clock() - started
        self._metrics.inference_seconds.observe(seconds)
        self._metrics.batch_texts.observe(len(encoded))
        self._metrics.batch_tokens.observe(len(encoded.ids.values))
        self._hand_out(parts, rows, errors, seconds)
        return bool(errors)

    def _hand_out(self, parts: "list[tuple[Part, Work]]", rows: Floats, errors: Errors, seconds: float) -> None:
        done, failed, first = [], [], 0
        with self._lock:  # two workers may have parts of one request
            for part, work in parts:
                last = first + part.stop - part.start
                wrong = min((place for place in errors if first <= place < last), default=None)
                if wrong is not None:
                    failed.append((work, _failure(errors[wrong], part.start + wrong - first, len(work.encoded))))
                elif work.add(part.start, rows[first:last], seconds):
                    self._works.pop(part.request.number, None)
                    done.append(work)
                first = last
        for work in done:
            work.succeed()
            self._metrics.queue_seconds.observe(work.queued_s)
        for work, error in failed:
            self._fail(work, error)

    def _guard(self) -> None:
        """Now and then, compare the books with the real memory."""
        now = self._clock()
        if now - self._checked_s >= _CHECK_S:
            self._checked_s = now
            self._ledger.check()

    def _show(self) -> None:
        with self._lock:
            self._metrics.queue_requests.set(len(self._scheduler.queue))
            self._metrics.queue_tokens.set(self._scheduler.queue.tokens)


def _most(model: Model) -> int:
    """Texts in a batch: any number where company changes no answer, else one."""
    return 1_000_000 if model.exact else 1


def _unavailable(lane: str) -> RefusedError:
    return RefusedError(
        f"{lane} is not served now.", hint="Try again in a moment.", reason="unavailable", retry_after_s=1.0
    )


def _expired() -> RefusedError:
    return RefusedError(
        "The deadline passed before the request was begun.",
        hint="Allow more time, or send less at a time.",
        reason="deadline",
    )


def _failure(error: Exception, place: int = 0, count: int = 1) -> RefusedError:
    """What to tell about an input that could not be answered; of several, which one it was."""
    which = "The input" if count == 1 else f"Input {place} (counted from 0)"
    if isinstance(error, TightropeError):
        what, hint = error.message, error.hint
    else:
        what, hint = f"{type(error).__name__}: {error}"[:300], "See the server's log."
    return RefusedError(f"{which} could not be answered: {what}", hint=hint)
