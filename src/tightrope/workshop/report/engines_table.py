"""A comparison of engines on a terminal: what runs, with its figures; what does not, with the reason."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tightrope import units
from tightrope.measurement import length
from tightrope.workshop.comparison.outcome import Cell, Comparison, lengths
from tightrope.workshop.report import engines
from tightrope.workshop.report.figures import printable
from tightrope.workshop.report.table import console

STYLES = {
    "interpreted": "green",
    "failed": "red",
    "wrong": "red",
    "refused": "yellow",
    "not run": "yellow",
    "missing": "dim",
    "skipped": "dim",
}


def print_comparison(found: Comparison, out: Console | None = None) -> None:
    """Print the whole answer."""
    out = out or console()
    _line(out, f"{found.model}: {engines.headline(found)}", style="bold")
    if found.interrupted:
        _line(out, "It was interrupted: these are the engines that had their turn.")
    timed = lengths(found.cells)
    if engines.ordered(found) and timed:
        out.print(_speed(found, timed))
        out.print(_costs(found))
        _line(out, engines.measured_how(found), style="dim")
    elif engines.ordered(found):
        out.print(_converted(found))
    _print_failures(found, out)
    _print_fallbacks(found, out)


def _converted(found: Comparison) -> Table:
    head = ("engine", "size", "took", "cosine min, mean", "max diff", "otherwise")
    rows = []
    for cell in engines.ordered(found):
        size = units.show(cell.size_bytes, "bytes") if cell.size_bytes else engines.UNTOLD
        took = units.show(cell.converting_s, "seconds") if cell.converting_s else engines.UNTOLD
        about = (_close(cell), engines.difference(cell), engines.fallbacks(cell))
        rows.append((cell.name, size, took, *about))
    return _table(head, rows)


def _speed(found: Comparison, timed: Sequence[int]) -> Table:
    """p50 at each length, and at the middle one how many times faster than the baseline."""
    middle = engines.middle(found)
    assert middle is not None
    head = ("p50 with", *(length(tokens) for tokens in timed), f"faster with {length(middle)}")
    rows = []
    for cell in engines.ordered(found):
        calls = (engines.times(cell, tokens).partition(" / ")[0] for tokens in timed)
        rows.append((cell.name, *calls, engines.faster(cell, middle)))
    return _table(head, rows)


def _costs(found: Comparison) -> Table:
    head = ("", "rate", "memory", "start", "artefact", "cosine min, mean")
    return _table(head, [(cell.name, *engines.costs(cell), _close(cell)) for cell in engines.ordered(found)])


def _close(cell: Cell) -> str:
    close = cell.parity
    return f"{close.cosine_min:.4f}, {close.cosine_mean:.4f}" if close else engines.UNTOLD


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for position, name in enumerate(head):
        table.add_column(name, justify="right" if position else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(printable, row))
    return table


def _print_failures(found: Comparison, out: Console) -> None:
    for name, state, reason in engines.failures(found):
        _line(out, f"{name}: {state}. {reason}", style=STYLES.get(state, ""))


def _print_fallbacks(found: Comparison, out: Console) -> None:
    for cell in engines.ordered(found):
        if cell.floats:
            first, count = engines.counted(cell.floats.values())[0]
            layers = f"{len(cell.floats)} layer{'' if len(cell.floats) == 1 else 's'}"
            _line(out, f"{engines.title(found, cell)}: {layers} in float ({count} x {first})", style="yellow")


def _line(out: Console, text: str, *, style: str = "") -> None:
    out.print(Text(printable(text), style=style), soft_wrap=not out.is_terminal)
