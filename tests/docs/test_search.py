"""What the page on search shows is run."""

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guide"


@pytest.mark.engine
def test_the_example_in_python_runs(native_bundle, tmp_path, monkeypatch, capsys):
    text = (GUIDE / "search.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {"BUNDLE": native_bundle(tmp_path / "tiny.bundle").path})
    assert capsys.readouterr().out.strip() == "page 1"


def test_the_page_names_every_command():
    from tightrope.cli.index import index

    text = (GUIDE / "search.md").read_text(encoding="utf-8")
    missing = [
        name for name in index.commands if f"tightrope index {name}" not in text and f"index\n{name}" not in text
    ]
    assert missing == [], missing
