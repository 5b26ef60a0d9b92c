"""What the bytes of a connection amount to: requests in pieces, read by llhttp as RFC 9112 has it.

What is ambiguous (two ways to tell a body's length, a target that is no path) is a flaw, never guessed, so that no
proxy in front can be made to see other requests than this server does. Nothing here writes, waits or knows a clock.
"""

from collections import deque
from typing import NamedTuple

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

HEADERS = 100
_WEBSOCKET = (b"upgrade", b"websocket")
_WORDS = (b"upgrade", b"expect", b"transfer-encoding")
"""Headers whose values are words of the protocol's, in small letters or not."""


class Head(NamedTuple):
    """A request's line and headers; names in small letters."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    """Whether the client may ask again on this connection."""

    @property
    def expects(self) -> bool:
        """Whether the client waits for a word before it sends the body."""
        return (b"expect", b"100-continue") in self.headers and self.version == "1.1"

    @property
    def websocket(self) -> bool:
        """Whether the client wants to go on with another protocol, the only one that there is here."""
        return _WEBSOCKET in self.headers


class End(NamedTuple):
    """A request is whole."""


class Flaw(NamedTuple):
    """What came is no HTTP as it should be: the status that says so, and words. Nothing follows it."""

    status: int
    detail: str


Event = Head | bytes | End | Flaw


class Reader:
    """Takes bytes and makes `events` of them: a head, pieces of a body, an end, the next head.

    >>> reader = Reader(16_384)
    >>> reader.feed(memoryview(b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"))
    >>> reader.events[0].target, reader.events[1]
    (b'/health', End())
    """

    def __init__(self, header_bytes: int) -> None:
        self.events: deque[Event] = deque()
        self.early: bytearray | None = None
        """What came after a request for a WebSocket: that is no HTTP any more."""
        self._header_bytes = header_bytes
        self._parser = HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._silent = 0
        """Bytes that amounted to nothing yet."""
        self._left = 0
        """Bytes of a body that are still to come and go past the parser."""
        self._flawed = self._leaves = False

    def feed(self, data: memoryview) -> None:
        """Bytes came."""
        if self.early is not None:
            self.early += data
            return
        known, size = len(self.events), len(data)
        while len(data) and not self._flawed:
            data = self._body(data) if self._left else self._parsed(data)
        self._silent = self._silent + size if len(self.events) == known else 0
        if self._silent > self._header_bytes and not self._flawed:  # headers, trailers, a chunk's extension without end
            self._flaw(431, f"More than {self._header_bytes} bytes of headers are not taken.")

    def _parsed(self, data: memoryview) -> memoryview:
        """What is left: a request to leave HTTP stops the parser, and only for a WebSocket that is what happens."""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            data = data[upgrade.args[0] :]
            if not self._leaves:
                return data
            self.early = bytearray(data)
        except HttpParserCallbackError:
            assert self._flawed
        except HttpParserInvalidMethodError:
            self._flaw(501, "There is no such method.")
        except HttpParserError as error:
            self._flaw(400, f"This is not HTTP as it should be: {error}.")
        return data[:0]

    def _body(self, data: memoryview) -> memoryview:
        """What is left after the body of a request to leave HTTP, of which the parser knows nothing."""
        part = bytes(data[: self._left])
        self._left -= len(part)
        self.events += (part,) if self._left else (part, End())
        return data[len(part) :]

    def close(self) -> None:
        """The parser holds this and this the parser: let go."""
        self._flawed = True
        del self._parser

    def _flaw(self, status: int, detail: str) -> None:
        self._flawed = True
        self.events.append(Flaw(status, detail))

    # For the parser -------------------------------------------------------------------------------------

    def on_url(self, part: bytes) -> None:
        """A part of the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        name, value = name.lower(), value.strip(b" \t")
        self._headers.append((name, value.lower() if name in _WORDS else value))

    def on_headers_complete(self) -> None:
        """The headers are whole."""
        parser = self._parser
        method, version = parser.get_method().decode(), parser.get_http_version()
        head = Head(method, self._target, version, self._headers, parser.should_keep_alive())
        self._target, self._headers = b"", []
        self._leaves = parser.should_upgrade() and head.websocket
        if parser.should_upgrade() and not head.websocket:
            self._left = int(dict(head.headers).get(b"content-length", 0))
        if flaw := _unclear(head, self._header_bytes):
            self._flaw(*flaw)
            raise ValueError  # which stops the parser
        self.events.append(head)

    def on_body(self, part: bytes) -> None:
        """A piece of the body."""
        self.events.append(part)

    def on_message_complete(self) -> None:
        """The request is whole. Its trailers are forgotten, lest they become headers of the next one."""
        if not self._left:
            self.events.append(End())
        self._headers = []


def _unclear(head: Head, header_bytes: int) -> Flaw | None:
    """Why a request is refused that the parser lets pass; `None` if it is clear."""
    names = [name for name, _ in head.headers]
    size = len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
    if size > header_bytes or len(names) > HEADERS:
        return Flaw(
            431, f"The headers have {size} bytes in {len(names)} fields; {header_bytes} in {HEADERS} are taken."
        )
    if head.version not in ("1.0", "1.1"):
        return Flaw(505, "HTTP/1.1 is spoken here.")
    codings = [value for name, value in head.headers if name == b"transfer-encoding"]
    if codings and (b"content-length" in names or head.version == "1.0"):
        return Flaw(400, "A body has one length: a Content-Length, or a Transfer-Encoding with HTTP/1.1.")
    if codings and codings != [b"chunked"]:
        return Flaw(501, "A body is sent as it is, or in chunks.")
    if codings and b"upgrade" in names and not head.websocket:
        return Flaw(501, "A request to leave HTTP has no body in chunks.")
    if names.count(b"host") > 1 or (b"host" not in names and head.version == "1.1"):
        return Flaw(400, "A request names one Host.")
    if head.method == "CONNECT" or not head.target.startswith(b"/"):
        return Flaw(400, "A request's target is a path.")
    return None
