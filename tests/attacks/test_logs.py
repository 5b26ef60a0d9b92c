"""What comes over the network reaches the log as data or not at all: no line, no escape, no text, no key of it."""

import io
import json
import urllib.error
import urllib.request

import pytest

import tightrope
from tightrope.device.serve import keys, logs

pytestmark = pytest.mark.engine
CANARY = "canary-7f3a"
PATHS = [
    f"/{CANARY}%0d%0a%7b%22event%22:%22forged%22%7d",
    f"/%1b%5b31m{CANARY}",
    f"/v1/models/{CANARY}",
    f"/v2/models/{CANARY}/infer",
    f"/?{CANARY}=1",
]
IDS = [CANARY + " forged", f"a\t{CANARY}", "\x1b[31m" + CANARY, "x" * 300, "é" + CANARY]


@pytest.fixture
def logged():
    stream = io.StringIO()
    before = logs.write_to(logs.Log(stream))
    yield stream
    logs.write_to(before)


@pytest.fixture(scope="module")
def guarded(native_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    native_bundle(folder / "tiny.bundle")
    secret = keys.new(folder / "keys", "phone")
    with tightrope.serve(folder / "tiny.bundle", key_file=folder / "keys", threads=1) as server:
        yield server, secret


def entries(stream):
    lines = stream.getvalue().splitlines()
    assert all(line.isascii() and line.isprintable() for line in lines)
    return [json.loads(line) for line in lines]


def said(wire, server, text):
    """Ask this, and do not wait for more than the first words of the answer."""
    with wire.connect(server, text.encode("latin-1")) as client:
        return client.recv(65536)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_not_in_the_log(guarded, logged, wire, path):
    server, secret = guarded
    said(wire, server, f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {secret}\r\n\r\n")
    wire.until(lambda: entries(logged))
    assert {entry["event"] for entry in entries(logged)} <= {"request", "http.refused"}
    assert CANARY not in logged.getvalue()


@pytest.mark.parametrize("given", IDS)
def test_an_id_that_is_none_is_replaced(guarded, logged, wire, given):
    server, _ = guarded
    said(wire, server, f"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-Id: {given}\r\n\r\n")
    wire.until(lambda: entries(logged))
    assert CANARY not in logged.getvalue()
    assert all(len(entry.get("request_id", "")) <= 64 for entry in entries(logged))


def test_a_proper_id_is_kept(guarded, logged, wire):
    server, _ = guarded
    said(wire, server, "GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-Id: trace-1\r\n\r\n")
    wire.until(lambda: [entry["request_id"] for entry in entries(logged)] == ["trace-1"])


@pytest.mark.parametrize(
    "body", [{"input": CANARY}, {"input": CANARY, "model": CANARY}, {"input": [CANARY, 1]}, {CANARY: 1}]
)
def test_neither_texts_nor_keys_are_in_the_log(guarded, logged, wire, body):
    server, secret = guarded
    for path in ("/v1/embeddings", "/embed", "/v1/search"):
        for key in (secret, f"tr_{CANARY}"):
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
            request = urllib.request.Request(server.url + path, json.dumps(body).encode(), headers)
            try:
                urllib.request.urlopen(request, timeout=10).close()
            except urllib.error.HTTPError as error:
                error.close()
    wire.until(lambda: len(entries(logged)) >= 6)  # an event is written after its answer is out
    assert CANARY not in logged.getvalue()
    assert secret not in logged.getvalue()


def test_a_flood_of_requests_is_thinned(guarded, logged, wire):
    server, _ = guarded
    with wire.connect(server) as client:
        for _ in range(1000):
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            while not client.recv(65536).endswith(b"}"):
                pass
    assert len(entries(logged)) < 600
