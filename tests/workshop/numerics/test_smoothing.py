import numpy as np
import pytest

from tightrope.workshop.numerics.smoothing import migration

random = np.random.default_rng(2)
INPUTS = np.exp(random.normal(0, 2, 64)).astype(np.float32)
WEIGHTS = np.exp(random.normal(0, 1, 64)).astype(np.float32)


def spread(values):
    return float(np.std(np.log(values)))


def test_the_extremes_even_out_one_side():
    assert spread(WEIGHTS * migration(INPUTS, WEIGHTS, 0.0)) == pytest.approx(0, abs=1e-5)
    assert spread(INPUTS / migration(INPUTS, WEIGHTS, 1.0)) == pytest.approx(0, abs=1e-5)


def test_at_one_half_both_sides_are_alike():
    factors = migration(INPUTS, WEIGHTS, 0.5)
    assert spread((INPUTS / factors) / (WEIGHTS * factors)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_no_common_factor_is_moved(alpha):
    factors = migration(1000 * INPUTS, WEIGHTS, alpha)
    assert np.log(factors).mean() == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(factors, migration(INPUTS, 7 * WEIGHTS, alpha), rtol=1e-4)


def test_what_never_occurs_is_left_alone():
    inputs, weights = INPUTS.copy(), WEIGHTS.copy()
    inputs[3] = weights[5] = 0
    factors = migration(inputs, weights, 0.5)
    assert factors[3] == factors[5] == 1
    assert np.isfinite(factors).all()
    assert (migration(np.zeros(4, np.float32), np.ones(4, np.float32), 0.5) == 1).all()
