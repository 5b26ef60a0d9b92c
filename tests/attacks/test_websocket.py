"""WebSockets whose clients flood, dawdle, smuggle or vanish: raw sockets to a real server."""

import struct
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightrope
from tightrope.device.meter import memory
from tightrope.device.serve import keys
from tightrope.device.serve.limits import Limits

pytestmark = pytest.mark.engine
QUESTION = b'{"query": "the cat"}'


@pytest.fixture(scope="module")
def server(native_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "tiny.bundle"
    native_bundle(path)
    with tightrope.serve(path, threads=1, limits=Limits(idle_s=0.5, write_s=2, streams=8)) as running:
        yield running


@pytest.fixture(autouse=True)
def leaves_nothing(server, wire):
    """After each attack the server answers, and every stream's place has come back."""
    yield
    assert httpx.get(server.url + "/health/ready").status_code == 200
    wire.until(lambda: not server.app.state.board.readers)


def after(wire, server, *frames):
    """What comes after a handshake and these frames, until the server ends it."""
    with wire.connect(server) as client:
        client.sendall(wire.handshake() + b"".join(frames))
        head, _, rest = wire.everything(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        return rest


@pytest.mark.parametrize(
    "asked",
    [
        lambda wire: wire.handshake(method="POST"),
        lambda wire: wire.handshake(version="HTTP/1.0"),
        lambda wire: wire.handshake("Content-Length: 8") + wire.frame(wire.TEXT, b"hi"),
        lambda wire: wire.handshake("Transfer-Encoding: chunked") + b"0\r\n\r\n",
        lambda wire: wire.handshake().replace(b"Version: 13", b"Version: 8"),
        lambda wire: wire.handshake().replace(b"Connection: Upgrade", b"Connection: close"),
        lambda wire: wire.handshake().replace(b"Sec-WebSocket-Key", b"X-Key"),
    ],
)
def test_what_is_no_handshake_is_refused_not_read_as_frames(server, wire, asked):
    with wire.connect(server) as client:
        client.sendall(asked(wire))
        assert wire.everything(client).startswith(b"HTTP/1.1 400 ")


def test_a_refusal_is_read_although_the_client_goes_on_sending(server, wire):
    with wire.connect(server, wire.handshake(path="/nowhere") + wire.frame(wire.TEXT, QUESTION)) as client:
        for _ in range(20):
            client.sendall(wire.frame(wire.TEXT, b" " * 2000))
            time.sleep(0.005)
        assert wire.everything(client).startswith(b"HTTP/1.1 404 ")


def test_a_goodbye_is_read_although_the_client_goes_on_sending(server, wire):
    with wire.connect(server, wire.handshake() + wire.frame(wire.BYTES, b"x")) as client:
        for _ in range(20):
            client.sendall(wire.frame(wire.TEXT, b" " * 2000))
            time.sleep(0.005)
        assert wire.everything(client).endswith(struct.pack("!H", 1003))


@pytest.mark.parametrize(
    "origin", ["http://[", "http://elsewhere.example", "null", "http://127.0.0.1.elsewhere.example"]
)
def test_pages_of_others_are_refused_however_they_are_called(server, wire, origin):
    with wire.connect(server) as client:
        client.sendall(wire.handshake(f"Origin: {origin}"))
        assert wire.everything(client).startswith(b"HTTP/1.1 403 ")
    assert httpx.get(server.url + "/v1/live/status", headers={"Origin": origin}).status_code == 403


def test_a_query_of_too_many_fields_is_refused(server):
    assert httpx.get(server.url + "/v1/live/search?" + "a=b&" * 80).status_code == 400


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (lambda wire: wire.frame(wire.BYTES, b"\0"), 1003),
        (lambda wire: wire.frame(wire.TEXT, b"\xff"), 1007),
        (lambda wire: wire.frame(wire.TEXT, b"a", masked=False), 1002),
        (lambda wire: wire.frame(3), 1002),
        (lambda wire: wire.frame(wire.TEXT, b"a", first=0xC0), 1002),
        (lambda wire: wire.frame(wire.PING, b"", first=0), 1002),
        (lambda wire: wire.frame(0, b"a"), 1002),
        (lambda wire: wire.frame(wire.TEXT, b" " * 20_000), 1009),
        (lambda wire: wire.frame(wire.TEXT, b" " * 9000, first=0) + wire.frame(0, b" " * 9000, first=0), 1009),
        (lambda wire: wire.frame(wire.CLOSE, b"\x03"), 1002),
    ],
)
def test_frames_that_are_none_end_the_stream_with_their_code(server, wire, sent, code):
    assert after(wire, server, sent(wire))[2:4] == struct.pack("!H", code)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_whatever_comes_as_frames_is_survived(server, wire, sent):
    after(wire, server, *sent, wire.frame(wire.CLOSE, struct.pack("!H", 1000)))


def test_a_client_that_says_nothing_is_asked_once_and_let_go(server, wire):
    started = time.monotonic()
    assert after(wire, server) == wire.frame(wire.PING, masked=False)
    assert time.monotonic() - started >= 2.0


def test_a_client_that_answers_pings_may_stay(server, wire):
    with wire.connect(server) as client:
        client.sendall(wire.handshake())
        while not client.recv(4096).endswith(wire.frame(wire.PING, masked=False)):
            pass
        for _ in range(3):
            client.sendall(wire.frame(wire.PONG))
            assert client.recv(4096) == wire.frame(wire.PING, masked=False)


def test_a_client_that_asked_a_lot_and_fell_silent_is_let_go(server, wire):
    assert after(wire, server, wire.frame(wire.TEXT, QUESTION) * 200)


def test_pings_whose_answers_are_not_read_are_not_hoarded(server, wire):
    before = memory.read().resident_bytes
    with wire.connect(server) as client:
        client.sendall(wire.handshake())
        with pytest.raises(OSError):
            while True:
                client.sendall(wire.frame(wire.PING, b"x" * 120) * 100)
    assert memory.read().resident_bytes - before < 10_000_000


def test_readers_that_vanish_give_their_places_back(server, wire):
    for path in ("/v1/live/status", "/v1/live/search?query=cat"):
        for _ in range(20):
            with wire.connect(server) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            with wire.connect(server) as client:
                client.sendall(wire.handshake(path=path))


def test_sockets_give_back_what_a_key_may_have_under_way(wire, native_bundle, tmp_path):
    native_bundle(tmp_path / "tiny.bundle")
    secret = keys.new(tmp_path / "keys", "phone", in_flight=2)
    with tightrope.serve(tmp_path / "tiny.bundle", threads=1, key_file=tmp_path / "keys") as server:
        for _ in range(5):
            with wire.connect(server) as client:
                client.sendall(wire.handshake(f"Authorization: Bearer {secret}") + wire.frame(wire.CLOSE))
                assert wire.everything(client).startswith(b"HTTP/1.1 101 ")
