"""Precisions: the words that people use for how a model is stored, as the recipe that means them on an engine.

A word means the engine's own best recipe of its kind, as measured (`space`). What is no word is a recipe by its name
or written out.
"""

import re

from tightrope.errors import RecipeError, UnknownNameError
from tightrope.recipe import Recipe
from tightrope.workshop import recipes
from tightrope.workshop.compress import options_of
from tightrope.workshop.model import Model
from tightrope.workshop.search import space

WORDS = ("fp32", "fp16", "int8", "int4")


def split(text: str) -> tuple[str, ...]:
    """Several precisions with commas between them; those inside the options of a recipe do not count.

    >>> split("fp32, int8(activations=static, outliers=4)+embedding(bits=8) ,int4")
    ('fp32', 'int8(activations=static, outliers=4)+embedding(bits=8)', 'int4')
    """
    found = (part.strip() for part in re.split(r",(?![^()]*\))", text))
    return tuple(dict.fromkeys(part for part in found if part))


def recipe_for(precision: str, engine: str, model: Model) -> Recipe:
    """What to do to a model for this precision on this engine. Raises `RecipeError` as `read` does."""
    steps = (read(precision) or _best(precision.strip(), engine, model)).steps
    if not any(table.is_vocabulary for table in model.tables()):  # there is no table to make smaller
        steps = tuple(step for step in steps if step.name != "embedding")
    return Recipe(steps, engine)


def read(precision: str) -> Recipe | None:
    """The recipe that was written, or `None` for one of `WORDS`, which mean another one on each engine.

    Raises `RecipeError` for what is neither, and for a recipe that names an engine.
    """
    wanted = precision.strip()
    if wanted in WORDS:
        return None
    if "->" in wanted:
        raise RecipeError(f"The precision {wanted!r:.80} names an engine.", hint="Leave the arrow and the engine out.")
    try:
        found = recipes.read(wanted)
        for step in found.steps:
            options_of(step)
    except (UnknownNameError, RecipeError) as error:
        known = ", ".join((*WORDS, *recipes.named()))
        raise RecipeError(
            f"{wanted!r:.80} is neither a precision nor a recipe: {error.message}",
            hint=f"Give one of {known}, or the steps of a recipe (see `tightrope recipes`).",
        ) from error
    return found


def _best(word: str, engine: str, model: Model) -> Recipe:
    bodies = space.BODIES.get(engine, space.UNKNOWN)
    if word == "fp32":
        return Recipe((), engine)
    if word == "fp16":
        return Recipe.parse(space.PLAIN[0])
    if word == "int8":
        plain = next(body for body in (*bodies, *space.UNKNOWN) if "int8" in body)
        return next(iter(space.first(model, (engine,))), Recipe.parse(f"{plain} + {space.TABLES[0]}"))
    body = next((body for body in bodies if "int4" in body), None)
    return recipes.named()["int4"] if body is None else Recipe.parse(f"{body} + {space.TABLES[2]}")
