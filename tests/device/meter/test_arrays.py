"""Arrays cross a pipe whole, and nothing else comes out of one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from tightrope.device.meter.arrays import pack, unpack
from tightrope.errors import BenchError

KINDS = st.sampled_from([np.int64, np.int32, np.float32, np.float16, np.bool_, np.uint8])
ARRAYS = KINDS.flatmap(lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(min_dims=0, min_side=0)))


@given(st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4))
def test_what_is_packed_comes_out(given: dict[str, np.ndarray]) -> None:
    found = unpack(*pack(given))
    assert list(found) == list(given)
    for name, array in given.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.writeable or not array.size


def test_the_order_of_bytes_and_of_rows_does_not_matter() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert np.array_equal(unpack(*pack({"a": array}))["a"], array)


@pytest.mark.parametrize(
    ("described", "data"),
    [
        ([["a", "<i4", [2]]], b"1234"),
        ([["a", "<i4", [1]]], b"12345"),
        ([["a", "<i4", [-1]]], b"1234"),
        ([["a", "|O", [1]]], b"12345678"),
        ([["a", "<U1", [1]]], b"1234"),
        ([["a", "nonsense", [1]]], b"1234"),
        ([["a", "<i4", [10**30]]], b"1234"),
        ([["a", "<i4", "x"]], b"1234"),
        ([["a", "<i4"]], b"1234"),
        ([5], b""),
        ([], b"1"),
    ],
)
def test_what_is_no_array_is_refused(described: list[object], data: bytes) -> None:
    with pytest.raises(BenchError) as caught:
        unpack(described, data)
    assert len(str(caught.value).splitlines()) == 2


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=4), st.lists(st.integers(), max_size=3))), st.binary())
def test_anything_is_an_array_or_refused(described: list[object], data: bytes) -> None:
    try:
        unpack(described, data)
    except BenchError:
        return
