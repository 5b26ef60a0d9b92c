"""What a report says, in words and figures, before it is a table or a page.

Nothing here measures or decides: every figure is read from the `Run`, and what was not measured says so.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tightrope import units
from tightrope.budget import DEFAULT_TOKENS, Budget
from tightrope.errors import BudgetError
from tightrope.measurement import Conditions, Interval, Latency, Measurement, Quality, length
from tightrope.workshop.search.trial import Run, Trial

UNMEASURED = "not measured"
UNTOLD = 0.005
"""A ratio this close to 1 is no difference worth telling."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of before and after. `change` is empty, and `better` unknown, where the two cannot be told apart."""

    name: str
    original: str
    candidate: str
    change: str = ""
    better: bool | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A limit of the budget, what was measured, and whether it is kept (`None`: cannot be told)."""

    limit: str
    measured: str
    kept: bool | None


def printable(text: str) -> str:
    """The text with everything that could steer a terminal, turn its direction or not be encoded written out.

    >>> printable("mini\\x1b[2Jlm")
    'mini\\\\x1b[2Jlm'
    """
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)


def show(value: float | None, dimension: str) -> str:
    """A value as people read it, or that it was not measured."""
    return UNMEASURED if value is None else units.show(value, dimension)


def show_interval(interval: Interval | None, dimension: str) -> str:
    """An estimate and its 95 % interval.

    >>> show_interval(Interval(value=2.31, low=2.25, high=2.37, n=200), "ratio")
    '2.31x [2.25, 2.37]'
    """
    if interval is None:
        return UNMEASURED
    value, low, high = (units.show(number, dimension) for number in (interval.value, interval.low, interval.high))
    unit = {"fraction": " %", "ratio": "x"}.get(dimension, "")
    return f"{value} [{low.removesuffix(unit)}, {high.removesuffix(unit)}]"


def subject(run: Run) -> Trial | None:
    """The trial that the report is about: the chosen one, else the nearest."""
    name = run.chosen or run.nearest
    return None if name is None else run.trial(name)


def succeeded(run: Run) -> bool:
    """Whether a bundle was chosen and nothing speaks against it."""
    return run.chosen is not None and not run.breaches


def quality(run: Run) -> Quality | None:
    """The quality to quote: on samples that the search did not see; without them, on those it saw."""
    trial = subject(run)
    return run.report or (trial.quality if trial else None)


def middle(measurement: Measurement | None) -> Latency | None:
    """The latency that stands for all: at the budget's usual length, else the middle one of those measured."""
    if measurement is None or not measurement.latencies:
        return None
    return measurement.latency(DEFAULT_TOKENS) or measurement.latencies[len(measurement.latencies) // 2]


def speedup(trial: Trial | None) -> Interval | None:
    """The interleaved speed-up at the length that stands for all."""
    latency = middle(trial.measurement if trial else None)
    return latency.speedup if latency else None


def headline(run: Run) -> str:
    """The answer in one sentence."""
    trial = subject(run)
    if trial is None:
        return "No candidate came far enough to be compared with the budget."
    gains = ", ".join(_gains(run, trial)) or "not compared with the original"
    if succeeded(run):
        return f"{gains[0].upper()}{gains[1:]}."
    lead = "Nothing fits the budget" if run.chosen is None else "Not a success"
    return f"{lead}. The {'nearest' if run.chosen is None else 'best'} candidate: {gains}."


def _gains(run: Run, trial: Trial) -> Iterable[str]:
    size, original = trial.size_bytes, run.baseline.size_bytes
    if size and original:
        yield _times(original / size, "smaller", "larger")
    if faster := speedup(trial):
        yield _times(faster.value, "faster", "slower")
    if found := quality(run):
        yield f"loses {show_interval(found.loss, 'fraction')}"


def _times(ratio: float, better: str, worse: str) -> str:
    """How many times better or worse; within half a percent it is neither.

    >>> _times(3.94, "smaller", "larger"), _times(0.5, "faster", "slower")
    ('3.9x smaller', '2.0x slower')
    """
    if abs(ratio - 1) < UNTOLD or not ratio > 0:
        return f"no {better}"
    shown = max(ratio, 1 / ratio)
    return f"{shown:.{1 if shown >= 1.1 else 2}f}x {better if ratio > 1 else worse}"


def before_and_after(run: Run) -> tuple[Row, ...]:
    """Every cost of the original beside that of the chosen (or nearest) candidate."""
    trial = subject(run)
    old, new = run.baseline.measurement, trial.measurement if trial else None
    rows = [_row("size", run.baseline.size_bytes, trial.size_bytes if trial else None, "bytes")]
    rows += [
        _row(name, _get(old, field), _get(new, field), "bytes")
        for name, field in (
            ("memory, peak", "memory_peak_bytes"),
            ("memory, steady", "memory_steady_bytes"),
            ("memory, above Python", "memory_above_interpreter_bytes"),
        )
    ]
    rows += [_latency_row(tokens, old, new) for tokens in _lengths(old, new)]
    rows.append(_row("throughput, mixed", _get(old, "throughput_per_s"), _get(new, "throughput_per_s"), "rate"))
    rows.append(_row("cold start", _get(old, "cold_start_s"), _get(new, "cold_start_s"), "seconds"))
    rows.append(_row("energy, one text", _get(old, "energy_j"), _get(new, "energy_j"), "joules"))
    if (found := quality(run)) is not None:
        loss = f"loss {show_interval(found.loss, 'fraction')}"
        rows.append(Row(f"quality, {found.metric}", f"{found.original:.4f}", f"{found.score:.4f}", loss))
    return tuple(rows)


def _row(name: str, old: float | None, new: float | None, dimension: str) -> Row:
    change, gain = "", None
    if old and new:
        rate = dimension == "rate"
        better, worse = (
            ("more", "less") if rate else ("shorter", "longer") if dimension == "seconds" else ("less", "more")
        )
        if name == "size":
            better, worse = "smaller", "larger"
        ratio = new / old if rate else old / new
        change = _times(ratio, better, worse)
        gain = None if abs(ratio - 1) < UNTOLD else ratio > 1
    return Row(name, show(old, dimension), show(new, dimension), change, gain)


def _latency_row(tokens: int, old: Measurement | None, new: Measurement | None) -> Row:
    before, after = (item.latency(tokens) if item else None for item in (old, new))
    name = f"latency p50, {length(tokens)}"
    if after and after.speedup:
        change = f"{show_interval(after.speedup, 'ratio')} speed"
        gain = True if after.speedup.low > 1 else False if after.speedup.high < 1 else None
        return Row(name, show(before.p50_s if before else None, "seconds"), show(after.p50_s, "seconds"), change, gain)
    return _row(name, before.p50_s if before else None, after.p50_s if after else None, "seconds")


def _lengths(*measurements: Measurement | None) -> tuple[int, ...]:
    return tuple(sorted({latency.tokens for item in measurements if item for latency in item.latencies}))


def _get(measurement: Measurement | None, field: str) -> float | None:
    return None if measurement is None else getattr(measurement, field)


def conditions(found: Conditions) -> str:
    """Where and how it was measured, in one line."""
    threads = (
        f"{found.threads} thread{'s' if found.threads != 1 else ''}{', pinned' if found.pinned else ', not pinned'}"
    )
    isa = f" ({' '.join(found.isa)})" if found.isa else ""
    against = f"; speed-up against {found.baseline}" if found.baseline else ""
    return (
        f"{found.target}: {found.processor}, {found.architecture}{isa}; "
        f"{found.engine} {found.engine_version}; {threads}{against}"
    )


def limits(run: Run) -> tuple[Kept, ...]:
    """Each limit of the budget beside what the candidate measured; loss is that of the quality to quote."""
    trial = subject(run)
    found = quality(run)
    try:
        parsed = Budget.parse(", ".join(run.budget)).limits
    except BudgetError:  # words of another version: they are shown, not judged
        return tuple(Kept(text, UNMEASURED, None) for text in run.budget)
    kept = []
    for limit in parsed:
        value = limit.metric.read(trial.measurement if trial else None, found.loss if found else None)
        if value is None and limit.metric.name == "size" and trial and trial.size_bytes is not None:
            value = float(trial.size_bytes)
        upper = ", upper end" if limit.metric.name == "loss" and value is not None else ""
        kept.append(Kept(str(limit), show(value, limit.metric.dimension) + upper, limit.met_by(value)))
    return tuple(kept)


def counted(reasons: Iterable[str]) -> tuple[tuple[int, str], ...]:
    """Reasons that differ only in their numbers, as one line each with the numbers' range, most frequent first.

    >>> counted(["size is 45.2 MB; the limit is 30 MB", "size is 61 MB; the limit is 30 MB", "it crashed"])
    ((2, 'size is 45.2…61 MB; the limit is 30 MB'), (1, 'it crashed'))
    """
    groups: dict[str, list[list[str]]] = {}
    for reason in reasons:
        groups.setdefault(_NUMBER.sub("\0", reason), []).append(_NUMBER.findall(reason))
    lines = [(len(found), _with_ranges(shape, found)) for shape, found in groups.items()]
    return tuple(sorted(lines, key=lambda line: -line[0]))


def _with_ranges(shape: str, found: list[list[str]]) -> str:
    parts = shape.split("\0")
    text = parts[0]
    for column, part in zip(zip(*found, strict=True), parts[1:], strict=True):
        low, high = min(column, key=float), max(column, key=float)
        text += (low if float(low) == float(high) else f"{low}…{high}") + part
    return text


def reason(trial: Trial) -> str:
    """Why a trial is not an answer: its reason, else the limits it misses; empty if nothing speaks against it."""
    return trial.reason or "; ".join(trial.breaches)


def ordered(run: Run) -> tuple[Trial, ...]:
    """Every trial, most useful first: chosen, frontier, timed, judged, rejected, failed; within those the faster."""
    states = {"timed": 2, "judged": 3, "rejected": 4, "failed": 5}

    def rank(trial: Trial) -> tuple[int, float, str]:
        place = 0 if trial.recipe == run.chosen else 1 if trial.recipe in run.frontier else states[trial.state]
        ratio = speedup(trial)
        return place, -ratio.value if ratio else 0.0, trial.recipe

    return tuple(sorted(run.trials, key=rank))
