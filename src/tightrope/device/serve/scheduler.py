"""Whom to admit, and what to compute next, as a value: no threads and no clock of its own; time is passed in.

A request is admitted only if it can be answered in time, as far as the speed is known: whoever is refused learns so at
once, and when to come back. What was admitted and has expired is never computed.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tightrope.device.serve.fair_queue import Amount, FairQueue, Part, Request
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.pace import Lane
from tightrope.errors import RefusedError

_LEAST_PATIENCE = 1 / 16
_ALONE_S = 10.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one worker computes at once: parts of requests, with their tokens (without padding) and texts."""

    lane: str
    parts: tuple[Part, ...]
    tokens: int
    texts: int


class _Lane:
    """What the scheduler knows of a lane besides its form."""

    __slots__ = ("alone_s", "finished_s", "form", "had", "pace", "patience", "running", "saw")

    def __init__(self, form: Lane) -> None:
        self.form = form
        self.pace = form.pace
        self.running: dict[int, tuple[Batch, float]] = {}
        """Batches by identity, and when they were begun."""
        self.finished_s = self.alone_s = -math.inf
        """When the last batch was done, and until when texts are computed alone."""
        self.had = 0
        """Requests in the last batch: so many may be about to ask again."""
        self.patience = 1.0
        """The share of the longest wait for company that has been worth while."""
        self.saw: int | None = None
        """Requests that were there when the wait for company began; `None` if nobody waits."""


class Scheduler:
    """Admits requests, forms batches, and knows how long things take. Not safe for use from several threads."""

    def __init__(self, limits: Limits, *, workers: int = 1) -> None:
        self.queue = FairQueue()
        self._limits = limits
        self._workers = workers
        self._lanes: dict[str, _Lane] = {}
        self._deadlines: list[tuple[float, int]] = []

    def add_lane(self, name: str, form: Lane) -> None:
        """Add a lane."""
        assert name not in self._lanes
        self._lanes[name] = _Lane(form)

    def resize(self, name: str, batch_tokens: int) -> None:
        """Change how many tokens a lane's batches have."""
        lane = self._lanes[name]
        lane.form = replace(lane.form, batch_tokens=batch_tokens)

    def drop_lane(self, name: str) -> tuple[Request, ...]:
        """Forget a lane; returns the requests that waited for it."""
        self._lanes.pop(name, None)
        dropped = self.queue.of_lane(name)
        for request in dropped:
            self.queue.remove(request.number)
        return dropped

    def form(self, lane: str) -> Lane:
        """How a lane is batched, with what is known of its speed now."""
        found = self._lanes[lane]
        return replace(found.form, pace=found.pace)

    # Coming and going -----------------------------------------------------------------------------------

    def check_room(self, now: float) -> None:
        """Refuse (overloaded) while too many wait already: to be asked before a request costs anything."""
        if len(self.queue) >= self._limits.queue_requests:
            raise self._overloaded(f"{len(self.queue)} requests wait already", now)

    def admit(self, request: Request, now: float) -> None:
        """Put a request in line.

        Raises `RefusedError`: too_large for one that never fits, overloaded when there is no room or the wait would be
        longer than the limits allow, deadline if the answer would come too late.
        """
        tokens, most = request.tokens, self._limits.queue_tokens
        if tokens > most:
            raise RefusedError(
                f"The request has {tokens:,} tokens; {most:,} is the most that may wait.",
                hint="Send fewer texts at a time.",
                reason="too_large",
            )
        self.check_room(now)
        if self.queue.tokens + tokens > most:
            raise self._overloaded(f"{self.queue.tokens:,} tokens wait already", now)
        self._check_time(request, now)
        self.queue.put(request)
        if request.deadline_s < math.inf:
            heapq.heappush(self._deadlines, (request.deadline_s, request.number))

    def cancel(self, number: int) -> bool:
        """Take a request out of line, or what is left of it; whether it was there."""
        return self.queue.remove(number) is not None

    def expire(self, now: float) -> tuple[Request, ...]:
        """Take out of line whose deadline has passed, and return them."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            request = self.queue.remove(heapq.heappop(self._deadlines)[1])
            expired += [] if request is None else [request]
        if len(self._deadlines) > 2 * len(self.queue) + 64:  # most of them were answered long ago
            self._deadlines = [item for item in self._deadlines if item[1] in self.queue]
            heapq.heapify(self._deadlines)
        return tuple(expired)

    # What next ------------------------------------------------------------------------------------------

    def next_batch(self, now: float) -> Batch | float | None:
        """The batch to compute now; or until when to wait for company; or nothing, if nobody can be served."""
        until = math.inf
        for name in self.queue.lanes():
            lane = self._lanes[name]
            if lane.running and not lane.form.parallel:
                continue
            texts = lane.form.batch_texts if now >= lane.alone_s else 1
            wait = self._company(lane, self.queue.waiting(name), texts, now)
            if wait is None:
                batch = Batch(name, *self.queue.take(name, lane.form.batch_tokens, texts))
                lane.running[id(batch)] = batch, now
                return batch
            until = min(until, wait)
        return None if until == math.inf else until

    def finished(self, batch: Batch, now: float, *, failed: bool = False, crashed: bool = False) -> None:
        """A batch is done: its time counts for what is predicted, unless it failed and was tried again in pieces.

        After one in which the engine `crashed`, texts are computed alone for a while: if one of them was to blame and
        comes again, it takes nobody with it.
        """
        lane = self._lanes.get(batch.lane)
        if lane is None or id(batch) not in lane.running:  # the lane was dropped, or is a new one of that name
            return
        _, started = lane.running.pop(id(batch))
        lane.finished_s = now
        lane.had = len(batch.parts)
        lane.alone_s = now + _ALONE_S if crashed else lane.alone_s
        if not (failed or crashed):
            lane.pace = lane.pace.seen(batch.tokens, now - started)

    def _company(self, lane: _Lane, here: Amount, texts: int, now: float) -> float | None:
        """Until when a batch that is not full should wait for company; `None` if it should not.

        Clients that each send the next request when they have an answer come back all at once, a moment after a batch:
        who starts with the first of them computes two small batches in turn instead of one. So a batch may wait for as
        many requests as the last one had, for a moment after that, and the longer the more often somebody came.
        """
        until = lane.finished_s + self._limits.batch_wait_s * lane.patience
        full = here.tokens >= lane.form.batch_tokens or here.texts >= texts
        if now < until and here.requests < lane.had and not full and not lane.running:
            lane.saw = here.requests if lane.saw is None else lane.saw
            return until
        if lane.saw is not None:
            came = here.requests > lane.saw
            lane.patience = min(1.0, lane.patience * 2) if came else max(_LEAST_PATIENCE, lane.patience / 2)
            lane.saw = None
        return None

    # How long -------------------------------------------------------------------------------------------

    def predicted_wait_s(
        self, lane: str, lengths: Sequence[int], now: float, *, flow: tuple[str, int] = ("", 0)
    ) -> float:
        """Seconds until a new request of such texts would be done: batches that run, its turn among others, its own.

        It is 0 before anything is known of the speed.
        """
        tokens, texts = sum(lengths), len(lengths)
        work = self.queue.ahead(flow, tokens)
        there = work.setdefault(lane, [0.0, 0.0])
        there[0] += tokens
        there[1] += texts
        seconds = self._running_s(now) + sum(self._seconds(name, *amount) for name, amount in work.items())
        return max(seconds / self._workers, self._seconds(lane, tokens, texts))

    def drain_s(self, now: float) -> float:
        """Seconds until all that waits and runs would be done."""
        waiting = {name: self.queue.waiting(name) for name in self._lanes}
        seconds = sum(self._seconds(name, amount.tokens, amount.texts) for name, amount in waiting.items())
        return (self._running_s(now) + seconds) / self._workers

    def _check_time(self, request: Request, now: float) -> None:
        left = request.deadline_s - now
        if self._most_s(request, now) < min(left, self._limits.queue_s):
            return  # nearly always, and told in a tenth of the time
        needed = self.predicted_wait_s(request.lane, request.lengths, now, flow=request.flow)
        if left <= 0 or needed > left:
            raise RefusedError(
                f"The answer would come in {needed:.3g} s; the deadline is in {max(0.0, left):.3g} s.",
                hint="Allow more time, or send less at a time.",
                reason="deadline",
                retry_after_s=needed - left if left > 0 else None,
            )
        wait = needed - self._seconds(request.lane, request.tokens, len(request.lengths))
        if wait > self._limits.queue_s:
            raise self._overloaded(f"The wait would be {wait:.3g} s", now)

    def _most_s(self, request: Request, now: float) -> float:
        """Seconds until it is done at the latest: as if one worker did it last, and every lane had to do all of it."""
        tokens, texts = self.queue.tokens + request.tokens, self.queue.texts + len(request.lengths)
        return self._running_s(now) + sum(self._seconds(name, tokens, texts) for name in self._lanes)

    def _overloaded(self, what: str, now: float) -> RefusedError:
        seconds = max(0.1, self.drain_s(now) / 2)
        return RefusedError(
            f"{what}; the server takes no more.",
            hint=f"Try again in {seconds:.2g} s.",
            reason="overloaded",
            retry_after_s=seconds,
        )

    def _seconds(self, name: str, tokens: float, texts: float) -> float:
        """What so much work will take, in batches as full as they may be."""
        lane = self._lanes[name]
        batches = max(tokens / lane.form.batch_tokens, texts / lane.form.batch_texts)
        return lane.pace.seconds(tokens, batches=math.ceil(batches))

    def _running_s(self, now: float) -> float:
        return sum(
            max(0.0, lane.pace.seconds(batch.tokens) - (now - started))
            for lane in self._lanes.values()
            for batch, started in lane.running.values()
        )
