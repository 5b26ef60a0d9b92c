"""Rows of unequal length: packed, taken, and padded for engines that want rectangles."""

import numpy as np
import pytest

from tightrope.device.session import Ragged, stepped

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


def test_padding_stops_at_the_longest_input_that_a_model_takes():
    longest = Ragged.of([list(range(1, 251))])
    assert longest.padded(multiple=4)[0].shape == (1, 256)
    assert longest.padded(multiple=4, most=254)[0].shape == (1, 254)


def test_steps_are_few_and_small_beside_what_is_long():
    steps = {length: stepped(length, 4) for length in range(1, 513)}
    assert all(length <= step for length, step in steps.items())
    assert all(step - length < max(4, length / 4) for length, step in steps.items())
    assert len(set(steps.values())) == 8 + 12 + 24
    assert all(stepped(step, 4) == step for step in steps.values())
