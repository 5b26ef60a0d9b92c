"""The server is killed at every step of a deployment that changes a file: it opens to the old or new, never neither.

Steps are enumerated by a library that is preloaded (`steps.c`): no write, rename, sync or removal is left out, whoever
makes it. A full, read-only or broken disk is an error that this library gives, so that it can come at any step; where a
file system can be mounted, a real one that is full or read-only is tried too.
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
COPIED = 30
"""Steps of a deployment that are over before the new bundle is verified, or fewer."""
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

    run.folder = folder  # type: ignore[attr-defined]
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


@pytest.mark.parametrize(("scenario", "first"), [("deploy", 0), ("trial", COPIED), ("back", COPIED)])
def test_killed_at_any_step_the_server_opens_to_the_old_or_the_new_version(attack, scenario: str, first: int) -> None:
    """All begin with the same steps, up to when the copy of the new bundle lies in the state folder."""
    counts, runs = attack(f"{scenario}:kill:1:{first}", f"{scenario}:torn:5:{first}")
    assert counts[0] == counts[1] and counts[0] > COPIED + 10, counts
    assert len(runs) == counts[0] - first + len(range(first, counts[0], 5))
    assert all(run["status"] == 9 for run in runs), "each run died at its step"
    ends = set()
    for run in runs:
        found, again = opened(run)
        assert found["digest"] == again["digest"], "no flip-flop"
        assert found["rejected"] == again["rejected"] and found["digest"] not in found["rejected"], run
        ends.add((found["digest"] == run["new"], bool(found["rejected"])))
    if scenario == "deploy":
        assert ends == {(False, False), (True, False)}
    else:
        assert (False, True) in ends, "it ended with the version taken back, and remembered"


@pytest.mark.parametrize("mode", ["full", "readonly", "broken"])
def test_where_the_disk_refuses_the_old_version_serves_and_the_command_fails_in_two_lines(attack, mode: str) -> None:
    _, runs = attack(f"deploy:{mode}:4:0", f"back:{mode}:5:{COPIED}")
    assert len(runs) > 15
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


_DEPLOY = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import deploy_steps
print(json.dumps(deploy_steps.attack("deploy", Path(sys.argv[2]) / "root", -1, 0)))
"""


@pytest.mark.parametrize(
    ("options", "words"), [("size=64k", "No space left on device"), ("ro", "Read-only file system")]
)
def test_on_a_real_file_system_that_is_full_or_read_only(attack: Attack, options: str, words: str) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare of util-linux")
    folder = attack.folder  # type: ignore[attr-defined]
    shutil.rmtree(folder / "root", ignore_errors=True)
    (folder / "root" / "state").mkdir(parents=True)
    shutil.copytree(folder / "tiny.bundle", folder / "root" / "tiny.bundle")
    mounted = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
    python = [sys.executable, "-c", _DEPLOY, HERE, folder]
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        mounted,
        folder / "root" / "state",
        *python,
    ]
    environment = os.environ | {"LD_PRELOAD": str(folder / "steps.so")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode and ("mount:" in done.stderr or "unshare:" in done.stderr):
        pytest.skip("a file system cannot be mounted here")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not said["done"] and words in said["error"] and len(said["error"].splitlines()) == 2, said
    assert said["answers"] == 1, "the old version serves"
