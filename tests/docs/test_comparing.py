"""The guide on comparing engines: its commands can be read, and it knows every state and precision that there is."""

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from tightrope.cli import cli
from tightrope.workshop.comparison.outcome import State
from tightrope.workshop.search.precisions import WORDS

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
PAGES = {name: (GUIDE / name).read_text(encoding="utf-8") for name in ("comparing.md", "adding-an-engine.md")}
BLOCKS = [block for text in PAGES.values() for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
COMMANDS = sorted({line for block in BLOCKS for line in block.splitlines() if line.startswith("tightrope ")})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_can_be_read(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    with cli.make_context("tightrope", [name]) as above:
        command = cli.get_command(above, name)
        assert command is not None
        command.make_context(name, arguments, parent=above)


def test_the_page_knows_every_state_and_precision() -> None:
    first_cells = re.findall(r"^\| (.*?) \|", PAGES["comparing.md"], re.MULTILINE)
    named = {word.strip() for cell in first_cells for word in re.split(r",", cell)}
    assert set(get_args(State)) <= named
    assert {f"`{word}`" for word in WORDS} <= named
