"""Results: what a run saw, as the JSON that the README's table is made of."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.peers.candidates import LEAN, MODEL, REFERENCES
from benchmarks.peers.limit import macs
from benchmarks.peers.ratios import FEWEST_PEERS, interval, shares, shortfalls, speed_ratio, yardstick
from benchmarks.peers.rounds import CORPUS, QUANTITIES, Record, Run

FORMAT = 2


def results(run: Run, core: int | None) -> dict[str, Any]:
    """Everything worth keeping: conditions, each candidate, what makes the run count, and the rounds themselves."""
    done = {name: record for name, record in run.records.items() if record.failure is None}
    return {
        "format": FORMAT,
        "conditions": _conditions(run, core),
        "references": [name for name in REFERENCES if name in done],
        "limit": {"instructions": run.instructions, "macs_per_s": _limit(run)},
        "validity": _validity(run, done),
        "candidates": {name: _candidate(run, record, done) for name, record in done.items()},
    }


def processor() -> str:
    """The processor's name as it reports itself."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _conditions(run: Run, core: int | None) -> dict[str, Any]:
    plan = run.plan
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "model": MODEL,
        "processor": processor(),
        "instructions": run.instructions,
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "pinned": core is not None,
        "priority": all(record.about["priority"] for record in run.records.values() if record.about),
        "seconds": "processor time",
        "python": platform.python_version(),
        "texts": len(run.corpus.texts),
        "tokens": sum(run.corpus.lengths),
        "rounds": plan.rounds,
        "block_s": plan.seconds,
        "corpus_rounds": plan.corpus_rounds,
        "cold_starts": plan.cold_starts,
    }


def _candidate(run: Run, record: Record, done: Mapping[str, Record]) -> dict[str, Any]:
    cold = record.cold
    return {
        "label": record.candidate.label,
        "ours": record.candidate.ours,
        "versions": record.about["versions"],
        "file_bytes": record.about["file_bytes"],
        "batching": {"chosen": record.batching, "tried_cpu_s": record.tried},
        "quantities": {name: _quantity(run, record, done, name) for name in QUANTITIES if record.rounds.cpu_s[name]},
        "memory": {
            "one_text_bytes": int(median(item["peak_bytes"] for item in cold)),
            "corpus_bytes": record.corpus_peak_bytes,
        },
        "cold_start": {
            "wall_s": median(item["wall_s"] for item in cold),
            "cpu_s": median(item["cpu_s"] for item in cold),
            "n": len(cold),
        },
        "cosine": record.cosine,
    }


def _quantity(run: Run, record: Record, done: Mapping[str, Record], name: str) -> dict[str, Any]:
    """One length, or the corpus: its seconds, its shares of the limits, and how it stands beside the references."""
    seen = record.rounds
    seconds, calls, engine = seen.cpu_s[name], seen.calls_cpu_s[name], seen.engine_cpu_s[name]
    beside = {peer: done[peer].rounds.cpu_s[name] for peer in (*REFERENCES, LEAN) if peer in done}
    return {
        "p50_s": median(calls),
        "p95_s": quantiles(calls, n=20, method="inclusive")[-1] if len(calls) > 1 else calls[0],
        "wall_p50_s": median(seen.calls_wall_s[name]),
        "engine_p50_s": median(engine) if engine else None,
        "n": len(calls),
        "limit_share": _limit_shares(run, name, seconds),
        "engine_limit_share": _limit_shares(run, name, engine) if engine else None,
        "speed_ratio": {peer: asdict(speed_ratio(other, seconds)) for peer, other in beside.items()},
        "rounds_s": seconds,
        "alone_s": record.alone.cpu_s[name],
    }


def _limit(run: Run) -> dict[str, dict[str, float]]:
    """Multiply-adds a second by instructions and quantity: the median over the rounds."""
    return {
        instructions: {
            name: median(item[instructions] for item in seen) for name, seen in run.limit_per_s.items() if seen
        }
        for instructions in sorted({key for seen in run.limit_per_s.values() for item in seen for key in item})
    }


def _limit_shares(run: Run, name: str, seconds: Sequence[float]) -> dict[str, Any]:
    """What was reached of each limit, round by round."""
    work = macs(run.corpus.lengths if name == CORPUS else [int(name)])
    return {
        instructions: asdict(
            interval(
                [
                    work / limits[instructions] / spent
                    for limits, spent in zip(run.limit_per_s[name], seconds, strict=True)
                ]
            )
        )
        for instructions in run.limit_per_s[name][0]
    }


def _validity(run: Run, done: Mapping[str, Record]) -> dict[str, Any]:
    """Whether the run counts: every candidate answered, and no peer fell short of the yardstick.

    `None` if there were too few peers to say. `shares` are what each peer reached of the yardstick.
    """
    failures = [record.failure.message for record in run.records.values() if record.failure]
    peers = {name: record for name, record in done.items() if not record.candidate.ours}
    rounds = {name: record.rounds.cpu_s for name, record in peers.items()}
    quantities = [name for name in QUANTITIES if run.limit_per_s[name]]
    expected = yardstick(run.instructions, {name: record.alone.cpu_s for name, record in peers.items()})
    judged = len(peers) >= FEWEST_PEERS
    found = shortfalls(rounds, quantities, expected) if judged else []
    reasons = failures + [str(item) for item in found]
    return {
        "valid": False if reasons else (True if judged else None),
        "yardstick": expected.name if judged else None,
        "shares": shares(rounds, quantities, expected) if judged else {},
        "reasons": reasons,
    }
