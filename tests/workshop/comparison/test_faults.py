"""Engines that misbehave in every way, in one comparison: it goes on, says what happened, and calls none a success."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow]
LIMIT_S = 12
CONVERTER = """
import os, signal, sys, time
from dataclasses import replace
from toy import converter
{top}
def convert(model):
    made = replace(converter.convert(model), engine={name!r})
    {act}
    return made
"""
RUNTIME = """
import os, signal, time
import numpy as np
from tightrope.errors import EngineError, UnsupportedError
from toy.runtime import ToySession, executed, version
{top}
class Session(ToySession):
    calls = 0
    def run(self, feeds):
        self.calls += 1
        found = super().run(feeds)
        {act}
        return found

def open_artefact(files, settings, *, threads):
    {opening}
    return Session(files["model"], threads)
"""
CONVERTING = {
    "segv": "os.kill(os.getpid(), signal.SIGSEGV)",
    "hang": "time.sleep(3600)",
    "silent": "os._exit(0)",
    "raises": "raise ValueError('boom\\nand more')",
    "noisy": "print('{\"rows\": 1}\\n' * 3); os.write(1, b'\\0\\xff garbage\\n')",
}
LOADING = {"broken_import": "os.kill(os.getpid(), signal.SIGSEGV)"}
OPENING = {
    "open_segv": "os.kill(os.getpid(), signal.SIGSEGV)",
    "elsewhere": "raise UnsupportedError('It runs with a GPU only.', hint='Open it where there is one.')",
    "open_refused": "raise EngineError('It is of another version.', hint='Make it anew.')",
}
RUNNING = {
    "run_segv": "os.kill(os.getpid(), signal.SIGSEGV)",
    "run_hang": "time.sleep(3600)",
    "run_silent": "os._exit(0)",
    "run_raises": "raise ValueError('bang')",
    "run_noisy": "print('{\"rows\": 1}\\n' * 3); os.write(1, b'\\0\\xff garbage\\n')",
    "wrong": "found = {name: value[:, ::-1].copy() for name, value in found.items()}",
    "not_finite": "found = {name: value * np.nan for name, value in found.items()}",
    "narrow": "found = {name: value[:, :5].copy() for name, value in found.items()}",
    "tires": "self.calls < 400 or os.kill(os.getpid(), signal.SIGSEGV)",
}
SAID = {
    "segv": ("failed", "The converter of segv crashed at 'convert': it was ended by SIGSEGV."),
    "hang": ("failed", f"The converter of hang hung: it did not answer 'convert' within {LIMIT_S} s."),
    "silent": ("failed", "The converter of silent crashed at 'convert': it ended with code 0."),
    "raises": ("failed", "ValueError: boom and more"),
    "broken_import": ("failed", "crashed at 'describe': it was ended by SIGSEGV."),
    "open_segv": ("failed", "crashed at 'open': it was ended by SIGSEGV."),
    "elsewhere": ("not run", "It runs with a GPU only."),
    "open_refused": ("failed", "It is of another version."),
    "run_segv": ("failed", "crashed at 'embed': it was ended by SIGSEGV."),
    "run_hang": ("failed", f"hung: it did not answer 'embed' within {LIMIT_S} s."),
    "run_silent": ("failed", "crashed at 'embed': it ended with code 0."),
    "run_raises": ("failed", "ValueError: bang"),
    "wrong": ("wrong", "Its answers have a cosine of"),
    "not_finite": ("wrong", "Its answers are not finite numbers."),
    "narrow": ("failed", "32 wide; its model gives"),
    "tires": ("failed", "When timed: The bench crashed at"),
}
GOOD = ("noisy", "run_noisy", "toy", "onnxruntime")


def engines() -> dict[str, tuple[str, str]]:
    """For each fault an engine: its converter and its runtime."""
    plain = "from toy.runtime import executed, open_artefact, version\n"
    found = {name: (CONVERTER.format(name=name, top="", act=act), plain) for name, act in CONVERTING.items()}
    found |= {name: (CONVERTER.format(name=name, top=top, act="pass"), plain) for name, top in LOADING.items()}
    for name, opening in OPENING.items():
        runtime = RUNTIME.format(top="", act="pass", opening=opening)
        found[name] = (CONVERTER.format(name=name, top="", act="pass"), runtime)
    for name, act in RUNNING.items():
        runtime = RUNTIME.format(top="", act=act, opening="pass")
        found[name] = (CONVERTER.format(name=name, top="", act="pass"), runtime)
    return found


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory,
    toy_engine: Callable[..., dict[str, str]],
    encoder_folder: Callable[[Path], Path],
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One comparison of all of them: the folder in which it ran, and how it ended."""
    home = tmp_path_factory.mktemp("home")
    environment = toy_engine(tmp_path_factory.mktemp("toy"), engines()) | {"TIGHTROPE_CACHE": str(home / "cache")}
    encoder_folder(home / "encoder")
    command = [sys.executable, "-m", "tightrope", "compare", "encoder", "--precision", "fp32", "--out", "out"]
    command += ["--engines", ",".join((*SAID, *GOOD)), "--limit", f"{LIMIT_S}s", "--lengths", "8,16"]
    command += ["--report", "engines.html", "--json", "engines.json"]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=580, check=False)
    return home, done


@pytest.fixture(scope="module")
def cells(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> dict[str, Any]:
    """The cells by the engine's name."""
    home, done = compared
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return {cell["engine"]: cell for cell in json.loads((home / "engines.json").read_text())["cells"]}


@pytest.mark.parametrize("engine", SAID)
def test_a_fault_is_no_success_and_its_cell_says_what_happened(cells: dict[str, Any], engine: str) -> None:
    cell, (state, said) = cells[engine], SAID[engine]
    assert cell["state"] == state
    assert said in cell["reason"]
    assert "\n" not in cell["reason"]
    assert cell["measurement"] is None


@pytest.mark.parametrize("engine", GOOD)
def test_the_others_are_measured(cells: dict[str, Any], engine: str) -> None:
    cell = cells[engine]
    assert cell["state"] == "measured"
    assert cell["parity"]["cosine_min"] > 0.9999
    assert [item["tokens"] for item in cell["measurement"]["latencies"]] == [8, 16]
    assert all(item["speedup"]["value"] > 0 for item in cell["measurement"]["latencies"])


def test_only_what_answers_right_leaves_a_bundle(
    compared: tuple[Path, subprocess.CompletedProcess[str]], cells: dict[str, Any]
) -> None:
    home, _ = compared
    made = {path.name.removesuffix("-fp32.bundle") for path in (home / "out").iterdir()}
    assert made == {*GOOD, "elsewhere"}  # one cannot be asked here, which its cell says


def test_everything_is_said_on_the_terminal_and_on_the_page(
    compared: tuple[Path, subprocess.CompletedProcess[str]], cells: dict[str, Any]
) -> None:
    home, done = compared
    page = (home / "engines.html").read_text()
    assert f"{len(GOOD)} of {len(SAID) + len(GOOD)} engines run it" in done.stdout
    for engine, (state, said) in SAID.items():
        assert f"{engine} fp32: {state}." in done.stdout
        assert said.replace("'", "&#x27;") in page
