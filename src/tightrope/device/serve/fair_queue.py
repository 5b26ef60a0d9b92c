"""A queue that is fair among keys, as a value: no threads, no clock, and no opinion on who may enter.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): each flow, a key at one priority, has a tag that grows with the
tokens it was given, divided by its weight, and the least tag is next. A flow that was away starts where the others are.
So a large request never holds up a small one of another key for longer than a batch, and low priority is slow, but
never starves.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

PRIORITIES = range(-2, 3)
SHARE = 8.0
"""How much more of the time a priority gets than the one below it."""
_IDLE_FLOWS = 64


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

    @property
    def flow(self) -> tuple[str, int]:
        """Key and priority; one that is out of range counts as the nearest that is in it."""
        return self.key, min(max(self.priority, PRIORITIES[0]), PRIORITIES[-1])


@dataclass(frozen=True, slots=True)
class Part:
    """The texts of one request from `start` to before `stop`."""

    request: Request
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Amount:
    """Work in line: tokens, and the texts and requests that they belong to."""

    tokens: int
    texts: int
    requests: int


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
    __slots__ = ("lines", "tag", "weight")

    def __init__(self, weight: float) -> None:
        self.tag = 0.0
        self.weight = weight
        self.lines: dict[str, _Line] = {}

    @property
    def tokens(self) -> int:
        return sum(line.tokens for line in self.lines.values())


class FairQueue:
    """Requests in line for several lanes, and the order in which their texts are taken."""

    def __init__(self) -> None:
        self.tokens = self.texts = 0
        self._flows: dict[tuple[str, int], _Flow] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._virtual = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, number: int) -> bool:
        return number in self._waiting

    def put(self, request: Request) -> None:
        """Put a request at the end of its flow's line."""
        assert request.lengths and request.number not in self._waiting
        flow = self._flow(request.flow)
        if not flow.lines:
            flow.tag = max(flow.tag, self._virtual)
        waiting = self._waiting[request.number] = _Waiting(request)
        flow.lines.setdefault(request.lane, _Line()).items.append(waiting)
        self._count(flow, request.lane, waiting.left, len(request.lengths))

    def remove(self, number: int) -> Request | None:
        """Take a request out of line, or what is left of it; `None` if it is not there."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return None
        request = waiting.request
        flow = self._flows[request.flow]
        flow.lines[request.lane].items.remove(waiting)
        self._count(flow, request.lane, -waiting.left, waiting.next - len(request.lengths))
        return request

    def of_lane(self, lane: str) -> tuple[Request, ...]:
        """The requests in line for a lane."""
        return tuple(item.request for item in self._waiting.values() if item.request.lane == lane)

    def lanes(self) -> Iterator[str]:
        """Lanes that somebody waits for, by who is next among all."""
        seen = set()
        for flow in sorted((flow for flow in self._flows.values() if flow.lines), key=lambda flow: flow.tag):
            for lane, _ in sorted(flow.lines.items(), key=lambda item: item[1].first):
                if lane not in seen:
                    seen.add(lane)
                    yield lane

    def waiting(self, lane: str) -> Amount:
        """All that waits for a lane."""
        lines = [flow.lines[lane] for flow in self._flows.values() if lane in flow.lines]
        return Amount(
            sum(line.tokens for line in lines),
            sum(line.texts for line in lines),
            sum(len(line.items) for line in lines),
        )

    def ahead(self, flow: tuple[str, int], tokens: int) -> dict[str, list[float]]:
        """By lane, the tokens and texts that are computed before a new request of so many tokens in that flow is done.

        That is all of its own flow, and of the others what they are given meanwhile by their weights.
        """
        own = self._flows.get(flow)
        need = tokens + (own.tokens if own else 0)
        found: dict[str, list[float]] = {}
        for other in self._flows.values():
            share = 1.0
            if other is not own and other.lines:
                share = min(1.0, need * other.weight / SHARE ** flow[1] / other.tokens)
            for lane, line in other.lines.items():
                sums = found.setdefault(lane, [0.0, 0.0])
                sums[0] += line.tokens * share
                sums[1] += line.texts * share
        return found

    def take(self, lane: str, tokens: int, texts: int) -> tuple[tuple[Part, ...], int, int]:
        """Texts for one batch in fair order, of so many tokens at most; a longer one comes alone.

        Returns the parts, their tokens and their texts.
        """
        taken: dict[int, Part] = {}
        order = [(flow.tag, flow.lines[lane].first, flow) for flow in self._flows.values() if lane in flow.lines]
        heapq.heapify(order)
        used = count = 0
        while order and count < texts:
            tag, number, flow = order[0]
            waiting = flow.lines[lane].items[0]
            length = waiting.request.lengths[waiting.next]
            if count and used + length > tokens:
                break
            before = taken.get(number)
            taken[number] = Part(waiting.request, before.start if before else waiting.next, waiting.next + 1)
            used, count = used + length, count + 1
            self._virtual = max(self._virtual, tag)
            self._advance(flow, lane, waiting, length)
            if lane in flow.lines:
                heapq.heapreplace(order, (flow.tag, flow.lines[lane].first, flow))
            else:
                heapq.heappop(order)
        return tuple(taken.values()), used, count

    def _advance(self, flow: _Flow, lane: str, waiting: _Waiting, length: int) -> None:
        flow.tag += max(1, length) / flow.weight
        waiting.next += 1
        waiting.left -= length
        if waiting.next == len(waiting.request.lengths):
            del self._waiting[waiting.request.number]
            flow.lines[lane].items.popleft()
        self._count(flow, lane, -length, -1)

    def _count(self, flow: _Flow, lane: str, tokens: int, texts: int) -> None:
        """Keep the sums; a line that nobody stands in is no more."""
        line = flow.lines[lane]
        line.tokens += tokens
        line.texts += texts
        self.tokens += tokens
        self.texts += texts
        if not line.items:
            del flow.lines[lane]
        if not self._waiting:  # the busy period is over, and with it all debts
            self._flows.clear()
            self._virtual = 0.0

    def _flow(self, name: tuple[str, int]) -> _Flow:
        if name not in self._flows:
            if len(self._flows) >= _IDLE_FLOWS:  # one with nothing in line and no debt is as good as a new one
                kept = {key: flow for key, flow in self._flows.items() if flow.lines or flow.tag > self._virtual}
                self._flows = kept
            self._flows[name] = _Flow(SHARE ** name[1])
        return self._flows[name]
