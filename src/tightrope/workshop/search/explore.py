"""Explore: try recipes within a time limit, cheap questions before dear ones, and always have an answer.

First one opener for each engine is made, judged and timed, so that there is something to publish early. Then the
rest are judged, and every few of them the most promising one is timed; when all are judged, the others are timed.
Ctrl-C ends the exploring, not the run: what was found so far is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tightrope.budget import Budget
from tightrope.errors import TightropeError
from tightrope.measurement import Measurement
from tightrope.recipe import Recipe
from tightrope.workshop.search.trial import Trial
from tightrope.workshop.search.watcher import Watcher

JUDGED_BETWEEN_TIMINGS = 5


class Laboratory(Protocol):
    """Where trials are made. Each step raises `TightropeError` if it fails; the exploring goes on."""

    def judge(self, recipe: Recipe) -> Trial:
        """Compress, convert, and answer the samples that the search sees: a trial in state `judged`."""
        ...

    def time(self, trial: Trial) -> Trial:
        """Measure a judged trial in full: the same trial in state `timed`, without breaches yet."""
        ...


@dataclass(slots=True, kw_only=True)
class Explorer:
    """One exploring: its question, its tools, and what it has found so far."""

    budget: Budget
    laboratory: Laboratory
    watcher: Watcher
    clock: Callable[[], float]
    deadline: float
    """When to stop, on the clock; no step is begun that is expected to end later."""
    trials: dict[str, Trial] = field(default_factory=dict)
    first_feasible_s: float | None = None
    interrupted: bool = False
    started: float = 0.0
    """When the exploring began, on the clock."""
    _longest: dict[str, float] = field(default_factory=dict)

    def explore(self, openers: Sequence[Recipe], others: Sequence[Recipe]) -> None:
        """Try all recipes, as far as time allows."""
        self.started = self.clock()
        total = len(openers) + len(others)
        self.watcher.stage(f"trying {total} recipes")
        try:
            for recipe in openers:
                self._judge(recipe)
                self._time_best()
            for number, recipe in enumerate(others, 1):
                self._judge(recipe)
                if number % JUDGED_BETWEEN_TIMINGS == 0:
                    self._time_best()
            while self._time_best():
                pass
        except KeyboardInterrupt:
            self.interrupted = True

    def _judge(self, recipe: Recipe) -> None:
        started = self.clock()
        if not self._has_time("judge"):
            return
        try:
            trial = self._verdict(self.laboratory.judge(recipe))
        except Exception as error:  # whatever one candidate meets, the others are still to be tried
            trial = Trial(recipe=str(recipe), state="failed", reason=_told(error))
        self._note("judge", started, reused=trial.reused)
        self._keep(trial)

    def _verdict(self, trial: Trial) -> Trial:
        """A judged trial, or a rejected one with the reason."""
        reason = None
        size, loss = self.budget.limit("size"), self.budget.limit("loss")
        if size and trial.size_bytes is not None and not size.met_by(trial.size_bytes):
            reason = f"size is {trial.size_bytes / 1e6:.1f} MB; the limit is {size}"
        elif trial.quality is None:
            reason = _faithless(trial)
        elif loss and trial.quality and not loss.met_by(trial.quality.loss.value):
            reason = f"loss is {trial.quality.loss.value:.2%}; the limit is {loss}"
        return replace(trial, state="rejected", reason=reason) if reason else trial

    def _time_best(self) -> bool:
        """Time the most promising judged trial; false if there is none, or no time."""
        waiting = [trial for trial in self.trials.values() if trial.state == "judged"]
        if not waiting or not self._has_time("time"):
            return False
        trial, started = min(waiting, key=self._promise), self.clock()
        try:
            timed = self.laboratory.time(trial)
            verdict = self.budget.judge(timed.measurement, timed.quality.loss if timed.quality else None)
            timed = replace(timed, breaches=tuple(map(str, verdict.breaches)))
        except Exception as error:
            timed = replace(trial, state="failed", reason=_told(error))
        self._note("time", started, reused=_same_measurement(trial.measurement, timed.measurement))
        if timed.state == "timed" and not timed.breaches and self.first_feasible_s is None:
            self.first_feasible_s = self.clock() - self.started
        self._keep(timed)
        return True

    def _promise(self, trial: Trial) -> tuple[float, ...]:
        """Least first: engines on which something fits or nothing was timed, then kinds not timed yet, then those
        whose loss leaves room, then the smallest."""
        timed = [other for other in self.trials.values() if other.state == "timed"]
        same_engine = [other for other in timed if _engine(other) == _engine(trial)]
        hopeless = bool(same_engine) and all(other.breaches for other in same_engine)
        alike = sum(_kind(other.recipe) == _kind(trial.recipe) for other in timed)
        loss, limit = trial.quality.loss.value if trial.quality else 1.0, self.budget.limit("loss")
        crowded = limit is not None and loss > 0.8 * limit.value
        return (float(hopeless), float(crowded), float(alike), float(trial.size_bytes or 0), loss)

    def _has_time(self, step: str) -> bool:
        """Whether a step may begin. The first of its kind always may: without it there is no answer at all."""
        return step not in self._longest or self.clock() + 1.2 * self._longest[step] < self.deadline

    def _note(self, step: str, started: float, *, reused: bool) -> None:
        if not reused:
            self._longest[step] = max(self._longest.get(step, 0.0), self.clock() - started)

    def _keep(self, trial: Trial) -> None:
        self.trials[trial.recipe] = trial
        self.watcher.trial(trial)
        span = self.deadline - self.started
        spent = self.clock() - self.started
        self.watcher.advance(min(1.0, spent / span) if span > 0 else 1.0, max(0.0, span - spent))


def _told(error: Exception) -> str:
    if isinstance(error, TightropeError):
        return f"{error.message} {error.hint}"
    return f"{type(error).__name__}: {error}"


def _faithless(trial: Trial) -> str:
    if trial.parity is None:
        return "its answers are not finite numbers"
    where = f"; it goes wrong at {trial.parity.diverges_at}" if trial.parity.diverges_at else ""
    return f"its answers have a mean cosine of {trial.parity.cosine_mean:.3f} with the original's{where}"


def _engine(trial: Trial) -> str:
    return trial.recipe.rpartition(" -> ")[2]


def _kind(recipe: str) -> str:
    """What makes two recipes run alike: the engine and the kind of arithmetic."""
    steps, _, engine = recipe.rpartition(" -> ")
    names = [name for name in ("int8", "int4", "mixed", "half") if name in steps]
    inputs = [word for word in ("static", "dynamic", "none", "token") if f"={word}" in steps]
    return " ".join((engine, *names, *inputs))


def _same_measurement(before: Measurement | None, after: Measurement | None) -> bool:
    return before is not None and before == after
