"""The space: recipes that can be read, the likeliest first, and the engines that originals are timed on."""

import pytest

from tightrope.workshop.compress import options_of
from tightrope.workshop.network import Network
from tightrope.workshop.search import space

ENGINES = ("native", "onnxruntime", "openvino")


@pytest.mark.parametrize(
    ("engines", "timed"),
    [
        (ENGINES, ("onnxruntime", "openvino")),
        (("openvino", "native"), ("openvino",)),
        (("native",), ("native",)),
        (("onnxruntime",), ("onnxruntime",)),
        ((), ()),
    ],
)
def test_originals_are_timed_where_floats_are_fast(engines: tuple[str, ...], timed: tuple[str, ...]) -> None:
    assert space.for_originals(engines) == timed


def test_every_recipe_can_be_read_and_comes_once(tiny_bert: Network) -> None:
    recipes = [*space.openers(ENGINES), *space.others(tiny_bert, ENGINES)]
    assert len({str(recipe) for recipe in recipes}) == len(recipes) > 25
    for recipe in recipes:
        for step in recipe.steps:
            options_of(step)


def test_each_engine_has_an_opener_and_they_take_turns(tiny_bert: Network) -> None:
    assert [recipe.engine for recipe in space.openers(ENGINES)] == list(ENGINES)
    assert {recipe.engine for recipe in space.others(tiny_bert, ENGINES)[:5]} == set(ENGINES)
    assert space.openers(("unheard-of",)) == ()
