"""Texts of exactly so many tokens, from whatever texts there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.senses.text import Tokenizer, of_length


@pytest.fixture(scope="module")
def tokenizer(tiny_bert) -> Tokenizer:
    return Tokenizer(tiny_bert.senses.tokenizer, 64)


@pytest.mark.parametrize("tokens", [2, 3, 4, 12, 32, 63, 64])
@pytest.mark.parametrize("texts", [["The cat sat.", "Antidisestablishmentarianism", "你好 世界"], ["the"], [], [""]])
def test_the_length_is_exact(tokenizer: Tokenizer, texts: list[str], tokens: int) -> None:
    text = of_length(tokenizer, texts, tokens)
    encoded = tokenizer.encode([text])
    assert encoded.ids.lengths.tolist() == [tokens]
    assert encoded.truncated == 0


@pytest.mark.parametrize("tokens", [4, 12, 64])
def test_pairs_too(tokenizer: Tokenizer, tokens: int) -> None:
    pair = of_length(tokenizer, ["the cat sat on the mat"], tokens, pair=True)
    assert isinstance(pair, tuple)
    assert tokenizer.encode([pair]).ids.lengths.tolist() == [tokens]


@pytest.mark.parametrize("tokens", [1, 65, 5000])
def test_a_length_that_the_model_does_not_take_is_none(tokenizer: Tokenizer, tokens: int) -> None:
    assert of_length(tokenizer, ["the cat sat"], tokens) is None


@pytest.mark.parametrize("tokens", [6, 12, 64])
def test_a_prompt_counts_and_is_left_out(tokenizer: Tokenizer, tokens: int) -> None:
    text = of_length(tokenizer, ["dogs bark at night"], tokens, before="the cat ")
    assert isinstance(text, str) and not text.startswith("the cat ")
    assert tokenizer.encode([f"the cat {text}"]).ids.lengths.tolist() == [tokens]


def test_a_prompt_longer_than_the_length_leaves_no_text(tokenizer: Tokenizer) -> None:
    assert of_length(tokenizer, ["dogs bark at night"], 4, before="the cat sat on the mat ") is None


def test_pairs_have_no_prompt(tokenizer: Tokenizer) -> None:
    pair = of_length(tokenizer, ["the cat sat"], 12, pair=True, before="the cat ")
    assert pair == of_length(tokenizer, ["the cat sat"], 12, pair=True)


@given(texts=st.lists(st.text(max_size=40), max_size=5), tokens=st.integers(1, 70))
def test_never_another_length(tokenizer: Tokenizer, texts: list[str], tokens: int) -> None:
    text = of_length(tokenizer, texts, tokens)
    assert text is None or tokenizer.encode([text]).ids.lengths.tolist() == [tokens]
