"""The pages on int4, mixed and vocab say what was measured."""

import json

import pytest

from benchmarks import fewer_bits


def test_the_pages_are_made_of_the_stored_run():
    assert fewer_bits.write(check=True), "python -m benchmarks.fewer_bits --write"


@pytest.mark.parametrize("page", fewer_bits.RECIPES)
def test_every_recipe_of_a_page_was_measured(page):
    results = json.loads(fewer_bits.STORED.read_text(encoding="utf-8"))
    block = fewer_bits.block(results, page)
    assert all(f"| `{recipe}` |" in block for recipe in fewer_bits.RECIPES[page])
    assert str(results["conditions"]["texts"]) in block


def test_the_measures_are_met():
    """Compensation is clearly better than rounding; four bits all over stay under 15 MB; the table shrinks by 40 %."""
    found = json.loads(fewer_bits.STORED.read_text(encoding="utf-8"))["recipes"]
    assert 1 - found["int4"]["mean"] < 0.5 * (1 - found["int4(method=nearest)"]["mean"])
    assert found[f"{fewer_bits.TABLE4} + int4"]["file"] <= 15_000_000
    pruned = found["vocab(corpus=texts, common=16000)"]
    assert pruned["identical"]
    assert pruned["own_texts"] == 1
    assert pruned["rows"] <= 0.6 * pruned["rows_before"]
