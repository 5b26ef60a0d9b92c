"""`tightrope convert` and `tightrope compare` on the command line: what they write, and what they refuse at once."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tightrope import bundle

pytestmark = [pytest.mark.engine, pytest.mark.slow]
RUNTIME = "from toy.runtime import executed, open_artefact, version\n"
ABSENT = ("import engine_that_is_not_here\n", RUNTIME)
LAZY = ("def convert(model):\n    return None\n", RUNTIME)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Callable[[Path], Path]) -> Path:
    """A folder with a small encoder in it."""
    return encoder_folder(tmp_path_factory.mktemp("home") / "encoder").parent


@pytest.fixture(scope="module")
def run(
    home: Path, tmp_path_factory: pytest.TempPathFactory, toy_engine: Callable[..., dict[str, str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run(*arguments)`: a command in that folder, with the guide's engine, one that is absent and one that is lazy."""
    environment = toy_engine(tmp_path_factory.mktemp("toy"), {"absent": ABSENT, "lazy": LAZY})
    environment |= {"TIGHTROPE_CACHE": str(home / "cache")}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tightrope", *arguments]
        return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)

    return call


@pytest.mark.parametrize(
    ("arguments", "wrong", "way_out"),
    [
        (
            ("convert", "encoder", "--to", "foo", "--out", "o"),
            "There is no engine 'foo'.",
            "Known: native, onnxruntime",
        ),
        (
            ("convert", "encoder", "--to", "native,absent", "--out", "o"),
            "absent needs engine_that_is_not_here, which is not installed.",
            "pip install ",
        ),
        (
            ("compare", "encoder", "--engines", "native", "--precision", "int7"),
            "'int7' is neither a precision nor a recipe",
            "Give one of fp32, fp16, int8, int4",
        ),
        (
            ("compare", "encoder", "--precision", "int8 -> native"),
            "'int8 -> native' names an engine",
            "Leave the arrow",
        ),
        (("compare", "encoder", "--engines", "native", "--time", "soon"), "--time cannot be read", "such as 90s"),
        (("compare", "encoder", "--engines", "native", "--precision", ","), "No precision was given.", "fp32"),
        (("convert", "nothing", "--to", "native", "--out", "o"), "There is no model 'nothing'.", "Give a folder"),
        (("compare", "encoder", "--engines", "native", "--lengths", "1,x"), "The lengths '1,x'", "Give numbers"),
    ],
)
def test_what_cannot_be_done_is_said_in_two_lines(run, home, arguments, wrong, way_out) -> None:
    done = run(*arguments, *(() if arguments[0] == "convert" else ("--quiet",)))
    said = [line for line in done.stderr.splitlines() if not line.lstrip()[:1].isdigit()]  # without the progress
    assert done.returncode == 1, done.stderr
    assert len(said) == 2 and wrong in said[0] and way_out in said[1]
    assert not (home / "o").exists() and not list(home.glob("*.html"))


def test_convert_writes_a_bundle_for_each_that_answers_right(run, home: Path) -> None:
    """The lazy one does not, and its command ends with 3; nothing of it is left."""
    done = run("convert", "encoder", "--to", "toy,lazy,onnxruntime", "--precision", "fp32", "--out", "out", "--json")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    states = {cell["engine"]: cell["state"] for cell in found["cells"]}
    assert states == {"toy": "converted", "lazy": "failed", "onnxruntime": "converted"}
    assert {path.name for path in (home / "out").iterdir()} == {"toy-fp32.bundle", "onnxruntime-fp32.bundle"}
    (cell,) = (cell for cell in found["cells"] if cell["engine"] == "toy")
    assert cell["parity"]["cosine_min"] > 0.99999 and cell["converting_s"] > 0
    made = bundle.read(home / cell["bundle"])
    assert (made.digest, made.size_bytes) == (cell["digest"], cell["size_bytes"])
    assert run("verify", cell["bundle"]).returncode == 0


def test_all_takes_what_is_here_and_tells_the_rest(run, home: Path) -> None:
    done = run("convert", "encoder", "--to", "all", "--precision", "fp32", "--out", "all", "--time", "5min")
    assert done.returncode == 3  # for the lazy one
    assert "absent fp32: missing. absent needs engine_that_is_not_here" in done.stdout
    assert "lazy fp32: failed. The converter of lazy gave no output." in done.stdout
    assert {"toy-fp32.bundle", "onnxruntime-fp32.bundle"} <= {path.name for path in (home / "all").iterdir()}


def test_what_lies_there_is_not_replaced_unless_told(run, home: Path) -> None:
    arguments = ("convert", "encoder", "--to", "toy", "--precision", "fp32", "--out", "kept", "--quiet")
    assert run(*arguments).returncode == 0
    again = run(*arguments)
    assert again.returncode == 1 and "exists" in again.stderr
    assert run(*arguments, "--force").returncode == 0


def test_a_stored_comparison_is_shown_again(run, home: Path) -> None:
    arguments = ("--engines", "toy", "--precision", "fp32", "--report", "a.html", "--json", "a.json", "--quiet")
    done = run("compare", "encoder", *arguments)
    assert done.returncode == 0 and done.stdout.strip() == "a.html", done.stderr
    shown = run("report", "a.json", "--out", "b.html")
    assert shown.returncode == 0 and "1 of 1 engines run it" in shown.stdout
    assert (home / "b.html").read_text() == (home / "a.html").read_text()
    again = run("compare", "encoder", *arguments)
    assert again.returncode == 1 and "a.html exists" in again.stderr
