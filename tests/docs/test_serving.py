"""The operator's page names metrics, limits and options that exist, and none that does not."""

import re
from dataclasses import fields
from pathlib import Path

from click.testing import CliRunner

from tightrope.cli.main import cli
from tightrope.device.serve.limits import Limits
from tightrope.device.serve.logs import RATE_PER_S
from tightrope.device.serve.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "serving.md").read_text(encoding="utf-8")


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
