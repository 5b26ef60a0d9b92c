"""More requests than can be answered, and clients that leave or do not read, against an engine that takes its time."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tightrope.device.meter import memory
from tightrope.device.serve.limits import Limits

pytestmark = pytest.mark.engine
LIMITS = Limits(
    batch_tokens=8, queue_requests=12, queue_s=0.5, cache_bytes=0, write_s=0.5, drain_s=3, connections_per_address=512
)
"""One text a call or two, and a queue that a burst overfills."""


def texts(count, seed=0):
    return [f"the cat sat {seed} {number}" for number in range(count)]


def body(*given):
    return json.dumps({"input": list(given), "model": "tiny"}).encode()


def posted(server, data, seconds=30, **headers):
    """Status, headers and body of one request."""
    named = {"Content-Type": "application/json"} | headers
    request = urllib.request.Request(server.url + "/v1/embeddings", data, named)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_a_burst_is_refused_with_a_time_to_come_back_and_who_was_admitted_is_answered(slowed):
    """Ten times what the engine can do, over HTTP (R16)."""
    with slowed(0.02, LIMITS) as server:
        seen, seconds = Counter(), []

        def client(number):
            for turn in range(4):
                started = time.monotonic()
                status, headers, found = posted(server, body(f"the cat {number} {turn}"))
                seconds.append(time.monotonic() - started)
                seen[status] += 1
                if status == 200:
                    assert len(json.loads(found)["data"][0]["embedding"]) == 32
                    continue
                assert status in (429, 503) and 0 < float(headers["Retry-After"]) <= 60
                error = json.loads(found)["error"]
                assert error["message"] and error["code"]

        with ThreadPoolExecutor(64) as clients:
            list(clients.map(client, range(64)))
        assert sum(seen.values()) == 256 and seen[200] > 20 and seen[429] + seen[503] > 20, seen
        assert max(seconds) < 10
        status, _, _ = posted(server, body("the cat"))
        assert status == 200, "it recovers"


def test_a_deadline_that_is_past_costs_no_inference(slowed):
    """What has expired is told and never computed (R17)."""
    with slowed(0.05, LIMITS) as server, ThreadPoolExecutor(4) as clients:
        posted(server, body("the cat"))
        before = server.slow.calls
        for value in ("0", "0.001"):
            assert posted(server, body("seven dogs"), **{"X-Request-Deadline-Ms": value})[0] == 504
        assert server.slow.calls == before
        running = [clients.submit(posted, server, body(*texts(6, seed))) for seed in range(3)]
        time.sleep(0.05)
        started = time.monotonic()
        assert posted(server, body("nine mats"), **{"X-Request-Deadline-Ms": "5"})[0] in (503, 504)
        assert time.monotonic() - started < 2
        assert all(item.result()[0] in (200, 503) for item in running)


@pytest.mark.parametrize("stage", ["connected", "in the headers", "in the body", "queued", "computed", "answered"])
def test_a_client_that_leaves_at_any_stage_leaves_nothing_behind(slowed, wire, stage):
    """Its work is dropped and its place is free (R13)."""
    raw = wire.post(body(*texts(30)))
    head = raw.index(b"\r\n\r\n")
    sent = {"connected": b"", "in the headers": raw[: head - 5], "in the body": raw[: head + 50]}.get(stage, raw)
    with slowed(0.1, LIMITS) as server:
        metrics = server.app.state.metrics
        if stage == "queued":
            blocker = wire.connect(server, wire.post(body(*texts(40, 1))))
            wire.until(lambda: server.slow.calls)
        with wire.connect(server, sent) as client:
            if stage in ("queued", "computed"):
                wire.until(lambda: server.app.state.service.queue_depth())
            if stage == "answered":
                server.slow.call_s = 0.0
                assert client.recv(1).startswith(b"H")
            before = server.slow.calls
        if stage == "queued":
            blocker.close()
        wire.until(lambda: server.app.state.service.queue_depth() == 0, 5)
        wire.until(lambda: metrics.connections.value() == 0, 5)
        assert stage == "answered" or server.slow.calls - before <= 3, "what nobody waits for is not computed"
        server.slow.call_s = 0.0
        assert posted(server, body("the cat"))[0] == 200


def test_one_client_that_leaves_takes_nobody_with_it(slowed, wire):
    """A cut request shares its batches with others, which are answered (R15)."""
    with slowed(0.05, LIMITS) as server, ThreadPoolExecutor(4) as clients:
        with wire.connect(server, wire.post(body(*texts(8)))):
            wire.until(lambda: server.slow.calls)
            others = [clients.submit(posted, server, body(f"the mat {number}")) for number in range(4)]
            time.sleep(0.06)
        assert [item.result()[0] for item in others] == [200] * 4


def test_a_reader_that_takes_nothing_of_a_large_answer_is_let_go(slowed, wire):
    """An ordinary answer of megabytes, which nobody reads: others are answered, and in the end it is cut (R14)."""
    limits = Limits(write_s=0.5, cache_bytes=0, drain_s=3)
    raw = wire.post(body(*(["the cat"] * 2000)))
    with slowed(0.0, limits) as server:
        whole = len(wire.ask(server, raw))
        assert whole > 1_000_000
        before = memory.read().resident_bytes
        slow = [wire.connect(server, raw, room=2048) for _ in range(6)]
        try:
            assert posted(server, body("the cat"))[0] == 200
            wire.until(lambda: server.app.state.metrics.connections.value() == 0)  # by then all were cut
            assert all(len(wire.everything(client)) < whole for client in slow)
        finally:
            for client in slow:
                client.close()
        assert memory.read().resident_bytes - before < 30_000_000


def test_a_reader_that_is_slow_but_reads_is_served_to_the_end(slowed, wire):
    limits = Limits(write_s=0.5, cache_bytes=0, drain_s=3)
    with (
        slowed(0.0, limits) as server,
        wire.connect(server, wire.post(body(*(["the cat"] * 400))), room=4096) as client,
    ):
        parts, stop = [], threading.Event()
        while part := client.recv(8192):
            parts.append(part)
            stop.wait(0.01)
        head, _, found = b"".join(parts).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and len(json.loads(found)["data"]) == 400


def test_a_client_that_only_half_closes_is_answered(slowed, wire):
    """The end of what a client sends is not the end of what it reads."""
    with slowed(0.02, LIMITS) as server, wire.connect(server, wire.post(body("the cat"))) as client:
        client.shutdown(socket.SHUT_WR)
        found = wire.everything(client)
        assert found == b"" or wire.status(found) == 200
        assert posted(server, body("the cat"))[0] == 200
