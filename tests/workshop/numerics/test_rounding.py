import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tightrope.errors import UnsupportedError
from tightrope.workshop.numerics.rounding import LEAST_HALF, round_to_nearest

WEIGHTS = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-1e3, 1e3, width=32))
BLOCKS = st.sampled_from([None, 2, 4, 16])


@given(WEIGHTS, st.sampled_from([8, 6, 4]), BLOCKS, st.booleans())
def test_no_value_moves_more_than_half_a_step(weight, bits, block, symmetric):
    rounded = round_to_nearest(weight, bits=bits, block=block, symmetric=symmetric)
    step = rounded.scale[:, None] if block is None else np.repeat(rounded.scale, block, 1)[:, : weight.shape[1]]
    slack = 0.5 if symmetric else 1.0  # rounding the zero point may shift the ends by half a step, which clips
    assert (np.abs(rounded.dequantize() - weight) <= slack * step * (1 + 1e-4) + 1e-30).all()


@given(WEIGHTS, st.sampled_from([8, 6, 4]), BLOCKS)
def test_codes_stay_in_their_bits_and_zero_is_exact(weight, bits, block):
    signed = round_to_nearest(weight, bits=bits, block=block, symmetric=True)
    assert signed.codes.dtype == np.int8
    assert signed.zero_point is None
    assert np.abs(signed.codes.astype(int)).max() <= 2 ** (bits - 1) - 1
    unsigned = round_to_nearest(weight, bits=bits, block=block, symmetric=False)
    assert unsigned.codes.dtype == unsigned.zero_point.dtype == np.uint8
    assert unsigned.codes.max() <= 2**bits - 1
    assert (unsigned.dequantize()[weight == 0] == 0).all()


def test_a_short_last_block_has_a_scale_of_its_own():
    weight = np.array([[1, 2, 3, 4, 50]], np.float32)
    rounded = round_to_nearest(weight, bits=4, block=2, symmetric=True)
    assert (rounded.axis, rounded.block, rounded.scale.shape) == (1, 2, (1, 3))
    np.testing.assert_allclose(rounded.scale, np.array([[2, 4, 50]], np.float32) / 7)
    assert rounded.dequantize()[0, 4] == pytest.approx(50)


def test_by_row_the_scale_lies_along_the_outputs():
    weight = np.array([[127, -127, 0], [0, 0, 0]], np.float32)
    rounded = round_to_nearest(weight, bits=8, block=None, symmetric=True)
    assert (rounded.axis, rounded.block) == (0, None)
    np.testing.assert_array_equal(rounded.scale, [1, 1])
    np.testing.assert_array_equal(rounded.codes, [[127, -127, 0], [0, 0, 0]])


def test_asymmetric_codes_spend_every_level_on_a_one_sided_row():
    weight = np.linspace(0, 255, 256, dtype=np.float32)[None]
    rounded = round_to_nearest(weight, bits=8, block=None, symmetric=False)
    np.testing.assert_array_equal(rounded.codes[0], np.arange(256))
    assert rounded.zero_point.tolist() == [0]


def test_the_greatest_floats_do_not_overflow():
    most = np.finfo(np.float32).max
    for symmetric in (True, False):
        rounded = round_to_nearest(np.array([[-most, most]], np.float32), bits=8, block=None, symmetric=symmetric)
        assert np.isfinite(rounded.scale).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(UnsupportedError, match="not finite"):
        round_to_nearest(np.array([[1, value]], np.float32), bits=8, block=None, symmetric=True)


@given(WEIGHTS, st.sampled_from([8, 6, 4]), BLOCKS, st.booleans())
def test_scales_for_float16_are_the_next_ones_that_it_holds(weight, bits, block, symmetric):
    plain = round_to_nearest(weight, bits=bits, block=block, symmetric=symmetric)
    halved = round_to_nearest(weight, bits=bits, block=block, symmetric=symmetric, half_scales=True)
    if plain.scale.min() < LEAST_HALF:  # float16 would lose bits
        np.testing.assert_array_equal(halved.scale, plain.scale)
        return
    np.testing.assert_array_equal(halved.scale.astype(np.float16).astype(np.float32), halved.scale)
    assert (plain.scale <= halved.scale).all() and (halved.scale <= plain.scale * (1 + 2.0**-10)).all()
    step = halved.scale[:, None] if block is None else np.repeat(halved.scale, block, 1)[:, : weight.shape[1]]
    slack = 0.5 if symmetric else 1.0
    assert (np.abs(halved.dequantize() - weight) <= slack * step * (1 + 1e-4) + 1e-30).all()
    assert (halved.dequantize()[weight == 0] == 0).all()


def test_scales_beyond_float16_stay_as_they_are():
    weight = np.array([[1e8, -1e8]], np.float32)
    halved = round_to_nearest(weight, bits=8, block=None, symmetric=True, half_scales=True)
    np.testing.assert_array_equal(halved.scale, np.float32(1e8) / 127)
