"""One request and its answer, as ASGI has it: the body comes in pieces, the answer goes out as fast as it is read."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

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
        self.told: Callable[[], None] | None = None
        """Whom to tell when nobody waits for the answer any more."""
        self._chunked = False
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
        if self.told is not None:
            self.told()

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
        """Send the head, if it is still here, and a piece of the body as it is framed (RFC 9112, 6)."""
        parts = [] if self._head is None else [self._begun(*self._head)]
        if data and self.scope["method"] != "HEAD":
            parts += (b"%x\r\n" % len(data), data, b"\r\n") if self._chunked else (data,)
        if end and self._chunked:
            parts.append(b"0\r\n\r\n")
        self.complete = end
        self._connection.write(b"".join(parts))

    def _begun(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The head. A body whose length nobody knows is cut into chunks; one for HTTP/1.0 ends with the connection."""
        self._head, self.started = None, True
        bare = self.scope["method"] == "HEAD" or status in (204, 304)
        known = bare or any(name == b"content-length" for name, _ in headers)
        if not known and self.scope["http_version"] == "1.1":
            self._chunked = True
            headers.append((b"transfer-encoding", b"chunked"))
        elif not known:
            self._connection.close_after()
        if self._connection.must_close:
            headers.append((b"connection", b"close"))
        elif self.scope["http_version"] == "1.0":
            headers.append((b"connection", b"keep-alive"))
        return head(status, headers)

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


_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


def head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The status line and headers of an answer.

    >>> head(204, [(b"allow", b"GET")])
    b'HTTP/1.1 204 No Content\\r\\nallow: GET\\r\\n\\r\\n'
    """
    lines = [b"HTTP/1.1 %d %s" % (status, _PHRASES.get(status, b"")), *(b"%s: %s" % pair for pair in headers)]
    data = b"\r\n".join(lines)
    assert data.count(b"\n") == len(lines) - 1, "a header holds a line feed"
    return data + b"\r\n\r\n"


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
