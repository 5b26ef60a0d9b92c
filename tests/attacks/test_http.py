"""Clients that are slow, greedy, ambiguous or broken, over raw sockets to a real server."""

import gzip
import json
import threading
import time
from contextlib import suppress

import pytest

import tightrope
from tightrope.device.meter import memory
from tightrope.device.serve.http.body import check_shape
from tightrope.device.serve.http.failures import Failure
from tightrope.device.serve.limits import Limits

pytestmark = pytest.mark.engine
LIMITS = Limits(
    header_s=0.4,
    body_s=0.4,
    body_bytes_per_s=1e6,
    idle_s=0.6,
    write_s=0.6,
    body_bytes=100_000,
    connections=20,
    drain_s=3,
)


@pytest.fixture(scope="module")
def server(native_bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("attacked") / "tiny.bundle"
    native_bundle(path)
    with tightrope.serve(path, limits=LIMITS, threads=1) as running:
        yield running


def alive(server, wire):
    """Whether it still answers rightly."""
    answer = wire.ask(server, wire.post(b'{"input": "the cat", "model": "tiny"}'))
    assert wire.status(answer) == 200
    return len(json.loads(answer.partition(b"\r\n\r\n")[2])["data"][0]["embedding"]) == 32


@pytest.fixture(autouse=True)
def survives(server, wire):
    yield
    assert alive(server, wire)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nonsense", b'{"input": "a"', b'{"input": "a"}}', b"\xef\xbb\xbf{}", b'{"input": "\xff"}', b"\0",
        b'{"input": NaN}', b'{"input": Infinity}', b'{"input": [1e400]}', b'{"input": [' + b"9" * 400 + b"]}",
        b"[" * 20_000, b'{"a":' * 9_000, b'{"input": "a", "input": "b"}',
        b'{"input": "\\ud800"}', b'{"input": "\\u0000"}',
        b'{"input": 5}', b'{"input": null}', b'{"input": {}}', b'{"input": []}', b'{"input": [[]]}',
        b'{"input": [1.5]}',
        b'{"input": [-1]}', b'{"input": [99999999]}', b'{"input": "a", "dimensions": 0}',
        b'{"input": "a", "dimensions": 33}',
        b'{"input": "a", "encoding_format": "xml"}', b'{"input": "a", "surprise": 1}', b"[]", b'"text"', b"{}",
    ],
)  # fmt: skip
def test_what_is_no_request_is_the_clients_fault(server, wire, body):
    answer = wire.ask(server, wire.post(body))
    assert 400 <= wire.status(answer) < 500
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["message"] and error["type"] == "invalid_request_error"


@pytest.mark.parametrize("piece", [b'\\"', b'"\\', b'"', b"[],", b'"",', b'\\u0022":'])
def test_what_is_read_of_a_body_is_read_once(piece):
    """Time grows with the length and not with its square: a few kilobytes of quotes must not hold up everybody."""

    def seconds(length):
        data = b'["' + piece * (length // len(piece))
        started = time.process_time()
        with suppress(Failure):
            check_shape(data, 32)
        return time.process_time() - started

    assert seconds(32_000) < 30 * max(seconds(4_000), 0.002)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(server, wire):
    with wire.connect(server) as client:
        client.sendall(wire.post(b"", length=40_000_000))
        assert wire.status(wire.everything(client)) == 413


def test_a_body_without_end_is_refused_when_it_is_too_large(server, wire):
    before = memory.read().resident_bytes
    with wire.connect(server) as client:
        client.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(1000):
                client.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert wire.status(wire.everything(client) or b"HTTP/1.1 413") == 413
    assert memory.read().resident_bytes - before < 5_000_000


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, b'{"a":' * 200_000, b'{"input": ["a", [' * 50_000], ids=["lists", "objects", "both"]
)
def test_what_is_nested_deeply_costs_neither_stack_nor_memory(native_bundle, tmp_path, wire, body):
    native_bundle(tmp_path / "tiny.bundle")
    with tightrope.serve(tmp_path / "tiny.bundle", threads=1) as server:
        alive(server, wire)
        before = memory.read().resident_bytes
        for _ in range(5):
            assert wire.status(wire.ask(server, wire.post(body))) == 400
        assert memory.read().resident_bytes - before < 12_000_000
        assert alive(server, wire)


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "deflate, gzip"])
def test_compressed_bodies_are_not_unpacked(server, wire, coding):
    """A bomb (40 MB of nothing in 40 kB) is as small as it came."""
    bomb = gzip.compress(b" " * 40_000_000)
    assert wire.status(wire.ask(server, wire.post(bomb, f"Content-Encoding: {coding}"))) == 415
    assert wire.status(wire.ask(server, wire.post(b"\x1f\x8b" + b"x" * 50, f"Content-Encoding: {coding}"))) == 415


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: elsewhere\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://elsewhere/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\0c\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(server, wire, raw):
    assert wire.status(wire.ask(server, raw)) in (400, 501)


def test_headers_are_bounded(server, wire):
    many = "".join(f"X-{number}: y\r\n" for number in range(200))
    for extra in ("X: " + "y" * 30_000 + "\r\n", many):
        answer = wire.ask(server, f"GET / HTTP/1.1\r\nHost: localhost\r\n{extra}Connection: close\r\n\r\n".encode())
        assert wire.status(answer) in (400, 431)


def test_who_never_speaks_is_let_go(server, wire):
    with wire.connect(server) as client:
        started = time.monotonic()
        assert wire.everything(client) == b""
        assert time.monotonic() - started < 20 * LIMITS.idle_s


def test_slow_headers_and_slow_bodies_end(server, wire):
    for first in (b"GET / HTTP/1.1\r\nHo", wire.post(b"{", length=50)):
        with wire.connect(server) as client:
            client.sendall(first)
            assert wire.status(wire.everything(client)) == 408


def test_a_body_that_drips_ends_although_it_moves(server, wire):
    with wire.connect(server) as client:
        client.sendall(wire.post(b"", length=90_000))
        stop = threading.Event()

        def drip():
            while not stop.wait(0.05):
                try:
                    client.sendall(b" ")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert wire.status(wire.everything(client)) == 408
        finally:
            stop.set()
            dripping.join()


def test_connections_are_bounded_and_come_back(server, wire):
    clients = [wire.connect(server) for _ in range(LIMITS.connections + 5)]
    time.sleep(0.2)
    refused = sum(
        b" 503 " in (client.recv(64) if number >= LIMITS.connections else b"") for number, client in enumerate(clients)
    )
    for client in clients:
        client.close()
    assert refused == 5
    for _ in range(50):
        time.sleep(0.1)
        if server.app.state.metrics.connections.value() <= 1:
            break


def test_requests_in_one_breath_are_answered_in_turn(server, wire):
    body = b'{"input": "cat", "model": "tiny"}'
    raw = wire.post(body, close=False) + wire.post(body)
    answer = wire.ask(server, raw)
    assert answer.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    "name", ["../x", "%2e%2e%2fetc", "a%00b", "CON", "x" * 4000, "NUL.bundle", "..%5c..", "tiny@../1"]
)
def test_names_touch_no_file(server, wire, name):
    body = json.dumps({"input": "cat", "model": name}).encode()
    assert wire.status(wire.ask(server, wire.post(body))) in (400, 404, 422)
    answer = wire.ask(
        server, f"GET /v2/models/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")
    )
    assert wire.status(answer) in (400, 404)


@pytest.mark.parametrize("value", ["-1", "soon", "1e9", "nan", ""])
def test_a_deadline_is_a_number(server, wire, value):
    assert wire.status(wire.ask(server, wire.post(b'{"input": "cat"}', f"X-Request-Deadline-Ms: {value}"))) == 400
