"""WebSockets whose clients flood, dawdle, smuggle or vanish: raw sockets to a real server."""

import socket
import struct
import time
from contextlib import closing

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightrope
from tightrope.device.meter import memory
from tightrope.device.serve import keys
from tightrope.device.serve.limits import Limits

pytestmark = pytest.mark.engine
TEXT, BYTES, CLOSE, PING, PONG = 1, 2, 8, 9, 10
QUESTION = b'{"query": "the cat"}'


@pytest.fixture(scope="module")
def server(native_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "tiny.bundle"
    native_bundle(path)
    with tightrope.serve(path, threads=1, limits=Limits(idle_s=0.5, write_s=2, streams=8)) as running:
        yield running


@pytest.fixture(autouse=True)
def leaves_nothing(server):
    """After each attack the server answers, and every stream's place has come back."""
    yield
    assert httpx.get(server.url + "/health/ready").status_code == 200
    until = time.monotonic() + 10
    while server.app.state.board.readers:
        assert time.monotonic() < until
        time.sleep(0.01)


def connect(server):
    return closing(socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10))


def handshake(*headers, method="GET", version="HTTP/1.1", path="/v1/live/search"):
    lines = [f"{method} {path} {version}", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def frame(kind, data=b"", *, first=0x80, masked=True):
    length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack("!H", len(data))
    head = bytes([first | kind, length[0] | (0x80 if masked else 0)]) + length[1:]
    return head + (b"\0\0\0\0" if masked else b"") + data


def everything(client):
    """All that comes until the server closes."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def after(server, *frames):
    """What comes after a handshake and these frames, until the server ends it."""
    with connect(server) as client:
        client.sendall(handshake() + b"".join(frames))
        head, _, rest = everything(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        return rest


@pytest.mark.parametrize(
    "raw",
    [
        handshake(method="POST"),
        handshake(version="HTTP/1.0"),
        handshake("Content-Length: 8") + frame(TEXT, b"hi"),
        handshake("Transfer-Encoding: chunked") + b"0\r\n\r\n",
        handshake().replace(b"Version: 13", b"Version: 8"),
        handshake().replace(b"Connection: Upgrade", b"Connection: close"),
        handshake().replace(b"Sec-WebSocket-Key", b"X-Key"),
    ],
)
def test_what_is_no_handshake_is_refused_not_read_as_frames(server, raw):
    with connect(server) as client:
        client.sendall(raw)
        assert everything(client).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "origin", ["http://[", "http://elsewhere.example", "null", "http://127.0.0.1.elsewhere.example"]
)
def test_pages_of_others_are_refused_however_they_are_called(server, origin):
    with connect(server) as client:
        client.sendall(handshake(f"Origin: {origin}"))
        assert everything(client).startswith(b"HTTP/1.1 403 ")
    assert httpx.get(server.url + "/v1/live/status", headers={"Origin": origin}).status_code == 403


def test_a_query_of_too_many_fields_is_refused(server):
    assert httpx.get(server.url + "/v1/live/search?" + "a=b&" * 80).status_code == 400


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(BYTES, b"\0"), 1003),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"a", masked=False), 1002),
        (frame(3), 1002),
        (frame(TEXT, b"a", first=0xC0), 1002),
        (frame(PING, b"", first=0), 1002),
        (frame(0, b"a"), 1002),
        (frame(TEXT, b" " * 20_000), 1009),
        (frame(TEXT, b" " * 9000, first=0) + frame(0, b" " * 9000, first=0), 1009),
        (frame(CLOSE, b"\x03"), 1002),
    ],
)
def test_frames_that_are_none_end_the_stream_with_their_code(server, sent, code):
    assert after(server, sent)[2:4] == struct.pack("!H", code)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_whatever_comes_as_frames_is_survived(server, sent):
    after(server, *sent, frame(CLOSE, struct.pack("!H", 1000)))


def test_a_client_that_says_nothing_is_asked_once_and_let_go(server):
    started = time.monotonic()
    assert after(server) == frame(PING, masked=False)
    assert time.monotonic() - started >= 2.0


def test_a_client_that_answers_pings_may_stay(server):
    with connect(server) as client:
        client.sendall(handshake())
        while not client.recv(4096).endswith(frame(PING, masked=False)):
            pass
        for _ in range(3):
            client.sendall(frame(PONG))
            assert client.recv(4096) == frame(PING, masked=False)


def test_a_client_that_asked_a_lot_and_fell_silent_is_let_go(server):
    assert after(server, frame(TEXT, QUESTION) * 200)


def test_pings_whose_answers_are_not_read_are_not_hoarded(server):
    before = memory.read().resident_bytes
    with connect(server) as client:
        client.sendall(handshake())
        with pytest.raises(OSError):
            while True:
                client.sendall(frame(PING, b"x" * 120) * 100)
    assert memory.read().resident_bytes - before < 10_000_000


def test_readers_that_vanish_give_their_places_back(server):
    for path in ("/v1/live/status", "/v1/live/search?query=cat"):
        for _ in range(20):
            with connect(server) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            with connect(server) as client:
                client.sendall(handshake(path=path))


def test_sockets_give_back_what_a_key_may_have_under_way(native_bundle, tmp_path):
    native_bundle(tmp_path / "tiny.bundle")
    secret = keys.new(tmp_path / "keys", "phone", in_flight=2)
    with tightrope.serve(tmp_path / "tiny.bundle", threads=1, key_file=tmp_path / "keys") as server:
        for _ in range(5):
            with connect(server) as client:
                client.sendall(handshake(f"Authorization: Bearer {secret}") + frame(CLOSE))
                assert everything(client).startswith(b"HTTP/1.1 101 ")
