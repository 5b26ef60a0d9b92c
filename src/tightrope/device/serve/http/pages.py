"""What a browser sees: the dashboard, and the form in front of it where there are keys; and what Prometheus reads."""

from urllib.parse import parse_qs

from tightrope.device.serve.http import body
from tightrope.device.serve.http.failures import Headers
from tightrope.device.serve.http.routes import Request, Response, Route
from tightrope.device.serve.http.sessions import COOKIE, LASTS_S
from tightrope.device.serve.metrics import CONTENT_TYPE
from tightrope.device.serve.page import dashboard

FORM_BYTES = 4096
UNKNOWN = "This key is not known."


async def home(request: Request) -> Response:
    """The dashboard, or the form for who is not known yet."""
    if request.state.keys is not None and request.key is None:
        return _log_in("", 401)
    return Response(
        dashboard.dashboard(request.state.board.document()), 200, dashboard.CONTENT_TYPE, _headers("dashboard")
    )


async def log_in(request: Request) -> Response:
    """Give a cookie for a key that is known; the form again for another one."""
    keys = request.state.keys
    if keys is None:
        return _to("/")
    data, held = await body.take(request.receive, None, FORM_BYTES, request.state.ledger)
    held.release()
    try:
        fields = parse_qs(data.decode("utf-8", "replace"), max_num_fields=8)
    except ValueError:
        fields = {}
    key = keys.check(fields.get("key", [""])[0].strip())
    if key is None:
        return _log_in(UNKNOWN, 401)
    return _to("/", _cookie(request, request.state.sessions.begin(key), int(LASTS_S)))


async def log_out(request: Request) -> Response:
    """Forget the cookie."""
    for part in (request.header("cookie") or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            request.state.sessions.end(value)
    return _to("/", _cookie(request, "", 0))


async def metrics(request: Request) -> Response:
    """Everything that is counted."""
    text = await request.thread(request.state.metrics.text)
    return Response(text.encode(), 200, CONTENT_TYPE)


def _log_in(message: str, status: int) -> Response:
    return Response(dashboard.log_in(message), status, dashboard.CONTENT_TYPE, _headers("log_in"))


def _to(path: str, *headers: tuple[bytes, bytes]) -> Response:
    return Response(b"", 303, headers=((b"location", path.encode()), *headers))


def _cookie(request: Request, value: str, seconds: int) -> tuple[bytes, bytes]:
    """Out of reach of scripts and of other sites' pages; over TLS only, where the server has it."""
    secure = "; Secure" if request.scope.get("scheme") == "https" else ""
    return b"set-cookie", f"{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}".encode()


def _headers(page: str) -> Headers:
    """The page's own headers; what every answer has is left to the application."""
    everywhere = ("content-type", "cache-control", "x-content-type-options")
    found = dashboard.headers(page)
    return tuple((name.encode(), value.encode()) for name, value in found.items() if name not in everywhere)


ROUTES = (
    Route("GET", "/", home, api="page"),
    Route("POST", "/login", log_in, api="page"),
    Route("POST", "/logout", log_out, api="page"),
    Route("GET", "/metrics", metrics, api="metrics"),
)
