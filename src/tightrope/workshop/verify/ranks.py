"""The figures of merit, on weighted samples: rank correlation, area under the curve, F1, nDCG.

A bootstrap resample is a set of weights (how often each observation was drawn), so each figure is computed for many
resamples at once and each order is sorted only once. Weights are [resamples, n]; answers are [resamples], float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """How n values rank: `order` sorts them; `first` and `last` bound, for each sorted place, the run of its ties."""

    order: Integers
    first: Integers
    last: Integers

    @staticmethod
    def of(values: NDArray[np.floating]) -> "Order":
        """Sort once."""
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        return Order(
            order.astype(np.int64),
            np.searchsorted(ordered, ordered, "left").astype(np.int64),
            np.searchsorted(ordered, ordered, "right").astype(np.int64),
        )

    @property
    def has_ties(self) -> bool:
        """Whether any two values are equal."""
        return bool((self.last - self.first > 1).any())

    def ranks(self, weights: Doubles) -> Doubles:
        """Middle ranks of the weighted values, in their own order, [resamples, n]; ties share one.

        An observation drawn w times counts as w equal observations.
        """
        ordered = weights[:, self.order]
        total = np.cumsum(ordered, axis=1)
        ranks = np.empty_like(weights)
        if self.has_ties:
            before = np.concatenate([np.zeros((len(weights), 1)), total], axis=1)
            ranks[:, self.order] = (before[:, self.first] + before[:, self.last]) * 0.5
        else:
            total -= ordered * 0.5
            ranks[:, self.order] = total
        return ranks


def spearman(first: Order, second: Order, weights: Doubles) -> Doubles:
    """Spearman's rank correlation: Pearson's on middle ranks. 0 where one side does not vary."""
    return correlation(first.ranks(weights), second.ranks(weights), weights)


def correlation(first: Doubles, second: Doubles, weights: Doubles) -> Doubles:
    """Pearson's correlation of weighted values, row by row. 0 where one side does not vary."""
    total = weights.sum(axis=1, keepdims=True)
    first = first - (first * weights).sum(axis=1, keepdims=True) / total
    second = second - (second * weights).sum(axis=1, keepdims=True) / total
    weighted = first * weights
    together = np.einsum("ij,ij->i", weighted, second)
    spread = np.einsum("ij,ij->i", weighted, first) * np.einsum("ij,ij->i", second * weights, second)
    result: Doubles = np.divide(together, np.sqrt(spread), out=np.zeros_like(together), where=spread > 0)
    return result


def auc(scores: Order, labels: NDArray[np.bool_], weights: Doubles) -> Doubles:
    """The chance that a pair that matches scores above one that does not, ties counted half (Mann and Whitney 1947).

    0.5 for a resample that happens to hold one class only.
    """
    negatives = Order.ranks(scores, np.where(labels, 0.0, weights))
    positive = np.where(labels, weights, 0.0)
    pairs = positive.sum(axis=1) * (weights.sum(axis=1) - positive.sum(axis=1))
    wins = (negatives * positive).sum(axis=1)
    result: Doubles = np.divide(wins, pairs, out=np.full_like(pairs, 0.5), where=pairs > 0)
    return result


def best_threshold(scores: Doubles, labels: NDArray[np.bool_]) -> float:
    """The score from which on a pair is best called a match, by F1; the highest of equally good ones."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    values = 2 * hits / (np.arange(1, len(order) + 1) + labels.sum())
    last_of_ties = np.append(scores[order][1:] != scores[order][:-1], True)
    return float(scores[order][int(np.argmax(np.where(last_of_ties, values, -1.0)))])


def f1(scores: Doubles, labels: NDArray[np.bool_], threshold: float) -> float:
    """F1 of calling every pair from the threshold on a match."""
    called = scores >= threshold
    return float(2 * (called & labels).sum() / max(1, called.sum() + labels.sum()))


def ndcg(ranking: Sequence[str], judged: Mapping[str, int], depth: int = 10) -> float:
    """Normalised discounted cumulative gain as trec_eval's ndcg_cut: gain = relevance, discount log2(rank + 1).

    The ideal ranking holds every judged document (Järvelin and Kekäläinen 2002).
    """
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    gains = np.array([max(0, judged.get(name, 0)) for name in ranking[:depth]], np.float64)
    ideal = np.sort([max(0, relevance) for relevance in judged.values()])[::-1][:depth].astype(np.float64)
    best = float(ideal @ discounts[: len(ideal)])
    return float(gains @ discounts[: len(gains)]) / best if best else 0.0


def recall(ranking: Sequence[str], judged: Mapping[str, int], depth: int = 10) -> float:
    """The share of the relevant documents that are among the first `depth`."""
    relevant = {name for name, relevance in judged.items() if relevance > 0}
    return len(relevant.intersection(ranking[:depth])) / len(relevant) if relevant else 0.0
