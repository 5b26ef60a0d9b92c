"""Beside the peers: each server in turn on the same core, asked by the same load from another one, in rounds."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.environments import versions
from benchmarks.peers.prepare import original
from benchmarks.serve import load, peers
from benchmarks.serve.peers import Contestant
from benchmarks.serve.process import Server, cores, free_port

CLIENTS = (1, 16)
LIBRARIES = ("sentence-transformers", "torch", "flask", "fastapi", "litserve", "infinity-emb", "uvicorn", "waitress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all are measured with."""

    work: Path
    bundle: Path
    texts: Sequence[str]
    seconds: float
    rounds: int


def measure(setting: Setting, names: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """All of them, `rounds` times, so that what the machine does meanwhile falls on each."""
    chosen = [item for item in peers.contestants() if item.name in names]
    peers.build(setting.work, [item.name for item in chosen])
    rounds: dict[str, list[dict[str, Any]]] = {item.name: [] for item in chosen}
    for number in range(setting.rounds):
        for item in chosen:
            say(f"round {number + 1}: {item.label}")
            rounds[item.name].append(_one(setting, item))
    return {
        "clients": list(CLIENTS),
        "seconds": setting.seconds,
        "rounds": setting.rounds,
        "servers": {item.name: _summary(setting, item, rounds[item.name]) for item in chosen},
    }


def _one(setting: Setting, item: Contestant) -> dict[str, Any]:
    """Start it, let it warm, ask it with one client and with many, and look at its memory."""
    server_core, client_core = cores()
    port = free_port()
    with Server(
        _command(setting, item, port),
        port=port,
        ready=item.ready,
        log=setting.work / "logs" / f"serve_{item.name}.log",
        core=server_core,
        environ=item.environ,
    ) as server:
        bodies = tuple(item.body % json.dumps(text) for text in setting.texts)

        def ask(clients: int, seconds: float) -> load.Answers:
            plan = load.Plan(
                port=port, path=item.path, bodies=bodies, clients=clients, seconds=seconds, core=client_core
            )
            return load.run(plan)

        idle = server.memory()
        ask(1, min(2.0, setting.seconds))
        found = {str(clients): load.figures(ask(clients, setting.seconds)) for clients in CLIENTS}
        return {"ready_s": server.ready_s, "idle_bytes": idle, "peak_bytes": server.peak(), "load": found}


def _command(setting: Setting, item: Contestant, port: int) -> list[str]:
    filled = {"{port}": str(port), "{model}": str(original(setting.work.resolve())), "{bundle}": str(setting.bundle)}
    return [str(peers.python(setting.work, item)), *(filled.get(word, word) for word in item.command)]


def _summary(setting: Setting, item: Contestant, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and the rounds themselves."""
    known = {} if item.environment is None else versions(setting.work.resolve(), item.environment)
    return {
        "label": item.label,
        "versions": {name: known[name] for name in LIBRARIES if name in known},
        "ready_s": median(one["ready_s"] for one in rounds),
        "idle_bytes": median(one["idle_bytes"] for one in rounds),
        "peak_bytes": max(one["peak_bytes"] for one in rounds),
        "load": {
            str(clients): {
                name: median(one["load"][str(clients)][name] for one in rounds) for name in ("per_s", "p50_s", "p99_s")
            }
            for clients in CLIENTS
        },
        "rounds": rounds,
    }
