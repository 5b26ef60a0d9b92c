"""`fit --runtime all`: every engine that is installed is a candidate, and one that crashes is a failed trial."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow]
CRASHES = "import os, signal\ndef convert(model):\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
BROKEN = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
RUNTIME = "from toy.runtime import executed, open_artefact, version\n"


def test_an_engine_that_crashes_is_a_failed_trial(
    tmp_path: Path, toy_engine: Callable[..., dict[str, str]], encoder_folder: Callable[[Path], Path]
) -> None:
    environment = toy_engine(tmp_path / "toys", {"crashes": (CRASHES, RUNTIME), "broken": (BROKEN, RUNTIME)})
    encoder_folder(tmp_path / "encoder")
    command = [sys.executable, "-m", "tightrope", "fit", "encoder", "--runtime", "all", "--budget", "loss<=60%"]
    command += [word for name in ("toy", "crashes", "onnxruntime") for word in ("--recipe", f"half -> {name}")]
    command += ["--time", "60s", "--out", "best.bundle"]
    environment |= {"TIGHTROPE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads((tmp_path / "best.run.json").read_text())
    states = {trial["recipe"].rpartition(" -> ")[2]: trial["state"] for trial in run["trials"]}
    assert states.pop("toy") in ("judged", "timed") and states.pop("onnxruntime") in ("judged", "timed")
    assert states == {"crashes": "failed"}
    (crashed,) = (trial for trial in run["trials"] if trial["state"] == "failed")
    assert "The converter of crashes crashed at 'convert': it was ended by SIGSEGV" in crashed["reason"]


def test_all_are_those_whose_tools_can_be_loaded(tmp_path: Path, toy_engine: Callable[..., dict[str, str]]) -> None:
    code = (
        "from tightrope.workshop.search.fit import Settings, usable_engines; "
        "print(*usable_engines(Settings(engines=('all',))))"
    )
    environment = toy_engine(tmp_path, {"crashes": (CRASHES, RUNTIME), "broken": (BROKEN, RUNTIME)})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert {"toy", "crashes", "onnxruntime"} <= set(found)
    assert "broken" not in found


def test_by_default_only_the_usual_engines_are(tmp_path: Path, toy_engine: Callable[..., dict[str, str]]) -> None:
    code = (
        "from tightrope.workshop.search.fit import Settings, usable_engines; "
        "print(usable_engines(Settings()), usable_engines(Settings(engines=('toy',))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=toy_engine(tmp_path), capture_output=True, text=True, check=True
    )
    usual, named = done.stdout.strip().split(") (")
    assert "toy" not in usual and "onnxruntime" in usual
    assert named == "'toy',)"
