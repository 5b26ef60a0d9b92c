"""The guide on adding an engine is followed to the letter: the engine it writes converts, is compared, and conforms."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, toy_engine: Callable[..., dict[str, str]]) -> dict[str, str]:
    """The environment in which Python finds the guide's engine."""
    return toy_engine(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Callable[[Path], Path]) -> Path:
    """A folder with a small encoder in it."""
    return encoder_folder(tmp_path_factory.mktemp("home") / "encoder").parent


def tightrope(*arguments: str, home: Path, environment: dict[str, str]) -> str:
    """Run a command that must succeed; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tightrope", *arguments],
        cwd=home,
        env=environment | {"TIGHTROPE_CACHE": str(home / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_converts_as_the_guide_says(home: Path, toy: dict[str, str]) -> None:
    """The guide's own command, on a small model."""
    text = (ROOT / "docs" / "guide" / "adding-an-engine.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^tightrope convert all-MiniLM-L6-v2 (.*)$", text, re.MULTILINE)
    assert line == '--to toy --precision "fp32, int8(activations=none)" --out out/'
    tightrope(
        "convert", "encoder", "--to", "toy", "--precision", "fp32, int8(activations=none)", "--out", "out",
        home=home, environment=toy,
    )  # fmt: skip
    made = sorted(path.name for path in (home / "out").iterdir())
    assert made == ["toy-fp32.bundle", "toy-int8-activations-none.bundle"]
    assert "agree on 16 texts" in tightrope("verify", "out/toy-fp32.bundle", home=home, environment=toy)


def test_it_is_compared_and_described_by_its_own_package(home: Path, toy: dict[str, str]) -> None:
    tightrope(
        "compare", "encoder", "--engines", "toy,onnxruntime,native", "--precision", "fp32,int8", "--report", "e.html",
        "--json", "e.json", home=home, environment=toy,
    )  # fmt: skip
    found = json.loads((home / "e.json").read_text())
    states = {(cell["engine"], cell["precision"]): cell["state"] for cell in found["cells"]}
    assert states.pop(("toy", "int8")) == "refused"
    assert len(states) == 5 and set(states.values()) == {"measured"}
    (about,) = (item for item in found["engines"] if item["name"] == "toy")
    assert (about["license"], about["python"]) == ("Apache-2.0", ">=3.11")
    assert about["install_bytes"] > 1000
    assert "toy does not round what enters encoder.layer.0" in (home / "e.html").read_text()


def test_it_conforms(toy: dict[str, str]) -> None:
    """All forms on the small model and what sessions keep to; the refused ones are refused by name."""
    suite = ("tests/conformance/test_engines.py", "tests/conformance/test_sessions.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *suite, "-k", "toy and not real", "-p", "no:cacheprovider", "-rs"],
        cwd=ROOT,
        env=toy | {"TIGHTROPE_REQUIRE": os.environ.get("TIGHTROPE_REQUIRE", "")},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 30
    assert "toy refuses this form by name, which was checked" in done.stdout
