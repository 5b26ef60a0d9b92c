"""The server is killed at every step of a deployment that changes a file: it opens to the old or new, never neither.

Steps are enumerated by a library that is preloaded (`steps.c`): no write, rename, sync or removal is left out, whoever
makes it. A full, read-only or broken disk is an error that this library gives, not a real file system, so that it can
come at any step.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
Attack = Callable[..., tuple[list[int], list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory, native_bundle: Callable[..., Any]) -> Attack:
    """attack(plan, …): the number of steps of each plan, and all runs, with the digests of both bundles."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler: apt-get install gcc")
    folder = tmp_path_factory.mktemp("steps")
    library = folder / "steps.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "steps.c", "-ldl"], check=True)
    old = native_bundle(folder / "tiny.bundle").digest
    new = native_bundle(folder / "new.bundle", noise=0.001).digest

    def run(*plans: str) -> tuple[list[int], list[dict[str, Any]]]:
        command = [sys.executable, HERE / "deploy_steps.py", folder, *plans]
        done = subprocess.run(command, env=os.environ | {"LD_PRELOAD": str(library)}, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
        counts = [line["steps"] for line in lines if "plan" in line]
        return counts, [line | {"old": old, "new": new} for line in lines if "scenario" in line]

    return run


def opened(run: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What two processes found afterwards, one after the other: both open, answer rightly, and find the same."""
    (first_status, first), (second_status, second) = run["found"]
    assert first_status == second_status == 0, run
    assert first.keys() == second.keys() and "crashed" not in first, run
    for found in (first, second):
        assert found["digest"] in (run["old"], run["new"]), run
        assert found["ready"] and not found["damage"] and not found["left"] and not found["torn"], run
    return first, second


@pytest.mark.parametrize("scenario", ["deploy", "trial", "back"])
def test_killed_at_any_step_the_server_opens_to_the_old_or_the_new_version(attack: Attack, scenario: str) -> None:
    counts, runs = attack(f"{scenario}:kill:1:0", f"{scenario}:torn:7:3")
    assert counts[0] == counts[1] and counts[0] > 40, counts
    assert len(runs) == counts[0] + len(range(3, counts[0], 7))
    killed = [run for run in runs if run["status"] == 9]
    assert len(killed) == len(runs), "each run died at its step"
    ends = set()
    for run in runs:
        first, second = opened(run)
        assert first["digest"] == second["digest"], "no flip-flop"
        assert first["rejected"] == second["rejected"] and first["digest"] not in first["rejected"], run
        ends.add((first["digest"] == run["new"], bool(first["rejected"])))
    assert (False, False) in ends, "early enough, nothing has happened"
    assert {"deploy": (True, False), "trial": (False, True), "back": (False, True)}[scenario] in ends


@pytest.mark.parametrize("mode", ["full", "readonly", "broken"])
def test_where_the_disk_refuses_the_old_version_serves_and_the_command_fails_in_two_lines(attack, mode: str) -> None:
    _, runs = attack(f"deploy:{mode}:3:0", f"back:{mode}:5:1")
    assert len(runs) > 20
    failed = 0
    for run in runs:
        said = run["said"]
        assert run["status"] == 0 and "crashed" not in said, run
        for words in filter(None, (said.get("error"), said.get("start"))):
            assert len(words.splitlines()) == 2, run
        assert "start" not in said and said["answers"] == 1, "it serves, whatever the disk says"
        failed += not said["done"]
        if not said["done"] and run["scenario"] == "deploy":
            assert said["digest"] == run["old"], run
        opened(run)
    assert failed > len(runs) // 3
