import numpy as np
import pytest

from tightrope.workshop.numerics.outliers import UNUSUAL, outliers


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
