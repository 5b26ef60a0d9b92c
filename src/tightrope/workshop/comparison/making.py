"""Making a cell: convert, write the bundle, open it, and hold its answers against the original's, all at once.

What answers wrong is no success, however smoothly it was made: its bundle is removed, and the cell says so.
"""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from tightrope.bundle import Bundle
from tightrope.device.meter.run import Place
from tightrope.errors import MissingExtraError, TightropeError, UnsupportedError
from tightrope.measurement import Parity
from tightrope.recipe import Recipe
from tightrope.workshop.comparison import interpreter
from tightrope.workshop.comparison.outcome import Cell, State, one_line
from tightrope.workshop.converted import Converted
from tightrope.workshop.search.laboratory import FAITHLESS, Laboratory, proof_parity
from tightrope.workshop.verify import stand_in

FLOAT_STEPS = ("half",)
"""Steps after which a model still computes in floats."""
KEPT = ("not run", "interpreted")
"""No successes here, but artefacts that may be some elsewhere."""
SAME = 0.99
"""Least cosine of a model that computes in floats: whatever is below is another model's answer, or garbage."""


class Maker:
    """Makes cells in a laboratory; `judges` asks each for its quality too."""

    def __init__(self, laboratory: Laboratory, *, judges: bool) -> None:
        self._laboratory, self._judges = laboratory, judges

    def make(self, cell: Cell, recipe: Recipe, path: Path) -> tuple[Cell, Bundle | None]:
        """The cell as far as it comes, and its bundle if it is a success. Raises nothing that an engine causes."""
        started = time.monotonic()
        try:
            found, made = self._make(cell, recipe, path)
        except TightropeError as error:
            found, made = replace(cell, state=_state(error), reason=told(error)), None
        except Exception as error:  # whatever one engine's answer leads to, the others are still to be compared
            found, made = replace(cell, state="failed", reason=one_line(f"{type(error).__name__}: {error}")), None
        if not found.succeeded and found.state not in KEPT:
            shutil.rmtree(path, ignore_errors=True)
            found = replace(found, bundle=None)
        return replace(found, converting_s=found.converting_s or time.monotonic() - started), made

    def _make(self, cell: Cell, recipe: Recipe, path: Path) -> tuple[Cell, Bundle | None]:
        started, laboratory = time.monotonic(), self._laboratory
        converted = laboratory.convert(recipe)
        try:
            made = laboratory.write(recipe, converted, path, force=True)
        except (UnsupportedError, MissingExtraError) as error:
            if recipe.engine not in stand_in.STAND_INS:
                made = laboratory.write_unopened(recipe, converted, path, force=True)
                return replace(_described(cell, converted, made), state="not run", reason=told(error)), None
            made = laboratory.write(recipe, converted, path, force=True, place=Place(command=interpreter.COMMAND))
            cell = replace(
                cell, state="interpreted", reason=stand_in.UNPROVEN[recipe.engine].removeprefix("interpreted: ")
            )
        took = time.monotonic() - started
        close = proof_parity(made)
        found = replace(_described(cell, converted, made), converting_s=took, parity=close)
        if (wrong := self._wrong(recipe, close)) is not None:
            return replace(found, state="wrong", reason=wrong), None
        if cell.state == "interpreted":
            return found, None
        if self._judges:
            quality, on_samples, _ = laboratory.quality(made, laboratory.question.report)
            executed, _ = laboratory.executed(made)
            found = replace(found, quality=quality, parity=on_samples or close, executed=executed)
        return replace(found, state="converted"), made

    def _wrong(self, recipe: Recipe, close: Parity | None) -> str | None:
        """What is wrong with answers, or `None`. What the recipe alone costs is told beside what the engine gave."""
        if close is None:
            return "Its answers are not finite numbers."
        floats = all(step.name in FLOAT_STEPS for step in recipe.steps)
        if close.cosine_min >= SAME or (not floats and close.cosine_mean >= FAITHLESS):
            return None
        cosines = f"{close.cosine_min:.3f} least, {close.cosine_mean:.3f} mean"
        said = f"Its answers have a cosine of {cosines}, with the original's"
        if floats:
            return f"{said}."
        own = self._laboratory.reference_parity(recipe)
        return f"{said}; those of the recipe itself {own.cosine_min:.3f} and {own.cosine_mean:.3f}."


def _described(cell: Cell, converted: Converted, made: Bundle) -> Cell:
    return replace(
        cell,
        bundle=str(made.path),
        digest=made.digest,
        size_bytes=made.size_bytes,
        artefact_bytes=sum(len(data) for _, data in converted.files.values()),
        floats=dict(converted.floats),
        approximations=dict(converted.approximations),
    )


def _state(error: TightropeError) -> State:
    if isinstance(error, UnsupportedError):
        return "refused"
    return "missing" if isinstance(error, MissingExtraError) else "failed"


def told(error: TightropeError) -> str:
    """An error in one line."""
    return one_line(f"{error.message} {error.hint}")
