"""The operator's page names metrics, limits and options that exist, and none that does not."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tightrope
from tightrope.cli.main import cli
from tightrope.cli.serve import _say
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.logs import RATE_PER_S
from tightrope.device.serve.metrics import Metrics

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
PAGE = (GUIDE / "serving.md").read_text(encoding="utf-8")


def _table(title: str) -> str:
    """The part of the page below a title."""
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_metric_of_ours_is_named_and_exists() -> None:
    named = dict(re.findall(r"`(tightrope_\w+)(?:\{([\w,]+)\})?`", _table("What can be seen")))
    exist = {item.name: ",".join(item.labels) for item in vars(Metrics()).values() if hasattr(item, "labels")}
    assert named == exist


def test_familiar_names_exist() -> None:
    text = Metrics().text()
    for name in re.findall(r"`((?:te|nv|gen_ai)_\w+)", _table("What can be seen")):
        assert f"# TYPE {name}" in text


def test_limits_that_are_named_exist() -> None:
    named = set(re.findall(r"`(\w+)`", "\n".join(line for line in _table("Limits").splitlines() if line[:3] == "| `")))
    assert len(named) > 12
    assert named <= {item.name for item in fields(Limits)}


def test_options_that_are_named_exist() -> None:
    shown = "".join(CliRunner().invoke(cli, [*words, "--help"]).output for words in (["serve"], ["key", "new"]))
    for option in set(re.findall(r"--[a-z][a-z-]*(?!-)", PAGE)):
        assert option in shown, option


def test_the_logs_rate_is_as_said() -> None:
    assert f"at most {RATE_PER_S:g} lines a second" in PAGE


@pytest.mark.engine
def test_its_python_runs_as_written(native_bundle: Any, tmp_path: Path) -> None:
    native_bundle(tmp_path / "minilm.bundle")
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    # in a process of its own: this one may be larger than the example's budget
    run = subprocess.run([sys.executable, "-c", code[1]], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("http://127.0.0.1:")


def test_files_that_it_names_are_there() -> None:
    named = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(named) > 5
    assert [name for name in named if not (GUIDE / name).exists()] == []


@pytest.mark.engine
def test_the_line_that_it_shows_is_the_one_that_is_said(native_bundle: Any, tmp_path: Path, capsys: Any) -> None:
    native_bundle(tmp_path / "minilm.bundle")
    with tightrope.serve(tmp_path / "minilm.bundle", memory="2GB", threads=1) as server:
        _say(server)
    [shown] = re.findall(r"^http://127\.0\.0\.1:8080  .*$", PAGE, re.MULTILINE)
    said = capsys.readouterr().out.strip()
    assert re.sub(r"\d+", "0", shown).split("  ")[1] == re.sub(r"\d+", "0", said).split("  ")[1]
    assert len(shown.split("  ")) == len(said.split("  ")) == 3
