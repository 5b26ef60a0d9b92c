"""Two parts with no text in both."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import DataError
from tightrope.samples import LabelledPairs, Retrieval, ScoredPairs, Texts
from tightrope.workshop.data import split


def test_texts_are_halved_and_keep_their_order() -> None:
    texts = Texts(tuple(f"text {place:02}" for place in range(21)))
    seen, report = split(texts, 3)
    assert sorted((*seen.texts, *report.texts)) == list(texts.texts)
    assert (len(seen.texts), len(report.texts)) == (11, 10)
    assert list(seen.texts) == sorted(seen.texts)
    assert split(texts, 3) == (seen, report)
    assert split(texts, 4) != (seen, report)


def test_pairs_that_share_a_text_stay_together() -> None:
    pairs = tuple((f"query {place // 5}", f"candidate {place}") for place in range(200))
    samples = LabelledPairs(pairs=pairs, labels=tuple(int(place % 5 == 0) for place in range(200)))
    seen, report = split(samples, 0)
    assert not set(seen.texts) & set(report.texts)
    assert len(seen.pairs) == len(report.pairs) == 100
    assert dict(zip((*seen.pairs, *report.pairs), (*seen.labels, *report.labels), strict=True)) == dict(
        zip(samples.pairs, samples.labels, strict=True)
    )


def test_where_all_hangs_together_texts_are_dealt_and_crossing_pairs_dropped() -> None:
    names = [f"t{place}" for place in range(60)]
    pairs = tuple((a, b) for a in names for b in names if a < b)
    seen, report = split(ScoredPairs(pairs=pairs, scores=tuple(float(place % 7) for place in range(len(pairs)))), 0)
    assert not set(seen.texts) & set(report.texts)
    assert len(seen.pairs) + len(report.pairs) > len(pairs) // 3


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_no_text_is_ever_in_both(rows: list[tuple[int, int, int]], seed: int) -> None:
    samples = ScoredPairs(
        pairs=tuple((f"t{a}", f"t{b}") for a, b, _ in rows), scores=tuple(float(score) for *_, score in rows)
    )
    try:
        seen, report = split(samples, seed)
    except DataError as error:
        assert "too few" in error.message
        return
    assert not set(seen.texts) & set(report.texts)
    assert len(set(seen.scores)) > 1 and len(set(report.scores)) > 1


def test_queries_are_divided_and_documents_shared() -> None:
    samples = Retrieval(
        documents={f"d{place}": f"document {place}" for place in range(6)},
        queries={f"q{place}": f"query {place // 2}" for place in range(8)},  # each twice
        judgements={f"q{place}": {"d1": 1} for place in range(8)},
    )
    seen, report = split(samples, 0)
    assert not set(seen.queries.values()) & set(report.queries.values())
    assert seen.documents == report.documents == samples.documents
    assert set(seen.judgements) == set(seen.queries)


@pytest.mark.parametrize(
    "samples",
    [
        Texts(("one", "two")),
        LabelledPairs(pairs=(("a", "b"), ("c", "d")), labels=(0, 1)),
        Retrieval(documents={"d": "x"}, queries={"q": "y"}, judgements={"q": {"d": 1}}),
    ],
)
def test_too_few_to_cut(samples: Texts) -> None:
    with pytest.raises(DataError, match="too few to be cut in two"):
        split(samples, 0)
