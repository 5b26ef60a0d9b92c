"""What all connections of a listener share: how many there may be, and the clock that ends those who waste time."""

import asyncio
import math
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from tightrope.device.serve.limits import Limits

Message = dict[str, Any]
App = Callable[
    [dict[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
TICK_S = 0.1
"""How often deadlines are looked at while somebody is connected."""
SPARE = 64
"""Refused connections that are told why at one time; in a flood there is no room for more."""
READ_BYTES = 16_384
"""What is taken from a socket at once."""


class Watched(Protocol):
    """A connection: until when it may go on as it does, and until when its reader may take nothing."""

    address: str
    deadline_s: float
    stalled_s: float

    def expire(self) -> None:
        """The time is up."""

    def abort(self) -> None:
        """End now, whatever is left to say."""

    def retire(self) -> None:
        """The server stops: finish what was begun, begin nothing."""


class Guard:
    """Counts connections, watches their deadlines, runs their tasks. It belongs to one event loop.

    `counted` is told how many connections there are whenever that changes.
    """

    def __init__(self, app: App, limits: Limits, *, counted: Callable[[int], None] = lambda count: None) -> None:
        self.app = app
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.retiring = False
        self.buffer = memoryview(bytearray(READ_BYTES))
        """Where every connection's bytes arrive: each is done with it before the next one reads."""
        self._connections: set[Watched] = set()
        self._refused: set[Watched] = set()
        self._addresses: Counter[str] = Counter()
        """How many connections each has that were not refused."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._counted = counted
        self._ticking = False

    def now(self) -> float:
        """Seconds on the loop's clock."""
        return self.loop.time()

    def admit(self, connection: Watched) -> str:
        """Take a connection in; what forbids it in words, or nothing. It is watched either way, until it `leave`s.

        In a flood the refused are ended at once: who is told something holds a descriptor meanwhile.
        """
        self._connections.add(connection)
        self._counted(len(self._connections))
        if not self._ticking:
            self._ticking = True
            self.loop.call_later(TICK_S, self._tick)
        if refusal := self._refusal(connection):
            self._refused.add(connection)
            if len(self._refused) > SPARE:
                connection.abort()
        else:
            self._addresses[connection.address] += 1
        return refusal

    def _refusal(self, connection: Watched) -> str:
        if self.retiring:
            return "The server stops."
        if len(self._connections) - len(self._refused) > self.limits.connections:
            return "The server has as many connections as it takes."
        if connection.address and self._addresses[connection.address] >= self.limits.connections_per_address:
            return "This address has as many connections as one may have."
        return ""

    def leave(self, connection: Watched) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._counted(len(self._connections))
        if connection in self._refused:
            self._refused.discard(connection)
            return
        self._addresses[connection.address] -= 1
        if not self._addresses[connection.address]:
            del self._addresses[connection.address]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a connection's work as a task of its own."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, hurried: Callable[[], bool] = lambda: False) -> bool:
        """Let requests finish, for `drain_s` at most and until somebody is in a hurry; then end what is left.

        Who comes meanwhile is refused. Whether all came to their end.
        """
        self.retiring = True
        for connection in tuple(self._connections):
            connection.retire()
        until = self.now() + self.limits.drain_s
        while (self._connections or self._tasks) and self.now() < until and not hurried():
            await asyncio.sleep(0.02)
        finished = not self._connections and not self._tasks
        for connection in tuple(self._connections):
            connection.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return finished

    def _tick(self) -> None:
        now = self.now()
        for connection in tuple(self._connections):
            if now >= connection.stalled_s:
                connection.abort()
            elif now >= connection.deadline_s:
                connection.deadline_s = math.inf
                connection.expire()
        self._ticking = bool(self._connections)
        if self._ticking:
            self.loop.call_later(TICK_S, self._tick)


def allow_descriptors(connections: int) -> None:
    """Raise this process's own limit on open files, as far as it may, so that so many connections find room."""
    import resource

    wanted = connections + 128
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def peer(transport: asyncio.BaseTransport) -> tuple[str, tuple[str, int] | None]:
    """The other end: the address that its connections are counted under, and the pair that ASGI shows.

    Over a Unix socket there is neither.
    """
    found = transport.get_extra_info("peername")
    if not isinstance(found, tuple):
        return "", None
    return str(found[0]), (str(found[0]), int(found[1]))


def peer_user(transport: asyncio.BaseTransport) -> int | None:
    """The user at the other end of a Unix socket, where the system tells: SO_PEERCRED of unix(7)."""
    import socket
    import struct

    found = transport.get_extra_info("socket")
    if found is None or not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)


def same_user(transport: asyncio.BaseTransport) -> bool:
    """Whether the other end of a Unix socket is this user, or root."""
    return peer_user(transport) in (None, 0, os.geteuid())
