"""Which input features of a linear layer are outliers that spoil the grid of all others.

LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339) keeps features above a magnitude of 6 in float. Sentence encoders
have a few features, one or two a layer, whose inputs and weights are both many times larger than all others'; so
the product of both is what counts here, against what is usual in the same layer.

Keeping them costs a product of its own, and on engines that merge a layer with its activation that merging. So it has
to be worth it: after smoothing, what stands out in front of a wide layer often spoils its grids very little.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tightrope.workshop.numerics.quantized import Floats

UNUSUAL = 4.0
"""A feature is an outlier if it counts for so many times more than 99 of 100 others."""
WORTH = 2.7
"""Features are kept if that makes the squared error of a layer's rounding so many times smaller (a whole bit: four).

Measured on MiniLM: without those of 1.0 to 2.6 times the answers were as near to the original's, without those of 2.9
and more they were not (docs/log.md).
"""


def outliers(inputs: Floats, weights: Floats, most: int) -> NDArray[np.int64]:
    """The features to keep in float, at most `most`, in rising order; often none.

    `inputs`: the largest magnitude of each feature, [in]; `weights`: the largest magnitude of its weights, [in].
    """
    weight = inputs * weights
    usual = float(np.quantile(weight, 0.99, method="lower"))
    chosen = np.argsort(-weight, kind="stable")[:most]
    return np.sort(chosen[weight[chosen] > UNUSUAL * usual]).astype(np.int64)


def relief(matrices: Sequence[Floats], low: Floats, high: Floats, power: Floats, kept: NDArray[np.int64]) -> float:
    """How many times smaller the squared error of 8-bit rounding is if the features `kept` stay in float.

    `matrices`: the weights [out, in] of all layers with this input. `low`, `high`, `power`: the limits and the mean
    square of each feature, [in]. An input has one range, a weight one for each output; their errors are independent.

    >>> wide = np.array([1.0, 1.0, 9.0], np.float32)
    >>> round(relief([np.ones((2, 3), np.float32)], -wide, wide, wide**2, np.array([2])), 1)
    81.3
    """

    def error(stays: NDArray[np.bool_]) -> float:
        step = (max(high[stays].max(), 0) - min(low[stays].min(), 0)) / 255
        left = [rows[:, stays] for rows in matrices]
        of_inputs = sum(float(np.square(rows).sum()) for rows in left) * float(step) ** 2
        steps = sum(float(np.square(np.abs(rows).max(1) / 127).sum()) for rows in left)
        return of_inputs + steps * float(power[stays].sum())

    everything = np.ones(len(low), bool)
    without = everything.copy()
    without[kept] = False
    return error(everything) / max(error(without), 1e-30)
