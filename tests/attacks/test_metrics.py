"""What comes over the network makes no series: metrics stay as few as they are, whatever is asked for."""

import json
import re

import pytest

import tightrope

pytestmark = pytest.mark.engine
CANARY = "canary-7f3a"


@pytest.fixture(scope="module")
def server(native_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("counted") / "tiny.bundle"
    native_bundle(path)
    with tightrope.serve(path, threads=1) as running:
        yield running


def series(server, wire):
    """All lines that have a number, without it."""
    text = wire.ask(server, wire.get("/metrics")).partition(b"\r\n\r\n")[2].decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def flood(server, wire, first, count):
    """Requests, each of a name, path, version, method and id of its own."""
    for number in range(first, first + count):
        word = f"{CANARY}-{number}"
        body = json.dumps({"input": word, "model": word}).encode()
        wire.ask(server, wire.post(body, f"X-Request-Id: {word}", f"User-Agent: {word}", f"X-Request-Priority: {word}"))
        for path in (
            f"/{word}",
            f"/v1/{word}",
            f"/v2/models/{word}/versions/{number}",
            f"/v1/documents/{word}?index={word}",
        ):
            wire.ask(server, wire.get(path))
            wire.ask(server, wire.get(path).replace(b"GET", b"DELETE"))
        wire.ask(server, wire.post(b"{}", path=f"/v2/models/{word}/infer"))
        wire.ask(server, wire.get("/health/live").replace(b"GET", b"PROPFIND"))


def test_a_flood_of_names_makes_no_series(server, wire):
    flood(server, wire, 0, 3)
    series(server, wire)  # which is a request of its own
    before = series(server, wire)
    flood(server, wire, 3, 30)
    after = series(server, wire)
    assert len(before) > 20 and after == before
    assert not [line for line in after if CANARY in line]
    assert all(re.fullmatch(r'\w+(\{(\w+="[^"\n]*",?)*\})?', line) for line in after)
