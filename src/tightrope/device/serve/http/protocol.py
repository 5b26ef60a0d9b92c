"""HTTP/1.1 over a socket, with the limits of size and time that servers commonly lack.

A connection is in one phase at a time, and each has a deadline: idle, headers, body (a least rate), work, and the
end. A reader that takes nothing has one too.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tightrope.device.serve import logs
from tightrope.device.serve.http import failures
from tightrope.device.serve.http.exchange import HELD_BYTES, Exchange, head
from tightrope.device.serve.http.guard import Guard, peer
from tightrope.device.serve.http.reader import Flaw, Head, Reader
from tightrope.device.serve.http.routes import LOSS

LINGER_S = 2.0
"""How long bytes are thrown away after an answer that did not wait for them: else the client would not see it."""
_OVER = ("linger", "closing", "lost")
"""Phases in which nothing is taken any more."""


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, guard: Guard, *, scheme: str = "http") -> None:
        self.guard = guard
        self.address = ""
        self.deadline_s = self.stalled_s = math.inf
        self._scheme = scheme
        self._limits = guard.limits
        self._reader = Reader(guard.limits.header_bytes)
        self._ahead = 0
        """Bytes that came while a request was being answered."""
        self._phase = "idle"
        self._exchange: Exchange | None = None
        self._socket: Any = None
        self._keep_alive = self._expects = False
        """Whether the client will ask again here, and whether it waits for a word before it sends the body."""
        self._body_since_s = 0.0
        self._body_bytes = 0
        self._paused = False
        self._writable = asyncio.Event()
        self._writable.set()

    # Coming and going -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the client, or say why not."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=HELD_BYTES, low=HELD_BYTES // 4)
        self.address, self._client = peer(transport)
        if refusal := self.guard.admit(self):
            self.fail(503, refusal, retry_after_s=1.0)
        else:
            self._enter("idle", self._limits.idle_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self.guard.leave(self)
        self._phase = "lost"
        self._reader.close()
        self._writable.set()
        if self._exchange is not None:
            self._exchange.lose()
        if self._socket is not None:
            self._socket.lose()

    def retire(self) -> None:
        """Finish what was begun, begin nothing: a stream ends, a request is answered, an idle connection is closed."""
        if self._socket is not None:
            self._socket.retire()
        elif self._exchange is not None and not self._exchange.complete:
            if self._exchange.started:
                self._exchange.lose()
        elif self._phase == "idle":
            self._linger()  # a request may be on its way: it finds an end, not a reset
        elif self._phase == "headers":
            self.fail(503, "The server stops.", retry_after_s=1.0)

    def abort(self) -> None:
        """End now, whatever is left to say."""
        self.transport.abort()

    def expire(self) -> None:
        """The time for this phase is up."""
        if self._socket is not None:
            self._socket.expire()
        elif self._phase == "idle":
            self._close()
        elif self._phase in ("headers", "body"):
            self.fail(408, "The request came too slowly.")
        else:
            self.abort()

    def _enter(self, phase: str, seconds: float = math.inf) -> None:
        self._phase = phase
        self.deadline_s = self.guard.now() + seconds

    def _close(self) -> None:
        """What was written still goes out, if it is read in time."""
        self._enter("closing", self._limits.write_s)
        self.transport.close()

    def _linger(self) -> None:
        """Close in a way that lets the client read the answer, although bytes of it are still on their way here."""
        if self._phase in _OVER:
            return
        self._enter("linger", LINGER_S)
        self._resume()
        if self.transport.can_write_eof():
            with suppress(OSError):  # the client has reset the connection
                self.transport.write_eof()
        else:
            self._close()

    # Bytes that come ------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: the same place for all connections."""
        return self.guard.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        data = self.guard.buffer[:nbytes]
        if self._socket is not None:
            self._socket.feed(bytes(data))
            return
        if self._phase in _OVER:
            return
        if self._phase == "idle":
            self._enter("headers", self._limits.header_s)
        elif self._phase == "body":
            self._body_came(nbytes)
        elif self._phase == "work":
            self._ahead += nbytes
            if self._ahead > self._limits.header_bytes:
                self._pause()  # who sends requests ahead of answers waits
        self._reader.feed(data)
        self._advance()

    def eof_received(self) -> bool | None:
        """The client will send no more; it is not waited for whether it still reads."""
        return None

    def _advance(self) -> None:
        """Take the events so far, up to the end of a request: the next one waits until this one is answered."""
        events = self._reader.events
        while events and self._phase in ("headers", "body") and self._socket is None:
            event = events.popleft()
            if isinstance(event, Head):
                self._begin(event)
                continue
            if isinstance(event, Flaw):
                self.fail(event.status, event.detail)
                continue
            assert self._exchange is not None
            if isinstance(event, bytes):
                self._expects = False
                if self._exchange.feed(event):
                    self._pause()
            else:
                self._enter("work")
                self._exchange.end()

    def _begin(self, request: Head) -> None:
        """The headers of a request are whole."""
        self._keep_alive = request.keep_alive
        self._body_since_s, self._body_bytes = self.guard.now(), 0
        self._enter("body", self._limits.body_s)
        scope = self._scope(request)
        self._expects = request.expects
        if request.websocket:
            self._upgrade(scope)
        else:
            self._exchange = Exchange(self, scope)
            self.guard.spawn(self._exchange.run())

    def _upgrade(self, scope: dict[str, Any]) -> None:
        from tightrope.device.serve.http.websocket import Socket  # wsproto is loaded when somebody asks for it

        self._enter("socket", self._limits.header_s)
        early = bytes(self._reader.early or b"")
        self._socket = Socket(self, scope | {"type": "websocket", "subprotocols": []}, early)
        self.guard.spawn(self._socket.run())

    def _scope(self, request: Head) -> dict[str, Any]:
        raw_path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.version,
            "method": request.method,
            "scheme": self._scheme,
            "path": failures.unquoted(raw_path),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": request.headers,
            "client": self._client,
            "server": None,
            "extensions": {LOSS: self.on_loss},
        }

    def _body_came(self, nbytes: int) -> None:
        """The longer a body takes, the more of it must have come."""
        self._body_bytes += nbytes
        allowed = self._limits.body_s + self._body_bytes / self._limits.body_bytes_per_s
        self.deadline_s = self._body_since_s + allowed

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.deadline_s = math.inf
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    # For the exchange -----------------------------------------------------------------------------------

    @property
    def must_close(self) -> bool:
        """Whether no request can follow this one: the server stops, or a body is not going to be read."""
        return self.guard.retiring or self._phase == "body" or not self._keep_alive

    def on_loss(self, told: Callable[[], None] | None) -> None:
        """Call `told` when nobody waits for the answer to this request any more; `None`: no longer."""
        if self._exchange is None:
            return
        self._exchange.told = told
        if told is not None and self._exchange.gone:
            told()

    def go_on(self) -> None:
        """The application asks for the body: a client that waits for a word first is given it."""
        if self._expects and self._phase == "body":
            self._expects = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def taken(self) -> None:
        """The application has taken what was held of the body."""
        if self._paused and self._phase == "body":
            self._body_since_s, self._body_bytes = self.guard.now(), 0
            self.deadline_s = self._body_since_s + self._limits.body_s
            self._resume()

    def write(self, data: bytes) -> None:
        """Send bytes, if there is anybody to send them to."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def close_after(self) -> None:
        """The end of this answer is told by the end of the connection."""
        self._keep_alive = False

    async def drained(self) -> bool:
        """Wait while the reader is behind; whether there still is one."""
        if not self._writable.is_set():
            await self._writable.wait()
        return self._phase != "lost"

    def finished(self) -> None:
        """The answer is out, or a WebSocket is over: on to the next request, or to the end."""
        self._exchange = self._socket = None
        if self._phase == "lost" or self.transport.is_closing():
            return
        if self._phase != "work" or self.must_close:
            self._linger()
            return
        self._ahead = 0
        if self._reader.events or self._reader.early is not None:
            self._enter("headers", self._limits.header_s)
        else:
            self._enter("idle", self._limits.idle_s)
        self._resume()
        self._advance()

    def fail(self, status: int, detail: str, *, retry_after_s: float | None = None) -> None:
        """End with a refusal that no route had a say in; if an answer has begun, without one."""
        started = self._exchange is not None and self._exchange.started
        if self._exchange is not None:
            self._exchange.lose()
        if started:
            self.abort()
            return
        logs.event("http.refused", level="warning", status=status, detail=detail)
        body, headers = failures.bare(status, detail, retry_after_s)
        self.write(head(status, [*headers, (b"connection", b"close")]) + body)
        self._linger()

    # The reader's pace ----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self._writable.clear()
        self.stalled_s = self.guard.now() + self._limits.write_s

    def resume_writing(self) -> None:
        """There is room again."""
        self._writable.set()
        self.stalled_s = math.inf
