"""Results: what a run saw, as the JSON that the README's table is made of."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.peers.candidates import MODEL, REFERENCE
from benchmarks.peers.expected import INSTRUCTIONS
from benchmarks.peers.limit import macs
from benchmarks.peers.ratios import interval, shortfalls, speed_ratio
from benchmarks.peers.rounds import CORPUS, QUANTITIES, Record, Run

FORMAT = 1


def results(run: Run, core: int | None) -> dict[str, Any]:
    """Everything worth keeping: conditions, each candidate, what makes the run count, and the rounds themselves."""
    done = {name: record for name, record in run.records.items() if record.failure is None}
    return {
        "format": FORMAT,
        "conditions": _conditions(run, core),
        "reference": REFERENCE,
        "limit": {
            "instructions": run.instructions,
            "macs_per_s": {name: interval(values).value for name, values in run.limit_per_s.items() if values},
        },
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
        "corpus_rounds": plan.corpus_rounds,
        "cold_starts": plan.cold_starts,
    }


def _candidate(run: Run, record: Record, done: Mapping[str, Record]) -> dict[str, Any]:
    beside = done.get(REFERENCE)
    cold = record.cold
    return {
        "label": record.candidate.label,
        "ours": record.candidate.ours,
        "versions": record.about["versions"],
        "file_bytes": record.about["file_bytes"],
        "batching": {"chosen": record.batching, "tried_cpu_s": record.tried},
        "quantities": {name: _quantity(run, record, beside, name) for name in QUANTITIES if record.cpu_s[name]},
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


def _quantity(run: Run, record: Record, beside: Record | None, name: str) -> dict[str, Any]:
    """One length, or the corpus: its seconds, its share of the limit, and how it stands beside the reference."""
    work = macs(run.corpus.lengths if name == CORPUS else [int(name)])
    seconds, calls = record.cpu_s[name], record.calls_cpu_s[name]
    shares = [work / rate / spent for rate, spent in zip(run.limit_per_s[name], seconds, strict=True)]
    ratio = speed_ratio(beside.cpu_s[name], seconds) if beside else None
    return {
        "p50_s": median(calls),
        "p95_s": quantiles(calls, n=20, method="inclusive")[-1] if len(calls) > 1 else calls[0],
        "wall_p50_s": median(record.calls_wall_s[name]),
        "n": len(calls),
        "limit_share": asdict(interval(shares)),
        "speed_ratio": asdict(ratio) if ratio else None,
        "rounds_s": seconds,
    }


def _validity(run: Run, done: Mapping[str, Record]) -> dict[str, Any]:
    """Whether the run counts: every candidate answered, and no peer fell short. `None` where nothing is expected."""
    failures = [record.failure.message for record in run.records.values() if record.failure]
    judged = run.instructions == INSTRUCTIONS
    quantities = [name for name in QUANTITIES if run.limit_per_s[name]]
    rounds = {name: record.cpu_s for name, record in done.items()}
    found = shortfalls(rounds, quantities) if judged else []
    reasons = failures + [str(item) for item in found]
    return {"valid": False if reasons else (True if judged else None), "reasons": reasons}
