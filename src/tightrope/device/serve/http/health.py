"""Whether the server lives, and whether it answers rightly: the only routes that never need a key."""

from typing import Any

import msgspec

from tightrope.device.serve.http.routes import Request, Response, Route, json


class Live(msgspec.Struct):
    """The server answers."""

    live: bool
    version: str


class Ready(msgspec.Struct):
    """Whether models answer as recorded, and why not."""

    ready: bool
    reason: str


async def live(request: Request) -> Response:
    """The server answers; whether its models do is another question."""
    return json(Live(live=True, version=request.state.version))


async def ready(request: Request) -> Response:
    """Whether models answer their bundles' own texts as recorded: really asked, remembered for a second."""
    found = await request.thread(request.state.catalogue.ready)
    body = json(Ready(found.ready, found.reason), 200 if found.ready else 503)
    return body if found.ready else Response(body.body, 503, headers=((b"retry-after", b"1"),))


ROUTES = tuple(
    Route("GET", path, handler, api="health", open=True)
    for handler, paths in (
        (live, ("/health/live", "/livez", "/ping")),
        (ready, ("/health/ready", "/readyz", "/healthz", "/health")),
    )
    for path in paths
)
MESSAGES: dict[Any, tuple[Any, Any]] = {live: (None, Live), ready: (None, Ready)}
