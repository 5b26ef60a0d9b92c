"""The page on memory and load: its example runs as written, its defaults are those of the code."""

import contextlib
import io
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tightrope.device.serve.limits import Limits

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "memory-and-load.md").read_text(encoding="utf-8")


def test_its_example_runs_as_written(native_bundle: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
    native_bundle(tmp_path / "minilm.bundle")
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code[1], "memory-and-load.md", "exec"), {})
    first, *owners = said.getvalue().splitlines()
    assert re.fullmatch(r"\(2, 32\) \d+", first)
    assert {"process", "batches", "cache"} <= {line.split()[0] for line in owners}
    assert "tokens at once" in owners[-2] and "to the bit" in owners[-1]


def test_its_owners_are_named() -> None:
    for owner in ("process", "model:NAME@VERSION", "batches", "requests", "cache"):
        assert f"| `{owner}` |" in PAGE


@pytest.mark.parametrize("row", re.findall(r"^\| `(.+?)` \| (.+?) \|", PAGE.partition("| limit |")[2], re.MULTILINE))
def test_its_defaults_are_those_of_the_code(row: tuple[str, str]) -> None:
    units = {"s": 1.0, "ms": 1e-3, "MB": 1e6}
    names, values = row[0].split("`, `"), row[1].split(", ")
    for name, value in zip(names, values, strict=True):
        number, _, unit = value.partition(" ")
        assert asdict(Limits())[name] == pytest.approx(float(number.replace(",", "")) * units.get(unit, 1.0))
