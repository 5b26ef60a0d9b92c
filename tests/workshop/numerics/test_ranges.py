import numpy as np
import pytest

from tightrope.workshop.numerics.quantized import Floats
from tightrope.workshop.numerics.ranges import entropy, minmax, mse, percentile
from tightrope.workshop.numerics.rounding import encode, grid

random = np.random.default_rng(11)
BELL = random.normal(size=(4000, 64)).astype(np.float32)
OUTLIER = BELL.copy()
OUTLIER[0, 0] = 60  # clipping one value of 256,000 costs less than steps four times as wide
RECTIFIED = np.where(OUTLIER > 0, OUTLIER, 0.03 * OUTLIER)  # much like a GELU's output


def squared_error(rows: Floats, limits, symmetric):
    low, high = np.array(limits[:1], np.float32), np.array(limits[1:], np.float32)
    scale, zero = grid(low, high, bits=8, symmetric=symmetric)
    codes = encode(rows, scale, zero, bits=8).astype(np.float32)
    return float(np.square(rows - (codes - (0 if zero is None else zero)) * scale).mean())


def test_minmax_holds_everything_and_zero():
    assert minmax(OUTLIER) == (float(OUTLIER.min()), 60.0)
    assert minmax(np.array([2, 3], np.float32)) == (0.0, 3.0)
    assert minmax(np.array([-2, -3], np.float32)) == (-3.0, 0.0)


def test_percentile_leaves_a_share_out_at_both_ends():
    low, high = percentile(np.arange(-1000, 1001, dtype=np.float32), 98)
    assert (low, high) == pytest.approx((-980, 980))
    assert percentile(BELL, 100) == minmax(BELL)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("rows", [OUTLIER, RECTIFIED], ids=["bell", "rectified"])
def test_mse_is_not_worse_than_any_other(rows, symmetric):
    best = squared_error(rows, mse(rows, symmetric=symmetric), symmetric)
    for other in (minmax(rows), percentile(rows, 99.9), entropy(rows, symmetric=symmetric)):
        assert best <= squared_error(rows, other, symmetric) * 1.05  # a histogram judges, not the values themselves


@pytest.mark.parametrize("search", [mse, entropy])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_lone_outlier_is_clipped(search, symmetric):
    low, high = search(OUTLIER, symmetric=symmetric)
    assert 3 < high < 50
    assert -50 < low < -2
    if symmetric:
        assert low == -high


@pytest.mark.parametrize("search", [mse, entropy])
def test_values_without_outliers_keep_nearly_all_of_their_range(search):
    rows = random.uniform(-1, 1, (400, 50)).astype(np.float32)
    low, high = search(rows)
    assert high > 0.9
    assert low < -0.9


@pytest.mark.parametrize("search", [mse, entropy])
@pytest.mark.parametrize("symmetric", [True, False])
def test_nothing_but_zeros_has_an_empty_range(search, symmetric):
    low, high = search(np.zeros((4, 4), np.float32), symmetric=symmetric)
    assert (low, high) == (0, 0)


@pytest.mark.parametrize("search", [mse, entropy])
def test_the_same_rows_give_the_same_range(search):
    assert search(RECTIFIED) == search(RECTIFIED.copy())
