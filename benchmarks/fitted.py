"""The README's table of before and after, made of a stored run of `make fit`.

python -m benchmarks.fitted            # write it between its markers
python -m benchmarks.fitted --check    # fail if README says anything else
"""

import sys
from pathlib import Path

from benchmarks.documents import README, RESULTS, command, read_stored, update
from tightrope import units
from tightrope.errors import DataError
from tightrope.measurement import Interval, Measurement
from tightrope.workshop.search.trial import Run

STORED = RESULTS / "fit.json"
BEGIN, END = "<!-- fit:begin -->", "<!-- fit:end -->"


def block(run: Run) -> str:
    """What belongs between the markers, with them. Raises `DataError` for a run that chose nothing."""
    if run.chosen is None or run.report is None or run.report_parity is None:
        raise DataError("The stored run chose nothing.", hint="Store one that did: make fit.")
    before, after = run.baseline.measurement, run.trial(run.chosen).measurement
    assert before is not None and after is not None
    return "\n".join([BEGIN, *_table(run, before, after), "", _conditions(run, after), END])


def _table(run: Run, before: Measurement, after: Measurement) -> list[str]:
    rows = [f"| {run.model} | original | fitted | |", "|---|---:|---:|---:|"]
    rows.append(_row("size on disk", before.size_bytes, after.size_bytes, "bytes"))
    rows.append(_row("peak memory", before.memory_peak_bytes, after.memory_peak_bytes, "bytes"))
    for latency in after.latencies:
        original = before.latency(latency.tokens)
        cells = (
            "–" if original is None else units.show(original.p50_s, "seconds"),
            units.show(latency.p50_s, "seconds"),
        )
        rows.append(f"| {latency.tokens} tokens, p50 | {cells[0]} | {cells[1]} | {_faster(latency.speedup)} |")
    rows.append(_row("cold start", before.cold_start_s, after.cold_start_s, "seconds"))
    quality, parity = run.report, run.report_parity
    assert quality is not None and parity is not None
    loss = quality.loss
    low, high = units.show(loss.low, "fraction"), units.show(loss.high, "fraction")
    rows.append(f"| loss on unseen samples | | {units.show(loss.value, 'fraction')} | [{low}, {high}] |")
    rows.append(f"| cosine with the original | | {parity.cosine_mean:.4f} mean | {parity.cosine_min:.4f} least |")
    return rows


def _row(name: str, before: float | None, after: float | None, dimension: str) -> str:
    if before is None or after is None:
        return f"| {name} | not measured | not measured | |"
    return f"| {name} | {units.show(before, dimension)} | {units.show(after, dimension)} | {before / after:.1f}x less |"


def _faster(ratio: Interval | None) -> str:
    return "" if ratio is None else f"{ratio.value:.2f}x faster [{ratio.low:.2f}, {ratio.high:.2f}]"


def _conditions(run: Run, after: Measurement) -> str:
    about, timed = after.conditions, sum(trial.state == "timed" for trial in run.trials)
    texts = run.report.n if run.report else 0
    return " ".join(
        (
            f"`{run.chosen}`, chosen of {len(run.trials)} recipes ({timed} timed in full) in {run.seconds:.0f} s, the",
            f"first feasible one after {run.first_feasible_s or 0:.0f} s. {about.processor}, {about.threads} pinned",
            f"thread; the original runs on {about.baseline}, the fastest engine for it here, in turns with the fitted",
            f"one; n = {after.latencies[0].n} calls a length. Loss: 1 − rank agreement of all pairwise similarities,",
            f"{texts} texts.",
        )
    )


def write(readme: Path = README, stored: Path = STORED, *, check: bool = False) -> bool:
    """Whether the README said the same already. It is written unless only a check was asked for."""
    run = Run.from_json(read_stored(stored, "make fit, then copy its run there."))
    return update(readme, block(run), check=check)


def main() -> int:
    """Write, or check."""
    return command("README's table of before and after", write)


if __name__ == "__main__":
    sys.exit(main())
