"""Whether the server lives, and whether it answers rightly: the only routes that never need a key."""

from tightrope.device.serve.http.routes import Request, Response, Route, json


async def live(request: Request) -> Response:
    """The server answers; whether its models do is another question."""
    return json({"live": True, "version": request.state.version})


async def ready(request: Request) -> Response:
    """Whether models answer their bundles' own texts as recorded: really asked, remembered for a second."""
    found = await request.thread(request.state.catalogue.ready)
    body = json({"ready": found.ready, "reason": found.reason}, 200 if found.ready else 503)
    return body if found.ready else Response(body.body, 503, headers=((b"retry-after", b"1"),))


ROUTES = tuple(
    Route("GET", path, handler, api="health", open=True)
    for handler, paths in (
        (live, ("/health/live", "/livez", "/ping")),
        (ready, ("/health/ready", "/readyz", "/healthz", "/health")),
    )
    for path in paths
)
