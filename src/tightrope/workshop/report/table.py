"""The run on a terminal: before and after, the candidates worth a look, and the others counted by reason.

Without a terminal the same lines come out plain, 80 to 120 columns wide.
"""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tightrope import units
from tightrope.workshop.report import figures
from tightrope.workshop.search.trial import Run, Trial

SHOWN = 16
"""More candidates than this are for the page and the JSON file."""

WIDTH = 11
"""Of a column of figures."""


def console(width: int | None = None) -> Console:
    """A console on standard output, at most 120 columns wide, and never below 80 where there is no terminal."""
    found = Console(width=width, highlight=False, markup=False, emoji=False)
    if width is None:
        found.width = min(found.width, 120) if found.is_terminal else max(80, min(found.width, 120))
    return found


def print_run(run: Run, out: Console | None = None) -> None:
    """Print the whole answer."""
    out = out or console()
    style = "bold green" if figures.succeeded(run) else "bold yellow"
    _line(out, f"{run.model}: ", figures.headline(run), style=style)
    if run.interrupted:
        _line(out, "The search was interrupted: this is the best so far.")
    if (trial := figures.subject(run)) is not None:
        _line(out, f"  {trial.recipe}")
    for breach in run.breaches:
        _line(out, f"  ! {breach}", style="yellow")
    out.print(_before_and_after(run))
    _print_conditions(run, out)
    _print_candidates(run, out)
    _print_reasons(run, out)
    _print_rest(run, out)


def _line(out: Console, *parts: str, style: str = "") -> None:
    """Print words from anywhere: no mark-up is read from them, and nothing in them steers the terminal."""
    text = Text()
    for position, part in enumerate(parts):
        text.append(figures.printable(part), style=style if position == len(parts) - 1 else "")
    out.print(text, soft_wrap=not out.is_terminal)


def _before_and_after(run: Run) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("")
    table.add_column("original", justify="right")
    table.add_column("chosen" if run.chosen else "nearest", justify="right")
    table.add_column("")
    for row in figures.before_and_after(run):
        table.add_row(row.name, row.original, row.candidate, row.change)
    return table


def _print_conditions(run: Run, out: Console) -> None:
    trial = figures.subject(run)
    measurement = (trial.measurement if trial else None) or run.baseline.measurement
    if measurement is not None:
        _line(out, f"  {figures.conditions(measurement.conditions)}", style="dim")
    if (quality := figures.quality(run)) is not None:
        seen = "" if run.report else " (the search saw them)"
        cut = (
            f"; {quality.truncated} texts were longer than the model's limit, and were cut" if quality.truncated else ""
        )
        _line(out, f"  quality: {quality.kind}, {quality.samples}{seen}, n = {quality.n}{cut}", style="dim")
    out.print()


def _print_candidates(run: Run, out: Console) -> None:
    """A line of figures for each, and its recipe on the next: recipes are long, and figures are to be compared."""
    names = ("loss", "latency", "speedup", "memory", "size")
    _line(out, "")
    _line(out, "  " + "".join(f"{name:>{WIDTH}}" for name in names), style="bold")
    for trial in [*[*_worth_a_look(run)][:SHOWN], run.baseline]:
        style = "bold green" if trial.recipe == run.chosen else ""
        _line(out, f"{_mark(run, trial):<2}" + "".join(f"{cell:>{WIDTH}}" for cell in _cells(trial)), style=style)
        _line(out, f"      {trial.recipe}", style="dim")
    _line(out, "* chosen   + on the frontier   ! misses a limit")


def _worth_a_look(run: Run) -> Iterable[Trial]:
    return (trial for trial in figures.ordered(run) if trial.state == "timed")


def _mark(run: Run, trial: Trial) -> str:
    if trial.recipe == run.chosen:
        return "*"
    return "!" if trial.breaches else "+" if trial.recipe in run.frontier else ""


def _cells(trial: Trial) -> tuple[str, ...]:
    latency, faster = figures.middle(trial.measurement), figures.speedup(trial)
    memory = trial.measurement.memory_peak_bytes if trial.measurement else None
    return (
        units.show(trial.quality.loss.value, "fraction") if trial.quality else "-",
        units.show(latency.p50_s, "seconds") if latency else "-",
        units.show(faster.value, "ratio") if faster else "-",
        units.show(memory, "bytes") if memory is not None else "-",
        units.show(trial.size_bytes, "bytes") if trial.size_bytes is not None else "-",
    )


def _print_reasons(run: Run, out: Console) -> None:
    hidden = len([*_worth_a_look(run)][SHOWN:])
    judged = sum(trial.state == "judged" for trial in run.trials)
    if hidden or judged:
        _line(out, f"{hidden + judged} more candidates are on the page, {judged} of them good enough but not timed.")
    for state in ("rejected", "failed"):
        found = [trial for trial in run.trials if trial.state == state]
        if found:
            _line(out, f"{len(found)} {state}:")
        for count, reason in figures.counted(trial.reason or "no reason was given" for trial in found):
            _line(out, f"  {count:>3} x {reason}")


def _print_rest(run: Run, out: Console) -> None:
    first = f", first that fits after {units.show(run.first_feasible_s, 'seconds')}" if run.first_feasible_s else ""
    memory = f", {units.show(run.peak_memory_bytes, 'bytes')} of memory" if run.peak_memory_bytes else ""
    took = units.show(run.seconds, "seconds")
    _line(out, f"{len(run.trials)} candidates in {took}{first}{memory}.")
    if run.bundle:
        _line(out, f"bundle: {run.bundle}")
