"""What the guide shows is run: its files are written, its examples executed."""

import doctest
import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
TITLED = re.compile(r"^```\w+ title=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["data.md", "verifying.md"])
def test_the_examples_are_true(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (GUIDE / page).read_text(encoding="utf-8")
    for name, content in TITLED.findall(text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(GUIDE / page), module_relative=False, encoding="utf-8")
    assert result.attempted >= 5
    assert result.failed == 0


def test_the_page_on_data_names_every_column() -> None:
    from tightrope.workshop.data.tables import NAMES

    text = (GUIDE / "data.md").read_text(encoding="utf-8")
    missing = [name for names in NAMES.values() for name in names if f"`{name}`" not in text and "#" not in name]
    assert missing == []
