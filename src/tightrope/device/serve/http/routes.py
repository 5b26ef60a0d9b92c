"""What an API's file is made of: routes, the request that its handlers see, the response that they give."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec

from tightrope.device.serve.arrivals import Arrivals
from tightrope.device.serve.http import body
from tightrope.device.serve.http.failures import JSON, Failure, Headers

if TYPE_CHECKING:
    from tightrope.device.serve.catalogue import Catalogue
    from tightrope.device.serve.http.board import Board
    from tightrope.device.serve.http.sessions import Sessions
    from tightrope.device.serve.keys import Key, Keys
    from tightrope.device.serve.ledger import Ledger, Reservation
    from tightrope.device.serve.limits import Limits
    from tightrope.device.serve.metrics import Metrics
    from tightrope.device.serve.otlp import Tracer
    from tightrope.device.serve.service import Service
    from tightrope.device.serve.traces import Span

T = TypeVar("T")
Handler = Callable[..., Awaitable[Any]]
AT_ONCE_BYTES = 65_536
"""A larger body is read and cut into tokens by another thread than the one that serves the network."""
QUERY_FIELDS = 64
LOSS = "tightrope.loss"
"""An extension of ASGI: a function that is given what to call when the client of the request goes away, or `None`."""
PRIORITIES = ("-2", "-1", "0", "1", "2")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What handlers reach: the rooms below, and what the server knows of itself."""

    catalogue: "Catalogue"
    service: "Service"
    ledger: "Ledger"
    metrics: "Metrics"
    limits: "Limits"
    keys: "Keys | None"
    sessions: "Sessions"
    board: "Board"
    indexes: Mapping[str, Any]
    hosts: frozenset[str]
    """The names that this server may be called by, where nobody needs a key."""
    version: str
    started_s: float
    """On the monotonic clock."""
    reasons: tuple[str, ...] = ()
    """Why threads and workers are what they are."""
    tracer: "Tracer | None" = None
    """Where spans go, if anywhere."""


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, whose segments in braces match any one segment; `api` decides how failures are told.

    `open`: needs no key, whatever the server is told.
    """

    method: str
    path: str
    handler: Handler
    api: str = "native"
    open: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: whole, or as pieces that are sent no faster than they are read."""

    body: bytes | AsyncIterator[bytes] = b""
    status: int = 200
    content_type: bytes | str = JSON
    headers: Headers = ()


def json(value: Any, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status)


def html(text: str | bytes) -> Response:
    """A page."""
    return Response(text if isinstance(text, bytes) else text.encode(), content_type=b"text/html; charset=utf-8")


class WebSocket(Protocol):
    """The other end of a socket, as a route for `WEBSOCKET` sees it."""

    async def accept(self) -> None: ...
    async def receive(self) -> str | None: ...
    async def send(self, text: str) -> None: ...
    async def close(self, code: int = 1000) -> None: ...


@dataclass(slots=True, kw_only=True)
class Request:
    """One request on its way through a handler."""

    scope: Mapping[str, Any]
    state: State
    id: str
    api: str = "other"
    params: Mapping[str, str] = field(default_factory=dict)
    key: "Key | None" = None
    holds: Callable[[], bool] = lambda: True
    """Whether what let the request in still would: a key can be revoked while a stream is open."""
    receive: Callable[[], Awaitable[dict[str, Any]]]
    arrivals: Arrivals = field(default_factory=lambda: Arrivals(asyncio.get_running_loop()))
    span: "Span | None" = None
    _held: "Reservation | None" = None
    _headers: dict[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._headers = dict(reversed(self.scope["headers"]))

    # What came -------------------------------------------------------------------------------------------

    def header(self, name: str) -> str | None:
        """A header's value by its name in small letters; the first, if there are several."""
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    @property
    def query(self) -> dict[str, str]:
        """The query's fields. Raises `Failure` if they are too many."""
        text = self.scope["query_string"].decode("latin-1")
        try:
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS))
        except ValueError as error:
            raise Failure("malformed", f"A query has {QUERY_FIELDS} fields at most.") from error

    async def body(self) -> bytes:
        """The whole body, within the limits; its memory is held until the answer is out."""
        most = self.state.limits.body_bytes
        length = body.check_head(self.header, most)
        data, self._held = await body.take(self.receive, length, most, self.state.ledger)
        return data

    async def json(self, kind: type[T]) -> T:
        """The body as a value of this type. Raises `Failure` for anything else."""
        data = await self.body()
        depth = self.state.limits.json_depth
        if len(data) > AT_ONCE_BYTES:
            return await self.thread(lambda: body.decode(data, kind, depth=depth))
        return body.decode(data, kind, depth=depth)

    def release(self) -> None:
        """The answer is out: give back what the body took."""
        if self._held is not None:
            self._held.release()

    # What is asked for ----------------------------------------------------------------------------------

    @property
    def deadline_s(self) -> float | None:
        """What `X-Request-Deadline-Ms` says, in seconds from now. Raises `Failure` if it is no time."""
        text = self.header("x-request-deadline-ms")
        if text is None:
            return None
        if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
            raise Failure("malformed", f"X-Request-Deadline-Ms is {text!a:.40}, not a number of milliseconds.")
        return float(text) / 1000

    @property
    def priority(self) -> int:
        """What `X-Request-Priority` says, -2 to 2."""
        text = self.header("x-request-priority") or "0"
        if text not in PRIORITIES:
            raise Failure("malformed", f"X-Request-Priority is {text!a:.40}, not a number from -2 to 2.")
        return int(text)

    async def answer(self, ask: Callable[..., "Future[T]"], *given: Any, **named: Any) -> T:
        """What a future of the catalogue's brings; deadline, key and priority are the request's.

        Cancels the work as soon as the client is gone.
        """
        named |= {"deadline_s": self.deadline_s, "priority": self.priority, "key": self.key.name if self.key else ""}
        if self._held is not None and self._held.size_bytes > 2 * AT_ONCE_BYTES:
            future = await self.thread(lambda: ask(*given, **named))
        else:
            future = ask(*given, **named)
        found = future.result() if future.done() else await self._brought(future)
        if self.span is not None:
            self.span.answered(found)
        return found

    async def _brought(self, future: "Future[T]") -> T:
        """What a thread will answer, unless the client goes away first."""
        waiting = self.arrivals.expect(future)

        def lost() -> None:
            if not waiting.done():
                waiting.set_exception(Failure("cancelled", "The client went away."))

        stop = self._watched(lost)
        try:
            return await waiting
        finally:
            stop()
            future.cancel()

    def _watched(self, lost: Callable[[], None]) -> Callable[[], object]:
        """Call `lost` if the client goes away, until what this gives is called.

        Our own server tells by itself; another one that the application is mounted in has to be asked.
        """
        tell = self.scope.get("extensions", {}).get(LOSS)
        if tell is not None:
            tell(lost)
            return partial(tell, None)
        asking = asyncio.ensure_future(self._gone())
        asking.add_done_callback(lambda task: None if task.cancelled() else lost())
        return asking.cancel

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def thread(self, work: Callable[..., T], *given: Any) -> T:
        """What takes long is done beside the network's loop."""
        return await asyncio.get_running_loop().run_in_executor(None, work, *given)


def parameters(route: str, path: str) -> dict[str, str] | None:
    """The segments in braces, if the path is the route's.

    >>> parameters("/v2/models/{model}/ready", "/v2/models/minilm/ready"), parameters("/health", "/healthz")
    ({'model': 'minilm'}, None)
    """
    wanted, given = route.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    found = {}
    for segment, value in zip(wanted, given, strict=True):
        if segment.startswith("{") and value:
            found[segment[1:-1]] = value
        elif segment != value:
            return None
    return found
