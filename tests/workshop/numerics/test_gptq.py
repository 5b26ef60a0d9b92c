import numpy as np
import pytest

from tightrope.errors import UnsupportedError
from tightrope.workshop.numerics.gptq import compensate
from tightrope.workshop.numerics.rounding import round_to_nearest

random = np.random.default_rng(5)
WIDE = 200  # more than one panel
INPUTS = (random.normal(size=(900, WIDE)) @ (np.eye(WIDE) + random.normal(0, 0.1, (WIDE, WIDE)))).astype(np.float32)
GRAM = INPUTS.T @ INPUTS / np.float32(len(INPUTS))
WEIGHT = random.normal(size=(24, WIDE)).astype(np.float32)


def output_error(weight, rounded):
    return float(np.square((weight - rounded.dequantize()) @ INPUTS.T).sum())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("block", [None, 32, 48])
@pytest.mark.parametrize("symmetric", [True, False])
def test_outputs_stay_closer_than_by_rounding_alone(bits, block, symmetric):
    options = {"bits": bits, "block": block, "symmetric": symmetric}
    plain, better = round_to_nearest(WEIGHT, **options), compensate(WEIGHT, GRAM, **options)
    assert output_error(WEIGHT, better) < 0.8 * output_error(WEIGHT, plain)
    assert (better.axis, better.block, better.bits, better.codes.dtype) == (
        plain.axis,
        plain.block,
        plain.bits,
        plain.codes.dtype,
    )
    np.testing.assert_array_equal(better.scale, plain.scale)
    if not symmetric:
        np.testing.assert_array_equal(better.zero_point, plain.zero_point)


def by_the_paper(weight, gram, scale, damping):
    """Frantar et al., algorithm 1, word for word and one column at a time, in the order of falling energy."""
    order = np.argsort(-np.diagonal(gram), kind="stable")
    damped = gram[np.ix_(order, order)].astype(np.float64)
    damped += damping * np.diagonal(damped).mean() * np.eye(len(damped))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, codes = weight[:, order].astype(np.float64), np.zeros(weight.shape)
    for column in range(weight.shape[1]):
        codes[:, order[column]] = np.clip(np.rint(left[:, column] / scale), -7, 7)
        error = (left[:, column] - codes[:, order[column]] * scale) / factor[column, column]
        left[:, column:] -= np.outer(error, factor[column, column:])
    return codes


def test_it_is_the_papers_algorithm():
    rounded = compensate(WEIGHT, GRAM, bits=4, block=None, symmetric=True)
    expected = by_the_paper(WEIGHT, GRAM, rounded.scale, damping=0.01)
    assert (rounded.codes == expected).mean() > 0.999  # ties may fall either way in single precision


def test_uncorrelated_inputs_leave_plain_rounding():
    options = {"bits": 4, "block": None, "symmetric": True}
    for gram in (np.eye(WIDE, dtype=np.float32), np.zeros((WIDE, WIDE), np.float32)):
        better = compensate(WEIGHT, gram, **options)
        np.testing.assert_array_equal(better.codes, round_to_nearest(WEIGHT, **options).codes)


def test_an_input_that_is_always_zero_harms_no_other():
    inputs = INPUTS.copy()
    inputs[:, 3] = 0
    rounded = compensate(WEIGHT, inputs.T @ inputs, bits=8, block=None, symmetric=True)
    assert np.isfinite(rounded.dequantize()).all()
    assert abs(rounded.dequantize()[:, 3] - WEIGHT[:, 3]).max() <= 0.51 * rounded.scale.max()


def test_fewer_texts_than_features_are_enough():
    gram = INPUTS[:20].T @ INPUTS[:20]
    rounded = compensate(WEIGHT, gram, bits=8, block=None, symmetric=True)
    assert np.abs(rounded.dequantize() - WEIGHT).max() < 1


@pytest.mark.parametrize("broken", [np.nan, -1.0])
def test_what_is_no_gram_matrix_is_refused(broken):
    gram = GRAM.copy()
    gram[0, 0] = broken
    with pytest.raises(UnsupportedError, match="compensation"):
        compensate(WEIGHT, gram, bits=8, block=None, symmetric=True)


def test_an_indefinite_matrix_is_refused():
    gram = np.array([[1, 5], [5, 1]], np.float32)
    with pytest.raises(UnsupportedError, match="not positive"):
        compensate(WEIGHT[:, :2], gram, bits=8, block=None, symmetric=True)
