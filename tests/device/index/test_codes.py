"""Vectors as integers: near the original, and the same however often they are made."""

import numpy as np
import pytest

from tightrope.device.index.codes import Quantized, cosines, quantize, stride_of
from tightrope.errors import DataError


def test_sixteen_bits_are_as_good_as_floats(vectors):
    rows, query = vectors(200), vectors(1, seed=9)
    found = cosines(quantize(rows, 96), quantize(query, 96))
    assert np.abs(found - rows @ query[0]).max() < 2e-5


def test_length_does_not_matter(vectors):
    rows = vectors(20)
    scaled = quantize(rows * 1000, 96)
    assert (scaled.exact == quantize(rows, 96).exact).mean() > 0.999
    assert cosines(scaled, scaled)[0] == pytest.approx(1, abs=1e-6)


def test_tiny_and_huge_vectors_keep_their_direction():
    rows = np.array([[1e-30, 0, 0], [0, 3e38, 0]], np.float32)
    assert cosines(quantize(rows, 3), quantize(np.eye(3, dtype=np.float32)[:1], 3)).round(6).tolist() == [1, 0]


def test_eight_bits_come_from_sixteen(vectors):
    rows = quantize(vectors(50), 96)
    again = Quantized(rows.exact.copy(), rows.scales.copy())
    assert rows.coarse.tobytes() == again.coarse.tobytes() and rows.coarse.shape == (50, stride_of(96))
    assert not rows.coarse[:, 96:].any() and rows.coarse.min() >= -127


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.full((1, 96), np.nan), "nan or infinity"),
        (np.full((1, 96), np.inf), "nan or infinity"),
        (np.zeros((1, 96)), "zero"),
        (np.ones((1, 95)), "do not fit"),
        (np.ones(96), "do not fit"),
        (np.array([["a"] * 96]), "do not fit"),
    ],
)
def test_what_is_no_vector_is_refused(given, why):
    with pytest.raises(DataError, match=why):
        quantize(given, 96)
