"""The queue as a value: whom to admit, and what to compute next. It has no threads and no clock; time is passed in.

Keys share a model's time fairly by start-time fair queueing (Goyal, Vin and Cheng, 1996): each flow, a key at one
priority, has a tag that grows with the tokens it was given, divided by its weight, and the least tag is next. One that
was away starts where the others are. So a large request never holds up a small one of another key for longer than a
batch, and low priority is slow, but never starves.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tightrope.device.serve.limits import Limits
from tightrope.device.serve.pace import Pace
from tightrope.errors import RefusedError

PRIORITIES = range(-2, 3)
_SHARE = 8.0
"""How much more of the time a priority gets than the one below it."""
_IDLE_FLOWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """How one model wants its batches: at most so many tokens and texts.

    `parallel`: two workers may run it at once. `pace`: what is known of its speed before the first batch.
    """

    batch_tokens: int
    batch_texts: int
    parallel: bool = True
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Texts that wait for one model: the tokens of each, whose they are, and until when an answer is of use."""

    number: int
    lane: str
    lengths: tuple[int, ...]
    key: str = ""
    priority: int = 0
    deadline_s: float = math.inf

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(self.lengths)


@dataclass(frozen=True, slots=True)
class Part:
    """The texts of one request from `start` to before `stop`."""

    request: Request
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What one worker computes at once."""

    lane: str
    parts: tuple[Part, ...]
    tokens: int
    texts: int


class _Waiting:
    __slots__ = ("left", "next", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.next = 0
        self.left = request.tokens


class _Line:
    """Requests of one flow for one lane, in the order of their arrival."""

    __slots__ = ("items", "texts", "tokens")

    def __init__(self) -> None:
        self.items: deque[_Waiting] = deque()
        self.tokens = self.texts = 0

    @property
    def first(self) -> int:
        return self.items[0].request.number


class _Flow:
    """The requests of one key at one priority, by lane, and its place in the order of service."""

    __slots__ = ("lanes", "tag", "weight")

    def __init__(self, weight: float) -> None:
        self.tag = 0.0
        self.weight = weight
        self.lanes: dict[str, _Line] = {}

    @property
    def tokens(self) -> int:
        return sum(line.tokens for line in self.lanes.values())


class _LaneState:
    __slots__ = ("finished_s", "form", "had", "pace", "patience", "running", "saw")

    def __init__(self, form: Lane) -> None:
        self.form = form
        self.pace = form.pace
        self.running: list[tuple[Batch, float]] = []
        self.finished_s = -math.inf
        self.had = 0
        """Requests in the last batch: so many may be about to ask again."""
        self.patience = 1.0
        """The share of the longest wait for company that has been worth while."""
        self.saw: int | None = None
        """Requests that were there when the wait for company began; `None` if nobody waits."""


class Scheduler:
    """Admits requests, forms batches, and knows how long things take. Not safe for use from several threads."""

    def __init__(self, limits: Limits, *, workers: int = 1) -> None:
        self.queue_tokens = 0
        self._limits = limits
        self._workers = workers
        self._lanes: dict[str, _LaneState] = {}
        self._flows: dict[tuple[str, int], _Flow] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._virtual = 0.0

    @property
    def queue_requests(self) -> int:
        """Requests that wait, those included of which a part has been computed."""
        return len(self._waiting)

    # Lanes ----------------------------------------------------------------------------------------------

    def set_lane(self, name: str, form: Lane) -> None:
        """Add a lane, or change how it is batched; what is known of its speed is kept."""
        if name in self._lanes:
            self._lanes[name].form = form
        else:
            self._lanes[name] = _LaneState(form)

    def drop_lane(self, name: str) -> tuple[Request, ...]:
        """Forget a lane; returns the requests that waited for it."""
        self._lanes.pop(name, None)
        dropped = tuple(item.request for item in self._waiting.values() if item.request.lane == name)
        for request in dropped:
            self.cancel(request.number)
        return dropped

    def running(self, lane: str) -> int:
        """Batches of a lane that are being computed."""
        return len(self._lanes[lane].running) if lane in self._lanes else 0

    # Coming and going -----------------------------------------------------------------------------------

    def check_room(self, now: float) -> None:
        """Refuse (overloaded) while too many wait already: to be asked before a request costs anything."""
        if self.queue_requests >= self._limits.queue_requests:
            raise self._overloaded(f"{self.queue_requests} requests wait already", now)

    def admit(self, request: Request, now: float) -> None:
        """Put a request in line.

        Raises `RefusedError`: too_large for one that never fits, overloaded when there is no room or the wait would be
        longer than the limits allow, deadline if the answer would come too late.
        """
        assert request.lane in self._lanes and request.number not in self._waiting
        tokens = request.tokens
        if tokens > self._limits.queue_tokens:
            raise RefusedError(
                f"The request has {tokens:,} tokens; {self._limits.queue_tokens:,} is the most that may wait.",
                hint="Send fewer texts at a time.",
                reason="too_large",
            )
        self.check_room(now)
        if self.queue_tokens + tokens > self._limits.queue_tokens:
            raise self._overloaded(f"{self.queue_tokens:,} tokens wait already", now)
        self._check_time(request, now)
        self._enqueue(request)

    def cancel(self, number: int) -> bool:
        """Take a request out of line, or what is left of it; whether it was there."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return False
        flow, lane = self._flows[_flow_of(waiting.request)], waiting.request.lane
        line = flow.lanes[lane]
        line.items.remove(waiting)
        self._count(flow, lane, -waiting.left, waiting.next - len(waiting.request.lengths))
        return True

    def expire(self, now: float) -> tuple[Request, ...]:
        """Take out of line whose deadline has passed, and return them."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = heapq.heappop(self._deadlines)
            if number in self._waiting:
                expired.append(self._waiting[number].request)
                self.cancel(number)
        return tuple(expired)

    def _enqueue(self, request: Request) -> None:
        waiting = _Waiting(request)
        name = _flow_of(request)
        flow = self._flows.get(name)
        if flow is None:
            self._forget_idle_flows()
            flow = self._flows[name] = _Flow(_SHARE ** name[1])
        if not flow.lanes:
            flow.tag = max(flow.tag, self._virtual)
        flow.lanes.setdefault(request.lane, _Line()).items.append(waiting)
        self._waiting[request.number] = waiting
        self._count(flow, request.lane, waiting.left, len(request.lengths))
        if request.deadline_s < math.inf:
            heapq.heappush(self._deadlines, (request.deadline_s, request.number))

    def _count(self, flow: _Flow, lane: str, tokens: int, texts: int) -> None:
        """Keep the sums; a line that nobody stands in is no more."""
        line = flow.lanes[lane]
        line.tokens += tokens
        line.texts += texts
        self.queue_tokens += tokens
        if not line.items:
            del flow.lanes[lane]

    def _forget_idle_flows(self) -> None:
        """A flow that has nothing in line and no debt is as good as a new one."""
        if len(self._flows) >= _IDLE_FLOWS:
            self._flows = {name: flow for name, flow in self._flows.items() if flow.lanes or flow.tag > self._virtual}

    # What next ------------------------------------------------------------------------------------------

    def next_batch(self, now: float) -> Batch | float | None:
        """The batch to compute now; or the time until when to wait for company; or nothing, if nobody can be served."""
        until = math.inf
        for name in self._lanes_in_order():
            state = self._lanes[name]
            wait = self._wait_until(name, state, now)
            if wait is None:
                batch = self._fill(name, state)
                state.running.append((batch, now))
                return batch
            until = min(until, wait)
        return None if until == math.inf else until

    def finished(self, batch: Batch, now: float, *, failed: bool = False) -> None:
        """A batch is done: its time counts for what is predicted, unless it failed and was tried again in pieces."""
        state = self._lanes.get(batch.lane)
        if state is None:
            return
        started = next((start for item, start in state.running if item is batch), None)
        state.running = [(item, start) for item, start in state.running if item is not batch]
        state.finished_s = now
        state.had = len(batch.parts)
        if started is not None and not failed:
            state.pace = state.pace.seen(batch.tokens, now - started)

    def _lanes_in_order(self) -> Iterator[str]:
        """Lanes that can be served now, by the least tag of who waits for them."""
        seen = set()
        for flow in sorted((flow for flow in self._flows.values() if flow.lanes), key=lambda flow: flow.tag):
            for lane, _ in sorted(flow.lanes.items(), key=lambda item: item[1].first):
                state = self._lanes[lane]
                if lane not in seen and (state.form.parallel or not state.running):
                    seen.add(lane)
                    yield lane

    def _wait_until(self, name: str, state: _LaneState, now: float) -> float | None:
        """Until when a lane that is not full should wait for company; `None` if it should not.

        Clients that each send the next request when they have an answer come back all at once, a moment after a batch:
        who starts with the first of them computes two small batches in turn instead of one. So a batch may wait for as
        many requests as the last one had, for a moment after that, and the longer the more often somebody came.
        """
        lines = [flow.lanes[name] for flow in self._flows.values() if name in flow.lanes]
        here = sum(len(line.items) for line in lines)
        until = state.finished_s + self._limits.batch_wait_s * state.patience
        full = (
            sum(line.tokens for line in lines) >= state.form.batch_tokens
            or sum(line.texts for line in lines) >= state.form.batch_texts
        )
        if now < until and here < state.had and not full and not state.running:
            state.saw = here if state.saw is None else state.saw
            return until
        if state.saw is not None:
            came = here > state.saw
            state.patience = min(1.0, state.patience * 2) if came else max(1 / 16, state.patience / 2)
            state.saw = None
        return None

    def _fill(self, lane: str, state: _LaneState) -> Batch:
        """Texts in the order of their flows' tags, until the batch is full. A longer text is a batch of its own."""
        taken: dict[int, list[int]] = {}
        requests: dict[int, Request] = {}
        tokens = texts = 0
        order = [(flow.tag, flow.lanes[lane].first, flow) for flow in self._flows.values() if lane in flow.lanes]
        heapq.heapify(order)
        while order and texts < state.form.batch_texts:
            tag, number, flow = order[0]
            waiting = flow.lanes[lane].items[0]
            length = waiting.request.lengths[waiting.next]
            if texts and tokens + length > state.form.batch_tokens:
                break
            requests[number] = waiting.request
            taken.setdefault(number, [waiting.next, waiting.next])[1] += 1
            tokens, texts = tokens + length, texts + 1
            self._virtual = max(self._virtual, tag)
            self._take(flow, lane, waiting, length)
            if lane in flow.lanes:
                heapq.heapreplace(order, (flow.tag, flow.lanes[lane].first, flow))
            else:
                heapq.heappop(order)
        parts = tuple(Part(requests[number], start, stop) for number, (start, stop) in taken.items())
        return Batch(lane, parts, tokens, texts)

    def _take(self, flow: _Flow, lane: str, waiting: _Waiting, length: int) -> None:
        flow.tag += max(1, length) / flow.weight
        waiting.next += 1
        waiting.left -= length
        if waiting.next == len(waiting.request.lengths):
            del self._waiting[waiting.request.number]
            flow.lanes[lane].items.popleft()
        self._count(flow, lane, -length, -1)

    # How long -------------------------------------------------------------------------------------------

    def predicted_wait_s(
        self, lane: str, lengths: Sequence[int], now: float, *, key: str = "", priority: int = 0
    ) -> float:
        """Seconds until a new request of such texts would be done: batches that run, its turn among others, its own.

        Others count for as much as they are given while this one gets what it needs; 0 before anything is known of the
        speed.
        """
        name = (key, _within(priority))
        mine = self._flows.get(name)
        need = sum(lengths) + (mine.tokens if mine else 0)
        before: dict[str, list[float]] = {lane: [sum(lengths), len(lengths)]}
        for other, flow in self._flows.items():
            share = 1.0 if other == name else need * flow.weight / _SHARE ** name[1]
            for there, line in flow.lanes.items():
                part = 1.0 if other == name else min(1.0, share / flow.tokens)
                sums = before.setdefault(there, [0.0, 0.0])
                sums[0] += line.tokens * part
                sums[1] += line.texts * part
        seconds = sum(self._seconds(there, tokens, texts) for there, (tokens, texts) in before.items())
        return (self._running_s(now) + seconds) / self._workers

    def drain_s(self, now: float) -> float:
        """Seconds until all that waits and runs would be done."""
        lines = [item for flow in self._flows.values() for item in flow.lanes.items()]
        seconds = sum(self._seconds(lane, line.tokens, line.texts) for lane, line in lines)
        return (self._running_s(now) + seconds) / self._workers

    def _check_time(self, request: Request, now: float) -> None:
        needed = self.predicted_wait_s(request.lane, request.lengths, now, key=request.key, priority=request.priority)
        left = request.deadline_s - now
        if left <= 0 or needed > left:
            raise RefusedError(
                f"The answer would come in {needed:.3g} s; the deadline is in {max(0.0, left):.3g} s.",
                hint="Allow more time, or send less at a time.",
                reason="deadline",
                retry_after_s=needed - left if left > 0 else None,
            )
        wait = needed - self._seconds(request.lane, request.tokens, len(request.lengths)) / self._workers
        if wait > self._limits.queue_s:
            raise self._overloaded(f"The wait would be {wait:.3g} s", now)

    def _overloaded(self, what: str, now: float) -> RefusedError:
        seconds = max(0.1, self.drain_s(now) / 2)
        return RefusedError(
            f"{what}; the server takes no more.",
            hint=f"Try again in {seconds:.2g} s.",
            reason="overloaded",
            retry_after_s=seconds,
        )

    def _seconds(self, lane: str, tokens: float, texts: float) -> float:
        """What so much work will take, in batches as full as they may be."""
        state = self._lanes[lane]
        batches = max(math.ceil(tokens / state.form.batch_tokens), math.ceil(texts / state.form.batch_texts))
        return state.pace.seconds(tokens, batches=batches)

    def _running_s(self, now: float) -> float:
        return sum(
            max(0.0, state.pace.seconds(batch.tokens) - (now - started))
            for state in self._lanes.values()
            for batch, started in state.running
        )


def _flow_of(request: Request) -> tuple[str, int]:
    return request.key, _within(request.priority)


def _within(priority: int) -> int:
    return min(max(priority, PRIORITIES[0]), PRIORITIES[-1])
