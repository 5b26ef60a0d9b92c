"""The frontier: the timed trials that no other beats on every count, and which of them to choose."""

from collections.abc import Iterable, Sequence

from tightrope.budget import Budget
from tightrope.workshop.search.trial import Trial, usual

EQUALLY_FAST = 1.05
"""Latencies within this factor count as equal: a shared machine cannot tell them apart."""


def costs(trial: Trial) -> tuple[float, float, float, float] | None:
    """Loss, latency at the first length, memory and size of a timed trial; less is better. `None` if not timed."""
    if trial.state != "timed" or trial.measurement is None or trial.quality is None:
        return None
    memory = trial.measurement.memory_peak_bytes or 0
    return (trial.quality.loss.value, latency(trial), float(memory), float(trial.measurement.size_bytes))


def latency(trial: Trial) -> float:
    """The p50 latency of the usual length, relative to the original's where both were interleaved."""
    assert trial.measurement is not None
    found = usual(trial.measurement)
    return 1 / found.speedup.value if found.speedup else found.p50_s


def frontier(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The Pareto frontier over loss, latency, memory and size, fastest first."""
    timed = [(trial, cost) for trial in trials if (cost := costs(trial)) is not None]
    kept = [trial for trial, cost in timed if not any(_dominates(other, cost) for _, other in timed)]
    return tuple(sorted(kept, key=latency))


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def ranked(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """Feasible timed trials, best first: the fastest; among those as good as equally fast, the smallest."""
    feasible = [trial for trial in trials if trial.state == "timed" and not trial.breaches]
    order: list[Trial] = []
    while feasible:
        fastest = min(map(latency, feasible))
        equal = [trial for trial in feasible if latency(trial) <= fastest * EQUALLY_FAST]
        best = min(equal, key=lambda trial: (trial.size_bytes or 0, latency(trial)))
        order.append(best)
        feasible.remove(best)
    return tuple(order)


def nearest(trials: Iterable[Trial], budget: Budget) -> Trial | None:
    """The trial that misses the budget by least: the smallest worst excess over any limit it was measured on."""
    judged = [trial for trial in trials if trial.quality is not None]
    return min(judged, key=lambda trial: worst_excess(trial, budget), default=None)


def worst_excess(trial: Trial, budget: Budget) -> tuple[int, float]:
    """How many limits nobody could measure (timed trials come first), then the largest ratio over a limit."""
    loss = trial.quality.loss if trial.quality else None
    readings = [(limit, limit.metric.read(trial.measurement, loss)) for limit in budget.limits]
    missing = sum(value is None for _, value in readings)
    return missing, max((limit.excess(value) for limit, value in readings if value is not None), default=1.0)
