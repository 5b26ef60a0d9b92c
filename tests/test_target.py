"""Targets: what is shipped can be read, written and read again; what is no target is said to be none."""

import re

import pytest

from tightrope import target
from tightrope.errors import DataError, UnknownNameError


@pytest.mark.parametrize("name", target.names())
def test_every_target_has_figures_and_says_where_each_is_from(name, tmp_path):
    found = target.load(name)
    figures = ("clock_hz", "float_macs_per_cycle", "int8_macs_per_cycle", "bandwidth_bytes_per_s")
    assert all(getattr(found, figure) > 0 for figure in figures)
    assert set(found.sources) == set(figures)
    assert found.int8_macs_per_cycle >= found.float_macs_per_cycle
    path = tmp_path / f"{name}.toml"
    path.write_text(target.written(found), encoding="utf-8")
    assert target.load(str(path)) == found


def test_those_that_users_ask_for_are_there():
    for name in ("raspberry-pi-4", "raspberry-pi-5", "jetson-nano", "jetson-orin-nx", "android-phone", "iphone"):
        assert target.load(name).name == name


def test_an_unknown_target_lists_the_known_ones():
    with pytest.raises(UnknownNameError) as raised:
        target.load("raspberry-pi-9")
    assert "raspberry-pi-9" in raised.value.message and "raspberry-pi-5" in raised.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "cores = ", "\x00", 'description = 3\narchitecture = "x"', "words = 1", '[rates]\n"native int8" = 3'],
)
def test_a_file_that_is_no_target_is_said_to_be_none(tmp_path, text):
    path = tmp_path / "here.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(str(path))) as raised:
        target.load(str(path))
    assert len(str(raised.value).splitlines()) == 2


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        target.load(str(tmp_path / "nowhere.toml"))
