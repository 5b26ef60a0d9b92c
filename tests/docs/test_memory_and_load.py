"""The page on memory and load: its example runs as written, its defaults are those of the code."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tightrope.device.serve.limits import Limits

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "memory-and-load.md").read_text(encoding="utf-8")


def test_its_example_runs_as_written(native_bundle: Callable[..., Any], tmp_path: Path) -> None:
    native_bundle(tmp_path / "minilm.bundle")
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    # in a process of its own: this one may be larger than the example's budget
    run = subprocess.run([sys.executable, "-c", code[1]], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, *owners = run.stdout.splitlines()
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
