import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import RecipeError
from tightrope.recipe import Recipe, Step

VALUES = st.one_of(
    st.booleans(),
    st.integers(-999, 999),
    st.floats(-99, 99, allow_nan=False).map(lambda value: round(value, 3)),
    st.text(st.characters(codec="utf-8", exclude_characters='"\\\n'), max_size=12),
)
STEPS = st.builds(
    Step,
    st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True),
    st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), VALUES, max_size=3),
)


@given(st.lists(STEPS, min_size=1, max_size=4).filter(lambda steps: steps[0].name != "original"))
def test_what_is_written_is_read_back(steps: list[Step]) -> None:
    recipe = Recipe(tuple(steps), "onnxruntime")
    assert Recipe.parse(str(recipe)) == recipe


def test_equal_recipes_have_one_digest_however_written() -> None:
    assert Recipe.parse("int8(b=1,a=2)+half->x").digest == Recipe.parse(" int8( a=2 , b=1 ) + half -> x ").digest
    assert Recipe.parse("int8").digest != Recipe.parse("int8", engine="openvino").digest


def test_no_steps_is_the_original() -> None:
    assert Recipe.parse("") == Recipe.parse("original") == Recipe((), "onnxruntime")


@pytest.mark.parametrize(
    "text",
    ["Int8", "int8(", "int8(bits)", "int8(bits=)", "int8(bits=8, bits=4)", "int8 ++ half", "int8 -> ", "int8 -> x y"],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.parse(text)
