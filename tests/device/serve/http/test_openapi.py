"""The document that describes the interfaces: valid, complete, and true of what is answered."""

import json
import re
from typing import Any

import pytest

from tightrope.device.serve.http import failures, openapi
from tightrope.device.serve.http.app import ROUTES, _api_of, _route

DOCUMENT: dict[str, Any] = json.loads(openapi._document("1", locked=True))
OPERATIONS = {
    f"{method.upper()} {path}": said for path, methods in DOCUMENT["paths"].items() for method, said in methods.items()
}


def test_it_is_valid() -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="pip install openapi-spec-validator")
    validator.validate(DOCUMENT)


def test_every_route_is_in_it_and_none_besides() -> None:
    assert {f"{route.method} {route.path}" for route in ROUTES if route.method != "WEBSOCKET"} == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_it_takes_and_gives(name: str) -> None:
    said = OPERATIONS[name]
    assert said["summary"].endswith(".") and not said["summary"].startswith("/")
    assert ("requestBody" in said) == (name.startswith(("POST", "PUT")) and name != "POST /logout")
    path = {each["name"] for each in said["parameters"] if each["in"] == "path"}
    assert path == set(re.findall(r"{(\w+)}", name))
    good = [status for status in said["responses"] if status[0] in "23"]
    assert len(good) == 1 and "default" in said["responses"]
    silent = {"POST /login", "POST /logout"}
    assert ("content" in said["responses"][good[0]]) == (name not in silent)


@pytest.mark.parametrize("api", ["openai", "tei", "v2", "native", "page"])
@pytest.mark.parametrize("kind", failures.KINDS)
def test_failures_are_as_it_says(api: str, kind: str) -> None:
    given = failures.Failure(kind, "Why.", param="input", retry_after_s=1.0)
    _, content_type, body, _ = failures.envelope(given, api, "id")
    [said] = {json.dumps(each["responses"]["default"]["content"]) for each in OPERATIONS.values() if _is(each, api)}
    schema = json.loads(said)[content_type.decode()]["schema"]
    wanted = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found = json.loads(body)
    if api == "openai":
        wanted, found = wanted["properties"]["error"], found["error"]
    assert set(wanted["required"]) <= set(found) <= set(wanted["properties"])


def test_methods_of_a_path_are_those_of_the_document() -> None:
    """A path as it is comes before one with braces, as OpenAPI has it; failures are those of the path's own API."""
    for path, methods in DOCUMENT["paths"].items():
        route, allowed = _route("BREW", path)
        assert route is None and allowed == {name.upper() for name in methods}
        assert [openapi.TITLES.get(_api_of(path), _api_of(path))] in [said["tags"] for said in methods.values()]
    assert _route("DELETE", "/v1/documents/delete") == (None, {"POST"})
    assert _route("DELETE", "/v1/documents/other")[0] is not None
    assert (_api_of("/v1/nothing"), _api_of("/v2/nothing"), _api_of("/nothing")) == ("openai", "v2", "other")


def _is(operation: dict[str, Any], api: str) -> bool:
    return operation["tags"] == [openapi.TITLES.get(api, api)]
