"""Compare: one model for every engine at every precision, each conversion and each answer in a process apart.

First the tools of each engine are asked whether they are here; then all cells are converted, opened and held against
the original; then those that answer right are timed, each in turns with the same original, so that their ratios
compare. Whatever one engine does, crash, hang, end without a word, answer wrong, is what its cell says, and the next
one's turn.
"""

import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tightrope import bundle
from tightrope.bundle import Bundle
from tightrope.device.meter.run import Plan
from tightrope.errors import DataError, MissingExtraError, TightropeError, UnknownNameError
from tightrope.measurement import IMAGE
from tightrope.recipe import Recipe
from tightrope.workshop.benches.converting import LIMIT_S, Converters
from tightrope.workshop.comparison import facts
from tightrope.workshop.comparison.making import Maker
from tightrope.workshop.comparison.outcome import Cell, Comparison, Engine, State, one_line
from tightrope.workshop.load import languages_of, load
from tightrope.workshop.model import Model, TextSenses
from tightrope.workshop.search import precisions, space
from tightrope.workshop.search.laboratory import Laboratory
from tightrope.workshop.search.question import ask
from tightrope.workshop.search.trial import Trial
from tightrope.workshop.search.watcher import Unwatched, Watcher

ALL = "all"
LENGTHS = (12, 32, 128)
"""Short, middle and long."""
MEASURING_S = 6.0
"""For the turns of one cell with the original; starting and stopping their processes comes on top."""
OVERHEAD = 1.6
LEAST_LEFT_S = 10.0
FIRST_BASELINES = ("onnxruntime", "openvino", "native")
"""The engine of the original that all are timed against is the first of these that works, else any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to compare, and how.

    `engines`: names, or `all`. `precisions`: words or recipes (`search.precisions`). `seconds`: the whole; `limit_s`:
    one conversion. `out`: where bundles are kept, one for each success; without it they are gone at the end.
    `measures`: whether to time as well. `data`, `report_data`: as for a fit; quality is judged on what is to be quoted.
    """

    engines: tuple[str, ...] = (ALL,)
    precisions: tuple[str, ...] = ("fp32",)
    out: Path | None = None
    data: Path | str | None = None
    report_data: Path | str | None = None
    seconds: float = 900.0
    limit_s: float = LIMIT_S
    measuring_s: float = MEASURING_S
    lengths: tuple[int, ...] = LENGTHS
    threads: int = 1
    measures: bool = True
    force: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if not self.precisions:
            raise DataError("No precision was given.", hint=f"Give some of {', '.join(precisions.WORDS)}, or a recipe.")
        if not (self.limit_s > 0 and self.seconds > 0):
            raise DataError("Nothing can be done in no time.", hint="Give limits above zero, such as 5min.")


def compare(source: str, *, watcher: Watcher | None = None, settings: Settings | None = None) -> Comparison:
    """Convert a model for each engine at each precision, hold it against the original, and time what holds.

    Raises `UnknownNameError` or `MissingExtraError` for an engine that was named and is not here, `RecipeError` for
    what is no precision, and what loading and reading data raise; all of it before anything is converted. After that
    an error of one engine is its cell's.
    """
    chosen = settings or Settings()
    with _Comparing(source, chosen, watcher or Unwatched()) as comparing:
        return comparing.run()


def named(engines: Sequence[str]) -> tuple[str, ...]:
    """The engines that are meant, each once. Raises `UnknownNameError`."""
    known = facts.names()
    for name in engines:
        if name != ALL and name not in known:
            raise UnknownNameError(f"There is no engine {name!r:.80}.", hint=f"Known: {', '.join(known)}.")
    return tuple(dict.fromkeys(item for name in engines for item in (known if name == ALL else (name,))))


class _Comparing:
    """One comparison. A context manager: it holds processes, and the bundles that are not to be kept."""

    def __init__(self, source: str, settings: Settings, watcher: Watcher) -> None:
        self.source, self.settings, self.watcher = source, settings, watcher
        self.started, self.began = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        self.deadline = self.started + settings.seconds
        self.cells: dict[tuple[str, str], Cell] = {}
        self.engines: dict[str, Engine] = {}
        self.interrupted = False
        self._made: dict[tuple[str, str], Bundle] = {}
        self._steps: list[float] = []
        self._held = ExitStack()

    def __enter__(self) -> "_Comparing":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def run(self) -> Comparison:
        """All of it."""
        for precision in self.settings.precisions:
            precisions.read(precision)
        engines = named(self.settings.engines)
        converters = self._held.enter_context(Converters(limit_s=self.settings.limit_s))
        present = self._ask(engines, converters)
        self.watcher.stage(f"loading {self.source}")
        model = load(self.source)
        question = ask(model, languages_of(self.source, model), self.settings.data, self.settings.report_data, None)
        laboratory = Laboratory.of(
            self.source,
            model,
            question,
            plan=self._plan(model),
            converters=converters,
            apart=True,
            patience_s=min(self.settings.limit_s, 120.0),
            deadline=self.deadline,
        )
        self._held.enter_context(laboratory)
        try:
            self._convert(laboratory, model, present)
            if self.settings.measures:
                self._measure(laboratory, present)
        except KeyboardInterrupt:
            self.interrupted = True
        return self._told(laboratory)

    # Engines -----------------------------------------------------------------------------------------

    def _ask(self, engines: Sequence[str], converters: Converters) -> list[str]:
        """Which engines are here. One that was named and is missing ends the command, whatever else it does not."""
        self.watcher.stage(f"asking {len(engines)} engines")
        present = []
        for name in engines:
            version = None
            try:
                version = converters.version(name)
                present.append(name)
            except MissingExtraError as error:
                if name in self.settings.engines:
                    raise
                self._all_cells(name, "missing", f"{error.message} {error.hint}")
            except TightropeError as error:
                self._all_cells(name, "failed", f"{error.message} {error.hint}")
            self.engines[name] = facts.known(name, version)
        return present

    def _all_cells(self, engine: str, state: State, reason: str) -> None:
        for precision in self.settings.precisions:
            self._keep(Cell(engine=engine, precision=precision, state=state, reason=one_line(reason)))

    # Converting --------------------------------------------------------------------------------------

    def _convert(self, laboratory: Laboratory, model: Model, present: Sequence[str]) -> None:
        """Every cell; those of one recipe follow each other, for they share its work."""
        folder = self._folder()
        maker = Maker(laboratory, judges=self.settings.measures)
        planned = [(cell, recipe, folder / _named(cell)) for cell, recipe in self._planned(model, present)]
        for _, _, path in planned:
            bundle.check_free(path, force=self.settings.force)
        self.watcher.stage(f"converting {len(planned)} times")
        for number, (cell, recipe, path) in enumerate(planned):
            left = self._left_for(len(self._made))
            if left < LEAST_LEFT_S:
                self._keep(replace(cell, state="skipped", reason="The time was over."))
                continue
            laboratory.converters.limit_s = min(self.settings.limit_s, left)
            started = time.monotonic()
            found, made = maker.make(cell, recipe, path)
            self._steps.append(time.monotonic() - started)
            if made is not None:
                self._made[(cell.engine, cell.precision)] = made
            self._keep(replace(found, bundle=found.bundle if self.settings.out else None))
            self._advance(len(planned) - number - 1)

    def _planned(self, model: Model, present: Sequence[str]) -> Iterator[tuple[Cell, Recipe]]:
        """Every cell, the slow ones last; those that share a recipe follow each other."""
        cells = [(precision, name) for precision in self.settings.precisions for name in present]
        recipes = {cell: precisions.recipe_for(*cell, model) for cell in cells}

        def order(cell: tuple[str, str]) -> tuple[bool, int, str, int]:
            precision, name = cell
            position = self.settings.precisions.index(precision)
            return name in space.SLOW_TO_CONVERT, position, recipes[cell].body, present.index(name)

        for cell in sorted(cells, key=order):
            precision, name = cell
            yield Cell(engine=name, precision=precision, state="skipped", recipe=recipes[cell].body), recipes[cell]

    def _folder(self) -> Path:
        if self.settings.out is None:
            return Path(self._held.enter_context(TemporaryDirectory(prefix="tightrope-")))
        try:
            self.settings.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise bundle.cannot_write(self.settings.out, error) from error
        return self.settings.out

    def _left_for(self, waiting: int) -> float:
        """The time left, when that for measuring so many is put aside."""
        wanted = self.settings.measuring_s * OVERHEAD if self.settings.measures else 0.0
        return self.deadline - time.monotonic() - wanted * (waiting + 1)

    # Measuring ---------------------------------------------------------------------------------------

    def _plan(self, model: Model) -> Plan:
        lengths: tuple[int, ...] = (IMAGE,)
        if isinstance(model.senses, TextSenses):
            most = model.senses.max_length
            lengths = tuple(tokens for tokens in self.settings.lengths if tokens <= most) or (most,)
        return Plan(
            lengths=lengths,
            seconds=self.settings.measuring_s,
            threads=self.settings.threads,
            limit_s=min(self.settings.limit_s, 120.0),
        )

    def _measure(self, laboratory: Laboratory, present: Sequence[str]) -> None:
        """Time what answers right, in turns with the original."""
        waiting = [cell for cell in self.cells.values() if cell.succeeded]
        if not waiting:
            return
        self.watcher.stage(f"timing {len(waiting)} in turns with the original")
        first = [name for name in FIRST_BASELINES if name in present]
        for name in (*first, *(name for name in present if name not in first)):
            if laboratory.baseline is None:
                _try_baseline(laboratory, name)
        for number, cell in enumerate(waiting):
            if self.deadline - time.monotonic() < LEAST_LEFT_S:
                self._keep(replace(cell, reason="The time was over before it was timed."))
                continue
            started, made = time.monotonic(), self._made[(cell.engine, cell.precision)]
            try:
                measured = laboratory.measure(made)
                self._keep(replace(cell, state="measured", measurement=measured))
            except TightropeError as error:
                reason = one_line(f"When timed: {error.message} {error.hint}")
                self._keep(replace(cell, state="failed", reason=reason, bundle=None))
                shutil.rmtree(made.path, ignore_errors=True)
            self._steps.append(time.monotonic() - started)
            self._advance(len(waiting) - number - 1)

    # Telling -----------------------------------------------------------------------------------------

    def _keep(self, cell: Cell) -> None:
        self.cells[(cell.engine, cell.precision)] = cell
        right = cell.succeeded or cell.state == "interpreted"
        state = "timed" if cell.measurement else "judged" if right else "rejected"
        self.watcher.trial(
            Trial(
                recipe=cell.name,
                state="failed" if cell.state == "failed" else state,  # type: ignore[arg-type]
                reason=cell.reason and f"{cell.state}: {cell.reason}",
                size_bytes=cell.size_bytes,
                quality=cell.quality,
                measurement=cell.measurement,
            )
        )

    def _advance(self, steps_left: int) -> None:
        """Tell how much is done: by the steps so far, and never more than the time that is left in all."""
        spent = time.monotonic() - self.started
        usual = sum(self._steps) / len(self._steps)
        wanted = steps_left * usual
        if self.settings.measures and not any(cell.measurement for cell in self.cells.values()):
            wanted += (len(self._made) + steps_left) * self.settings.measuring_s * OVERHEAD
        left = max(0.0, min(wanted, self.deadline - time.monotonic()))
        self.watcher.advance(spent / (spent + left) if spent + left else 1.0, left)

    def _told(self, laboratory: Laboratory) -> Comparison:
        order = {name: position for position, name in enumerate(self.engines)}
        cells = sorted(
            self.cells.values(), key=lambda cell: (order[cell.engine], self.settings.precisions.index(cell.precision))
        )
        baseline = laboratory.baseline.recipe if laboratory.baseline else None
        return Comparison(
            model=self.source,
            origin=laboratory.model.origin,
            command=self.settings.command or self._command(),
            started=self.began,
            seconds=time.monotonic() - self.started,
            threads=self.settings.threads,
            engines=tuple(self.engines.values()),
            precisions=self.settings.precisions,
            cells=tuple(cells),
            baseline=baseline,
            samples=laboratory.question.report.name if self.settings.measures else None,
            interrupted=self.interrupted,
        )

    def _command(self) -> str:
        said = self.settings
        words = ["compare" if said.measures else "convert", self.source]
        words += ["--engines" if said.measures else "--to", ",".join(said.engines)]
        return shlex.join(["tightrope", *words, "--precision", ",".join(said.precisions)])


def _try_baseline(laboratory: Laboratory, engine: str) -> None:
    try:
        laboratory.find_baseline((engine,))
    except TightropeError:
        return  # its own cell says why


def _named(cell: Cell) -> str:
    """The bundle of a cell as a file's name."""
    precision = "".join(mark if mark.isalnum() else "-" for mark in cell.precision).strip("-")
    return f"{cell.engine}-{precision[:60]}.bundle"
