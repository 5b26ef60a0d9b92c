"""Readers of live streams that do not read, that leave, or that send rubbish: the server costs the same and lives."""

import json
import os
import time
import urllib.request
from contextlib import suppress

import pytest
from websockets.sync.client import connect

import tightrope
from tightrope.device.meter import memory
from tightrope.device.serve.limits import Limits

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def server(native_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("streamed") / "tiny.bundle"
    native_bundle(path)
    limits = Limits(streams=8, stream_messages=4, write_s=0.5, idle_s=0.5, header_s=0.5)
    with tightrope.serve(path, threads=1, limits=limits) as running:
        yield running


def healthy(server):
    with urllib.request.urlopen(server.url + "/health/ready", timeout=10) as answer:
        return answer.status == 200


@pytest.mark.parametrize("kind", ["events", "socket"])
def test_who_does_not_read_is_let_go_and_costs_nothing(server, wire, kind):
    board = server.app.state.board
    before = memory.read().resident_bytes
    path = "/v1/live/status"
    with wire.connect(server, wire.get(path) if kind == "events" else wire.handshake(path=path), room=2048):
        wire.until(lambda: len(board._feeds) == 1)
        [feed] = board._feeds
        end = time.monotonic() + 10
        number = 0
        while board.readers and time.monotonic() < end:  # far more news than a buffer holds
            number += 1
            server._loop.call_soon_threadsafe(feed.push, {"n": number, "rest": os.urandom(20_000).hex()})
            assert feed.waiting <= 4
            time.sleep(0.002)
        assert board.readers == 0
    assert memory.read().resident_bytes - before < 20_000_000
    assert healthy(server)


def test_questions_without_reading_answers_end_the_stream_and_not_the_server(server, wire):
    board = server.app.state.board
    with wire.connect(server, wire.handshake(), room=2048) as client:
        wire.until(lambda: board.readers == 1)
        question = wire.frame(wire.TEXT, json.dumps({"query": "x" * 100}).encode())
        with suppress(OSError):
            for _ in range(20_000):
                client.sendall(question)
        assert healthy(server)
    wire.until(lambda: board.readers == 0)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff" * 64,
        b"\x81\xff" + b"\x7f" + b"\xff" * 7,
        b"\x01\x05hello",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_rubbish_after_the_handshake_ends_the_stream(server, wire, rubbish):
    with wire.connect(server, wire.handshake()) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        client.sendall(rubbish)
        wire.everything(client)
    wire.until(lambda: server.app.state.board.readers == 0)
    assert healthy(server)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/nowhere"])
def test_a_handshake_for_what_is_no_stream_is_refused(server, wire, path):
    assert 400 <= wire.status(wire.ask(server, wire.handshake(path=path))) < 500
    assert healthy(server)


def test_silent_streams_are_pinged_and_stay(server):
    with connect(server.url.replace("http", "ws", 1) + "/v1/live/search") as client:
        time.sleep(1.5)  # three times what an idle connection is allowed
        client.send('{"query": ""}')
        assert "snapshot" in json.loads(client.recv(timeout=5))


def test_who_does_not_answer_a_ping_is_let_go(server, wire):
    with wire.connect(server, wire.handshake()) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        assert wire.everything(client)[:1] == b"\x89"  # a ping, and then nothing more
    wire.until(lambda: server.app.state.board.readers == 0)
