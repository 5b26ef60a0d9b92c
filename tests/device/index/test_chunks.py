"""Passages: none too long, nothing lost, each beginning with the end of the one before."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.index.chunks import Cutting, cut
from tightrope.errors import DataError


def letters(texts):
    """A count of tokens by which even one word can be too long: four letters a token."""
    return [sum(-(-len(word) // 4) for word in text.split()) for text in texts]


WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=60)
TEXT = st.lists(st.lists(WORD, max_size=30).map(" ".join), max_size=8).map("\n\n".join)


@given(text=TEXT, tokens=st.integers(8, 40), share=st.integers(0, 4))
def test_no_passage_is_too_long_and_nothing_is_lost(text, tokens, share):
    passages = cut(text, Cutting(tokens=tokens, overlap=tokens * share // 8), letters)
    assert all(size <= tokens for size in letters(passages))
    assert set("".join(text.split())) == set("".join("".join(passages).split()))
    if not share:
        assert "".join(text.split()) == "".join("".join(passages).split())


def test_a_passage_ends_where_a_sentence_does():
    sentences = [f"Sentence number {n} is here." for n in range(12)]
    passages = cut(" ".join(sentences), Cutting(tokens=24, overlap=8), letters)
    assert len(passages) > 3 and all(passage.endswith(".") for passage in passages)
    assert all(b.split(". ")[0].rstrip(".") in a for a, b in itertools.pairwise(passages))


def test_a_short_text_is_one_passage_and_an_empty_one_none():
    assert cut("  A short\n text. ", Cutting(tokens=8, overlap=2), letters) == ["A short text."]
    assert cut(" \n\n \t", Cutting(tokens=8, overlap=2), letters) == []


@pytest.mark.parametrize(("tokens", "overlap"), [(4, 0), (16, 9), (16, -1)])
def test_what_cannot_be_cut_is_refused(tokens, overlap):
    with pytest.raises(DataError):
        Cutting(tokens=tokens, overlap=overlap)
