"""The native engine's file as docs/formats/native.md says it, read back byte by byte."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.workshop.convert._artefact import (
    Section,
    array,
    file,
    float_panels,
    integer_panels,
    nibbles,
    packed_rows,
    padded,
    round_up,
)

RANDOM = np.random.default_rng(3)


def signed(values: np.ndarray, bits: int) -> np.ndarray:
    """The lowest bits as two's complement."""
    low = values.astype(np.int16) & (2**bits - 1)
    return (low - (low >> (bits - 1) << bits)).astype(np.int8)


def test_sections_lie_where_the_table_says(sections) -> None:
    given = {"a": Section(b"x" * 65), "0.qkv.weight": array(np.arange(5, dtype=np.int8)), "none": Section(b"")}
    data = file(given)
    assert struct.unpack_from("<8sIIQ", data) == (b"TIGHTROP", 1, 3, len(data))
    assert len(data) % 64 == 0 and not any(data[24:64])
    offsets = [struct.unpack_from("<Q", data, 64 + 64 * index + 32)[0] for index in range(3)]
    assert offsets == [256, 256 + 128, 256 + 192]
    assert sections(data) == {"a": (7, b"x" * 65), "0.qkv.weight": (3, bytes(range(5))), "none": (7, b"")}
    assert not any(data[256 + 65 : 256 + 128])


@pytest.mark.parametrize(("dtype", "element"), [("float32", 1), ("float16", 2), ("int8", 3), ("int32", 6)])
def test_arrays_say_what_their_elements_are(dtype: str, element: int) -> None:
    values = RANDOM.integers(-9, 9, (3, 4)).astype(dtype)
    assert array(values) == Section(values.tobytes(), element)
    assert array(values.T) == Section(np.ascontiguousarray(values.T).tobytes(), element)


def test_a_name_has_room_for_its_end() -> None:
    file({"x" * 31: Section(b"")})
    with pytest.raises(AssertionError):
        file({"x" * 32: Section(b"")})


@given(out=st.integers(1, 50), width=st.integers(1, 150))
def test_integer_panels_are_panel_four_inputs_output_input(out: int, width: int) -> None:
    codes = np.random.default_rng(out * width).integers(-127, 128, (out, width)).astype(np.int8)
    panels = integer_panels(codes)
    assert panels.shape == (round_up(out, 16) // 16, round_up(width, 64) // 4, 16, 4)
    whole = padded(codes, (round_up(out, 16), round_up(width, 64)))
    flat = panels.tobytes()
    for output, feature in ((0, 0), (out - 1, width - 1), (out // 2, width // 3), (len(whole) - 1, whole.shape[1] - 1)):
        place = ((output // 16 * panels.shape[1] + feature // 4) * 16 + output % 16) * 4 + feature % 4
        assert np.int8(np.frombuffer(flat, np.int8)[place]) == whole[output, feature]
    np.testing.assert_array_equal(panels.transpose(0, 2, 1, 3).reshape(whole.shape), whole)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize(("out", "width"), [(1, 1), (16, 7), (33, 20)])
def test_float_panels_are_panel_input_output(dtype: str, out: int, width: int) -> None:
    values = RANDOM.integers(-99, 99, (out, width)).astype(dtype)
    panels = float_panels(values)
    assert panels.shape == (round_up(out, 16) // 16, width, 16) and panels.dtype == dtype
    back = panels.transpose(0, 2, 1).reshape(-1, width)
    np.testing.assert_array_equal(back[:out], values)
    assert not back[out:].any()


def test_nibbles_hold_outputs_eight_apart() -> None:
    panels = float_panels(RANDOM.integers(-8, 8, (40, 12)).astype(np.int8))
    packed = np.frombuffer(nibbles(np.ascontiguousarray(panels)), np.uint8).reshape(*panels.shape[:2], 8)
    np.testing.assert_array_equal(signed(packed, 4), panels[..., :8])
    np.testing.assert_array_equal(signed(packed >> 4, 4), panels[..., 8:])


@given(bits=st.sampled_from([4, 6]), rows=st.integers(1, 5), groups=st.integers(1, 4), seed=st.integers(0, 99))
def test_rows_of_few_bits_are_unpacked_as_the_format_says(bits: int, rows: int, groups: int, seed: int) -> None:
    width, most = 32 * groups, 2 ** (bits - 1)
    codes = np.random.default_rng(seed).integers(-most, most, (rows, width)).astype(np.int8)
    data = packed_rows(codes, bits)
    assert len(data) == rows * width * bits // 8
    runs = np.frombuffer(data, np.uint8).reshape(rows * groups, -1)
    low = np.concatenate([runs[:, :16] & 15, runs[:, :16] >> 4], axis=1)
    if bits == 6:
        low |= np.concatenate([runs[:, 16:] >> 2 * part & 3 for part in range(4)], axis=1) << 4
    np.testing.assert_array_equal(signed(low, bits).reshape(rows, width), codes)
