"""The fuzzers build, start with the seeds, and find nothing in some seconds; `engine/fuzz.sh` runs them for longer."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("clang")
def test_the_fuzzers_find_nothing(monkeypatch):
    monkeypatch.setenv("PYTHON", sys.executable)
    done = subprocess.run([ROOT / "engine" / "fuzz.sh", "10"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 2 and "Done" in done.stdout
