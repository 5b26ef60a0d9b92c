"""Our server by itself: how it starts, what it costs around the session, and what memory it keeps under load."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

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
def served(bundle: Path, work: Path, *options: str, core: int | None = None) -> Iterator[Server]:
    """Our server in a process of its own, on the server's core unless told otherwise."""
    port = free_port()
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "tightrope", "serve", str(bundle), "--port", str(port), "--state", state]
        log = work / "logs" / "serve_alone.log"
        with Server(
            [*command, *options], port=port, ready="/health/ready", log=log, core=cores()[0] if core is None else core
        ) as server:
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
    """A server whose only model was unloaded: what the network, the service and its libraries cost."""
    with served(bundle, work, "--memory", MEMORY, "--admin", str(work / "empty.sock")) as server:
        loaded = server.resident()
        [model] = json.loads(server.get("/v1/models"))["data"]
        words = [sys.executable, "-m", "tightrope", "model", "unload", model["id"], "--admin", str(work / "empty.sock")]
        subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        return {"loaded_bytes": loaded, "resident_bytes": server.resident(), "peak_bytes": server.peak()}


def share_of_session(bundle: Path, work: Path, texts: Sequence[str], *, seconds: float, rounds: int) -> dict[str, Any]:
    """Texts a second over HTTP from many clients, beside the bare session, both on one core, in turns."""
    found: list[tuple[float, float]] = []
    for _ in range(rounds):
        alone = _bare(bundle, texts, seconds)
        with served(bundle, work, "--memory", MEMORY, "--threads", "1", "--limit", "cache_bytes=0") as server:
            plan = load.Plan(
                port=server.port,
                path="/v1/embeddings",
                bodies=_bodies(texts),
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


# Soak -------------------------------------------------------------------------------------------------------


def soak(
    bundle: Path, work: Path, texts: Sequence[str], *, minutes: float, step_s: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Requests of every kind, good and bad, for so long; memory is looked at between them."""
    samples: list[tuple[float, int]] = []
    statuses: dict[str, int] = {}
    with served(bundle, work, "--memory", MEMORY) as server:
        start = time.monotonic()
        for path, bodies, clients in cycle(_mixture(texts)):
            plan = load.Plan(
                port=server.port, path=path, bodies=bodies, clients=clients, seconds=step_s, core=cores()[1]
            )
            for status in load.run(plan).statuses:
                statuses[str(status)] = statuses.get(str(status), 0) + 1
            samples.append((time.monotonic() - start, server.resident()))
            if len(samples) % 20 == 0:
                say(f"{samples[-1][0] / 60:.0f} min: {samples[-1][1] / 1e6:.1f} MB")
            if samples[-1][0] > 60 * minutes:
                break
        peak = server.peak()
    return {
        "minutes": minutes,
        "statuses": statuses,
        "peak_bytes": peak,
        "slope_bytes_per_hour": _slope(samples[len(samples) // 2 :]),
        "samples": samples[:: max(1, len(samples) // 100)],
    }


def _mixture(texts: Sequence[str]) -> list[tuple[str, tuple[str, ...], int]]:
    """Paths, bodies and how many clients ask: one text and many, short and long, what is right and what is not."""
    many = tuple(json.dumps({"input": list(texts[at : at + 16])}) for at in range(0, len(texts) - 16, 16))
    long = tuple(json.dumps({"input": " ".join(texts[at : at + 40])}) for at in range(0, len(texts) - 40, 40))
    wrong = ("{", "[]", '{"input": 1}', '{"input": NaN}', '{"input": ["\\ud800"]}', "[" * 5000, '{"input": []}')
    return [
        ("/v1/embeddings", _bodies(texts), 1),
        ("/v1/embeddings", _bodies(texts), CLIENTS),
        ("/v1/embeddings", many, 8),
        ("/embed", tuple(json.dumps({"inputs": text}) for text in texts), 16),
        ("/v1/embeddings", long or many, 4),
        ("/v1/embeddings", wrong, 8),
        ("/nowhere", wrong, 4),
    ]


def _slope(samples: Sequence[tuple[float, int]]) -> float:
    """Bytes an hour, by least squares."""
    if len(samples) < 3:
        return 0.0
    seconds, used = np.array(samples, float).T
    return float(np.polyfit(seconds / 3600, used, 1)[0])


def _bodies(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(peers.OPENAI % json.dumps(text) for text in texts)
