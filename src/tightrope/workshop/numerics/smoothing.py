"""How much of each input feature's size to move into the weights (SmoothQuant, Xiao et al. 2022, arXiv:2211.10438)."""

import numpy as np

from tightrope.workshop.numerics.quantized import Floats

LEAST = 1e-5


def migration(inputs: Floats, weights: Floats, alpha: float) -> Floats:
    """s = inputs^alpha / weights^(1 - alpha), [in], with a geometric mean of 1.

    `inputs`: the size of each feature, [in]; `weights`: the largest magnitude of each feature's weights, [in]. A
    feature that never occurs, or that has no weight, is left alone.
    """
    alive = (inputs > LEAST) & (weights > LEAST)
    moved = np.ones_like(inputs, np.float64)
    moved[alive] = inputs[alive].astype(np.float64) ** alpha / weights[alive].astype(np.float64) ** (1 - alpha)
    if alive.any():
        moved[alive] /= np.exp(np.log(moved[alive]).mean())
    return moved.astype(np.float32)
