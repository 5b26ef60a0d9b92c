"""The application: who may ask what, and how an answer or a failure goes out. ASGI, so it can be mounted elsewhere.

Without keys only this machine may ask: the Host must be one of its own names (no page of a foreign name that points
here, "DNS rebinding"), and a page's Origin must be the Host. With keys every route but health needs one, whether the
path exists or not.
"""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from tightrope.device.serve import logs
from tightrope.device.serve.arrivals import Arrivals
from tightrope.device.serve.http import failures, health, oip, openai, openapi, pages, search, tei
from tightrope.device.serve.http import live as streams
from tightrope.device.serve.http.failures import Failure, Headers
from tightrope.device.serve.http.routes import Request, Response, Route, State, parameters
from tightrope.device.serve.keys import Key
from tightrope.errors import RefusedError

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ROUTES: tuple[Route, ...] = (
    *health.ROUTES,
    *openai.ROUTES,
    *tei.ROUTES,
    *oip.ROUTES,
    *search.ROUTES,
    *streams.ROUTES,
    *openapi.ROUTES,
    *pages.ROUTES,
)
SESSION = "tightrope"
"""The cookie of who logged in to the dashboard."""
_SAFE: Headers = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_FIXED = {(route.method, route.path): route for route in ROUTES if "{" not in route.path}
_PATHS = frozenset(path for _, path in _FIXED)
_OTHERS = tuple(route for route in ROUTES if "{" in route.path)
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class App:
    """The ASGI application around one server's state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._arrivals: Arrivals | None = None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def socket(self, scope: Mapping[str, Any], socket: Any) -> None:
        """Serve one WebSocket. Raises `Failure` before it is accepted if it may not be."""
        request = self._request(scope, _nothing)
        try:
            route = self._admitted(request, "WEBSOCKET")
            self.state.metrics.requests.add(api=request.api, status=101)
            await route.handler(request, socket)
        finally:
            if request.key is not None and self.state.keys is not None:
                self.state.keys.end(request.key)

    def _request(self, scope: Mapping[str, Any], receive: Receive) -> Request:
        loop = asyncio.get_running_loop()
        if self._arrivals is None or self._arrivals.loop is not loop:
            self._arrivals = Arrivals(loop)
        request = Request(scope=scope, state=self.state, id="", receive=receive, arrivals=self._arrivals)
        given = request.header("x-request-id") or ""
        request.id = given if _ID.fullmatch(given) else f"{random.getrandbits(64):016x}"
        return request

    async def _answer(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = self._request(scope, receive)
        status = 500
        if self.state.tracer is not None:
            request.span = self.state.tracer.begin(scope["headers"])
        try:
            response = await self._response(request)
            status = response.status
            await _send(response, request.id, send, head=scope["method"] == "HEAD")
        finally:
            request.release()
            if request.key is not None and self.state.keys is not None:
                self.state.keys.end(request.key)
            seconds = time.perf_counter() - started
            self.state.metrics.requests.add(api=request.api, status=status)
            self.state.metrics.request_seconds.observe(seconds, api=request.api)
            level = "info" if status < 500 else "warning"
            logs.event("request", level=level, request_id=request.id, api=request.api, status=status, seconds=seconds)
            if request.span is not None:
                self._trace(request, status)

    def _trace(self, request: Request, status: int) -> None:
        span, method = request.span, request.scope["method"]
        assert span is not None and self.state.tracer is not None
        route, _ = _route("GET" if method == "HEAD" else method, request.scope["path"])
        span.attributes["tightrope.request_id"] = request.id
        span.end(method, route.path if route is not None else None, status)
        self.state.tracer.end(span)

    async def _response(self, request: Request) -> Response:
        try:
            route = self._admitted(request, request.scope["method"])
            found = await route.handler(request)
            assert isinstance(found, Response)
            return found
        except Exception as error:
            failure = failures.of(error)
            if failure is None:
                logs.event("request.bug", level="error", request_id=request.id, error=type(error).__name__)
                failure = Failure("failed", "The server made a mistake, which is noted under this request's id.")
            status, kind, body, headers = failures.envelope(failure, request.api, request.id)
            return Response(body, status, kind, headers)

    # Who may ask what -----------------------------------------------------------------------------------

    def _admitted(self, request: Request, method: str) -> Route:
        """The route, if whoever asks may have it. What the request is called and who asks is noted in it."""
        path = request.scope["path"]
        route, allowed = _route("GET" if method == "HEAD" else method, path)
        request.api = route.api if route is not None else _api_of(path)
        self._check_origin(request)
        if not (route is not None and route.open):
            self._check_key(request, method, path)
        if route is None:
            if allowed:
                listed = ", ".join(sorted(allowed)).encode()
                raise Failure("wrong_method", f"{method[:10]} is not for {path[:60]}.", headers=((b"allow", listed),))
            raise Failure("not_found", f"There is no {path[:60]!a}. See /openapi.json.")
        request.params = (parameters(route.path, path) or {}) if "{" in route.path else {}
        return route

    def _check_origin(self, request: Request) -> None:
        host = (request.header("host") or "").lower()
        if self.state.keys is None and _name(host) not in self.state.hosts:
            raise Failure("misdirected", f"This server is not called {host!a:.60}.")
        origin = request.header("origin")
        if origin is not None and _host(origin) != host:
            raise Failure("forbidden", f"Pages of {origin!a:.60} may not use this server.")
        if request.header("sec-fetch-site") in ("cross-site", "same-site"):
            raise Failure("forbidden", "Pages of other sites may not use this server.")

    def _check_key(self, request: Request, method: str, path: str) -> None:
        keys = self.state.keys
        if keys is None:
            return
        key = self._known(request)
        if key is None:
            if path == "/login" or (path == "/" and method in ("GET", "HEAD")):
                return  # the page for logging in; it shows nothing else
            raise Failure(
                "unauthorized",
                "A key is needed: 'Authorization: Bearer …'.",
                headers=((b"www-authenticate", b"Bearer"),),
            )
        try:
            keys.begin(key)
        except RefusedError as error:
            raise Failure("limited", f"{error.message} {error.hint}", retry_after_s=error.retry_after_s) from error
        request.key = key
        request.holds = lambda: self._known(request) is not None

    def _known(self, request: Request) -> Key | None:
        return self._bearer(request) or self._session(request)

    def _bearer(self, request: Request) -> Key | None:
        given = [value for name, value in request.scope["headers"] if name == b"authorization"]
        if len(given) != 1 or self.state.keys is None:
            return None
        scheme, _, secret = given[0].decode("latin-1").partition(" ")
        return self.state.keys.check(secret.strip()) if scheme.lower() == "bearer" else None

    def _session(self, request: Request) -> Key | None:
        cookies = (part.strip().partition("=") for part in (request.header("cookie") or "").split(";"))
        session = next((value for name, _, value in cookies if name == SESSION), None)
        key = self.state.sessions.key(session) if session else None
        return key if key is not None and self.state.keys is not None and self.state.keys.is_current(key) else None


def _route(method: str, path: str) -> tuple[Route | None, set[str]]:
    """The route for a method and a path; if there is none, the methods that the path has."""
    found = _FIXED.get((method, path))
    if found is not None:
        return found, set()
    here = _at(path)
    for route in here:
        if route.method == method:
            return route, set()
    return None, {route.method for route in here} - {"WEBSOCKET"}


def _at(path: str) -> list[Route]:
    """The routes of a path: those that name it as it is, else those with braces (OpenAPI's order)."""
    if path in _PATHS:
        return [route for route in ROUTES if route.path == path]
    return [route for route in _OTHERS if parameters(route.path, path) is not None]


def _api_of(path: str) -> str:
    """The API of a path that has no route for a method; if it has none at all, the one that was probably meant."""
    for route in _at(path):
        return route.api
    first = path.split("/")[1] if "/" in path else ""
    return {"v1": "openai", "v2": "v2"}.get(first, "other")


def _name(host: str) -> str:
    """A Host without its port."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _host(origin: str) -> str:
    """The Host that a page came from; nobody's, if it cannot be read."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


async def _send(response: Response, request_id: str, send: Send, *, head: bool = False) -> None:
    kind = response.content_type
    headers = [
        (b"content-type", kind.encode() if isinstance(kind, str) else kind),
        (b"x-request-id", request_id.encode()),
        *_SAFE,
        *response.headers,
    ]
    whole = response.body if isinstance(response.body, bytes) else None
    if head and whole is None:
        await response.body.aclose()  # type: ignore[union-attr]
        whole = b""
    if whole is not None:
        headers.append((b"content-length", str(len(whole)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if whole is not None:
        await send({"type": "http.response.body", "body": whole})
        return
    pieces: Any = response.body
    try:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await pieces.aclose()


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _lifespan(receive: Receive, send: Send) -> None:
    """Whoever mounts the application starts and stops the server around it; there is nothing to do here."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
