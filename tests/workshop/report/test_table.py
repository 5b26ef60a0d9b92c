"""The terminal table and the progress say the same on a terminal, without one, and nothing when quiet."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from tightrope.testing import FakeClock
from tightrope.workshop.report.figures import counted
from tightrope.workshop.report.progress import Progress
from tightrope.workshop.report.table import print_run
from tightrope.workshop.search.trial import Run
from tightrope.workshop.search.watcher import Watcher

Make = Callable[..., Run]


def _console(*, width: int = 100, terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=terminal,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )


def _said(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_tables_fit_and_hold_before_after_and_candidates(make_run: Make, width: int) -> None:
    out = _console(width=width)
    print_run(make_run(), out)
    said = _said(out)
    assert "\x1b" not in said
    assert "4.4x smaller, 2.3x faster, loses 0.24 % [0.13, 0.37]." in said
    for row in ("memory, peak", "latency p50, 128 tokens", "2.31x [2.24, 2.38] speed", "cold start", "not measured"):
        assert row in said
    assert "4 x the worst cosine is 0.71…0.86 on 32 texts" in said
    assert "2 failed:" in said
    tables = [line for line in said.splitlines() if line.startswith(("size", "latency", "*", "+"))]
    assert len(tables) > 6
    assert max(map(len, tables)) <= width


def test_names_cannot_steer_the_terminal(make_run: Make) -> None:
    run = make_run()
    name = "[red]x[/red]\x1b[2J\u202e"
    out = _console(terminal=True)
    print_run(make_run(model=name, trials=(replace(run.trials[0], recipe=name), *run.trials[1:]), chosen=name), out)
    said = _said(out)
    assert "\x1b[2J" not in said
    assert "\u202e" not in said
    assert "[red]x[/red]\\x1b[2J\\u202e" in said


def test_a_failure_says_what_binds(make_run: Make) -> None:
    out = _console()
    print_run(make_run(chosen=None, nearest=make_run().trials[0].recipe, breaches=("size is too large",)), out)
    assert "Nothing fits the budget. The nearest candidate:" in _said(out)
    assert "! size is too large" in _said(out)


def test_an_empty_run_has_a_table(make_run: Make) -> None:
    bare = replace(make_run().baseline, measurement=None, quality=None, parity=None, size_bytes=None)
    out = _console()
    print_run(make_run(baseline=bare, trials=(), frontier=(), chosen=None, report=None, interrupted=True), out)
    assert "No candidate came far enough" in _said(out)
    assert "interrupted" in _said(out)


def test_reasons_with_the_same_words_are_one_line() -> None:
    assert counted([]) == ()
    assert counted(["a 1", "a 1", "a 30"]) == ((3, "a 1…30"),)
    assert counted(["b", "a 2 of 3", "a 1 of 3"]) == ((2, "a 1…2 of 3"), (1, "b"))


def _watch(watcher: Watcher, run: Run, clock: FakeClock) -> None:
    watcher.stage("judging 24 candidates")
    for place, trial in enumerate(run.trials):
        clock.advance(2.0)
        watcher.trial(trial)
        watcher.advance((place + 1) / len(run.trials), 2.0 * (len(run.trials) - place - 1))


def test_without_a_terminal_progress_is_plain_lines(make_run: Make) -> None:
    out, clock = _console(width=40), FakeClock()
    with Progress(out=out, clock=clock) as progress:
        _watch(progress, make_run(), clock)
    lines = _said(out).splitlines()
    assert "\x1b" not in _said(out)
    assert lines[0] == "   0 s  judging 24 candidates"
    assert sum("done" in line for line in lines) <= 11
    assert any("about 46 s left" in line for line in lines)
    assert any("rejected" in line and "the limit is loss <= 1 %" in line for line in lines)


def test_on_a_terminal_progress_is_live_and_leaves_the_cursor(make_run: Make) -> None:
    out, clock = _console(width=120, terminal=True), FakeClock()
    with Progress(out=out, clock=clock) as progress:
        _watch(progress, make_run(), clock)
        out.print(progress._render())
    said = _said(out)
    assert "9 timed" in said
    assert "openvino did not answer" in said
    assert said.count("\x1b[?25h") == 1


def test_an_error_leaves_the_terminal_as_it_was() -> None:
    out = _console(terminal=True)
    with pytest.raises(KeyboardInterrupt), Progress(out=out):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in _said(out)


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_silent(make_run: Make, terminal: bool) -> None:
    out, clock = _console(terminal=terminal), FakeClock()
    with Progress(quiet=True, out=out, clock=clock) as progress:
        _watch(progress, make_run(), clock)
    assert _said(out) == ""
