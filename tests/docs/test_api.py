"""The reference of the API: its examples are sent to a real server, its tables are held against the code."""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tightrope
from tightrope.device.apps import faq_bot
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.serve.http import failures, openai, openapi, search, tei
from tightrope.device.serve.http.app import ROUTES
from tightrope.device.serve.limits import Limits

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```http\n(\w+) (\S+)\n((?:[\w-]+: .*\n)*)(?:(.+)\n)?\n(\d+)\n(.*)\n```$", PAGE, re.MULTILINE)


def _part(title: str) -> str:
    """The part of the page below a title."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _routes(text: str) -> set[str]:
    return {f"{method} {path}" for method, path in re.findall(r"`(GET|POST|PUT|DELETE|WEBSOCKET) (/[\w/{}.]*)`", text)}


# Examples -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def connection(native_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[http.client.HTTPConnection]:
    """A server as the page has it, with a small model of that name."""
    folder = tmp_path_factory.mktemp("api")
    bundle = native_bundle(folder / "minilm.bundle")
    with tightrope.open(bundle.path) as model, create(folder / "docs", digest=bundle.digest, width=32) as index:
        index.add([Document(key="other", passages=("it rains",), metadata={"page": 0})], model.embed(["it rains"]))
        faq_bot.calibrate(index, model.embed([f"{n} strange words {n * 7}" for n in range(40)]))
    with tightrope.serve(bundle.path, index=folder / "docs", threads=1) as server:
        found = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
        yield found
        found.close()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == PAGE.count("```http") > 8


@pytest.mark.engine
def test_the_examples_are_answered_as_they_say(connection: http.client.HTTPConnection) -> None:
    """In the order of the page: it puts a document in and takes it out."""
    for method, path, head, body, status, answer in EXAMPLES:
        headers = dict(line.split(": ", 1) for line in head.splitlines())
        connection.request(method, path, body.encode() or None, headers | {"Content-Type": "application/json"})
        with connection.getresponse() as given:
            found = json.loads(given.read())
        assert given.status == int(status), (path, found)
        assert form(found) == form(json.loads(answer)), path


def form(value: Any) -> Any:
    """Fields and kinds of a value without its numbers and words, which are another model's; of a list, one item."""
    if isinstance(value, dict):
        return {key: form(item) for key, item in value.items()}
    if isinstance(value, list):
        return [form(item) for item in value[:1]]
    return "a number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


# Tables -------------------------------------------------------------------------------------------------


def test_every_route_is_on_the_page_and_every_route_on_the_page_is_there() -> None:
    known = {f"{route.method} {route.path}" for route in ROUTES}
    named = _routes(PAGE)
    assert (known - named, named - known) == (set(), set())


@pytest.mark.parametrize("title", ["OpenAI", "text-embeddings-inference", "Open Inference Protocol"])
def test_the_routes_of_an_api_are_in_its_part(title: str) -> None:
    [api] = [name for name, words in openapi.TITLES.items() if words == title]
    known = {f"{route.method} {route.path}" for route in ROUTES if route.api == api}
    assert known == _routes(_part(title))


def test_the_routes_of_search_are_in_its_part() -> None:
    assert {f"{route.method} {route.path}" for route in search.ROUTES} == _routes(_part("Search"))


def test_every_field_of_a_body_is_named() -> None:
    for title, messages in (
        ("OpenAI", openai.MESSAGES),
        ("text-embeddings-inference", tei.MESSAGES),
        ("Search", search.MESSAGES),
    ):
        bodies = [taken for taken, _ in messages.values() if taken is not None]
        named = set(re.findall(r"`(\w+)`", _part(title)))
        missing = {field.name for body in bodies for field in msgspec.structs.fields(body)} - named
        assert missing == set(), title


def test_codes_and_statuses_are_those_of_the_code() -> None:
    said = {
        code: int(status)
        for codes, status in re.findall(r"^\| (`.+?`) \| (\d+) \|", _part("Errors"), re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert said == {name: kind.status for name, kind in failures.KINDS.items()}
    for name, status in failures.TEI_STATUS.items():
        assert re.search(rf"^\| `{name}` .*; {status} on the routes of text-embeddings-inference", PAGE, re.MULTILINE)


def test_limits_are_limits() -> None:
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.+?`) \|", _part("Limits"), re.MULTILINE))))
    known = {item.name for item in fields(Limits)}
    inside = {"batch_tokens", "batch_wait_s", "cache_bytes", "drain_s"}
    """What no request is refused by."""
    assert named == known - inside


def test_headers_are_those_that_the_document_has() -> None:
    for parameter in (openapi.ID, openapi.PARENT, openapi.DEADLINE, openapi.PRIORITY):
        assert f"`{parameter['name']}`" in PAGE


@pytest.mark.engine
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("GET /info HTTP/1.1\r\nHost : localhost", 400),
        ("GET /info HTTP/1.1\r\nHost: localhost\r\nX-Long: " + "x" * 20_000, 431),
        ("BREW /info HTTP/1.1\r\nHost: localhost", 501),
        ("GET /info HTTP/2.0\r\nHost: localhost", 505),
    ],
)
def test_what_is_no_request_is_answered_as_said(connection: http.client.HTTPConnection, sent: str, status: int) -> None:
    with socket.create_connection((connection.host, connection.port), timeout=10) as client:
        client.sendall(f"{sent}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        problem = json.loads(answer.read())
    assert (answer.status, problem["status"], "code" in problem) == (status, status, False)
    assert f"{status} for " in PAGE
