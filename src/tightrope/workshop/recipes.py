"""Named recipes, from `recipes.toml`; and reading what a user wrote, a name or the steps themselves."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files

from tightrope.recipe import Recipe


def named() -> Mapping[str, Recipe]:
    """All named recipes, each without an engine of its own."""
    text = (files("tightrope.workshop") / "recipes.toml").read_text(encoding="utf-8")
    return {name: Recipe.parse(written) for name, written in tomllib.loads(text)["recipes"].items()}


def read(text: str) -> Recipe:
    """A recipe from its name or its written form, either with `-> engine` behind it. Raises `RecipeError`."""
    name, arrow, engine = text.partition("->")
    known = named().get(name.strip())
    return Recipe.parse(f"{known.body}{arrow}{engine}") if known else Recipe.parse(text)
