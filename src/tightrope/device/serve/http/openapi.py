"""The document that describes the HTTP interfaces, made from the types that the handlers read and write."""

import re
from functools import lru_cache
from typing import Any

import msgspec

from tightrope.device.serve.http import health, live, oip, openai, pages, search, tei
from tightrope.device.serve.http.routes import Request, Response, Route

TITLES = {
    "openai": "OpenAI",
    "tei": "text-embeddings-inference",
    "v2": "Open Inference Protocol",
    "native": "tightrope",
}
_NATIVE = {
    "/v1/search": search.Search,
    "/v1/ask": search.Question,
    "/v1/recommend": search.Liked,
    "/v1/pairs": search.Pairs,
    "/v1/documents": search.Documents,
    "/v1/documents/delete": search.Keys,
}
_MESSAGES = {**openai.MESSAGES, **tei.MESSAGES, **oip.MESSAGES}


async def document(request: Request) -> Response:
    """This document."""
    return Response(_document(request.state.version))


ROUTES = (Route("GET", "/openapi.json", document),)


@lru_cache(maxsize=1)
def _document(version: str) -> bytes:
    """OpenAPI 3.1, as JSON."""
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
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "tightrope", "version": version},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _types(route: Route) -> tuple[Any, Any]:
    """What a route's handler takes and gives; `None` for no body, and for an answer of any form."""
    takes = _NATIVE.get(route.path) if route.method in ("POST", "PUT") else None
    return _MESSAGES.get(route.handler, (takes, None))


def _operation(route: Route, taken: Any, given: Any) -> dict[str, Any]:
    said = (route.handler.__doc__ or "").strip().partition("\n")[0]
    answer: dict[str, Any] = {"description": "The answer."}
    if given is not None:
        answer["content"] = {"application/json": {"schema": given}}
    names = re.findall(r"{(\w+)}", route.path)
    failure = "application/json" if route.api in ("openai", "tei", "v2") else "application/problem+json"
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "tags": [TITLES.get(route.api, route.api)],
        "summary": said or route.path,
        "responses": {
            "200": answer,
            "default": {"description": "Why there is none.", "content": {failure: {"schema": {"type": "object"}}}},
        },
        "security": [] if route.open else [{}, {"key": []}],
    }
    if names:
        where = {"in": "path", "required": True, "schema": {"type": "string"}}
        found["parameters"] = [{"name": name, **where} for name in names]
    if taken is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": taken}}}
    return found
