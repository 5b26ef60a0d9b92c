"""The document that describes the HTTP interfaces, made from the types that the handlers read and write."""

import re
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec

from tightrope.device.serve.http import health, live, oip, openai, pages, search, tei
from tightrope.device.serve.http.routes import PRIORITIES, Request, Response, Route
from tightrope.device.serve.metrics import WORK

TITLES = {
    "openai": "OpenAI",
    "tei": "text-embeddings-inference",
    "v2": "Open Inference Protocol",
    "native": "tightrope",
}
MESSAGES: dict[Any, tuple[Any, Any]] = {
    **health.MESSAGES,
    **openai.MESSAGES,
    **tei.MESSAGES,
    **oip.MESSAGES,
    **search.MESSAGES,
}
"""What each handler takes and gives: `None` for no body, and for an answer that is no JSON."""
STATUS = {("POST", "/v1/documents"): 201, ("POST", "/login"): 303, ("POST", "/logout"): 303}
"""Where success is something else than 200."""
NO_JSON = {"page": "text/html", "metrics": "text/plain", "live": "text/event-stream"}
BINARY = "application/octet-stream"
FORM = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
_TEXT = {"type": "string"}

ENVELOPES: dict[str, dict[str, Any]] = {
    "openai": {
        "message": _TEXT,
        "type": _TEXT,
        "param": {"type": ["string", "null"]},
        "code": _TEXT,
    },
    "tei": {"error": _TEXT, "error_type": _TEXT, "code": _TEXT},
    "v2": {"error": _TEXT},
    "problem": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "code": _TEXT,
        "request_id": _TEXT,
        "param": _TEXT,
    },
}
"""Fields of a failure, an API each; `problem` (RFC 9457) is everybody else's. OpenAI's are inside `error`."""
SELDOM = ("param", "code", "request_id")
"""Fields of a problem that are not always there."""

ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "What the answer, the log and the trace call this request: 1 to 64 of A-Z a-z 0-9 . _ -.",
    "schema": _TEXT,
}
PARENT = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C Trace Context: the span that the request belongs to, where the server sends traces.",
    "schema": {"type": "string"},
}
DEADLINE = {
    "name": "X-Request-Deadline-Ms",
    "in": "header",
    "description": "How long the client will wait. What cannot be answered by then is refused on arrival (504).",
    "schema": {"type": "number", "minimum": 0, "maximum": 999_999_999},
}
PRIORITY = {
    "name": "X-Request-Priority",
    "in": "header",
    "description": "How urgent it is, from -2 to 2; 0 if it is left out.",
    "schema": {"type": "integer", "enum": [int(one) for one in PRIORITIES]},
}
MODEL = {
    "name": "model",
    "in": "query",
    "description": "NAME or NAME@VERSION, where several models are served.",
    "schema": _TEXT,
}
INDEX = {"name": "index", "in": "query", "description": "Where there are several.", "schema": _TEXT}
QUESTION = (
    {"name": "query", "in": "query", "description": "What is looked for.", "schema": _TEXT},
    {"name": "k", "in": "query", "description": "How many hits.", "schema": {"type": "integer", "default": 8}},
    INDEX,
)
QUERIES: dict[tuple[str, str], Sequence[dict[str, Any]]] = {
    **{(route.method, route.path): (MODEL,) for route in tei.ROUTES},
    ("DELETE", "/v1/documents/{key}"): (INDEX,),
    ("GET", "/v1/live/search"): QUESTION,
}


async def document(request: Request) -> Response:
    """This document."""
    return Response(_document(request.state.version, locked=request.state.keys is not None))


ROUTES = (Route("GET", "/openapi.json", document),)


@lru_cache(maxsize=1)
def _document(version: str, *, locked: bool) -> bytes:
    """OpenAPI 3.1, as JSON; `locked` if keys are needed."""
    modules = (health, openai, tei, oip, search, live, pages)
    found = [*(route for module in modules for route in module.ROUTES), *ROUTES]
    routes = [route for route in found if route.method != "WEBSOCKET"]  # OpenAPI has no word for it
    types = [kind for route in routes for kind in _types(route) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    described = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        taken, given = (None if kind is None else next(described) for kind in _types(route))
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, taken, given)
        paths[route.path][route.method.lower()]["security"] = [{"key": []}] if locked and not _open(route) else []
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "tightrope",
                "version": version,
                "description": "Embeddings, scores, search, answers and recommendation from models on this device.",
            },
            "tags": [{"name": name} for name in dict.fromkeys(TITLES.get(route.api, route.api) for route in routes)],
            "paths": paths,
            "components": {
                "schemas": components | {f"{name}_failure": _envelope(name) for name in ENVELOPES},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _open(route: Route) -> bool:
    return route.open or route.handler in (pages.home, pages.log_in)  # the form, for who is not known


def _types(route: Route) -> tuple[Any, Any]:
    """What a route's handler takes and gives."""
    taken, given = MESSAGES.get(route.handler, (None, None))
    return taken, given


def _envelope(api: str) -> dict[str, Any]:
    fields = ENVELOPES[api]
    required = [name for name in fields if api != "problem" or name not in SELDOM]
    inner = {"type": "object", "properties": fields, "required": required}
    return {"type": "object", "properties": {"error": inner}, "required": ["error"]} if api == "openai" else inner


def _operation(route: Route, taken: Any, given: Any) -> dict[str, Any]:
    status = STATUS.get((route.method, route.path), 200)
    answers = {str(status): {"description": HTTPStatus(status).phrase, **_answer(route, given)}}
    if route.handler is health.ready:  # not a failure of the request: the same answer, of another tone
        answers["503"] = {"description": "The models do not answer rightly.", **_answer(route, given)}
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "tags": [TITLES.get(route.api, route.api)],
        "summary": (route.handler.__doc__ or route.path).strip().partition("\n")[0],
        "parameters": _parameters(route),
        "responses": answers | {"default": _failure(route.api)},
    }
    if route.handler is tei.root:  # what the model does
        taken = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Embed", "Predict")]}
    if taken is not None:
        content = {"application/json": {"schema": taken}}
        if route.handler is oip.infer:  # JSON, and behind it the tensors
            content[BINARY] = {"schema": {"type": "string", "format": "binary"}}
        found["requestBody"] = {"required": True, "content": content}
    elif route.handler is pages.log_in:
        found["requestBody"] = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": FORM}}}
    return found


def _answer(route: Route, given: Any) -> dict[str, Any]:
    """The content of an answer; a redirection has none."""
    if given is not None:
        content = {"application/json": {"schema": given}}
        if route.handler is oip.infer:
            content[BINARY] = {"schema": {"type": "string", "format": "binary"}}
        return {"content": content}
    if (route.method, route.path) in STATUS:
        return {}
    return {"content": {NO_JSON.get(route.api, "application/json"): {}}}


def _failure(api: str) -> dict[str, Any]:
    known = api in ENVELOPES
    kind = "application/json" if known else "application/problem+json"
    content: dict[str, Any] = {
        kind: {"schema": {"$ref": f"#/components/schemas/{api if known else 'problem'}_failure"}}
    }
    if api == "page":  # the form for logging in, again
        content["text/html"] = {}
    later = {"description": "Seconds after which another try makes sense.", "schema": {"type": "integer"}}
    return {"description": "Why there is no answer.", "headers": {"Retry-After": later}, "content": content}


def _parameters(route: Route) -> list[dict[str, Any]]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    waits = route.api in WORK and route.method != "GET"
    headers = (ID, PARENT, DEADLINE, PRIORITY) if waits else (ID, PARENT)
    return [*named, *QUERIES.get((route.method, route.path), ()), *headers]
