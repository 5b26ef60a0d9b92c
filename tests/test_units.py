import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope import units


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("20ms", "seconds", 0.02),
        ("5min", "seconds", 300.0),
        ("100 MB", "bytes", 1e8),
        ("1MiB", "bytes", 1_048_576.0),
        ("0.5%", "fraction", 0.005),
        ("1.8x", "ratio", 1.8),
        ("500/s", "rate", 500.0),
        ("3 mJ", "joules", 0.003),
    ],
)
def test_reads_what_people_write(text: str, dimension: str, value: float) -> None:
    assert units.parse(text, dimension) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["fast", "", "ms", "20", "20 MB", "nan ms", "inf ms", "1e999 ms", "0x10 ms", "1,5 ms", "--3ms"]
)
def test_refuses_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse(text, "seconds")


@given(st.floats(1e-6, 1e6))
def test_what_is_shown_can_be_read_back(seconds: float) -> None:
    assert units.parse(units.show(seconds, "seconds"), "seconds") == pytest.approx(seconds, rel=6e-3)
