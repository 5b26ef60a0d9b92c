"""Rates: seconds for each unit of a model's costs, fitted to the times of a probe, and what they say of another model.

Relative errors are what is made small, so that a short call weighs as much as a long one, and no rate is below zero
(Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23).
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.workshop.prediction.costs import Costs

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What one model cost for one input, and the seconds that it took; `tokens` is `None` for an image."""

    costs: Costs
    seconds: float
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Seconds for a unit of each of `costs.NAMES`, on one engine in one precision.

    `error`: the median of |predicted / timed - 1| over the probe's own models.
    """

    seconds: tuple[float, ...]
    error: float

    def predict(self, costs: Costs) -> float:
        """Seconds of one call."""
        return float(np.dot(self.seconds, astuple(costs)))


def fit(timed: Sequence[Timed]) -> Rates:
    """The rates that explain the times best. What no model of the probe did has the rate 0."""
    wanted = np.array([item.seconds for item in timed])
    table = np.array([astuple(item.costs) for item in timed]) / wanted[:, None]
    scale = np.maximum(np.abs(table).max(axis=0), 1e-300)  # operations in millions beside steps in tens
    found = _non_negative(table / scale, np.ones(len(timed))) / scale
    errors = np.abs(table @ found - 1)
    return Rates(seconds=tuple(float(value) for value in found), error=float(np.median(errors)))


def _non_negative(table: Doubles, wanted: Doubles) -> Doubles:
    """x >= 0 with the least |table·x - wanted|: columns enter one by one, and leave again if they turn negative."""
    count = table.shape[1]
    x, inside = np.zeros(count), np.zeros(count, bool)
    for _ in range(3 * count):
        slope = table.T @ (wanted - table @ x)
        slope[inside] = -np.inf
        if inside.all() or slope.max() <= 1e-10:
            break
        inside[slope.argmax()] = True
        while True:
            trial = np.zeros(count)
            trial[inside] = np.linalg.lstsq(table[:, inside], wanted, rcond=None)[0]
            negative = inside & (trial <= 0)
            if not negative.any():
                break
            step = min(x[i] / (x[i] - trial[i]) for i in np.flatnonzero(negative))
            x = x + step * (trial - x)
            inside &= x > 1e-15
            x[~inside] = 0.0
        x = trial
    return x
