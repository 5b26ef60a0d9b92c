import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.workshop.numerics.hadamard import block_of, hadamard, rotated

LENGTHS = [1, 2, 4, 32, 128, 1024]


@pytest.mark.parametrize("length", LENGTHS)
def test_the_matrix_is_symmetric_and_its_own_inverse(length):
    matrix = hadamard(length)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(matrix @ matrix, np.eye(length), atol=1e-6)
    np.testing.assert_allclose(np.abs(matrix), length**-0.5, rtol=1e-6)


def test_rows_are_in_the_order_of_sylvester():
    signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    np.testing.assert_array_equal(hadamard(4) * 2, signs)


def test_nobody_can_change_the_matrix_that_all_share():
    assert not hadamard(8).flags.writeable


@given(length=st.sampled_from(LENGTHS), blocks=st.integers(1, 4), rows=st.integers(1, 5), seed=st.integers(0, 99))
def test_lengths_and_products_stay_and_twice_gives_the_rows_back(length, blocks, rows, seed):
    x, y = np.random.default_rng(seed).normal(0, 1, (2, rows, length * blocks)).astype(np.float32)
    np.testing.assert_allclose(rotated(rotated(x, length), length), x, atol=1e-5)
    np.testing.assert_allclose((rotated(x, length) * rotated(y, length)).sum(1), (x * y).sum(1), rtol=1e-4, atol=1e-3)


def test_an_outlier_is_spread_over_its_block_and_no_other():
    x = np.zeros((1, 64), np.float32)
    x[0, 37] = 8
    turned = rotated(x, 16)[0].reshape(4, 16)
    np.testing.assert_allclose(np.abs(turned[2]), 2)
    assert not turned[[0, 1, 3]].any()


@pytest.mark.parametrize(
    ("features", "most", "block"),
    [(384, 128, 128), (1536, 128, 128), (312, 128, 8), (96, 128, 32), (96, 16, 16), (33, 128, 1), (1024, 4096, 1024)],
)
def test_a_block_is_the_longest_power_of_two_that_divides(features, most, block):
    assert block_of(features, most) == block
