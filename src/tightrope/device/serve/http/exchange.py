"""One request and its answer, as ASGI has it: the body comes in pieces, the answer goes out as fast as it is read."""

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import h11

from tightrope.device.serve import logs
from tightrope.device.serve.http.guard import Message

if TYPE_CHECKING:
    from tightrope.device.serve.http.protocol import Connection

HELD_BYTES = 65_536
"""Of a body that nobody takes yet, and of an answer in the socket's buffer."""


class Exchange:
    """What the application sees of one request: `receive` and `send`."""

    def __init__(self, connection: "Connection", scope: dict[str, Any]) -> None:
        self.scope = scope
        self.gone = False
        """Nobody waits for the answer any more."""
        self.started = False
        """Whether a part of the answer went out."""
        self.complete = False
        self._connection = connection
        self._parts: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._told_end = False
        self._news = asyncio.Event()
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None

    # From the client ------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bool:
        """A piece of the body came; whether there is enough for now."""
        if not self.complete:
            self._parts.append(data)
            self._held += len(data)
            self._news.set()
        return self._held > HELD_BYTES

    def end(self) -> None:
        """The body is whole."""
        self._ended = True
        self._news.set()

    def lose(self) -> None:
        """The client is gone, or will be let go."""
        self.gone = True
        self._news.set()

    async def receive(self) -> Message:
        """The next piece of the body; after the last one `http.disconnect`, as soon as there is reason for it."""
        if not self._told_end and not self.gone:
            self._connection.go_on()
        while not self.gone:
            if self._parts or (self._ended and not self._told_end):
                data, self._held = b"".join(self._parts), 0
                self._parts.clear()
                self._told_end = self._ended
                self._connection.taken()
                return {"type": "http.request", "body": data, "more_body": not self._ended}
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    # To the client --------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send the head or a piece of the answer, and wait while the reader is behind. To nobody, nothing is sent."""
        if self.gone or self.complete:
            return
        if message["type"] == "http.response.start":
            self._head = message["status"], [(b"date", _date(time.time())), *message["headers"]]
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        for start in range(0, max(1, len(body)), HELD_BYTES):
            last = start + HELD_BYTES >= len(body)
            self._write(body[start : start + HELD_BYTES], end=last and not more)
            if not await self._connection.drained():
                return

    def _write(self, data: bytes, *, end: bool) -> None:
        events: list[Any] = []
        if self._head is not None:
            status, headers = self._head
            closing = [(b"connection", b"close")] if self._connection.must_close else []
            events.append(h11.Response(status_code=status, headers=[*headers, *closing]))
            self._head, self.started = None, True
        if data and self.scope["method"] != "HEAD":
            events.append(h11.Data(data=data))
        if end:
            events.append(h11.EndOfMessage())
            self.complete = True
        self._connection.write(events)

    async def run(self) -> None:
        """Let the application answer; whatever it does, the connection comes to a defined end."""
        try:
            await self._connection.guard.app(self.scope, self.receive, self.send)
        except Exception as error:
            logs.event("http.failed", level="error", error=type(error).__name__)
        finally:
            if self.complete:
                self._connection.finished()
            elif not self.gone:
                self._connection.fail(500, "The server failed.")


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_dates: dict[int, bytes] = {}


def _date(wall_s: float) -> bytes:
    """The time as HTTP writes it (RFC 9110, 5.6.7), whatever the locale."""
    second = int(wall_s)
    if second not in _dates:
        found = time.gmtime(second)
        _dates.clear()
        _dates[second] = (
            f"{_DAYS[found.tm_wday]}, {found.tm_mday:02d} {_MONTHS[found.tm_mon - 1]} {found.tm_year} "
            f"{found.tm_hour:02d}:{found.tm_min:02d}:{found.tm_sec:02d} GMT"
        ).encode()
    return _dates[second]
