"""A search as it runs: a live table with the time left on a terminal, plain lines elsewhere, nothing when quiet.

It writes to standard error, so that standard output holds the answer alone.
"""

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tightrope import units
from tightrope.workshop.report.figures import printable, reason, speedup
from tightrope.workshop.search.trial import Trial

LATEST = 8
"""How many of the latest trials the live table shows."""
PLAIN_STEP = 0.1
"""Without a terminal, a line with the time left comes at most once for this share of the work."""


class Progress:
    """A `Watcher` for people. Use as a context manager: leaving it gives the terminal back.

    `clock` counts seconds; the time left that the search told is aged with it between two tellings.
    """

    def __init__(
        self, *, quiet: bool = False, out: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out = out or Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._quiet = quiet
        self._clock = clock
        self._started = clock()
        self._stage = ""
        self._done = 0.0
        self._told = -PLAIN_STEP
        self._ends_at: float | None = None
        self._trials: dict[str, Trial] = {}
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        if self._out.is_terminal and not self._quiet:
            self._live = Live(
                get_renderable=self._render,
                console=self._out,
                refresh_per_second=2,
                transient=True,
                redirect_stdout=False,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, text: str) -> None:
        """A new part of the work begins."""
        self._stage = printable(text)
        self._say(f"{self._elapsed():>6}  {self._stage}")

    def trial(self, trial: Trial) -> None:
        """A trial has come to an answer."""
        self._trials.pop(trial.recipe, None)  # the latest is shown last
        self._trials[trial.recipe] = trial
        parts = (self._elapsed().rjust(6), trial.state.ljust(8), printable(trial.recipe), _brief(trial))
        self._say("  ".join(part for part in parts if part))

    def advance(self, done: float, remaining_s: float | None) -> None:
        """How much is done, and the seconds left."""
        self._done = min(max(done, 0.0), 1.0)
        self._ends_at = None if remaining_s is None else self._clock() + remaining_s
        if self._done >= self._told + PLAIN_STEP:
            self._told = self._done
            self._say(f"{self._elapsed():>6}  {self._done:.0%} done{self._left()}")

    def _say(self, line: str) -> None:
        """A plain line, where there is no terminal to draw on."""
        if not self._quiet and not self._out.is_terminal:
            self._out.print(Text(line), soft_wrap=True)

    def _elapsed(self) -> str:
        return f"{self._clock() - self._started:.0f} s"

    def _left(self) -> str:
        if self._ends_at is None:
            return ""
        left = max(0.0, self._ends_at - self._clock())
        minutes, seconds = divmod(round(left), 60)
        return f", about {minutes} min {seconds:02} s left" if minutes else f", about {seconds} s left"

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True, min_width=8)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=48)
        for trial in [*self._trials.values()][-LATEST:]:
            style = {"timed": "green", "failed": "red", "rejected": "dim"}.get(trial.state, "")
            table.add_row(
                Text(trial.state, style=style), Text(printable(trial.recipe)), Text(_brief(trial), style="dim")
            )
        counts = Counter(trial.state for trial in self._trials.values())
        tally = "  ".join(
            f"{counts[state]} {state}" for state in ("timed", "judged", "rejected", "failed") if counts[state]
        )
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1.0, completed=self._done, width=30), Text(f"{self._elapsed()}{self._left()}"))
        return Group(Text(f"{self._stage}   {tally}"), table, bar)


def _brief(trial: Trial) -> str:
    """What there is to say about a trial in a few words."""
    said = []
    if faster := speedup(trial):
        said.append(units.show(faster.value, "ratio"))
    if trial.size_bytes is not None:
        said.append(units.show(trial.size_bytes, "bytes"))
    if trial.quality:
        said.append(f"loss {units.show(trial.quality.loss.value, 'fraction')}")
    why = printable(reason(trial))
    return f"{', '.join(said)}{': ' if said and why else ''}{why}"
