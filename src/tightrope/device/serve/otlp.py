"""Spans on their way to a collector (OTLP over HTTP, JSON): by a thread of its own, which no request ever waits for.

What waits is bounded. A collector that is slow, dead or unwilling costs the spans that find no room, and those that
were tried a few times; they are counted. Nothing is sent anywhere unless an endpoint was named.
"""

import http.client
import json
import os
import random
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

from tightrope.device.serve import logs, traces
from tightrope.errors import ServeError

WAITING = 2048
"""Requests whose spans wait."""
BYTES = 5_000_000
"""What so many take at most, the message that is being sent among it."""
AT_ONCE = 256
PERIOD_S = 2.0
TIMEOUT_S = 5.0
TRIES = 4
AGAIN = (429, 502, 503, 504)
"""Answers after which OTLP says to try again; after any other the spans are lost."""
FAREWELL_S = 2.0
"""How long a server that ends waits for its last spans to be sent."""
ANSWER_BYTES = 65_536


class Tracer:
    """Begins spans and brings them to the collector. A context manager.

    `share` of the requests that come without a parent are traced; those with one follow their parent's decision.
    `counted` hears how many spans were "sent" and "dropped".
    """

    def __init__(
        self,
        endpoint: str,
        *,
        version: str,
        share: float = 1.0,
        counted: Callable[[str, int], None] = lambda fate, number: None,
        draw: random.Random | None = None,
        pause_s: float = 1.0,
    ) -> None:
        self._secure, self._host, self._port, self._path = target(endpoint)
        self._version, self._share, self._counted, self._pause_s = version, share, counted, pause_s
        self._draw = draw or random.Random()
        self._own_draw = random.Random(self._draw.getrandbits(64))
        """The thread's: two threads share no state."""
        self._resource: dict[str, traces.Value] = {
            "service.name": "tightrope",
            "service.version": version,
            "service.instance.id": f"{self._draw.getrandbits(128):032x}",
            "process.pid": os.getpid(),
        }
        self._spans: deque[traces.Span] = deque()
        self._news, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="tightrope traces", daemon=True)
        self._connection: http.client.HTTPConnection | None = None
        self._fails = self._over = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._news.set()
        self._thread.join(FAREWELL_S)
        self._over = True
        self._hang_up()  # a collector that says nothing holds nobody up
        self._thread.join(1.0)

    def begin(self, headers: traces.Headers) -> traces.Span | None:
        """A span for a request; `None` if it is not to be traced."""
        above = traces.parent(headers)
        if not above.sampled if above is not None else self._draw.random() >= self._share:
            return None
        return traces.Span(above, self._draw)

    def end(self, span: traces.Span) -> None:
        """Let a span that came to its end be sent, if there is room for it."""
        if len(self._spans) >= WAITING:
            self._counted("dropped", len(span))
            return
        self._spans.append(span)
        if len(self._spans) >= AT_ONCE:
            self._news.set()

    # The thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ending.is_set():
            self._news.wait(PERIOD_S)
            self._news.clear()
            self._send_all()
        self._send_all()
        self._hang_up()

    def _send_all(self) -> None:
        while self._spans:
            batch = [self._spans.popleft() for _ in range(min(AT_ONCE, len(self._spans)))]
            number = sum(map(len, batch))
            sent = 0 if self._over else max(0, number - self._lost(batch, number))
            self._counted("sent", sent)
            self._counted("dropped", number - sent)

    def _lost(self, batch: list[traces.Span], number: int) -> int:
        """Send spans, again if the collector asks for it or cannot be reached; how many it did not take."""
        told = traces.request(batch, self._resource, self._version, self._own_draw)
        body = json.dumps(told, separators=(",", ":")).encode()
        reason = ""
        for turn in range(TRIES):
            if turn and self._ending.wait(self._pause_s * 2 ** (turn - 1)):
                break
            try:
                status, answer = self._post(body)
            except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a name that is none in DNS
                self._hang_up()
                reason = type(error).__name__
                continue
            if status < 300:
                self._tell("")
                return _rejected(answer)
            reason = f"status {status}"
            if status not in AGAIN:
                break
        self._tell(reason)
        return number

    def _post(self, body: bytes) -> tuple[int, bytes]:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            self._connection = kind(self._host, self._port, timeout=TIMEOUT_S)
        connection = self._connection
        connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        with connection.getresponse() as found:
            answer = found.read(ANSWER_BYTES)
            if not found.isclosed() or found.will_close:
                self._hang_up()
            return found.status, answer

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(OSError):
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)  # whoever reads from it is woken
        connection.close()

    def _tell(self, reason: str) -> None:
        """Say once that the collector does not take spans, and once that it does again."""
        if bool(reason) != self._fails:
            self._fails = bool(reason)
            if reason:
                logs.event("traces.failed", level="warning", reason=reason)
            else:
                logs.event("traces.recovered")


def target(endpoint: str) -> tuple[bool, str, int, str]:
    """Whether TLS, host, port and path of a collector. Raises `ServeError` for what is no address of one.

    >>> target("http://127.0.0.1:4318"), target("https://collector/otlp/")
    ((False, '127.0.0.1', 4318, '/v1/traces'), (True, 'collector', 443, '/otlp/v1/traces'))
    """
    hint = "Give the collector's address, such as http://127.0.0.1:4318."
    try:
        found = urlsplit(endpoint)
        host, port = found.hostname, found.port
    except ValueError as error:
        raise ServeError(f"{endpoint!a:.80} is no address: {error}.", hint=hint) from error
    if found.scheme not in ("http", "https") or not host or found.query or found.fragment or "@" in found.netloc:
        raise ServeError(f"{endpoint!a:.80} is no address of a collector.", hint=hint)
    secure = found.scheme == "https"
    path = found.path.rstrip("/")
    whole = path if path.endswith("/v1/traces") else f"{path}/v1/traces"
    return secure, host, port or (443 if secure else 80), whole


def _rejected(answer: bytes) -> int:
    """How many spans of a message that it took the collector did not keep (OTLP's partial success)."""
    try:
        said = json.loads(answer or b"{}").get("partialSuccess") or {}
        return max(0, int(said.get("rejectedSpans", 0)))
    except (ValueError, AttributeError, TypeError):
        return 0  # protobuf, or nothing that can be read: it said yes
