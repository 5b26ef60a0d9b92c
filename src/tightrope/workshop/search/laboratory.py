"""The laboratory: makes a recipe's bundle, asks it, and times it, each step at most once in a cache's lifetime.

Answers and times come from a bench, a process of its own here or elsewhere, so that an engine that crashes or hangs is
a result and not the end of the run.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tightrope import __version__, bundle, plugins
from tightrope.bundle import Bundle
from tightrope.device.machine import this_machine
from tightrope.device.meter.run import Place, Plan, Subject, measure
from tightrope.device.proof import inputs, recorded
from tightrope.errors import BenchError, TightropeError
from tightrope.measurement import Measurement, Parity, Quality
from tightrope.recipe import Recipe
from tightrope.workshop import cache
from tightrope.workshop.assemble import Origin, Vectors, assemble, assemble_unopened, tools
from tightrope.workshop.benches.answering import open_on_bench
from tightrope.workshop.benches.converting import Converters
from tightrope.workshop.compress import apply_step, read_digest
from tightrope.workshop.converted import Converted, convert, takes
from tightrope.workshop.model import Model, TextSenses
from tightrope.workshop.observe import Observer
from tightrope.workshop.search import blas
from tightrope.workshop.search.question import Given, Part, Question, spread
from tightrope.workshop.search.space import USUAL
from tightrope.workshop.search.trial import Trial, usual
from tightrope.workshop.verify.answers import Answers, one_by_one, open_reference
from tightrope.workshop.verify.parity import first_divergence, parity

KEPT_MODELS = 3
"""Models between two steps that are kept in memory, for recipes that begin alike."""

MEASURED_TEXTS = 64
LONGEST_MEASURED = 20_000
"""Characters; what a model cuts off anyway need not be sent to a bench."""

ANSWERING_S = 120.0
LEAST_LIMIT_S = 10.0
"""A request gets so long even when time is up; a bench that takes longer has hung."""

FAITHLESS = 0.8
"""Below this mean cosine of the answers no task survives: the layer where it goes wrong is named, no more is asked."""


@dataclass(slots=True, kw_only=True)
class Laboratory:
    """Everything that making, asking and timing need.

    A context manager: it holds the original's process, and numpy to one thread.
    """

    source: str
    model: Model
    question: Question
    observer: Observer
    place: Place
    plan: Plan
    target: str
    deadline: float = math.inf
    """On the monotonic clock: no request to a bench waits longer than until a little after it."""
    baseline: Trial | None = None
    converters: Converters = field(default_factory=Converters)
    """The tools of engines that are not trusted to convert in this process."""
    apart: bool = False
    """Whether no engine is trusted so."""
    patience_s: float = ANSWERING_S
    """How long a bench may take to open a bundle or to answer some texts."""
    _original: Subject | None = None
    _given: dict[str, Given] = field(default_factory=dict)
    _prefixes: "OrderedDict[str, Model]" = field(default_factory=OrderedDict)
    _proof: Vectors | None = None
    _held: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self._held.enter_context(blas.one_thread())
        self._held.enter_context(self.converters)
        return self

    def __exit__(self, *_: object) -> None:
        with self._held:
            if self._original is not None:
                self._original.close()

    @staticmethod
    def of(source: str, model: Model, question: Question, **settings: Any) -> "Laboratory":
        """A laboratory that calibrates on the question's seen half; `settings` are its other fields."""
        inputs = question.calibration(model)
        kind = {"embedding": "texts", "scoring": "pairs", "classification": "images"}[model.task.name]
        observer = Observer(model, **{"texts": (), kind: inputs})
        defaults: dict[str, Any] = {"place": Place(), "plan": Plan(), "target": "any"}
        return Laboratory(source=source, model=model, question=question, observer=observer, **(defaults | settings))

    def _limit_s(self, most: float) -> float:
        return max(min(most, LEAST_LIMIT_S), min(most, self.deadline - time.monotonic()))

    # Making ------------------------------------------------------------------------------------------

    def make(self, recipe: Recipe) -> tuple[Bundle, bool]:
        """The recipe's bundle in the cache, and whether it was there already."""
        engine, read = self.version(recipe.engine), read_digest(recipe.steps)
        made_of = (self.source, self.model.origin, self.observer.digest, recipe, read, self.target)
        path = cache.scratch("bundles", f"{cache.key(tools(), engine, *made_of)}.bundle")
        try:
            found = bundle.read(path)
            cache.touch(path)
            return found, True
        except TightropeError:
            return self.make_anew(recipe, path, force=True), False

    def make_anew(self, recipe: Recipe, path: Path, *, force: bool = False) -> Bundle:
        """The recipe's bundle, written to `path`."""
        return self.write(recipe, self.convert(recipe), path, force=force)

    def convert(self, recipe: Recipe) -> Converted:
        """The compressed model in the recipe's engine's form."""
        model = self._compressed(recipe)
        return (
            self.converters.convert(model, recipe.engine)
            if self._apart(recipe.engine)
            else convert(model, recipe.engine)
        )

    def write(
        self, recipe: Recipe, converted: Converted, path: Path, *, force: bool = False, place: Place | None = None
    ) -> Bundle:
        """A bundle of what `convert` gave, opened and asked in a process of its own, here or at another place."""
        model = self._compressed(recipe)
        settings: dict[str, Any] = {"force": force, "place": place, "limit_s": self._limit_s(self.patience_s)}
        return assemble(model, converted, self._origin(recipe, model), self._vectors(), path, **settings)

    def write_unopened(self, recipe: Recipe, converted: Converted, path: Path, *, force: bool = False) -> Bundle:
        """The same where the engine cannot run here: nobody has asked it anything."""
        model = self._compressed(recipe)
        return assemble_unopened(model, converted, self._origin(recipe, model), self._vectors(), path, force=force)

    def version(self, engine: str) -> str:
        """The version of an engine. Raises `UnknownNameError`, `MissingExtraError`, or `BenchError` as `Converters`."""
        if self._apart(engine):
            return self.converters.version(engine)
        return str(plugins.load("runtimes", engine).version())

    def takes(self, engine: str) -> bool:
        """Whether an engine takes this kind of model."""
        if self._apart(engine):
            return self.converters.takes(engine, self.model)
        return takes(engine, self.model)

    def _apart(self, engine: str) -> bool:
        return self.apart or engine not in USUAL  # a search makes dozens of bundles for these, and each start costs

    def _origin(self, recipe: Recipe, model: Model) -> Origin:
        return Origin(
            source=self.source,
            recipe=recipe,
            calibration={"digest": self.observer.digest, "part": self.question.seen.part},
            target=self.target,
            notes=self._covered(model),
        )

    def _compressed(self, recipe: Recipe) -> Model:
        """The model after all steps; it starts from the longest beginning that is still in memory."""
        model, begun = self.model, 0
        for count in range(len(recipe.steps), 0, -1):
            if (known := self._prefixes.get(_written(recipe, count))) is not None:
                model, begun = known, count
                break
        for count in range(begun, len(recipe.steps)):
            model = apply_step(model, recipe.steps[count], self.observer)
            self._prefixes[_written(recipe, count + 1)] = model
            self._prefixes.move_to_end(_written(recipe, count + 1))
            while len(self._prefixes) > KEPT_MODELS:
                self._prefixes.popitem(last=False)
        return model

    def _covered(self, model: Model) -> dict[str, Any]:
        """How much of the texts for the report a cut vocabulary still covers; empty if none was cut."""
        before, after = self.model.senses, model.senses
        if before == after or not (isinstance(before, TextSenses) and isinstance(after, TextSenses)):
            return {}
        found = plugins.load("passes", "vocab").coverage(before, after, self.question.report.samples.texts)
        return {"coverage": {"texts": found.covered_texts, "tokens": found.covered_tokens, "of": found.texts}}

    def _vectors(self) -> Vectors:
        if self._proof is None:
            inputs = self.question.proof(self.model)
            self._proof = Vectors(inputs=inputs, original=one_by_one(open_reference(self.model), inputs))
        return self._proof

    def reference_parity(self, recipe: Recipe) -> Parity:
        """How close the recipe itself comes to the original, on the proof's inputs, without any engine."""
        proof = self._vectors()
        assert proof.original is not None
        return parity(one_by_one(open_reference(self._compressed(recipe)), proof.inputs), proof.original)

    # Asking ------------------------------------------------------------------------------------------

    def judge(self, recipe: Recipe) -> Trial:
        """Make a recipe and ask it what the search sees: size and a few answers first, the whole half then."""
        started = time.monotonic()
        made, reused = self.make(recipe)
        trial = Trial(
            recipe=str(recipe),
            state="judged",
            digest=made.digest,
            size_bytes=made.size_bytes,
            parity=proof_parity(made),
            floats=made.content.lineage.get("floats", {}),
            reused=reused,
        )
        if trial.parity is not None and trial.parity.cosine_mean < FAITHLESS:
            where = first_divergence(self._compressed(recipe), self.model, inputs(made)[::4])
            trial = replace(trial, parity=replace(trial.parity, diverges_at=where))
        elif trial.parity is not None:
            quality, close, known = self.quality(made, self.question.seen)
            trial = replace(trial, quality=quality, parity=close or trial.parity, reused=reused and known)
        return replace(trial, judged_s=time.monotonic() - started)

    def quality(self, made: Bundle, part: Part) -> tuple[Quality, Parity | None, bool]:
        """Quality and parity of a bundle on one half, and whether they were known already."""
        name = cache.key(__version__, made.digest, part.digest, self.question.judge_name, self.place.command)
        known = cache.load_json("judgements", name) if self.question.judge is None else None
        if known:
            return Quality.from_json(known["quality"]), Parity(**known["parity"]) if known["parity"] else None, True
        with open_on_bench(made, self.place, self.plan, self._limit_s(self.patience_s)) as model:
            given = self.question.ask(model, part)
        original = self._original_given(part)
        quality = self.question.compare(given, original, part)
        close = None
        if isinstance(given, Answers) and isinstance(original, Answers):
            close = parity(given.values, original.values)
        cache.store_json("judgements", name, {"quality": quality.to_json(), "parity": _fields(close)})
        return quality, close, False

    def _original_given(self, part: Part) -> Given:
        if part.digest not in self._given:
            self._given[part.digest] = self.question.ask(open_reference(self.model), part)
        return self._given[part.digest]

    # Timing ------------------------------------------------------------------------------------------

    def find_baseline(self, engines: Sequence[str]) -> tuple[Trial, ...]:
        """Time the original on each engine; the fastest is what speedups are against, and stays open.

        Returns a trial for each engine; one on which the original fails is no use for anything else. Raises the last
        error if there is no other.
        """
        trials: list[Trial] = []
        last: TightropeError | None = None
        for engine in engines:
            try:
                trials.append(self._time_original(engine))
            except TightropeError as error:
                last = error
                reason = f"{error.message} {error.hint}"
                trials.append(Trial(recipe=f"original -> {engine}", state="failed", reason=reason))
        if self.baseline is None and last is not None:
            raise last
        return tuple(trials)

    def _time_original(self, engine: str) -> Trial:
        made, _ = self.make(Recipe((), engine))
        plan = replace(self.plan, seconds=self.plan.seconds / 2)
        subject = Subject(made, self._texts(), plan, self.place)
        try:
            found = subject.measure(self._original)
        except BaseException:
            subject.close()
            raise
        trial = Trial(
            recipe=f"original -> {engine}",
            state="timed",
            digest=made.digest,
            size_bytes=made.size_bytes,
            measurement=found,
        )
        ratio = usual(found).speedup
        if self._original is None or (ratio is not None and ratio.value > 1):
            if self._original is not None:
                self._original.close()
            self.baseline, self._original = trial, subject
        else:
            subject.close()
        return trial

    def time(self, trial: Trial) -> Trial:
        """Measure a judged trial in turns with the original; a measurement that is known already is taken."""
        made, _ = self.make(Recipe.parse(trial.recipe))
        assert self.baseline is not None
        name = cache.key(__version__, made.digest, self.baseline.digest, self.plan, self.place, this_machine())
        known = cache.load_json("measurements", name)
        if known:
            found = Measurement.from_json(known)
        else:
            found = self.measure(made)
            cache.store_json("measurements", name, found.to_json())
        executed, layers = self.executed(made)
        return replace(trial, state="timed", measurement=found, executed=executed, layers=layers, reused=bool(known))

    def measure(self, made: Bundle) -> Measurement:
        """Measure a bundle now, in turns with the original."""
        plan = replace(self.plan, limit_s=self._limit_s(self.plan.limit_s))
        return measure(made, self._texts(), plan, self.place, against=self._original)

    def executed(self, made: Bundle) -> tuple[dict[str, float] | None, dict[str, str]]:
        """What ran in which precision, as the bench's engine tells it for one of the bundle's own texts."""
        try:
            with open_on_bench(made, self.place, self.plan, self._limit_s(self.plan.limit_s)) as opened:
                return opened.executed(inputs(made)[-1])
        except BenchError:
            return None, {}  # an older worker does not know the question

    def _texts(self) -> list[Any]:
        """What memory, throughput and latency are measured with; pictures of the right size, so that no file is
        decoded on the way."""
        if self.question.calibrating is not None:
            return self.question.proof(self.model)
        texts = spread(self.question.seen.samples.texts, MEASURED_TEXTS)
        return [text[:LONGEST_MEASURED] for text in texts]


def _written(recipe: Recipe, count: int) -> str:
    """The first steps and what they read from disk."""
    steps = recipe.steps[:count]
    return f"{Recipe(steps, 'any')} {read_digest(steps)}"


def _fields(value: Parity | None) -> dict[str, Any] | None:
    return asdict(value) if value else None


def proof_parity(made: Bundle) -> Parity | None:
    """How close a bundle's recorded answers are to the original's, without running anything."""
    expected, original = recorded(made, "expected"), recorded(made, "original")
    if expected is None or original is None or not np.isfinite(expected).all():
        return None
    return parity(expected, original)
