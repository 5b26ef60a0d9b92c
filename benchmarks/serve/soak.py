"""Hours of everything: what is right and what is not, search, clients that leave, new versions. Memory is watched.

Until two thirds of the time are over the server has the one model that it began with, and its peak until then is that
of one model. From then on versions are deployed, which stand beside the old one until they take its place.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.documents import ROOT
from benchmarks.serve import load
from benchmarks.serve.alone import CLIENTS, MEMORY, admin, bodies_of, served
from benchmarks.serve.peers import OPENAI
from benchmarks.serve.process import Server, cores
from tightrope import bundle

DEPLOYS = 6
LEAVERS = 4

Step = Callable[[Server, float], Counter[str]]


def soak(
    place: Path, work: Path, texts: Sequence[str], *, minutes: float, step_s: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """So many minutes of it, with the bundle at a place."""
    samples: list[tuple[float, int]] = []
    statuses: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        index, owner, deployed, alone = _index(place, Path(folder), texts), Path(folder) / "admin.sock", 0, 0
        with served(place, work, "--memory", MEMORY, "--index", str(index), "--admin", str(owner)) as server:
            start = time.monotonic()
            for step in cycle(_mixture(texts)):
                statuses += step(server, step_s)
                passed = (time.monotonic() - start) / (60 * minutes)
                samples.append((60 * minutes * passed, server.resident()))
                if len(samples) % 20 == 0:
                    say(f"{minutes * passed:.1f} min: {samples[-1][1] / 1e6:.1f} MB")
                if passed < 2 / 3:
                    alone = server.peak()
                elif passed >= 1:
                    break
                elif passed > 2 / 3 + deployed / (3 * DEPLOYS):
                    deployed += 1
                    admin(owner, "deploy", "minilm", str(_another(place, Path(folder), deployed)))
            peak = server.peak()
    return {
        "minutes": minutes,
        "statuses": dict(statuses),
        "deployed": deployed,
        "peak_bytes": alone,
        "peak_deploying_bytes": peak,
        "slope_bytes_per_hour": _slope([item for item in samples if 20 * minutes < item[0] < 40 * minutes]),
        "samples": samples[:: max(1, len(samples) // 100)],
    }


# What happens -----------------------------------------------------------------------------------------------


def _mixture(texts: Sequence[str]) -> list[Step]:
    """One text and many, short and long, search, what is right and what is not, and clients that leave."""
    groups = [texts[at : at + 16] for at in range(0, len(texts) - 16, 16)]
    many = tuple(OPENAI % ", ".join(map(json.dumps, group)) for group in groups)
    long = tuple(OPENAI % json.dumps(" ".join(texts[at : at + 40])) for at in range(0, len(texts) - 40, 40))
    wrong = ("{", "[]", '{"input": 1}', '{"input": NaN}', '{"input": ["\\ud800"]}', "[" * 5000, '{"input": []}')
    return [
        _asked("/v1/embeddings", bodies_of(texts), 1),
        _asked("/v1/embeddings", bodies_of(texts), CLIENTS),
        _asked("/v1/embeddings", many, 8),
        _asked("/embed", tuple(json.dumps({"inputs": text}) for text in texts), 16),
        _asked("/v1/search", tuple(json.dumps({"query": text}) for text in texts), 8),
        _asked("/v1/embeddings", long or many, 4),
        _left(OPENAI % ", ".join(map(json.dumps, texts[:40]))),
        _asked("/v1/embeddings", wrong, 8),
        _asked("/nowhere", wrong, 4),
    ]


def _asked(path: str, bodies: tuple[str, ...], clients: int) -> Step:
    """So many clients ask at one place, each again as soon as it is answered."""

    def step(server: Server, seconds: float) -> Counter[str]:
        plan = load.Plan(port=server.port, path=path, bodies=bodies, clients=clients, seconds=seconds, core=cores()[1])
        return Counter(map(str, load.run(plan).statuses))

    return step


def _left(body: str) -> Step:
    """Clients ask for much and leave in the midst of it: with their request half sent, or with its answer half made."""
    data = load.request("/v1/embeddings", body)

    def step(server: Server, seconds: float) -> Counter[str]:
        until, left = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            leaving = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(LEAVERS)]
            for number, client in enumerate(leaving):
                client.sendall(data[: len(data) // 2] if number % 2 else data)
            time.sleep(0.1)
            for client in leaving:
                client.close()
            left += len(leaving)
        return Counter(left=left)

    return step


# What is needed for it --------------------------------------------------------------------------------------


def _index(place: Path, folder: Path, texts: Sequence[str]) -> Path:
    """An index of the texts, made by the command line."""
    (folder / "texts").mkdir()
    (folder / "texts" / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = ["index", "build", str(folder / "texts"), "--model", str(place), "--out", str(folder / "texts.index")]
    subprocess.run([sys.executable, "-m", "tightrope", *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return folder / "texts.index"


def _another(place: Path, folder: Path, number: int) -> Path:
    """The same model as another version: its lineage says something else, and so does its digest."""
    source = bundle.read(place, verify=False)
    content = replace(source.content, lineage={**source.content.lineage, "again": number})
    with bundle.Writer(folder / f"another-{number}.bundle") as writer:
        for item in source.content.files:
            writer.add(source.path / item.path, Path(item.path).suffix.removeprefix("."))
        return writer.seal(content).path


def _slope(samples: Sequence[tuple[float, int]]) -> float:
    """Bytes an hour, by least squares."""
    if len(samples) < 3:
        return 0.0
    seconds, used = np.array(samples, float).T
    return float(np.polyfit(seconds / 3600, used, 1)[0])
