"""Fit: the smallest, fastest artefact that still answers right, within a budget; proved, and reported on one page."""

import resource
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tightrope import __version__, bundle, plugins, target
from tightrope.budget import DEFAULT_TOKENS, Budget, Limit, Metric
from tightrope.bundle import Bundle
from tightrope.device.meter import elsewhere
from tightrope.device.meter.run import Place, Plan
from tightrope.errors import BenchError, BudgetError, DataError, MissingExtraError, TightropeError, UnsupportedError
from tightrope.measurement import IMAGE, Parity, Quality
from tightrope.recipe import Recipe
from tightrope.target import Target
from tightrope.workshop import cache
from tightrope.workshop.benches.converting import Converters
from tightrope.workshop.load import languages_of, load
from tightrope.workshop.model import Model, TextSenses
from tightrope.workshop.search import acceptance, frontier, space
from tightrope.workshop.search.explore import Explorer
from tightrope.workshop.search.laboratory import Laboratory
from tightrope.workshop.search.question import ask
from tightrope.workshop.search.trial import Run, Trial
from tightrope.workshop.search.watcher import Unwatched, Watcher

DEFAULT_LOSS = "loss<=1%"
"""Added to a budget that says nothing of the loss: what answers wrong fits nowhere."""

LEAST_SECONDS, MOST_SECONDS = 10.0, 30 * 86_400.0
LENGTHS = (12, DEFAULT_TOKENS, 128)
CONFIRMED = 3
"""Feasible trials at most that are held against the samples for the report, best first."""

FINISH_S = 15.0
"""Kept free at the end for confirming, copying and writing."""

CONFIRMING_S = 6.0
SENSITIVITY_S = 5.0
"""What is wanted left of the time to find out how much each layer bears."""

ALL = "all"
"""In place of engines: every one that is installed."""

CACHE_BYTES = 4_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to search; every field has a default that suits most.

    `seconds`: the time limit of the whole. `engines`: which to try, or `all` that are installed; by default those of
    `space.USUAL` that are. `bench`: a command that starts a bench elsewhere; `target`: what device it is, which limits
    engines, threads and memory.
    `data`, `report_data`: files (or folders of images) of the task, to search by and to quote; `judge`: the user's own
    `module:function`. `recipes`: try exactly these.
    """

    data: Path | str | None = None
    report_data: Path | str | None = None
    judge: str | None = None
    seconds: float = 165.0
    engines: tuple[str, ...] = ()
    bench: str | None = None
    target: str | None = None
    threads: int = 1
    recipes: tuple[Recipe, ...] = ()
    force: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if not LEAST_SECONDS <= self.seconds <= MOST_SECONDS:
            raise DataError(
                f"A time limit of {self.seconds} s cannot be kept.", hint=f"Give {LEAST_SECONDS:.0f} s to 30 days."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a fit came to. True if a bundle was published."""

    run: Run
    bundle: Bundle | None

    def __bool__(self) -> bool:
        return self.bundle is not None


def fit(
    source: str,
    budget: Budget | str = "",
    *,
    out: Path | str | None = None,
    watcher: Watcher | None = None,
    **settings: Any,
) -> Result:
    """Search for the bundle of `source` that fits `budget`, and publish it at `out` if it passes the gate.

    `out` defaults to `<model>.bundle` in the current folder; nothing is written there if nothing fits. `settings` are
    the fields of `Settings`. Raises `SourceError`, `BudgetError`, `DataError`, `OutputError` or `MissingExtraError`
    before the search begins; in the search an error of one candidate is a failed trial.
    """
    chosen = Settings(**settings)
    device = device_of(chosen)
    limits = complete(Budget.parse(budget) if isinstance(budget, str) else budget, device)
    place = Path(out) if out is not None else Path(f"{Path(source).name.partition('#')[0]}.bundle")
    bundle.check_free(place, force=chosen.force)
    return _Fit(source, limits, place, chosen, watcher or Unwatched()).run()


def device_of(settings: Settings) -> Target | None:
    """The target that was named. Raises `UnsupportedError` if it has fewer cores than threads are asked for."""
    device = target.load(settings.target) if settings.target else None
    if device is not None and settings.threads > device.cores:
        raise UnsupportedError(
            f"{device.name} has {device.cores} cores; {settings.threads} threads were asked for.",
            hint=f"Ask for {device.cores} threads at most, or for another target.",
        )
    return device


def complete(budget: Budget, device: Target | None = None) -> Budget:
    """The budget with a limit on the loss, and with the device's memory as one if it says nothing of memory."""
    added: list[Limit] = []
    if budget.limit("loss") is None:
        added += Budget.parse(DEFAULT_LOSS).limits
    if device is not None and budget.limit("memory") is None:
        added.append(Limit(Metric("memory"), device.memory_bytes))
    return Budget((*budget.limits, *added))


class _Fit:
    """One fit, from the question to the published bundle."""

    def __init__(self, source: str, budget: Budget, out: Path, settings: Settings, watcher: Watcher) -> None:
        self.source, self.budget, self.out, self.settings, self.watcher = source, budget, out, settings, watcher
        self.started, self.began = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        self.engines = usable_engines(settings)

    def run(self) -> Result:
        self.watcher.stage(f"loading {self.source}")
        model = load(self.source)
        question = ask(
            model, languages_of(self.source, model), self.settings.data, self.settings.report_data, self.settings.judge
        )
        laboratory = Laboratory.of(
            self.source,
            model,
            question,
            place=Place(command=self.settings.bench, target=self.settings.target if self.settings.bench else None),
            plan=Plan(lengths=self._lengths(model), threads=self.settings.threads),
            target=self.settings.target or "any",
            deadline=self.started + self.settings.seconds,
        )
        with laboratory:
            self.watcher.stage("timing the original")
            engines = tuple(name for name in self.engines if laboratory.takes(name)) or self.engines
            usual = [name for name in engines if name in space.USUAL]  # the others' tools take their time
            originals = laboratory.find_baseline(space.for_originals(usual or engines))
            self._check_bench(laboratory)
            failed = {Recipe.parse(trial.recipe).engine for trial in originals if trial.state == "failed"}
            explorer = self._explore(laboratory, [name for name in engines if name not in failed])
            explorer.trials |= {trial.recipe: trial for trial in originals if trial.state == "failed"}
            return self._finish(laboratory, explorer)

    def _lengths(self, model: Model) -> tuple[int, ...]:
        """The lengths of text to time: the usual ones that the model takes, and those of the budget."""
        if not isinstance(model.senses, TextSenses):
            if any(tokens != DEFAULT_TOKENS for tokens in self.budget.tokens):
                raise BudgetError("The budget asks for a length of text; the model takes images.", hint="Leave it out.")
            return (IMAGE,)
        most = model.senses.max_length
        if self.budget.tokens and self.budget.tokens[-1] > most:
            raise BudgetError(
                f"The budget asks for texts of {self.budget.tokens[-1]} tokens; the model takes {most}.",
                hint="Ask for a shorter text.",
            )
        return tuple(sorted({*(tokens for tokens in LENGTHS if tokens <= most), *self.budget.tokens} or {most}))

    def _check_bench(self, laboratory: Laboratory) -> None:
        """A bench that is not the target would measure something else. Raises `BenchError`."""
        if self.settings.bench is None or self.settings.target is None:
            return
        assert laboratory.baseline is not None and laboratory.baseline.measurement is not None
        wanted, found = target.load(self.settings.target), laboratory.baseline.measurement.conditions
        if found.architecture != wanted.architecture or not set(wanted.isa) <= set(found.isa):
            raise BenchError(
                f"The bench is {found.architecture} ({', '.join(found.isa)}); {wanted.name} is {wanted.architecture} "
                f"({', '.join(wanted.isa)}).",
                hint="Name the target that the bench is, or leave out --target.",
            )

    def _explore(self, laboratory: Laboratory, engines: Sequence[str]) -> Explorer:
        explorer = Explorer(
            budget=self.budget,
            laboratory=laboratory,
            watcher=self.watcher,
            clock=time.monotonic,
            deadline=self.started + max(self.settings.seconds - FINISH_S, self.settings.seconds / 2),
        )
        if self.settings.recipes:
            explorer.explore(self.settings.recipes, ())
        else:
            explorer.explore(space.first(laboratory.model, engines), space.others(laboratory.model, engines))
        return explorer

    # The end -----------------------------------------------------------------------------------------

    def _finish(self, laboratory: Laboratory, explorer: Explorer) -> Result:
        """Confirm the best on unseen samples, publish what passes the gate, and tell all of it as a `Run`."""
        bears = self._sensitivity(laboratory, explorer)
        self.watcher.stage("confirming on samples that the search did not see")
        trials = tuple(explorer.trials.values())
        winner: Trial | None = None
        second = frontier.nearest(trials, self.budget)
        objections: tuple[str, ...] = ("it was interrupted before it was confirmed",)
        confirmed: Confirmed | None = None
        try:
            winner, objections, confirmed = self._confirm(laboratory, frontier.ranked(trials))
            if winner is None and second is not None:
                objections, confirmed = self._object(laboratory, second)
        except KeyboardInterrupt:
            explorer.interrupted = True
        run = replace(
            self._run(laboratory, explorer, winner),
            nearest=second.recipe if second is not None and winner is None else None,
            breaches=objections if winner is None else (),
            report=confirmed[0] if confirmed else None,
            report_parity=confirmed[1] if confirmed else None,
            sensitivity=bears,
        )
        if winner is not None:
            run = replace(run, agreement=self._agreement(laboratory, winner))
        published = self._publish(laboratory, winner, run) if winner else None
        cache.prune(CACHE_BYTES, kinds=("bundles", "judgements", "measurements"))
        return Result(run=run, bundle=published)

    def _confirm(
        self, laboratory: Laboratory, ranked: Sequence[Trial]
    ) -> tuple[Trial | None, tuple[str, ...], "Confirmed | None"]:
        for number, trial in enumerate(ranked[:CONFIRMED]):
            if number and time.monotonic() > self.started + self.settings.seconds:
                break
            objections, confirmed = self._object(laboratory, trial)
            if not objections:
                return trial, (), confirmed
        return None, (), None

    def _object(self, laboratory: Laboratory, trial: Trial) -> tuple[tuple[str, ...], "Confirmed | None"]:
        """What the gate has against a trial, and its figures on the samples for the report."""
        try:
            made, _ = laboratory.make(Recipe.parse(trial.recipe))
            quality, close, _ = laboratory.quality(made, laboratory.question.report)
        except TightropeError as error:
            return (*trial.breaches, f"it could not be confirmed: {error.message}"), None
        assert laboratory.baseline is not None
        reasons = acceptance.objections(trial, laboratory.baseline, self.budget, quality)
        return ((trial.reason,) if trial.state == "rejected" and trial.reason else ()) + reasons, (quality, close)

    def _run(self, laboratory: Laboratory, explorer: Explorer, winner: Trial | None) -> Run:
        assert laboratory.baseline is not None
        trials = tuple(explorer.trials.values())
        before = explorer.started - self.started
        return Run(
            model=self.source,
            origin=laboratory.model.origin,
            command=self.settings.command or self._command(),
            budget=tuple(map(str, self.budget.limits)),
            started=self.began,
            seconds=time.monotonic() - self.started,
            first_feasible_s=None if explorer.first_feasible_s is None else explorer.first_feasible_s + before,
            peak_memory_bytes=peak_memory_bytes(),
            target=laboratory.place.name,
            threads=self.settings.threads,
            baseline=laboratory.baseline,
            trials=trials,
            frontier=tuple(trial.recipe for trial in frontier.frontier(trials)),
            chosen=winner.recipe if winner else None,
            nearest=None,
            bundle=str(self.out) if winner else None,
            interrupted=explorer.interrupted,
            lineage={"tightrope": __version__, "calibration": laboratory.observer.digest},
        )

    def _sensitivity(self, laboratory: Laboratory, explorer: Explorer) -> dict[str, float]:
        """How far the answers move when one layer alone is reduced to four bits; left out where time is short."""
        left = self.started + self.settings.seconds - time.monotonic()
        if explorer.interrupted or left < CONFIRMING_S + SENSITIVITY_S:
            return {}
        try:
            found: dict[str, float] = plugins.load("passes", "mixed").sensitivity(laboratory.model, laboratory.observer)
        except (TightropeError, KeyboardInterrupt):
            return {}  # nothing else depends on it
        return found

    def _agreement(self, laboratory: Laboratory, winner: Trial) -> dict[str, float]:
        """The chosen one on every instruction set that this processor can be held to, as older ones will run it."""
        recipe = Recipe.parse(winner.recipe)
        if recipe.engine != "native" or laboratory.place.command is not None:
            return {}
        made, _ = laboratory.make(recipe)
        outcomes = [elsewhere.prove_at(made, place) for place in elsewhere.instruction_sets()]
        return {found.place: found.proof.expected.cosine_min if found.proof else 0.0 for found in outcomes}

    def _command(self) -> str:
        """The command line that asks the same as this call."""
        said = self.settings
        options = {"--budget": str(self.budget), "--data": said.data, "--report-data": said.report_data}
        options |= {"--judge": said.judge, "--time": f"{said.seconds:g}s", "--engines": ",".join(said.engines)}
        options |= {"--bench": said.bench, "--target": said.target, "--threads": str(said.threads), "--out": self.out}
        words = [word for name, value in options.items() if value for word in (name, str(value))]
        recipes = [word for recipe in said.recipes for word in ("--recipe", str(recipe))]
        return shlex.join(["tightrope", "fit", self.source, *words, *recipes])

    def _publish(self, laboratory: Laboratory, winner: Trial, run: Run) -> Bundle:
        """Copy the winner's bundle from the cache to where the user wants it, with what was found attached."""
        made, _ = laboratory.make(Recipe.parse(winner.recipe))
        attachments = {"run": run.to_json()}
        if winner.measurement:
            attachments["measurement"] = winner.measurement.to_json()
        if run.report:
            attachments["quality"] = run.report.to_json()
        return bundle.copy(made, self.out, attachments, force=self.settings.force)


Confirmed = tuple[Quality, Parity | None]
"""Quality and parity on the samples for the report."""


def usable_engines(settings: Settings) -> tuple[str, ...]:
    """The engines to try: those asked for, or the usual ones that are installed and that the target runs.

    `all` stands for every engine that is installed; the tools of those that are not usual are asked in a process apart.
    Raises `UnknownNameError` or `MissingExtraError` for one that was named and is not here.
    """
    allowed = target.load(settings.target).engines if settings.target else None
    with Converters() as converters:
        for name in settings.engines:
            if name == ALL:
                continue
            _check_here(name, converters)
            if allowed is not None and name not in allowed:
                hint = f"It runs: {', '.join(allowed)}."
                raise UnsupportedError(f"{settings.target} does not run {name}.", hint=hint)
        if settings.engines and ALL not in settings.engines:
            return settings.engines
        candidates = plugins.names("converters") if ALL in settings.engines else space.USUAL
        found = [name for name in candidates if (allowed is None or name in allowed) and _is_here(name, converters)]
    if not found:
        raise MissingExtraError("No engine is installed.", hint="pip install 'tightrope[fit]'")
    return tuple(found)


def _check_here(engine: str, converters: Converters) -> None:
    """Raise the error of an engine that cannot be tried. One that is usual is loaded in this process."""
    if engine in space.USUAL:
        plugins.load("converters", engine)
    else:
        converters.about(engine)


def _is_here(engine: str, converters: Converters) -> bool:
    try:
        _check_here(engine, converters)
    except TightropeError:
        return False
    return True


def peak_memory_bytes() -> int:
    """The peak resident size of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
