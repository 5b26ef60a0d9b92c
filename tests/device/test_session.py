"""Rows of unequal length: packed, taken, and padded for engines that want rectangles."""

import numpy as np
import pytest

from tightrope.device.session import Ragged

ROWS = ([5, 6, 7], [], [8], [1, 2, 3, 4, 9])


@pytest.mark.parametrize("multiple", [1, 2, 8])
@pytest.mark.parametrize("rows", [(), ROWS[:1], ROWS[1:2], ROWS])
def test_padding_fills_up_with_zeros_and_the_mask_says_where(rows, multiple):
    values, mask = Ragged.of(rows).padded(multiple=multiple)
    longest = max((1, *map(len, rows)))
    assert values.shape == mask.shape == (len(rows), -(-longest // multiple) * multiple)
    assert values.dtype == mask.dtype == np.int64
    for row, value, known in zip(rows, values, mask, strict=True):
        assert value.tolist() == [*row, *[0] * (values.shape[1] - len(row))]
        assert known.tolist() == [*[1] * len(row), *[0] * (values.shape[1] - len(row))]


def test_rows_that_are_taken_come_in_the_order_asked_for():
    taken = Ragged.of(ROWS).take(np.array([3, 0]))
    assert taken.values.tolist() == [1, 2, 3, 4, 9, 5, 6, 7]
    assert taken.lengths.tolist() == [5, 3]
