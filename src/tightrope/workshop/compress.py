"""Compress: a recipe applied to a model, step by step, and the bundle that comes of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from tightrope import plugins
from tightrope.bundle import sha256_of
from tightrope.errors import RecipeError
from tightrope.recipe import Step, Value
from tightrope.workshop.graph import Graph
from tightrope.workshop.model import Model
from tightrope.workshop.network import Network
from tightrope.workshop.observe import Observer

M = TypeVar("M", bound=Model)


class Pass(Protocol):
    """What a file in `passes/` offers."""

    Options: type[Any]

    def apply(self, model: M, options: Any, observer: Observer) -> M:
        """The model with the technique applied. Raises `UnsupportedError` if it cannot be.

        A pass that reads files says which by `reads(options) -> tuple[Path, ...]`.
        """
        ...


def options_of(step: Step) -> Any:
    """The options of a step as its pass declares them. Raises `RecipeError` for an unknown one or a wrong kind."""
    kind = cast(Pass, plugins.load("passes", step.name)).Options
    known = {item.name: item.default for item in fields(kind)}
    values: dict[str, Value] = {}
    for name, value in step.options.items():
        if name not in known:
            raise RecipeError(f"{step.name} has no option {name!r}.", hint=f"It has: {', '.join(known) or 'none'}.")
        values[name] = _as_kind_of(known[name], value, f"{step.name}({name}={value})")
    return kind(**values)


def _as_kind_of(default: object, value: Value, written: str) -> Value:
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is not None and type(value) is not type(default):
        raise RecipeError(f"{written} should be a {type(default).__name__}.", hint=f"The default is {default!r}.")
    return value


def apply_step(model: M, step: Step, observer: Observer) -> M:
    """One step applied. The result's digest follows from the model's, the step and the calibration texts."""
    options = options_of(step)
    changed = cast(Pass, plugins.load("passes", step.name)).apply(model, options, observer)
    parts = (
        model.digest,
        str(Step(step.name, {f.name: getattr(options, f.name) for f in fields(options)})),
        observer.digest,
        read_digest([step]),
    )
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    assert isinstance(changed, Network | Graph)
    return cast(M, replace(changed, digest=digest))


def read_digest(steps: Sequence[Step]) -> str:
    """The sha256 of all files that the steps read besides the model and the texts; empty if there are none."""
    digests = []
    for step in steps:
        reads = getattr(plugins.load("passes", step.name), "reads", None)
        paths: Sequence[Path] = reads(options_of(step)) if reads else ()
        digests += [sha256_of(path) if path.is_file() else "" for path in paths]  # the pass itself says what is missing
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() if digests else ""


def compress(model: M, steps: Sequence[Step], observer: Observer) -> M:
    """All steps applied in order."""
    for step in steps:
        model = apply_step(model, step, observer)
    return model
