import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tightrope.workshop.numerics.hqq import half_quadratic
from tightrope.workshop.numerics.rounding import round_to_nearest

WEIGHTS = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.floats(-4, 4, width=32))


def by_run(error, block):
    """The l_p sums of each run of a row, p = 0.7."""
    starts = np.arange(0, error.shape[1], block or error.shape[1])
    return np.add.reduceat(np.abs(error) ** 0.7, starts, axis=1)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.sampled_from([3, 4, 8]), st.sampled_from([None, 16, 32]), st.booleans())
def test_no_run_of_codes_is_worse_than_nearest_in_its_own_norm(weight, bits, block, symmetric):
    fitted = half_quadratic(weight, bits=bits, block=block, symmetric=symmetric)
    nearest = round_to_nearest(weight, bits=bits, block=block, symmetric=symmetric)
    loss, plain = (by_run(weight - found.dequantize(), block) for found in (fitted, nearest))
    assert (loss <= plain * (1 + 1e-4) + 1e-3).all()


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, st.sampled_from([3, 4]), st.booleans())
def test_codes_and_zero_points_stay_on_the_grid(weight, bits, symmetric):
    fitted = half_quadratic(weight, bits=bits, block=16, symmetric=symmetric)
    most = 2 ** (bits - 1) - 1
    low, high = (-most, most) if symmetric else (0, 2**bits - 1)
    assert fitted.codes.min() >= low
    assert fitted.codes.max() <= high
    assert (fitted.scale > 0).all()
    assert symmetric == (fitted.zero_point is None)
    if fitted.zero_point is not None:
        assert fitted.zero_point.max() <= high


@pytest.mark.parametrize("symmetric", [False, True])
def test_outliers_cost_the_many_less_than_with_nearest(symmetric):
    weight = np.random.default_rng(3).standard_t(3, (64, 128)).astype(np.float32)
    fitted = half_quadratic(weight, bits=4, block=32, symmetric=symmetric).dequantize()
    nearest = round_to_nearest(weight, bits=4, block=32, symmetric=symmetric).dequantize()
    assert np.median(np.abs(weight - fitted)) < 0.95 * np.median(np.abs(weight - nearest))
