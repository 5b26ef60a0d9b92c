"""Two rankings made into one."""

from collections.abc import Sequence

Ranked = Sequence[tuple[int, float]]
"""Slots and scores, the best first."""

RANK = 60
"""How slowly a place loses weight: the constant of Cormack, Clarke and Büttcher, SIGIR 2009, who introduced the sum."""


def fused(*rankings: Ranked) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: each ranking gives 1 / (60 + place); needs no scale that scores share, and no training.

    >>> [slot for slot, score in fused([(7, 0.9), (3, 0.8)], [(3, 12.5), (5, 11.0)])]
    [3, 7, 5]
    """
    scores = dict[int, float]()
    for ranking in rankings:
        for place, (slot, _) in enumerate(ranking, 1):
            scores[slot] = scores.get(slot, 0.0) + 1 / (RANK + place)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
