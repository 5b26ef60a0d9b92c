"""Recommendation: near the profile, nothing twice, recent more than old, not all alike."""

from collections.abc import Iterator

import numpy as np
import pytest

from tightrope.device.apps import recommender
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.index.opened import Index
from tightrope.errors import DataError


def group(number: int, count: int, seed: int) -> np.ndarray:
    """Items of one kind: near an axis."""
    rows = 0.2 * np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    rows[:, number] += 1
    return rows


@pytest.fixture
def index(tmp_path) -> Iterator[Index]:
    """Twenty items each of three kinds: a0 …, b0 …, c0 …."""
    with create(tmp_path / "items.index", digest="ab" * 32, width=16) as opened:
        for number, letter in enumerate("abc"):
            items = [Document(key=f"{letter}{n}", passages=(letter,), metadata={"kind": letter}) for n in range(20)]
            opened.add(items, group(number, 20, seed=number))
        yield opened


def kinds(hits) -> str:
    return "".join(hit.key[0] for hit in hits)


def test_what_is_like_the_history_is_recommended_and_none_of_it(index):
    hits = recommender.recommend(index, ["a1", "a2", "gone", "a3"], 8)
    assert kinds(hits) == "a" * 8 and not {hit.key for hit in hits} & {"a1", "a2", "a3"}


def test_what_came_last_counts_most(index):
    history = ["a1", "a2", "a3", "a4", "b1", "b2"]
    assert kinds(recommender.recommend(index, history, 3, half_life=1, diversity=0)) == "bbb"
    assert kinds(recommender.recommend(index, history[::-1], 3, half_life=1, diversity=0)) == "aaa"
    assert kinds(recommender.recommend(index, [*history, "a5", "a6"][::-1], 3, half_life=None, diversity=0)) == "aaa"


def test_diversity_takes_what_is_less_alike(index):
    history = ["a1", "b1"]

    def spread(diversity: float) -> float:
        keys = [hit.key for hit in recommender.recommend(index, history, 6, diversity=diversity)]
        rows = np.stack([found[0] for found in index.vectors(keys).values()])
        return float(1 - (rows @ rows.T).mean())

    assert spread(0.7) > spread(0.3) > spread(0)


def test_filters_hold(index):
    assert kinds(recommender.recommend(index, ["a1", "a2"], 3, where={"kind": "c"})) == "ccc"


def test_what_cannot_be_is_refused(index):
    for named in ({"diversity": 2}, {"half_life": 0}, {"diversity": float("nan")}):
        with pytest.raises(DataError):
            recommender.recommend(index, ["a1"], 3, **named)
    for history in ([], ["nobody", "knows"]):
        with pytest.raises(DataError, match="none of the items"):
            recommender.recommend(index, history, 3)


def test_opposites_have_a_profile(tmp_path):
    rows = np.array([[1, 0], [-1, 0]], np.float32)
    assert np.isfinite(recommender.profile(rows)).all()


def test_items_that_the_same_people_like_are_near_each_other():
    random = np.random.default_rng(0)
    histories = {f"u{n}": [f"{'ab'[n % 2]}{item}" for item in random.choice(15, 8, replace=False)] for n in range(60)}
    keys, rows = recommender.learned(histories, width=8)
    alike = rows @ rows.T
    same = np.array([[a[0] == b[0] for b in keys] for a in keys])
    assert len(keys) == 30 and alike[same].mean() > 0.3 > abs(alike[~same].mean())
    again = recommender.learned(dict(reversed(histories.items())), width=8)
    assert again[0] == keys
    with pytest.raises(DataError):
        recommender.learned({"u": ["a", "b"]}, width=8)
