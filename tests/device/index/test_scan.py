"""The scan: the engine and numpy find the same, to the bit, and it is what all products say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.device import engine
from tightrope.device.index.scan import scan, scan_portably
from tightrope.errors import DataError


def rows(seed: int, count: int, stride: int):
    random = np.random.default_rng(seed)
    codes = random.integers(-128, 128, (count, stride), dtype=np.int8)
    scales = random.choice(np.array([0.5, 1, 2, 3], np.float32), count)
    return codes, scales, random.integers(-128, 128, stride, dtype=np.int8), random.random(count) < 0.7


@given(
    seed=st.integers(0, 1000),
    count=st.integers(0, 600),
    stride=st.sampled_from([64, 384, 1088, 2048]),
    most=st.integers(0, 700),
    masked=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_numpy_finds_the_same_as_the_engine(seed, count, stride, most, masked):
    codes, scales, query, allowed = rows(seed, count, stride)
    mask = allowed if masked else None
    places, scores = engine.scan(codes, scales, query, most, allowed=mask)
    others, their_scores = scan_portably(codes, scales, query, most, mask)
    assert places.tolist() == others.tolist() and scores.tobytes() == their_scores.tobytes()


def test_it_is_what_all_products_say():
    codes, scales, query, _ = rows(1, 500, 128)
    scores = (codes.astype(np.int64) @ query.astype(np.int64)).astype(np.float32) * scales
    places, found = scan(codes, scales, query, 20)
    assert places.tolist() == np.argsort(-scores, kind="stable")[:20].tolist()
    assert found.tolist() == scores[places].tolist()


def test_a_row_without_a_number_is_left_out():
    codes, scales, query, _ = rows(2, 10, 64)
    scales[::2] = np.nan
    assert set(scan(codes, scales, query, 10)[0]) == {1, 3, 5, 7, 9}
    assert set(scan_portably(codes, scales, query, 10)[0]) == {1, 3, 5, 7, 9}


def test_arrays_that_do_not_fit_are_refused():
    codes, scales, query, allowed = rows(3, 10, 64)
    for given_ in ((codes, scales[:9], query), (codes, scales, query[:32]), (codes[:, ::2], scales, query)):
        with pytest.raises(DataError, match="do not fit"):
            engine.scan(*given_, 3)
    with pytest.raises(DataError, match="do not fit"):
        engine.scan(codes, scales, query, 3, allowed=allowed[:5])
    with pytest.raises(DataError, match="60 bytes apart"):
        engine.scan(np.zeros((2, 60), np.int8), scales[:2], np.zeros(60, np.int8), 1)


def test_numpy_stands_in_where_there_is_no_engine(monkeypatch):
    codes, scales, query, allowed = rows(4, 300, 64)
    natively = scan(codes, scales, query, 10, allowed)
    monkeypatch.setenv(engine.LIBRARY, "/nowhere/libtightrope.so")
    engine.library.cache_clear()
    try:
        found = scan(codes, scales, query, 10, allowed)
    finally:
        monkeypatch.undo()
        engine.library.cache_clear()
    assert found[0].tolist() == natively[0].tolist() and found[1].tolist() == natively[1].tolist()
