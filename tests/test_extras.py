"""Extras: each engine has one of its name, every hint names one that there is, and each can be installed."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tightrope import plugins

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
OWN = re.compile(r"tightrope\[([\w,-]+)\]")
ENGINES = sorted(set(plugins._files("converters")) - {"native"})
GPU = ("tensorrt",)
"""It fetches libraries that need a GPU."""
APART = (*GPU, "tvm")
"""No part of `engines`: TVM wants typing-extensions from 4.13 on, LiteRT's converter (by xdsl) older ones."""


def requirements(extra: str) -> set[str]:
    """What an extra asks for, with what the extras in it ask for."""
    found: set[str] = set()
    for item in EXTRAS[extra]:
        within = OWN.fullmatch(item)
        found |= set().union(*map(requirements, within[1].split(","))) if within else {item}
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_has_an_extra_of_its_name(engine: str) -> None:
    assert requirements(engine)
    assert engine in APART or requirements(engine) <= requirements("engines")


def test_hints_name_extras_that_there_are() -> None:
    assert set(plugins.EXTRAS.values()) <= set(EXTRAS)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_hint_for_a_missing_engine_names_its_extra(engine: str) -> None:
    """Its files import modules of other distributions; each is brought by an extra of that name or by the table."""
    for room, module in ((room, plugins._files(room)[engine]) for room in ("converters", "runtimes")):
        source = (ROOT / "src" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
        imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)) - sys.stdlib_module_names
        for name in imported - {"tightrope", "numpy", "toy"}:
            assert plugins.EXTRAS.get(name, name) in EXTRAS, (room, name)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.skipif("TIGHTROPE_EXTRAS" not in os.environ, reason="asks the package index for minutes: make engines")
@pytest.mark.parametrize("extra", [*ENGINES, "litert-convert", "engines"])
def test_pip_finds_what_an_extra_asks_for(extra: str) -> None:
    """Alone and, as `engines`, together; nothing is installed."""
    asked = sorted({*PROJECT["dependencies"], *requirements(extra)} - {"torch>=2.6"})
    torch = ["torch==2.13.0"] if "torch>=2.6" in requirements(extra) else []
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", *torch, *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if extra in GPU and done.returncode:
        pytest.skip("the wheel stub fetches its libraries elsewhere")
    assert done.returncode == 0, done.stderr[-2000:]
