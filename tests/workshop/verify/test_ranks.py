"""The figures of merit against their plain definitions, on weighted and repeated samples."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.workshop.verify.ranks import Order, auc, best_threshold, correlation, f1, ndcg, recall, spearman

few_values = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=25)


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second, weights = np.array(rows, np.float64).T
    return first, second, weights


def average_ranks(values: np.ndarray) -> np.ndarray:
    """By definition: one more than the number below, plus half of the others that are equal."""
    return np.array([1 + (values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


def plain_spearman(first: np.ndarray, second: np.ndarray) -> float:
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 0.0
    return float(np.corrcoef(average_ranks(first), average_ranks(second))[0, 1])


def test_spearman_without_ties_is_one_less_six_times_the_squares() -> None:
    first = np.array([106, 100, 86, 101, 99, 103, 97, 113, 112, 110.0])
    second = np.array([7, 27, 2, 50, 28, 29, 20, 12, 6, 17.0])
    squares = ((average_ranks(first) - average_ranks(second)) ** 2).sum()
    expected = 1 - 6 * squares / (10 * 99)
    assert spearman(Order.of(first), Order.of(second), np.ones((1, 10)))[0] == pytest.approx(expected)
    assert expected == pytest.approx(-29 / 165)


@given(few_values)
def test_a_weight_counts_as_so_many_equal_observations(rows: list[tuple[int, int, int]]) -> None:
    first, second, weights = columns(rows)
    times = weights.astype(int)
    if times.sum() < 2:
        return
    expected = plain_spearman(np.repeat(first, times), np.repeat(second, times))
    found = spearman(Order.of(first), Order.of(second), weights[None])
    assert found[0] == pytest.approx(expected, abs=1e-9)


@given(few_values)
def test_rank_correlation_ignores_any_rising_change(rows: list[tuple[int, int, int]]) -> None:
    first, second, _ = columns(rows)
    ones = np.ones((1, len(first)))
    plain = spearman(Order.of(first), Order.of(second), ones)
    assert spearman(Order.of(np.exp(first)), Order.of(7 * second - 3), ones) == pytest.approx(plain)
    assert spearman(Order.of(-first), Order.of(second), ones) == pytest.approx(-plain)


def test_correlation_is_pearsons_and_zero_without_spread() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 50))
    ones = np.ones((1, 50))
    assert correlation(first[None], second[None], ones)[0] == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert correlation(first[None], np.ones((1, 50)), ones)[0] == 0


@given(few_values)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, int, int]]) -> None:
    scores, labels, weights = columns(rows)
    labels = labels > 3
    times = weights.astype(int)
    positive = np.repeat(scores[labels], times[labels])
    negative = np.repeat(scores[~labels], times[~labels])
    wins = [(high > low) + (high == low) / 2 for high, low in product(positive, negative)]
    expected = float(np.mean(wins)) if wins else 0.5
    assert auc(Order.of(scores), labels, weights[None])[0] == pytest.approx(expected)


@given(few_values)
def test_no_threshold_is_better_than_the_best(rows: list[tuple[int, int, int]]) -> None:
    scores, labels, _ = columns(rows)
    labels = labels > 3
    best = f1(scores, labels, best_threshold(scores, labels))
    assert best == pytest.approx(max(f1(scores, labels, float(value)) for value in scores))


def test_f1_by_hand() -> None:
    scores, labels = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, True])
    assert f1(scores, labels, 0.7) == pytest.approx(2 * 2 / (3 + 3))
    assert f1(scores, labels, 2.0) == 0


def test_ndcg_by_hand() -> None:
    judged = {"a": 3, "b": 2, "c": 0, "d": 1}
    gained = 2 + 3 / math.log2(3) + 0 + 1 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / 2
    assert ndcg(["b", "a", "c", "d"], judged) == pytest.approx(gained / ideal)
    assert ndcg(["a", "b", "d"], judged) == 1
    assert ndcg(["x", "y"], judged) == 0
    assert ndcg(["x"] * 10 + ["a"], judged) == 0  # beyond the depth


def test_ndcg_of_more_relevant_documents_than_the_depth_can_be_one() -> None:
    judged = {f"d{place}": 1 for place in range(15)}
    assert ndcg(list(judged)[:10], judged) == pytest.approx(1)


def test_recall_by_hand() -> None:
    judged = {"a": 1, "b": 2, "c": 0}
    assert recall(["a", "c", "x"], judged) == 0.5
    assert recall(["x"] * 10 + ["a", "b"], judged) == 0
