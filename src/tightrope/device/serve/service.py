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
from functools import partial
from typing import Any, Self

from tightrope.device.model import Embedder
from tightrope.device.senses.text import Encoded
from tightrope.device.serve import logs
from tightrope.device.serve.adapt import Choice, measure
from tightrope.device.serve.attempt import Model, attempt
from tightrope.device.serve.cache import AnswerCache
from tightrope.device.serve.climate import Weather
from tightrope.device.serve.desk import Desk, Loaded, Turn, failure
from tightrope.device.serve.fair_queue import Request
from tightrope.device.serve.ledger import Ledger, Reservation
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.metrics import Metrics
from tightrope.device.serve.pace import Lane
from tightrope.device.serve.sizing import Sizing
from tightrope.device.serve.work import Answer, Work, size_bytes
from tightrope.errors import RefusedError

__all__ = ["Answer", "Service"]

_CHECK_S = 1.0
"""How often, at most, the books are compared with the real memory."""


class Service:
    """Answers requests with the models in its lanes. A context manager: entering starts the worker threads.

    Every method may be called from any thread. `submit` tokenises before it returns. `choose` measures a model and says
    how to batch it.
    """

    def __init__(
        self,
        ledger: Ledger,
        metrics: Metrics,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        workers: int = 1,
        choose: Callable[[Model, Limits], Choice] = measure,
    ) -> None:
        self._ledger = ledger
        self._choose = choose
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._desk = Desk(limits, metrics, clock, workers)
        self._cache = AnswerCache(ledger, limits.cache_bytes) if limits.cache_bytes else None
        self._measured: dict[bytes, Choice] = {}
        self._numbers = itertools.count()
        self._checked_s = -math.inf
        self._owners: set[str] = set()
        self._sizing = Sizing(ledger, self._desk.reform, workers)
        self._weather = Weather(metrics)
        metrics.before_reading(self._show)
        self._threads = [
            threading.Thread(target=self._work, name=f"tightrope-worker-{number}", daemon=True)
            for number in range(workers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Refuse what waits, let the batches that run finish, and end the threads. Models are not closed."""
        self._desk.close()
        for lane in self.lanes():
            self.remove(lane)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self._cache is not None:
            self._cache.clear()

    # Lanes ----------------------------------------------------------------------------------------------

    def add(self, lane: str, model: Model, *, form: Lane | None = None, cached: bool = True) -> None:
        """Serve a model under the name of a lane. It stays the caller's, to be closed after `remove`.

        Unless `form` says how to batch it, a model that was never here is measured, which takes about a tenth of a
        second and warms it.
        Its answers are remembered unless `cached` is false. Raises `RefusedError` (memory) if its batches do not fit.
        """
        name = f"{model.bundle.digest} {model.engine}".encode()
        if form is None:
            if name not in self._measured:
                self._measured[name] = self._choose(model, self._limits)
            form = self._sizing.add(lane, self._measured[name]).lane()
        self._desk.add(lane, Loaded(model, name if cached else None), form)

    def remove(self, lane: str) -> None:
        """Serve it no longer: what waits is refused, and this returns when nobody uses the model any more."""
        self._desk.remove(lane)
        self._sizing.remove(lane)

    def lanes(self) -> tuple[str, ...]:
        """The lanes that are served."""
        return self._desk.lanes()

    def form(self, lane: str) -> Lane:
        """How a lane is batched, with what is known of its speed. Raises `RefusedError` if it is not served."""
        return self._desk.form(lane)

    def choices(self) -> dict[str, Choice]:
        """By lane, how its model is run and why; lanes whose form was given have none."""
        return self._sizing.choices()

    def queue_depth(self) -> int:
        """Requests that wait."""
        return self._desk.waiting()[0]

    def drain_s(self) -> float:
        """Seconds until all that waits and runs would be done, as far as speeds are known."""
        return self._desk.drain_s()

    def predicted_wait_s(self, lane: str, lengths: Sequence[int] = (1,), *, key: str = "", priority: int = 0) -> float:
        """Seconds until a request of texts of so many tokens would be answered, if it came now."""
        return self._desk.predicted_wait_s(lane, lengths, (key, priority))

    # Requests -------------------------------------------------------------------------------------------

    def submit(
        self,
        lane: str,
        inputs: Sequence[Any] | Encoded,
        *,
        prompt: str | None = None,
        normalize: bool = True,
        deadline_s: float | None = None,
        key: str = "",
        priority: int = 0,
    ) -> "Future[Answer]":
        """Put texts (pairs, for a scorer), or their token ids, in line; the future holds their `Answer`, or why not.

        `deadline_s` is from now. Raises `RefusedError` for what is not taken, and `DataError` for inputs that are not
        what the model takes. Cancelling the future takes its work out of line.
        """
        now = self._clock()
        until = now + (self._limits.deadline_s if deadline_s is None else deadline_s)
        loaded = None
        try:
            self._check_count(len(inputs))
            loaded = self._desk.enter(lane)
            model = loaded.model
            encoded = (
                model.checked(inputs, prompt) if isinstance(inputs, Encoded) else model.encode(inputs, prompt=prompt)
            )
            work = self._prepared(encoded, loaded, now)
            work.finish = model.unit_length if normalize and isinstance(model, Embedder) else work.finish
            lengths = tuple(work.encoded.ids.lengths.tolist())
            number = next(self._numbers)
            work.request = Request(
                number=number, lane=lane, lengths=lengths, key=key, priority=priority, deadline_s=until
            )
            self._enqueue(work)
        except RefusedError as error:
            self._metrics.refused.add(reason=error.reason)
            raise
        finally:
            if loaded is not None:
                self._desk.leave(loaded)
        return work.future

    def _check_count(self, count: int) -> None:
        if count > self._limits.inputs:
            raise RefusedError(
                f"The request has {count:,} inputs; {self._limits.inputs:,} is the most.",
                hint="Send fewer at a time.",
                reason="too_large",
            )

    def _prepared(self, encoded: Encoded, loaded: Loaded, now: float) -> Work:
        """The work that texts make, with what is remembered of it done, and its memory reserved."""
        held = self._ledger.reserve("requests", size_bytes(encoded, loaded.model.width))
        work = Work(encoded, loaded.model.width, held, now)
        if self._cache is not None and loaded.name is not None:
            work.recall(loaded.name, self._cache)
            self._metrics.cache_hits.add(len(work.rows) - work.left)
            self._metrics.cache_misses.add(work.left)
        return work

    def _enqueue(self, work: Work) -> None:
        try:
            if work.left:
                self._desk.put(work)
            else:
                work.succeed()
        except BaseException:
            work.held.release()
            raise
        # not the work itself: a future keeps its callbacks, and both would stay until somebody looks for cycles
        work.future.add_done_callback(partial(self._settled, work.request.number, work.held))

    def _settled(self, number: int, held: Reservation, future: "Future[Answer]") -> None:
        """The future has its answer, or nobody waits for it any more: then its work is dropped."""
        if future.cancelled():
            self._desk.forget(number)
            self._metrics.cancelled.add()
        held.release()

    # Workers --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (turn := self._desk.next()) is not None:
            failed, crashed = True, False
            try:
                failed = self._compute(turn)
            except RefusedError as refused:  # by the model: it went away, and no text is known to be to blame
                crashed = refused.reason == "unavailable"
                for _, work in turn.parts:
                    self._desk.fail(work, refused)
            except Exception as error:  # a mistake of ours must neither end the worker nor leave anybody waiting
                logs.event("service.fault", level="error", error=type(error).__name__, detail=str(error))
                for _, work in turn.parts:
                    self._desk.fail(work, failure(error))
            finally:
                self._desk.finished(turn, failed=failed, crashed=crashed)
            self._guard()

    def _compute(self, turn: Turn) -> bool:
        """Compute one batch and hand in its rows; whether something failed on the way."""
        encoded = Encoded.join([work.encoded.slice(part.start, part.stop) for part, work in turn.parts])
        started = self._clock()
        rows, errors = attempt(turn.loaded.model, encoded, turn.batch_tokens)
        seconds = self._clock() - started
        self._metrics.inference_seconds.observe(seconds)
        self._metrics.batch_texts.observe(len(encoded))
        self._metrics.batch_tokens.observe(len(encoded.ids.values))
        self._desk.hand_in(turn.parts, rows, errors, seconds)
        return bool(errors)

    def _guard(self) -> None:
        """Now and then, compare the books with the real memory, and the batches with the weather."""
        now = self._clock()
        if now - self._checked_s < _CHECK_S:
            return
        self._checked_s = now
        over = self._ledger.check()
        if over:
            logs.event("memory.over", level="warning", over_bytes=over)
        self._sizing.adapt(self._weather.look())

    def _show(self) -> None:
        """Bring the gauges up to date that nobody needs between two looks."""
        requests, tokens = self._desk.waiting()
        self._metrics.queue_requests.set(requests)
        self._metrics.queue_tokens.set(tokens)
        usage = self._ledger.usage()
        for owner in self._owners - set(usage):
            self._metrics.memory_bytes.remove(owner=owner)
        for owner, size in usage.items():
            self._metrics.memory_bytes.set(size, owner=owner)
        self._owners = set(usage)
        if self._ledger.budget_bytes is not None:
            self._metrics.memory_budget_bytes.set(self._ledger.budget_bytes)
