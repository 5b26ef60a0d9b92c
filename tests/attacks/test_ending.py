"""A server that is told to end: it begins nothing, finishes what was begun, and does not wait when told twice."""

import json
import signal
import socket
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.engine
BODY = json.dumps({"input": "the cat sat"}).encode()
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def process(native_bundle, tmp_path):
    """`tightrope serve`, which would let requests finish for a minute, and where it listens."""
    native_bundle(tmp_path / "tiny.bundle")
    line = [sys.executable, "-m", "tightrope", "serve", tmp_path / "tiny.bundle", "--port", "0", "--state", tmp_path]
    line += ["--limit", "drain_s=60", "--limit", "body_s=60"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            host, port = running.stdout.readline().split()[0].removeprefix("http://").split(":")
            yield running, (host, int(port))
        finally:
            running.kill()


def begun(wire, where):
    """A request of which all but the last byte was sent, and which the server has begun to read."""
    client = wire.connect(where, wire.post(BODY)[:-1])
    assert wire.status(wire.ask(where, LIVE)) == 200  # by now it has read what came before
    return client


def draining(wire, where):
    """Wait until the server has heard; then who comes is refused and told to close."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        answer = wire.ask(where, LIVE)
        if answer.startswith(b"HTTP/1.1 503 "):
            head = answer.partition(b"\r\n\r\n")[0].lower()
            assert b"\r\nconnection: close" in head and b"\r\nretry-after: " in head
            return
        time.sleep(0.05)
    raise AssertionError("it goes on")


def test_who_comes_while_it_ends_is_refused_and_who_was_there_is_answered(process, wire):
    running, where = process
    with begun(wire, where) as client, wire.connect(where) as idle:
        running.send_signal(signal.SIGTERM)
        draining(wire, where)
        assert idle.recv(100) == b"", "a connection that asks nothing is closed, not reset"
        client.sendall(BODY[-1:])
        answer = wire.everything(client)
    assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer.lower()
    assert running.wait(timeout=30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_twice_it_does_not_wait(process, wire, number):
    running, where = process
    with begun(wire, where) as client:
        running.send_signal(number)
        draining(wire, where)
        assert running.poll() is None, "it waits for the request"
        running.send_signal(number)
        assert running.wait(timeout=20) == 0
        assert client.recv(100) == b"", "an answer that was never begun is not made up"
    assert "Traceback" not in running.stderr.read()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, timeout=5)
