"""What the page's charts draw, as plain numbers: the page's script chooses colours and places, and computes nothing."""

import math
from typing import Any

from tightrope import units
from tightrope.measurement import Interval, length
from tightrope.workshop.report import figures
from tightrope.workshop.search.trial import Run, Trial


def chart_data(run: Run) -> dict[str, Any]:
    """Axes, points, latencies and sensitivities; what was not measured is left out."""
    points = [_point(run, trial) for trial in (*figures.ordered(run), run.baseline)]
    seen = {name for point in points for name in point["values"]}
    return {
        "axes": [axis for axis in _axes(run) if axis["name"] in seen],
        "points": points,
        "latency": _latencies(run),
        "sensitivity": [{"layer": figures.printable(name), "loss": value} for name, value in worst_layers(run)],
    }


def worst_layers(run: Run) -> list[tuple[str, float]]:
    """Layers by how much the answers suffer from each alone, worst first."""
    finite = ((name, value) for name, value in run.sensitivity.items() if math.isfinite(value))
    return sorted(finite, key=lambda item: (-item[1], item[0]))


def _axes(run: Run) -> list[dict[str, str]]:
    lengths = sorted({latency.tokens for trial in (*run.trials, run.baseline) for latency in _all(trial)})
    return [
        {"name": "loss", "label": "quality loss", "dimension": "fraction"},
        *({"name": f"latency{n}", "label": f"latency p50, {length(n)}", "dimension": "seconds"} for n in lengths),
        *({"name": f"speedup{n}", "label": f"speedup, {length(n)}", "dimension": "ratio"} for n in lengths),
        {"name": "memory", "label": "peak memory", "dimension": "bytes"},
        {"name": "size", "label": "size on disk", "dimension": "bytes"},
        {"name": "throughput", "label": "throughput, mixed lengths", "dimension": "rate"},
        {"name": "cold_start", "label": "cold start", "dimension": "seconds"},
        {"name": "cosine_min", "label": "worst cosine", "dimension": "plain"},
    ]


def _all(trial: Trial) -> Any:
    return trial.measurement.latencies if trial.measurement else ()


def _point(run: Run, trial: Trial) -> dict[str, Any]:
    values: dict[str, float | None] = {"size": trial.size_bytes}
    intervals: dict[str, Interval] = {}
    if trial.quality:
        values["loss"] = trial.quality.loss.value
        intervals["loss"] = trial.quality.loss
    if trial.parity:
        values["cosine_min"] = trial.parity.cosine_min
    if trial.measurement:
        values["memory"] = trial.measurement.memory_peak_bytes
        values["throughput"] = trial.measurement.throughput_per_s
        values["cold_start"] = trial.measurement.cold_start_s
    for latency in _all(trial):
        values[f"latency{latency.tokens}"] = latency.p50_s
        if latency.speedup:
            values[f"speedup{latency.tokens}"] = latency.speedup.value
            intervals[f"speedup{latency.tokens}"] = latency.speedup
    known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    return {
        "recipe": figures.printable(trial.recipe),
        "kind": _kind(run, trial),
        "state": trial.state,
        "reason": figures.printable(figures.reason(trial)),
        "values": known,
        "intervals": {name: [item.low, item.high] for name, item in intervals.items() if name in known},
        "shown": {name: _shown(name, value) for name, value in known.items()},
    }


def _kind(run: Run, trial: Trial) -> str:
    if trial is run.baseline:
        return "original"
    if trial.recipe == (run.chosen or run.nearest):
        return "chosen" if run.chosen else "nearest"
    return "frontier" if trial.recipe in run.frontier else trial.state


def _shown(name: str, value: float) -> str:
    dimensions = {"loss": "fraction", "memory": "bytes", "size": "bytes", "throughput": "rate", "cold_start": "seconds"}
    if name == "cosine_min":
        return f"{value:.4f}"
    kind = "seconds" if name.startswith("latency") else "ratio" if name.startswith("speedup") else dimensions[name]
    return units.show(value, kind)


def _latencies(run: Run) -> list[dict[str, Any]]:
    trial = figures.subject(run)
    named = [("original", run.baseline), ("chosen" if run.chosen else "nearest", trial)]
    return [
        {
            "name": name,
            "tokens": latency.tokens,
            "p50": latency.p50_s,
            "p95": latency.p95_s,
            "p99": latency.p99_s,
            "quantiles": list(latency.quantiles_s) if all(map(math.isfinite, latency.quantiles_s)) else [],
        }
        for name, item in named
        if item is not None
        for latency in _all(item)
        if all(map(math.isfinite, (latency.p50_s, latency.p95_s, latency.p99_s)))
    ]
