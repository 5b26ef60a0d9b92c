"""README's promises: its Python runs as written, its commands are those that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tightrope.cli.main import COMMANDS
from tightrope.workshop.network import Network

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_command_it_shows_exists() -> None:
    shown = set(re.findall(r"^tightrope ([a-z-]+)", README, re.MULTILINE)) | set(
        re.findall(r"`tightrope ([a-z-]+)", README)
    )
    assert shown
    assert shown <= set(COMMANDS)


def test_every_page_it_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (Path(__file__).parents[2] / target).exists(), target


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.network
def test_its_python_runs_as_written(minilm: Network, tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code
    checked = (
        code[1] + "\nassert vectors.shape == (2, 384) and abs((vectors**2).sum(1) - 1).max() < 1e-5\nassert result\n"
    )
    done = subprocess.run([sys.executable, "-c", checked], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "-> " in done.stdout
