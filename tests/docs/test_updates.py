"""The page on updates: its commands are commands, its numbers those of the code."""

import re
import shlex
from pathlib import Path

import pytest

from tightrope.cli.model import model
from tightrope.device.serve import evidence, mirror, sequential
from tightrope.units import show

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "updates.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^tightrope model (.+)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_can_be_given(line: str) -> None:
    name, *arguments = shlex.split(line)
    assert model.commands[name].make_context(name, arguments).params


def test_the_page_shows_every_command() -> None:
    assert {line.split()[0] for line in COMMANDS} == set(model.commands)


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    rates = {name: show(rate, "fraction") for name, rate in evidence.ERROR_RATES.items()}
    for words in (
        f"after {evidence.PAIRS} mirrored requests",
        f"{evidence.CANARY_ANSWERS} answers of its own",
        f"a mean lower by {sequential.TOLERATED_DROP}",
        f"lower by {sequential.DROP} | at most {rates['agreement']}",
        f"a ratio of {sequential.TOLERATED_RATIO} | a ratio of {sequential.RATIO} | at most {rates['latency']}",
        f"| {show(sequential.TOLERATED_FAILURES, 'fraction')} | {show(sequential.FAILURES, 'fraction')}",
        f"({mirror._GATHERED} requests at most)",
        f"agree to less than {evidence._KINDRED}",
    ):
        assert words in PAGE, words
    assert (evidence.DEATHS, mirror.TEXTS) == (3, 4), "the page says so in words"
