import json

from benchmarks.techniques import RECIPES, STORED, block, write

from tightrope.recipe import Recipe
from tightrope.workshop.compress import options_of


def test_the_pages_say_what_was_measured():
    assert write(check=True), "python -m benchmarks.techniques --write"


def test_every_recipe_of_a_page_can_be_read_and_was_measured():
    found = json.loads(STORED.read_text(encoding="utf-8"))["recipes"]
    for recipe in {item for items in RECIPES.values() for item in items}:
        assert 0 < found[recipe]["min"] <= found[recipe]["p1"] <= found[recipe]["mean"] <= 1.0001
        for step in Recipe.parse(recipe).steps:
            options_of(step)


def test_a_table_has_a_row_for_each_recipe_and_the_original():
    text = block(json.loads(STORED.read_text(encoding="utf-8")), "half")
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")] == [
        "original",
        *RECIPES["half"],
    ]
