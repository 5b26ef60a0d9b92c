"""The process is as old as the system says, if what it says can be true."""

import subprocess
import sys
from pathlib import Path

import pytest

from tightrope.device.meter.clock import since_process_start


@pytest.mark.parametrize("text", ["", "1 (python) S 2", "1 (a) b) S " + "0 " * 18 + "x", "1 (py) S " + "0 " * 40])
def test_what_cannot_be_true_is_not_believed(text: str, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(text)
    code = f"""
import pathlib
from tightrope.device.meter.clock import since_process_start
print(since_process_start(pathlib.Path({str(tmp_path / "stat")!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 <= float(done.stdout) < 30  # not the age of the machine


def test_a_process_grows_older() -> None:
    first = since_process_start()
    assert 0 < first <= since_process_start()
