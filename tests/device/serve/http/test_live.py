"""Live streams with the clients that people use: `websockets`, `httpx-sse`, `jsonpatch`."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import jsonpatch
import pytest
from httpx_sse import EventSource, connect_sse
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tightrope.device.serve.server import Server

pytestmark = pytest.mark.engine


class Mirror:
    """A client's copy of the server's state."""

    def __init__(self) -> None:
        self.seq = 0
        self.state: Any = None
        self.patches = 0

    def read(self, text: str | bytes) -> Any:
        """Take a message; nothing may be missing."""
        message = json.loads(text)
        if "snapshot" in message:
            self.state = message["snapshot"]
        else:
            assert message["base"] == self.seq
            self.state = jsonpatch.apply_patch(self.state, message["patch"])
            self.patches += 1
        self.seq = message["seq"]
        return self.state


def socket(server: Server, path: str, **given: Any) -> ClientConnection:
    """A WebSocket to the server."""
    return connect(server.url.replace("http", "ws", 1) + path, **given)


@contextmanager
def events_of(server: Server, path: str, **query: str) -> Iterator[EventSource]:
    """Server-sent events of the server."""
    with (
        httpx.Client(base_url=server.url, timeout=20) as client,
        connect_sse(client, "GET", path, params=query) as found,
    ):
        yield found


def asked(client: ClientConnection, mirror: Mirror, **question: Any) -> Any:
    """The state after a question was answered."""
    client.send(json.dumps(question))
    while (state := mirror.read(client.recv(timeout=10)))["query"] != question["query"]:
        pass
    return state


def test_results_follow_the_words(searched: Server) -> None:
    mirror = Mirror()
    with httpx.Client(base_url=searched.url) as http, socket(searched, "/v1/live/search") as client:
        for query in ("the", "the cat", "the cat sat", "dogs", "dogs bark", "seven"):
            state = asked(client, mirror, query=query, k=3)
            said = http.post("/v1/search", json={"query": query, "k": 3}).json()
            assert [hit["id"] for hit in state["hits"]] == [hit["id"] for hit in said["hits"]]
            assert state["error"] == ""
        assert asked(client, mirror, query="") == {"query": "", "hits": [], "took_s": 0.0, "error": ""}
    assert mirror.patches > 0


def test_results_follow_the_index(searched: Server) -> None:
    mirror = Mirror()
    with httpx.Client(base_url=searched.url) as http, socket(searched, "/v1/live/search") as client:
        before = asked(client, mirror, query="a new locker", k=20)
        added = {"documents": [{"key": "new", "text": "a new locker"}]}
        assert http.post("/v1/documents", json=added).status_code == 201
        after = mirror.read(client.recv(timeout=10))
        assert len(after["hits"]) == len(before["hits"]) + 1
        assert after["hits"][0]["key"] == "new"
        assert http.delete("/v1/documents/new").status_code == 200
        assert mirror.read(client.recv(timeout=10))["hits"] == before["hits"]


def test_a_gap_is_mended_by_a_snapshot(searched: Server) -> None:
    mirror = Mirror()
    with socket(searched, "/v1/live/search") as client:
        asked(client, mirror, query="the cat")
        client.send('{"resync": true}')
        message = json.loads(client.recv(timeout=10))
        assert message == {"seq": mirror.seq, "snapshot": mirror.state}


@pytest.mark.parametrize("wrong", ["{", "[]", '{"query": 1}', '{"query": "a", "more": 1}', '{"query": "a", "k": "b"}'])
def test_what_is_no_question_is_said_and_survived(searched: Server, wrong: str) -> None:
    mirror = Mirror()
    with socket(searched, "/v1/live/search") as client:
        client.send(wrong)
        assert "no question" in mirror.read(client.recv(timeout=10))["error"]
        assert asked(client, mirror, query="the cat")["hits"]
        assert asked(client, mirror, query="x" * 3000)["error"]


def test_an_unknown_index_is_said(searched: Server) -> None:
    with socket(searched, "/v1/live/search") as client:
        assert asked(client, Mirror(), query="the cat", index="nowhere")["error"]


@pytest.mark.parametrize("message", [b"bytes", "x" * 20_000])
def test_what_is_no_text_or_too_long_ends_the_stream(searched: Server, message: str | bytes) -> None:
    with socket(searched, "/v1/live/search") as client:
        client.send(message)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=10)
    assert httpx.get(searched.url + "/health/ready").status_code == 200


def embedded(document: Any) -> int:
    """How many requests for embeddings a dashboard's document counts."""
    return int(document["metrics"]["requests"]["by_api"].get("openai", {}).get("total", 0))


def test_the_dashboards_document_comes_as_events_and_changes(searched: Server) -> None:
    mirror = Mirror()
    with events_of(searched, "/v1/live/status") as events:
        assert events.response.headers["content-type"].startswith("text/event-stream")
        incoming = events.iter_sse()
        first = mirror.read(next(incoming).data)
        assert first["models"][0]["versions"][0]["state"] == "current"
        before = embedded(mirror.state)
        assert httpx.post(searched.url + "/v1/embeddings", json={"input": "the cat"}).status_code == 200
        until = time.monotonic() + 10
        while embedded(mirror.state) <= before:
            assert time.monotonic() < until
            mirror.read(next(incoming).data)
    assert mirror.patches >= 1
    assert mirror.state["history"][-1]["rate"] is not None


def test_search_comes_as_events_too(searched: Server) -> None:
    mirror = Mirror()
    with events_of(searched, "/v1/live/search", query="dogs bark", k="2") as events:
        state = mirror.read(next(events.iter_sse()).data)
    assert state["hits"][0]["text"] == "dogs bark"
    assert len(state["hits"]) == 2


def test_streams_are_counted_and_their_places_come_back(searched: Server) -> None:
    board = searched.app.state.board
    _until(lambda: board.readers == 0)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(socket(searched, "/v1/live/status"))
        with pytest.raises(InvalidStatus, match="429"):
            socket(searched, "/v1/live/status")
        refused = httpx.get(searched.url + "/v1/live/status")
        assert refused.status_code == 429 and refused.headers["retry-after"]
    _until(lambda: board.readers == 0)
    with events_of(searched, "/v1/live/search", query="cat") as events:
        incoming = events.iter_sse()  # dropped, it would end the stream
        next(incoming)
        assert board.readers == 1
    _until(lambda: board.readers == 0)


def _until(reached: Any) -> None:
    until = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_other_pages_and_nobody_without_a_key_may_listen(searched: Server, locked: tuple[Server, str]) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        socket(searched, "/v1/live/search", origin="http://elsewhere.example")
    server, secret = locked
    with pytest.raises(InvalidStatus, match="401"):
        socket(server, "/v1/live/status")
    with socket(server, "/v1/live/status", additional_headers={"Authorization": f"Bearer {secret}"}) as client:
        assert "snapshot" in json.loads(client.recv(timeout=10))
