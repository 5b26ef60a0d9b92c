"""Precisions: words mean each engine's own recipe, anything else is a recipe, and the rest is refused in two lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import RecipeError
from tightrope.recipe import Recipe
from tightrope.workshop.compress import options_of
from tightrope.workshop.network import Network
from tightrope.workshop.search import precisions, space

ENGINES = (*space.BODIES, "unheard-of")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("word", precisions.WORDS)
def test_a_word_is_a_recipe_that_can_be_read(word: str, engine: str, tiny_bert: Network) -> None:
    found = precisions.recipe_for(word, engine, tiny_bert)
    assert found.engine == engine
    for step in found.steps:
        options_of(step)
    if word in ("int8", "int4"):
        assert any(step.name == word for step in found.steps)
    else:
        assert [step.name for step in found.steps] == {"fp32": [], "fp16": ["half"]}[word]


@pytest.mark.parametrize("engine", space.OPENERS)
def test_int8_is_what_did_best_on_an_engine(engine: str, tiny_bert: Network) -> None:
    assert precisions.recipe_for("int8", engine, tiny_bert) == Recipe.parse(space.OPENERS[engine], engine=engine)


def test_a_recipe_may_be_named_or_written(tiny_bert: Network) -> None:
    for text in ("int8-simple", "int8(granularity=tensor) + embedding(bits=8)"):
        found = precisions.recipe_for(text, "openvino", tiny_bert)
        assert str(found) == "int8(granularity=tensor) + embedding(bits=8) -> openvino"


@pytest.mark.parametrize("text", ["int7", "int8 -> native", "int8(", "fp33", "half(", "int8(sideways=true)", "", "+"])
def test_what_is_neither_is_refused(text: str) -> None:
    if not text.strip():
        assert precisions.split(text) == ()
        return
    with pytest.raises(RecipeError) as caught:
        precisions.read(text)
    assert len(str(caught.value).splitlines()) == 2


@given(
    st.lists(st.sampled_from(["fp32", "int8(bits=8, x=1)", "half", "int4(method=hqq, block=64) + half"]), unique=True)
)
def test_commas_inside_options_separate_nothing(items: list[str]) -> None:
    assert precisions.split(" , ".join(items)) == tuple(items)
