"""What somebody may like, from what they liked: a profile of vectors, and items near it that are not all alike.

Items are documents of an index. Their vectors may come from their texts, or from who liked them together (`learned`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tightrope.device.index.codes import Floats
from tightrope.device.index.documents import Hit
from tightrope.device.index.opened import MOST, Index, Where
from tightrope.errors import DataError

HALF_LIFE = 10.0
"""After that many later items, one in a history counts half."""
DIVERSITY = 0.3
_CANDIDATES = 5
MOST_HISTORY = 1000


def recommend(
    index: Index,
    history: Sequence[str],
    k: int = 10,
    *,
    half_life: float | None = HALF_LIFE,
    diversity: float = DIVERSITY,
    where: Where = None,
) -> list[Hit]:
    """`k` items for a history of keys, the oldest first; none that is in it.

    `half_life` is in items, `None` weighs all alike. `diversity`, from 0 to 1, is how much an item loses for being like
    one before it. Keys that the index does not have are passed over. Raises `DataError` if it has none of them.
    """
    if not 0 <= diversity <= 1 or (half_life is not None and not half_life > 0):
        raise DataError(
            f"A diversity of {diversity} and a half-life of {half_life} cannot be.", hint="Give 0 to 1, and items > 0."
        )
    recent = list(dict.fromkeys(reversed(history[-MOST_HISTORY:])))[::-1]
    known = index.vectors(recent)
    rows = [known[key].mean(0) for key in recent if key in known]
    if not rows:
        raise DataError("The index has none of the items of the history.", hint="Give keys of items that it holds.")
    vector = profile(np.stack(rows), half_life)
    hits = index.search(vector, min(MOST, _CANDIDATES * k + len(recent) + 20), where)
    best = dict[str, Hit]()
    for hit in hits:
        if hit.key not in recent:
            best.setdefault(hit.key, hit)
    candidates = list(best.values())[: _CANDIDATES * k]
    if diversity == 0 or len(candidates) < 2:
        return candidates[:k]
    vectors = index.vectors([hit.key for hit in candidates])
    candidates = [hit for hit in candidates if hit.key in vectors]
    order = marginal(
        np.array([hit.score for hit in candidates]),
        np.stack([vectors[hit.key].mean(0) for hit in candidates]),
        diversity,
    )
    return [candidates[place] for place in order[:k]]


def profile(rows: Floats, half_life: float | None = None) -> Floats:
    """The mean of what was liked [items, width], the oldest first, by recency if a half-life is given; unit length.

    >>> print(profile(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), half_life=1).round(2))
    [0.45 0.89]
    """
    ages = np.arange(len(rows))[::-1]
    weights = np.ones(len(rows)) if half_life is None else 0.5 ** (ages / half_life)
    mean = weights @ rows.astype(np.float64)
    length = np.linalg.norm(mean)
    return (mean / length if length > 1e-9 else rows[-1]).astype(np.float32)


def marginal(scores: NDArray[np.float64], rows: Floats, diversity: float) -> list[int]:
    """Places in the order of maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    >>> marginal(np.array([1.0, 0.99, 0.5]), np.array([[1, 0], [1, 0], [0, 1]], np.float32), 0.6)
    [0, 2, 1]
    """
    alike = rows @ rows.T
    left, order, nearest = list(range(len(scores))), list[int](), np.full(len(scores), -np.inf)
    while left:
        worth = (1 - diversity) * scores[left] - (diversity * nearest[left] if order else 0)
        chosen = left.pop(int(np.argmax(worth)))
        order.append(chosen)
        nearest = np.maximum(nearest, alike[chosen])
    return order


def learned(histories: Mapping[str, Sequence[str]], width: int = 64, *, seed: int = 0) -> tuple[list[str], Floats]:
    """Keys of items and vectors [items, width] by which items that the same people liked are near each other.

    The matrix of people and items, each row and column brought to scale by the square root of its sum, is cut down to
    its largest singular vectors by a randomised method (Halko, Martinsson and Tropp, 2011). Items that nobody shares
    with anybody have no direction, and are left out. Raises `DataError` for histories of fewer items than `width`.
    """
    keys = sorted({key for items in histories.values() for key in items})
    place = {key: number for number, key in enumerate(keys)}
    people = np.zeros((len(histories), len(keys)), np.float32)
    for row, items in enumerate(histories.values()):
        people[row, [place[key] for key in items]] = 1
    if min(people.shape, default=0) <= width:
        raise DataError(
            f"{len(histories)} histories of {len(keys)} items give no vectors of width {width}.",
            hint="Give more histories, or a smaller width.",
        )
    people /= np.sqrt(np.maximum(people.sum(1, keepdims=True), 1)) * np.sqrt(np.maximum(people.sum(0), 1))
    basis = np.random.default_rng(seed).normal(size=(len(keys), width + 8)).astype(np.float32)
    for _ in range(4):
        basis, _ = np.linalg.qr(people.T @ (people @ basis))
    _, sizes, turned = np.linalg.svd(people @ basis, full_matrices=False)
    vectors = (basis @ turned[:width].T) * sizes[:width]
    lengths = np.linalg.norm(vectors, axis=1)
    kept = np.flatnonzero(lengths > 1e-6)
    return [keys[number] for number in kept], (vectors[kept] / lengths[kept, None]).astype(np.float32)
