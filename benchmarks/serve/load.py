"""Load from a process of its own: many connections, each asks again as soon as it is answered, or at a fixed rate.

A request is one piece of bytes made beforehand and an answer is looked at for its status and length only, so that one
core is enough to keep a server on another one busy. `python -m benchmarks.serve.load` reads a plan on standard input.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.documents import ROOT
from benchmarks.serve.process import pinned


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Whom to ask, what, by how many clients, for how long. `rate` is requests a second; without it clients hurry."""

    port: int
    path: str
    bodies: tuple[str, ...]
    clients: int
    seconds: float
    rate: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    core: int | None = None

    def requests(self) -> list[bytes]:
        """The bytes of each request."""
        return [request(self.path, body, self.headers) for body in self.bodies]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What came back: for each answer its status, its time and whether it says when to come again."""

    seconds: float
    statuses: list[int]
    times_s: list[float]
    retry_after: list[bool]
    broken: int
    """Connections that ended before their answer."""

    def times(self, good: bool = True) -> list[float]:
        """The times of the answers that were good, or of the others, from the shortest."""
        return sorted(t for t, status in zip(self.times_s, self.statuses, strict=True) if (status == 200) == good)

    @property
    def per_s(self) -> float:
        """Good answers a second."""
        return len(self.times()) / self.seconds


def run(plan: Plan) -> Answers:
    """Carry out a plan in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serve.load"],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=plan.seconds + 120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Answers(**json.loads(done.stdout))


def request(path: str, body: str, headers: dict[str, str] | None = None) -> bytes:
    """A POST, or a GET if there is nothing to send."""
    data = body.encode()
    lines = [f"{'POST' if data else 'GET'} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: */*"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if data:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


class Client(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self, done: Callable[["Client", int, bool, float], None], lost: Callable[["Client"], None]) -> None:
        self._done, self._lost = done, lost
        self._bytes = bytearray()
        self._asked = 0.0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.open = True

    def ask(self, data: bytes) -> None:
        """Send a request."""
        self._bytes.clear()
        self._asked = time.perf_counter()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer; when it is whole, `done` hears of it."""
        self._bytes += data
        end = self._bytes.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._bytes[:end]).lower()
        if b"chunked" in head:
            if not self._bytes.endswith(b"\r\n0\r\n\r\n"):
                return
        elif len(self._bytes) < end + 4 + int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0):
            return
        took = time.perf_counter() - self._asked
        self._asked = 0.0
        self._done(self, int(head[9:12]), b"\nretry-after:" in head, took)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side closed: an answer is missing only if one was asked for."""
        self.open = False
        if self._asked:
            self._lost(self)


class Run:
    """A plan on its way."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._requests = plan.requests()
        self._next = 0
        self._statuses: list[int] = []
        self._times: list[float] = []
        self._retry: list[bool] = []
        self._broken = 0
        self._idle: list[Client] = []
        self._busy = 0
        self._until = 0.0

    async def go(self) -> Answers:
        """Connect, ask until the time is up, and wait for the last answers."""
        loop = asyncio.get_running_loop()
        for _ in range(self.plan.clients):
            self._idle.append(await self._connect(loop))
        start = time.perf_counter()
        self._until = start + self.plan.seconds
        if self.plan.rate:
            await self._by_timetable(loop, start, self.plan.rate)
        else:
            for client in tuple(self._idle):
                self._ask(client)
            await asyncio.sleep(self.plan.seconds)
        took = time.perf_counter() - start
        for _ in range(600):
            if not self._busy:
                break
            await asyncio.sleep(0.05)
        return Answers(
            seconds=took, statuses=self._statuses, times_s=self._times, retry_after=self._retry, broken=self._broken
        )

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> Client:
        _, client = await loop.create_connection(lambda: Client(self._done, self._lose), "127.0.0.1", self.plan.port)
        return client

    async def _by_timetable(self, loop: asyncio.AbstractEventLoop, start: float, rate: float) -> None:
        """Ask at fixed times whether or not earlier questions were answered; connections are added as needed."""
        number = 0
        while (now := time.perf_counter()) < self._until:
            while number < (now - start) * rate:
                number += 1
                client = self._idle.pop() if self._idle else await self._connect(loop)
                if client.open:
                    self._ask(client)
            await asyncio.sleep(0.001)

    def _ask(self, client: Client) -> None:
        self._busy += 1
        client.ask(self._requests[self._next % len(self._requests)])
        self._next += 1

    def _done(self, client: Client, status: int, retry_after: bool, took: float) -> None:
        self._busy -= 1
        self._statuses.append(status)
        self._times.append(took)
        self._retry.append(retry_after)
        if self.plan.rate:
            self._idle.append(client)
        elif time.perf_counter() < self._until and client.open:
            self._ask(client)

    def _lose(self, client: Client) -> None:
        self._busy -= 1
        self._broken += 1


def share(ordered: Sequence[float], part: float) -> float | None:
    """The percentile of sorted values, by nearest rank; `None` without any."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None


def figures(answers: Answers) -> dict[str, Any]:
    """What is stored of a run: rate and percentiles of the good answers, and how many were not."""
    good, bad = answers.times(), answers.times(good=False)
    return {
        "seconds": answers.seconds,
        "n": len(good),
        "per_s": answers.per_s,
        "p50_s": share(good, 0.5),
        "p95_s": share(good, 0.95),
        "p99_s": share(good, 0.99),
        "not_answered": len(bad),
        "broken": answers.broken,
    }


def main() -> int:
    """Read a plan, carry it out, print what came back."""
    given = json.loads(sys.stdin.read())
    plan = Plan(**{**given, "bodies": tuple(given["bodies"])})
    pinned(plan.core)
    json.dump(asdict(asyncio.run(Run(plan).go())), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
