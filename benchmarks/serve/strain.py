"""What HTTP itself costs, and how the server bears too much and those who leave: against an engine of a known time.

An engine that sleeps leaves the processor to the server, so that ten times its capacity can be asked for here.
"""

import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.serve import load, peers
from benchmarks.serve.alone import MEMORY
from benchmarks.serve.process import Server, cores, free_port
from tightrope.device.model import open_bundle

TEXT = "the quick brown fox jumps over the lazy dog"
PATH = "/v1/embeddings"
QUICK_S, CALL_S = 0.002, 0.05
BATCH_TOKENS = 64
QUEUE_S = 1.6 * CALL_S
"""So long the queue may be: who is admitted waits for one batch, is in the next, and so takes at most twice as long."""
CUTS = 40


@contextmanager
def slow(bundle: Path, work: Path, seconds: float, *options: str) -> Iterator[tuple[Server, Path]]:
    """A server whose batches take so long, and the file where it says in the end when they were computed.

    It lives and is not ready: such an engine does not answer as the bundle records.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        calls = Path(folder) / "calls.json"
        words = [
            sys.executable,
            "-m",
            "benchmarks.serve.slow",
            str(seconds),
            str(calls),
            "serve",
            str(bundle),
            "--port",
            str(port),
        ]
        words += ["--state", folder, "--memory", MEMORY, "--threads", "1", "--limit", "cache_bytes=0", *options]
        log = work / "logs" / "serve_slow.log"
        with Server(words, port=port, ready="/health/live", log=log, core=cores()[0]) as server:
            yield server, calls


def outside(bundle: Path, work: Path, count: int) -> dict[str, Any]:
    """Time of a request outside the session, asked one after the other: what the client waits, less the session's time.

    The client's own way through the loopback is in it.
    """
    asked: list[tuple[float, float]] = []
    data = load.request(PATH, peers.OPENAI % json.dumps(TEXT))
    with slow(bundle, work, QUICK_S) as (server, calls):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            for _ in range(count + 100):
                began = time.perf_counter()
                client.sendall(data)
                _whole(client)
                asked.append((began, time.perf_counter()))
        server.stop()
        computed = [tuple(call) for call in json.loads(calls.read_text())]
    times = sorted(_outside(asked[100:], computed))
    return {"n": len(times), "p50_s": load.share(times, 0.5), "p99_s": load.share(times, 0.99)}


def _outside(asked: Sequence[tuple[float, float]], computed: Sequence[tuple[float, ...]]) -> Iterator[float]:
    """For each question the time that its batch leaves; questions with another batch beside it are left out."""
    at = 0
    for began, ended in asked:
        while at < len(computed) and computed[at][1] < began:
            at += 1
        inside = [call for call in computed[at : at + 3] if call[0] < ended]
        if len(inside) == 1 and inside[0][0] > began and inside[0][1] < ended:
            yield ended - began - (inside[0][1] - inside[0][0])


def burst(bundle: Path, work: Path, seconds: float) -> dict[str, Any]:
    """Eight tenths of what the engine can do, then ten times of it: how long the admitted and the refused wait."""
    with open_bundle(bundle) as model:
        texts = BATCH_TOKENS // len(model.encode([TEXT]).ids.values)
    capacity = texts / CALL_S
    bodies = (peers.OPENAI % json.dumps(TEXT),)
    limits = ["--limit", f"queue_s={QUEUE_S}", "--limit", f"batch_tokens={BATCH_TOKENS}"]
    with slow(bundle, work, CALL_S, *limits) as (server, _):

        def ask(rate: float) -> dict[str, Any]:
            plan = load.Plan(
                port=server.port, path=PATH, bodies=bodies, clients=1, seconds=seconds, rate=rate, core=cores()[1]
            )
            found = load.run(plan)
            refused = found.times(good=False)
            told = [t for t, status in zip(found.retry_after, found.statuses, strict=True) if status != 200]
            return load.figures(found) | {"refused_p99_s": load.share(refused, 0.99), "all_told": all(told)}

        ask(0.8 * capacity)
        return {
            "capacity_per_s": capacity,
            "queue_s": QUEUE_S,
            "usual": ask(0.8 * capacity),
            "burst": ask(10 * capacity),
            "after": ask(0.8 * capacity),
        }


def cuts(bundle: Path, work: Path) -> dict[str, Any]:
    """From the disconnect of a client with a large request under way until the next one's batch begins."""
    large = load.request(PATH, peers.OPENAI % ", ".join([json.dumps("word " * 60)] * 200))
    small = load.request(PATH, peers.OPENAI % json.dumps(TEXT))
    times = []
    with slow(bundle, work, CALL_S, "--limit", f"batch_tokens={BATCH_TOKENS}") as (server, _):
        for number in range(CUTS):
            leaving = socket.create_connection(("127.0.0.1", server.port))
            leaving.sendall(large)
            time.sleep(0.15 + CALL_S * number / CUTS)
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                leaving.close()
                began = time.perf_counter()
                client.sendall(small)
                assert _whole(client).startswith(b"HTTP/1.1 200")
                times.append(time.perf_counter() - began - CALL_S)
    times.sort()
    return {"n": len(times), "p50_s": load.share(times, 0.5), "most_s": times[-1]}


def _whole(client: socket.socket) -> bytes:
    """One answer whose length is told."""
    found = b""
    while True:
        found += client.recv(65_536)
        head, end, body = found.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return found
