"""The pages on rotate and center say what was measured."""

import json

import pytest

from benchmarks import rotation
from tightrope.recipe import Recipe
from tightrope.workshop.compress import options_of


def test_the_pages_are_made_of_the_stored_run():
    assert rotation.write(check=True), "python -m benchmarks.rotation --write"


@pytest.mark.parametrize("page", rotation.RECIPES)
def test_every_recipe_of_a_page_can_be_read_and_was_measured(page):
    results = json.loads(rotation.STORED.read_text(encoding="utf-8"))
    block = rotation.block(results, page)
    assert all(f"| `{recipe}` |" in block for recipe in rotation.RECIPES[page])
    for recipe in rotation.RECIPES[page]:
        for step in Recipe.parse(recipe).steps:
            options_of(step)


def test_what_the_pages_conclude_is_what_was_measured():
    """Rotation takes most of the error away, GPTQ counts behind it, and a mean taken away before it does not."""
    found = json.loads(rotation.STORED.read_text(encoding="utf-8"))["recipes"]
    error = {recipe: 1 - item["corpus_mean"] for recipe, item in found.items() if recipe != "original"}
    assert error["rotate + int8"] < 0.2 * error["int8"]
    assert error[f"rotate + {rotation.G8}"] < 0.6 * error["rotate + int8"]
    assert error[f"center + rotate + {rotation.G8}"] == pytest.approx(error[f"rotate + {rotation.G8}"], rel=0.1)
    assert found[f"rotate + {rotation.G8}"]["corpus_min"] >= 0.999
