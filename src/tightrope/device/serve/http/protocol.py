"""HTTP/1.1 over a socket, with the limits of size and time that servers commonly lack: RFC 9112 by h11.

A connection is in one phase at a time, and each has a deadline: idle, headers, body (a least rate), work, and the
end. A reader that takes nothing has one too. What is ambiguous (two ways to tell a body's length, a target that is
no path) is refused, never guessed, so that no proxy in front can be made to see other requests than this server does.
"""

import asyncio
import math
from typing import Any

import h11

from tightrope.device.serve import logs
from tightrope.device.serve.http import failures
from tightrope.device.serve.http.exchange import HELD_BYTES, Exchange
from tightrope.device.serve.http.guard import Guard, peer

LINGER_S = 2.0
"""How long bytes are thrown away after an answer that did not wait for them: else the client would not see it."""
HEADERS = 100
_PHRASES = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large", 501: "Not Implemented"}


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, guard: Guard, *, scheme: str = "http") -> None:
        self.guard = guard
        self.address = ""
        self.deadline_s = self.stalled_s = math.inf
        self._scheme = scheme
        self._limits = guard.limits
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=guard.limits.header_bytes)
        self._phase = "idle"
        self._exchange: Exchange | None = None
        self._socket: Any = None
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
        elif self._phase in ("idle", "headers"):
            self._close()

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
        if self._phase in ("lost", "closing", "linger"):
            return
        self._enter("linger", LINGER_S)
        self._resume()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self._close()

    # Bytes that come ------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: the same place for all connections."""
        return self.guard.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        data = bytes(self.guard.buffer[:nbytes])
        if self._socket is not None:
            self._socket.feed(data)
            return
        if self._phase in ("linger", "closing", "lost"):
            return
        if self._phase == "idle":
            self._enter("headers", self._limits.header_s)
        self._h11.receive_data(data)
        if self._phase == "body":
            self._body_came(nbytes)
        self._advance()

    def eof_received(self) -> bool | None:
        """The client will send no more; it is not waited for whether it still reads."""
        return None

    def _advance(self) -> None:
        """Take what the bytes so far amount to."""
        try:
            while self._phase not in ("linger", "closing", "lost") and self._socket is None:
                event = self._h11.next_event()
                if isinstance(event, h11.Request):
                    self._begin(event)
                elif isinstance(event, h11.Data):
                    assert self._exchange is not None
                    if self._exchange.feed(bytes(event.data)):
                        self._pause()
                elif isinstance(event, h11.EndOfMessage):
                    assert self._exchange is not None
                    self._enter("work")
                    self._exchange.end()
                else:
                    break
        except h11.RemoteProtocolError as error:
            self.fail(error.error_status_hint, f"This is not HTTP as it should be: {error}.")
        if self._phase == "work" and len(self._h11.trailing_data[0]) > self._limits.header_bytes:
            self._pause()  # who sends requests ahead of answers waits

    def _begin(self, request: h11.Request) -> None:
        """The headers of a request are whole."""
        refusal = _ambiguous(request, self._limits.header_bytes)
        if refusal:
            self.fail(*refusal)
            return
        self._body_since_s, self._body_bytes = self.guard.now(), 0
        self._enter("body", self._limits.body_s)
        scope = self._scope(request)
        if _asks_for_websocket(scope["headers"]):
            self._upgrade(scope)
            return
        self._exchange = Exchange(self, scope)
        self.guard.spawn(self._exchange.run())

    def _upgrade(self, scope: dict[str, Any]) -> None:
        from tightrope.device.serve.http.websocket import Socket  # wsproto is loaded when somebody asks for it

        self._enter("socket", self._limits.header_s)
        self._socket = Socket(self, scope | {"type": "websocket", "subprotocols": []}, self._h11.trailing_data[0])
        self.guard.spawn(self._socket.run())

    def _scope(self, request: h11.Request) -> dict[str, Any]:
        raw_path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": self._scheme,
            "path": failures.unquoted(raw_path),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(bytes(name), bytes(value)) for name, value in request.headers],
            "client": self._client,
            "server": None,
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
        return self.guard.retiring or self._phase == "body"

    def go_on(self) -> None:
        """The application asks for the body: a client that waits for a word first is given it."""
        if self._h11.they_are_waiting_for_100_continue and self._phase == "body":
            self.write([h11.InformationalResponse(status_code=100, headers=[])])

    def taken(self) -> None:
        """The application has taken what was held of the body."""
        if self._paused and self._phase == "body":
            self._body_since_s, self._body_bytes = self.guard.now(), 0
            self.deadline_s = self._body_since_s + self._limits.body_s
            self._resume()

    def write(self, events: list[Any]) -> None:
        """Send events in one go."""
        if not self.transport.is_closing():
            self.transport.write(b"".join(self._h11.send(event) or b"" for event in events))

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
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE and not self.guard.retiring:
            waiting = bool(self._h11.trailing_data[0])
            self._h11.start_next_cycle()
            self._enter("headers" if waiting else "idle", self._limits.header_s if waiting else self._limits.idle_s)
            self._resume()
            if waiting:
                self._advance()
        else:
            self._linger()

    def fail(self, status: int, detail: str, *, retry_after_s: float | None = None) -> None:
        """End with a refusal that no route had a say in; if an answer has begun, without one."""
        started = self._exchange is not None and self._exchange.started
        if self._exchange is not None:
            self._exchange.lose()
        if started or self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.abort()
            return
        logs.event("http.refused", level="warning", status=status, detail=detail)
        body, headers = failures.bare(status, detail, retry_after_s)
        head = h11.Response(status_code=status, headers=[*headers, (b"connection", b"close")])
        self.write([head, h11.Data(data=body), h11.EndOfMessage()])
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


def _ambiguous(request: h11.Request, header_bytes: int) -> tuple[int, str] | None:
    """Why a request is refused that h11 lets pass, as status and words; `None` if it is clear."""
    names = [name for name, _ in request.headers]
    size = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
    if size > header_bytes or len(names) > HEADERS:
        return 431, f"The headers have {size} bytes in {len(names)} fields; {header_bytes} in {HEADERS} are taken"
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version != b"1.1"):
        return 400, "A body has one length: a Content-Length, or a Transfer-Encoding with HTTP/1.1"
    if names.count(b"host") > 1 or (b"host" not in names and request.http_version == b"1.1"):
        return 400, "A request names one Host"
    if not request.target.startswith(b"/"):
        return 400, "A request's target is a path"
    return None


def _asks_for_websocket(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in headers)
