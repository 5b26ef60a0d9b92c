"""The laboratory: makes a recipe's bundle, asks it, and times it, each step at most once in a cache's lifetime.

Answers and times come from a bench, a process of its own here or elsewhere, so that an engine that crashes or hangs is
a result and not the end of the run.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tightrope import __version__, bundle, plugins
from tightrope.bundle import Bundle
from tightrope.device.meter.machine import this_machine
from tightrope.device.meter.run import Place, Plan, Subject, measure
from tightrope.device.model import open_bundle
from tightrope.device.proof import recorded
from tightrope.errors import TightropeError
from tightrope.measurement import Measurement, Parity, Quality
from tightrope.recipe import Recipe
from tightrope.workshop import cache
from tightrope.workshop.assemble import Origin, Vectors, assemble
from tightrope.workshop.benches.answering import open_on_bench
from tightrope.workshop.compress import apply_step, read_digest
from tightrope.workshop.converted import convert
from tightrope.workshop.model import Model
from tightrope.workshop.observe import Observer
from tightrope.workshop.search.question import Given, Part, Question, spread
from tightrope.workshop.search.trial import Trial
from tightrope.workshop.verify.answers import Answers, ReferenceScorer, open_reference
from tightrope.workshop.verify.parity import first_divergence, parity

KEPT_MODELS = 3
"""Models between two steps that are kept in memory, for recipes that begin alike."""

MEASURED_TEXTS = 64

FAITHLESS = 0.8
"""Below this mean cosine of the answers no task survives: the layer where it goes wrong is named, no more is asked."""


@dataclass(slots=True, kw_only=True)
class Laboratory:
    """Everything that making, asking and timing need. A context manager: it holds the original's process."""

    source: str
    model: Model
    question: Question
    observer: Observer
    place: Place
    plan: Plan
    target: str
    baseline: Trial | None = None
    _original: Subject | None = None
    _original_size: int = 0
    _given: dict[str, Given] = field(default_factory=dict)
    _prefixes: "OrderedDict[str, Model]" = field(default_factory=OrderedDict)
    _proof: Vectors | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._original is not None:
            self._original.close()

    # Making ------------------------------------------------------------------------------------------

    def make(self, recipe: Recipe) -> tuple[Bundle, bool]:
        """The recipe's bundle in the cache, and whether it was there already."""
        engine = plugins.load("runtimes", recipe.engine).version()
        read = read_digest(recipe.steps)
        name = cache.key(
            __version__, self.source, self.model.origin, self.observer.digest, recipe, read, engine, self.target
        )
        path = cache.scratch("bundles", f"{name}.bundle")
        try:
            return bundle.read(path), True
        except TightropeError:
            return self.make_anew(recipe, path, force=True), False

    def make_anew(self, recipe: Recipe, path: Path, *, force: bool = False) -> Bundle:
        """The recipe's bundle, written to `path`."""
        model = self._compressed(recipe)
        origin = Origin(
            source=self.source,
            recipe=recipe,
            calibration={"samples": self.question.seen.name, "digest": self.observer.digest},
            target=self.target,
        )
        return assemble(model, convert(model, recipe.engine), origin, self._vectors(), path, force=force)

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

    def _vectors(self) -> Vectors:
        if self._proof is None:
            inputs = self.question.proof(self.model)
            opened = open_reference(self.model)
            if isinstance(opened, ReferenceScorer):
                rows = [opened.score([pair]).reshape(1, -1) for pair in inputs]
            else:
                rows = [opened.embed([text]) for text in inputs]
            self._proof = Vectors(inputs=inputs, original=np.concatenate(rows))
        return self._proof

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
            where = first_divergence(self._compressed(recipe), self.model, made.content.vectors["inputs"][::4])
            trial = replace(trial, parity=replace(trial.parity, diverges_at=where))
        elif trial.parity is not None:
            quality, close, known = self.quality(made, self.question.seen)
            trial = replace(trial, quality=quality, parity=close or trial.parity, reused=reused and known)
        return replace(trial, judged_s=time.monotonic() - started)

    def quality(self, made: Bundle, part: Part) -> tuple[Quality, Parity | None, bool]:
        """Quality and parity of a bundle on one half, and whether they were known already."""
        name = cache.key(made.digest, part.digest, self.question.judge_name, self.place.command)
        known = cache.load_json("judgements", name) if self.question.judge is None else None
        if known:
            return Quality.from_json(known["quality"]), Parity(**known["parity"]) if known["parity"] else None, True
        with open_on_bench(made, self.place, self.plan) as model:
            given = self.question.ask(model, part)
        original = self._original_given(part)
        quality = self.question.compare(given, original, part)
        close = None
        if isinstance(given, Answers) and isinstance(original, Answers):
            close = parity(given.values, original.values)
        cache.store_json("judgements", name, {"quality": quality.to_json(), "parity": _fields(close)})
        return quality, close, False

    def _original_given(self, part: Part) -> Given:
        if part.name not in self._given:
            self._given[part.name] = self.question.ask(open_reference(self.model), part)
        return self._given[part.name]

    # Timing ------------------------------------------------------------------------------------------

    def find_baseline(self, engines: Sequence[str]) -> Trial:
        """Time the original on each engine; the fastest is what speedups are against, and stays open."""
        best: tuple[Trial, Subject] | None = None
        for engine in engines:
            made, _ = self.make(Recipe((), engine))
            subject = Subject(made, self._texts(), replace(self.plan, seconds=self.plan.seconds / 2), self.place)
            found = subject.measure(best[1] if best else None)
            trial = Trial(
                recipe=f"original -> {engine}",
                state="timed",
                digest=made.digest,
                size_bytes=made.size_bytes,
                measurement=found,
            )
            middle = found.latencies[len(found.latencies) // 2]
            if best is None or (middle.speedup and middle.speedup.value > 1):
                if best:
                    best[1].close()
                best = trial, subject
            else:
                subject.close()
        assert best is not None
        self.baseline, self._original = best
        return best[0]

    def time(self, trial: Trial) -> Trial:
        """Measure a judged trial in turns with the original."""
        made, _ = self.make(Recipe.parse(trial.recipe))
        assert self.baseline is not None
        machine = this_machine()
        parts = (made.digest, self.baseline.digest, self.plan, self.place, machine)
        name = cache.key(__version__, *parts)
        known = cache.load_json("measurements", name)
        if known:
            found = Measurement.from_json(known)
        else:
            found = measure(made, self._texts(), self.plan, self.place, against=self._original)
            cache.store_json("measurements", name, found.to_json())
        return replace(trial, state="timed", measurement=found, executed=executed_share(made), reused=bool(known))

    def _texts(self) -> list[str]:
        return [str(text) for text in spread(self.question.seen.samples.texts, MEASURED_TEXTS)]


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


def executed_share(made: Bundle) -> dict[str, float] | None:
    """The share of multiply-adds by precision, as the bundle's engine tells for one of its own texts."""
    artefact = made.content.models[0].artefacts[0]
    runtime = plugins.load("runtimes", artefact.engine)
    with open_bundle(made) as opened:
        feeds = opened.feeds(opened.tokenizer.encode(made.content.vectors["inputs"][-1:]))
    found = runtime.executed({role: made.file(path) for role, path in artefact.files.items()}, artefact.settings, feeds)
    return dict(found.share) if found else None
