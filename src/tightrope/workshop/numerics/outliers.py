"""Which input features of a linear layer are outliers that spoil the grid of all others.

LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339) keeps features above a magnitude of 6 in float. Sentence encoders
have a few features, one or two a layer, whose inputs and weights are both many times larger than all others'; so
the product of both is what counts here, against what is usual in the same layer.
"""

import numpy as np
from numpy.typing import NDArray

from tightrope.workshop.numerics.quantized import Floats

UNUSUAL = 4.0
"""A feature is an outlier if it counts for so many times more than 99 of 100 others."""


def outliers(inputs: Floats, weights: Floats, most: int) -> NDArray[np.int64]:
    """The features to keep in float, at most `most`, in rising order; often none.

    `inputs`: the largest magnitude of each feature, [in]; `weights`: the largest magnitude of its weights, [in].
    """
    weight = inputs * weights
    usual = float(np.quantile(weight, 0.99, method="lower"))
    chosen = np.argsort(-weight, kind="stable")[:most]
    return np.sort(chosen[weight[chosen] > UNUSUAL * usual]).astype(np.int64)
