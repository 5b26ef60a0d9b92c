import numpy as np
import pytest

from tightrope.workshop.numerics.outliers import UNUSUAL, WORTH, outliers, relief


@pytest.mark.parametrize("width", [16, 32, 384])
def test_what_stands_out_is_found_at_any_width(width):
    inputs, weights = np.ones(width, np.float32), np.ones(width, np.float32)
    inputs[7] = 100
    assert outliers(inputs, weights, 4).tolist() == [7]


def test_the_product_with_the_weight_counts():
    inputs, weights = np.ones(384, np.float32), np.ones(384, np.float32)
    inputs[5], weights[5] = 10, 0.1  # large, but nothing comes of it
    inputs[9], weights[9] = 5, 5
    assert outliers(inputs, weights, 4).tolist() == [9]


def test_without_any_there_are_none():
    even = np.full(384, 2, np.float32)
    almost = even.copy()
    almost[0] *= UNUSUAL * 0.99
    for inputs in (even, almost, np.zeros(384, np.float32)):
        assert len(outliers(inputs, even, 4)) == 0


def test_no_more_than_asked_for():
    inputs = np.ones(384, np.float32)
    inputs[[1, 2]] = [100, 90]
    assert outliers(inputs, np.ones(384, np.float32), 4).tolist() == [1, 2]
    assert outliers(inputs, np.ones(384, np.float32), 1).tolist() == [1]
    assert len(outliers(inputs, np.ones(384, np.float32), 0)) == 0


def _relief(limits, kept=(3,)):
    """For a layer of even weights whose inputs are evenly spread up to their limits."""
    limits = np.asarray(limits, np.float32)
    rows = np.ones((16, len(limits)), np.float32)
    return relief([rows, rows], -limits, limits, limits**2 / 3, np.array(kept))


def test_a_feature_is_a_relief_by_how_much_it_widens_the_range_of_all():
    usual = np.ones(384)
    wide, wider = usual.copy(), usual.copy()
    wide[3], wider[3] = 1.2, 6
    assert 1 < _relief(wide) < WORTH < _relief(wider) < 36.5


def test_nothing_is_gained_where_another_feature_is_as_wide():
    both = np.ones(384)
    both[[3, 7]] = 6
    assert _relief(both) < 1.2
    assert _relief(both, (3, 7)) > WORTH


def test_weights_spoil_grids_too():
    limits, rows = np.ones(384, np.float32), np.ones((16, 384), np.float32)
    rows[:, 3] = 20
    assert relief([rows], -limits, limits, limits**2 / 3, np.array([3])) > WORTH


def test_no_input_at_all_is_no_division_by_zero():
    nothing = np.zeros(8, np.float32)
    assert relief([np.zeros((4, 8), np.float32)], nothing, nothing, nothing, np.array([3])) == 0
