"""Our server by itself: how it starts, what it takes without a model, and its share of the session under load."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.documents import ROOT
from benchmarks.serve import load, peers
from benchmarks.serve.process import Server, cores, free_port, pinned

MEMORY = "100MB"
CLIENTS = 64
BARE = """
import json, sys, time
import tightrope
model, texts = tightrope.open(sys.argv[1]), json.load(open(sys.argv[2]))
model.embed(texts)
start, done = time.perf_counter(), 0
while time.perf_counter() - start < float(sys.argv[3]):
    model.embed(texts)
    done += len(texts)
print(done / (time.perf_counter() - start))
"""
"""Texts a second of the session alone, many at a time, as one call takes them."""


@contextmanager
def served(bundle: Path, work: Path, *options: str, ready: str = "/health/ready") -> Iterator[Server]:
    """Our server in a process of its own, on the server's core."""
    port = free_port()
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "tightrope", "serve", str(bundle), "--port", str(port), "--state", state]
        log = work / "logs" / "serve_alone.log"
        with Server([*command, *options], port=port, ready=ready, log=log, core=cores()[0]) as server:
            yield server


def starts(bundle: Path, work: Path, count: int) -> dict[str, Any]:
    """From exec to the first answer of `/health/ready`, and what is resident then."""
    times, idle = [], []
    for _ in range(count):
        with served(bundle, work, "--memory", MEMORY) as server:
            times.append(server.ready_s)
            idle.append(server.resident())
    return {"n": count, "ready_s": median(times), "ready_most_s": max(times), "resident_bytes": median(idle)}


def empty(bundle: Path, work: Path) -> dict[str, Any]:
    """A server that never had a model, and one whose only model was unloaded: network, service and their libraries."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), work, ready="/health/live") as server:
        never = server.resident()
    socket = work / "empty.sock"
    with served(bundle, work, "--memory", MEMORY, "--admin", str(socket)) as server:
        loaded = server.resident()
        [model] = json.loads(server.get("/v1/models"))["data"]
        admin(socket, "unload", model["id"])
        return {
            "never_loaded_bytes": never,
            "loaded_bytes": loaded,
            "resident_bytes": server.resident(),
            "peak_bytes": server.peak(),
        }


def admin(socket: Path, *words: str) -> None:
    """`tightrope model …`, at the socket of a server's owner."""
    line = [sys.executable, "-m", "tightrope", "model", *words, "--admin", str(socket)]
    subprocess.run(line, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def share_of_session(bundle: Path, work: Path, texts: Sequence[str], *, seconds: float, rounds: int) -> dict[str, Any]:
    """Texts a second over HTTP from many clients, beside the bare session, both on one core, in turns."""
    found: list[tuple[float, float]] = []
    for _ in range(rounds):
        alone = _bare(bundle, texts, seconds)
        with served(bundle, work, "--memory", MEMORY, "--threads", "1", "--limit", "cache_bytes=0") as server:
            plan = load.Plan(
                port=server.port,
                path="/v1/embeddings",
                bodies=bodies_of(texts),
                clients=CLIENTS,
                seconds=seconds,
                core=cores()[1],
            )
            load.run(plan)
            found.append((alone, load.run(plan).per_s))
    shares = [over / alone for alone, over in found]
    return {
        "clients": CLIENTS,
        "rounds": rounds,
        "seconds": seconds,
        "texts": len(texts),
        "bare_per_s": median(alone for alone, _ in found),
        "served_per_s": median(over for _, over in found),
        "share": median(shares),
        "shares": shares,
    }


def _bare(bundle: Path, texts: Sequence[str], seconds: float) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(list(texts), file)
        file.flush()
        done = subprocess.run(
            [sys.executable, "-c", BARE, str(bundle), file.name, str(seconds)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            preexec_fn=lambda: pinned(cores()[0]),
        )
    return float(done.stdout)


def bodies_of(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(peers.OPENAI % json.dumps(text) for text in texts)
