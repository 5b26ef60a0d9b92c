"""Readers of live streams that do not read, that leave, or that send rubbish: the server costs the same and lives."""

import json
import os
import socket
import struct
import time
import urllib.request
from contextlib import closing, suppress

import pytest
from websockets.sync.client import connect

import tightrope
from tightrope.device.meter import memory
from tightrope.device.serve.limits import Limits

pytestmark = pytest.mark.engine
HANDSHAKE = (
    "GET /v1/live/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def server(native_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("streamed") / "tiny.bundle"
    native_bundle(path)
    limits = Limits(streams=8, stream_messages=4, write_s=0.5, idle_s=0.5, header_s=0.5)
    with tightrope.serve(path, threads=1, limits=limits) as running:
        yield running


def raw(server, first, *, room=None):
    """A connection that has sent its first bytes; `room` bounds what it takes without reading."""
    client = socket.socket()
    if room is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    client.settimeout(10)
    client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    client.sendall(first.encode() if isinstance(first, str) else first)
    return client


def framed(payload, opcode=1):
    """A masked frame, as clients send them."""
    mask = b"\x37\xfa\x21\x3d"  # always the same: it is part of names of tests
    size = len(payload)
    head = bytes([0x80 | opcode]) + (bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + struct.pack(">H", size))
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def until(reached):
    end = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def healthy(server):
    with urllib.request.urlopen(server.url + "/health/ready", timeout=10) as answer:
        return answer.status == 200


@pytest.mark.parametrize(
    "first", ["GET /v1/live/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", HANDSHAKE.format("status")]
)
def test_who_does_not_read_is_let_go_and_costs_nothing(server, first):
    board = server.app.state.board
    before = memory.read().resident_bytes
    with closing(raw(server, first, room=2048)):
        until(lambda: len(board._feeds) == 1)
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


def test_questions_without_reading_answers_end_the_stream_and_not_the_server(server):
    board = server.app.state.board
    with closing(raw(server, HANDSHAKE.format("search"), room=2048)) as client:
        until(lambda: board.readers == 1)
        question = framed(json.dumps({"query": "x" * 100}).encode())
        with suppress(OSError):
            for _ in range(20_000):
                client.sendall(question)
        assert healthy(server)
    until(lambda: board.readers == 0)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff" * 64,
        framed(b"\xff\xfe", opcode=1),
        framed(b"x", opcode=3),
        b"\x81\xff" + b"\x7f" + b"\xff" * 7,
        b"\x01\x05hello",
        framed(b"bye", opcode=8),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_rubbish_after_the_handshake_ends_the_stream(server, rubbish):
    with closing(raw(server, HANDSHAKE.format("search") + "", room=None)) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        client.sendall(rubbish)
        with suppress(ConnectionResetError):
            while client.recv(4096):
                pass
    until(lambda: server.app.state.board.readers == 0)
    assert healthy(server)


@pytest.mark.parametrize(
    "changed",
    [
        ("Version: 13", "Version: 12"),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", ""),
        ("Connection: Upgrade\r\n", ""),
        ("/v1/live/search", "/v1/embeddings"),
        ("/v1/live/search", "/nowhere"),
    ],
)
def test_a_handshake_that_is_none_is_refused(server, changed):
    with closing(raw(server, HANDSHAKE.format("search").replace(*changed))) as client:
        status = int(client.recv(4096).split()[1])
        assert 400 <= status < 500
    assert healthy(server)


def test_silent_streams_are_pinged_and_stay(server):
    with connect(server.url.replace("http", "ws", 1) + "/v1/live/search") as client:
        time.sleep(1.5)  # three times what an idle connection is allowed
        client.send('{"query": ""}')
        assert "snapshot" in json.loads(client.recv(timeout=5))


def test_who_does_not_answer_a_ping_is_let_go(server):
    with closing(raw(server, HANDSHAKE.format("search"))) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        parts = b""
        with suppress(ConnectionResetError):
            while part := client.recv(4096):
                parts += part
        assert parts[:1] == b"\x89"  # a ping, and then nothing more
    until(lambda: server.app.state.board.readers == 0)
