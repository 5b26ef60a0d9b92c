"""Thousands of connections at once: the server lives, keeps to its memory, and answers who was there or comes later.

They come from processes of their own, which hold on to them; how many follows from what this machine lets them open.
"""

import re
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tightrope.device.meter import memory
from tightrope.device.serve.http.guard import SPARE
from tightrope.device.serve.limits import Limits

pytestmark = pytest.mark.engine
PROCESSES = 4
MOST = 10_000
CROWD = """
import resource, socket, sys, time

place, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = [socket.socket() for _ in range(count)]
for number, client in enumerate(held):
    client.setblocking(False)
    client.connect_ex(place)
    if number % 100 == 99:
        time.sleep(0.02)
time.sleep(2)
refused = 0
for client in held:
    try:
        client.getpeername()
        client.recv(64)
        refused += 1  # words, or an end
    except BlockingIOError:
        pass  # admitted, or in a queue of the system
    except OSError:
        refused += 1
print(refused, flush=True)
sys.stdin.read()
"""


def connections():
    """How many one process of the crowd opens."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (MOST if hard == resource.RLIM_INFINITY else min(MOST, PROCESSES * (hard - 100))) // PROCESSES


@pytest.fixture(params=[None, 700], ids=["", "of few descriptors"])
def process(request, native_bundle, tmp_path):
    """`tightrope serve`, which may have as many descriptors as it asks for or fewer, and where it listens."""
    native_bundle(tmp_path / "tiny.bundle")
    line = [sys.executable, "-m", "tightrope", "serve", str(tmp_path / "tiny.bundle"), "--port", "0"]
    line += ["--state", str(tmp_path), "--limit", "idle_s=60"]
    if request.param:
        line = ["sh", "-c", f'ulimit -n {request.param} && exec "$@"', "sh", *line]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running, running.stdout.readline().split()[0]
        finally:
            running.kill()


def crowd(stack, place):
    """All come, and then hold on; how many were refused."""
    line = [sys.executable, "-c", CROWD, place[0], str(place[1]), str(connections())]
    clients = [
        stack.enter_context(subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for _ in range(PROCESSES)
    ]
    refused = sum(int(client.stdout.readline()) for client in clients)
    stack.callback(lambda: [client.stdin.close() for client in clients])
    return refused


def test_ten_thousand_connections(process, wire):
    running, url = process
    proc = Path(f"/proc/{running.pid}")
    raw = wire.post(b'{"input": "the cat", "model": "tiny"}', close=False)
    with ExitStack() as stack, wire.connect(url) as early:

        def early_one_is_answered():
            early.sendall(raw)
            answer = early.recv(65536)
            return wire.status(answer) == 200

        assert early_one_is_answered()
        before = memory.read(proc).resident_bytes
        assert crowd(stack, wire.place(url)) > connections()
        assert running.poll() is None and early_one_is_answered()
        started = time.monotonic()
        answer = wire.ask(url, wire.post(b'{"input": "the cat", "model": "tiny"}'), source="127.0.0.2")
        assert wire.status(answer) == 200, "from another address one may come"
        assert time.monotonic() - started < 15
        shown = wire.ask(url, wire.get("/metrics"), source="127.0.0.2").decode()
        held = float(re.search(r"^tightrope_connections (\S+)$", shown, re.MULTILINE)[1])
        assert Limits().connections_per_address <= held <= Limits().connections_per_address + SPARE + 2
        assert memory.read(proc).resident_bytes - before < 30_000_000
    wire.until(lambda: b" 200 " in wire.ask(url, wire.get("/health/ready"))[:20])
    running.terminate()
    assert running.wait(timeout=60) == 0
    assert "Traceback" not in running.stderr.read()
