"""A WebSocket (RFC 6455, by wsproto) on a connection that asked for one: whole texts in both directions, bounded.

Nothing is compressed: a small message could stand for a large one. A client that is silent is pinged, and let go when
it does not answer; one that does not read is let go as any other reader is. After a goodbye, or a refusal of the
handshake, what still comes is thrown away for a moment, so that the client reads it instead of a reset.
"""

import asyncio
import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from tightrope.device.serve import logs
from tightrope.device.serve.http import failures
from tightrope.device.serve.http.exchange import HELD_BYTES, head
from tightrope.device.serve.http.failures import Failure

if TYPE_CHECKING:
    from tightrope.device.serve.http.protocol import Connection

MESSAGES = 16
"""Of a client, that wait; then it is not read until some were taken."""


class Gone(Exception):
    """The other end left."""


class Socket:
    """What a handler sees of a WebSocket: `accept`, `receive`, `send`, `close`."""

    def __init__(self, connection: "Connection", scope: dict[str, Any], early: bytes) -> None:
        self.scope = scope
        self._connection = connection
        self._ws = WSConnection(ConnectionType.SERVER)
        self._early = early
        """What came before the handshake was answered."""
        self._open = self._gone = False
        self._pinged = self._paused = False
        self._message = ""
        self._waiting: deque[str] = deque()
        self._news = asyncio.Event()

    # For the connection ---------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes came."""
        self._pinged = False
        limits = self._connection.guard.limits
        if not self._open:
            self._early += data
            if len(self._early) > limits.header_bytes:
                self._connection.abort()
            return
        self._connection.deadline_s = self._connection.guard.now() + limits.idle_s
        try:
            self._ws.receive_data(data)
            for event in self._ws.events():
                if not self._gone:
                    self._take(event)
        except RemoteProtocolError:
            self._end(1002)

    def lose(self) -> None:
        """The client is gone."""
        self._gone = True
        self._news.set()

    def retire(self) -> None:
        """The server stops."""
        self._end(1001)

    def expire(self) -> None:
        """Nothing came for long: ask once, then let go."""
        guard = self._connection.guard
        if not self._open or self._pinged or self._gone:
            self._connection.abort()
            return
        self._pinged = True
        self._write(Ping())
        self._connection.deadline_s = guard.now() + guard.limits.write_s

    async def run(self) -> None:
        """Let the application serve it, and close what it leaves open."""
        if flaw := _flaw(self.scope):
            self._refuse(Failure("malformed", flaw))
            return
        try:
            self._ws.initiate_upgrade_connection(self.scope["headers"], self.scope["path"])
        except (RemoteProtocolError, LocalProtocolError) as error:
            self._refuse(Failure("malformed", f"This is no WebSocket as it should be: {error}."))
            return
        app: Any = self._connection.guard.app
        try:
            await app.socket(self.scope, self)
        except Gone:
            pass
        except Failure as failure:
            self._refuse(failure)
        except Exception as error:
            logs.event("websocket.failed", level="error", error=type(error).__name__)
            self._end(1011) if self._open else self._refuse(Failure("failed", "The server failed."))
        else:
            self._end(1000)

    # For the handler ------------------------------------------------------------------------------------

    async def accept(self) -> None:
        """Answer the handshake. Raises `Gone` if nobody waits for it any more."""
        if self._gone:
            raise Gone
        self._write(AcceptConnection())
        self._open = True
        early, self._early = self._early, b""
        self.feed(early)

    async def receive(self) -> str | None:
        """The next text; `None` after the other end left."""
        while not self._waiting:
            if self._gone:
                return None
            self._news.clear()
            await self._news.wait()
        text = self._waiting.popleft()
        if len(self._waiting) < MESSAGES and self._read_on():
            self._connection.deadline_s = self._connection.guard.now() + self._connection.guard.limits.idle_s
        return text

    async def send(self, text: str) -> None:
        """Send a text, and wait while the reader is behind. Raises `Gone` after it left."""
        if self._gone:
            raise Gone
        self._write(TextMessage(data=text))
        if not await self._connection.drained() or self._gone:
            raise Gone

    async def close(self, code: int = 1000) -> None:
        """Say goodbye."""
        self._end(code)

    # Frames ---------------------------------------------------------------------------------------------

    def _take(self, event: Any) -> None:
        if isinstance(event, Ping):
            if self._connection.transport.get_write_buffer_size() <= HELD_BYTES:  # else its pongs would be hoarded
                self._write(event.response())
        elif isinstance(event, CloseConnection):
            self._end(event.code)
        elif isinstance(event, BytesMessage):
            self._end(1003)
        elif isinstance(event, TextMessage):
            self._message += event.data
            if len(self._message) > self._connection.guard.limits.header_bytes:
                self._end(1009)
            elif event.message_finished:
                self._waiting.append(self._message)
                self._message = ""
                self._news.set()
                if len(self._waiting) >= MESSAGES:
                    self._paused = True
                    self._connection.deadline_s = math.inf
                    self._connection.transport.pause_reading()

    def _read_on(self) -> bool:
        """Read the client again, if that was stopped; whether it was."""
        if not self._paused or self._connection.transport.is_closing():
            return False
        self._paused = False
        self._connection.transport.resume_reading()
        return True

    def _write(self, event: Any) -> None:
        if not self._connection.transport.is_closing():
            self._connection.transport.write(self._ws.send(event))

    def _end(self, code: int) -> None:
        if self._gone:
            return
        self._gone = True
        if self._open:
            with suppress(LocalProtocolError):  # both sides said goodbye already
                self._write(CloseConnection(code=code))
        self._read_on()
        self._connection.finished()  # which lets the client read this, although bytes of it are still on their way
        self._news.set()

    def _refuse(self, failure: Failure) -> None:
        """Answer with a status instead of a handshake."""
        if self._open:
            self._end(1011)
            return
        status, kind, body, headers = failures.envelope(failure, "live", "")
        length = str(len(body)).encode()
        fields = [(b"content-type", kind), (b"content-length", length), (b"connection", b"close"), *headers]
        self._connection.write(head(status, fields) + body)
        self._end(1000)


def _flaw(scope: dict[str, Any]) -> str:
    """Why a request cannot become a WebSocket, or nothing: a body would be read as frames (RFC 6455, 4.1)."""
    if scope["method"] != "GET" or scope["http_version"] != "1.1":
        return "A WebSocket is asked for with GET and HTTP/1.1."
    if any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]):
        return "A request for a WebSocket has no body."
    return ""
