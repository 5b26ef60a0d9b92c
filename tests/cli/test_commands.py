"""The command line as a user calls it: in a process of its own, on a small real model folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Callable[[Path], Path]) -> Path:
    """A folder with a model in it, a compressed bundle, and a cache of its own."""
    folder = tmp_path_factory.mktemp("home")
    encoder_folder(folder / "model")
    done = tightrope(folder, "compress", "model", "--recipe", "int8-simple", "--out", "tiny.bundle")
    assert done.returncode == 0, done.stderr
    for name in ("earlier.run.json", "earlier-page.report.html"):
        (folder / name).write_text("of an earlier fit")
    return folder


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"TIGHTROPE_CACHE": str(folder / "cache"), "COLUMNS": "100"}


def tightrope(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tightrope", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(folder), input=stdin, capture_output=True, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Exit code 1, and standard error ends with an error of two lines; before it only the progress may stand."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    *progress, first, second = done.stderr.strip().splitlines()
    assert first.startswith("tightrope: ") and second.startswith(" " * 11), done.stderr
    assert all(" s  " in line for line in progress), done.stderr
    return f"{first}\n{second}"


def test_show_verify_and_measure(home: Path) -> None:
    shown = tightrope(home, "show", "tiny.bundle")
    assert "int8(granularity=tensor) + embedding(bits=8) -> onnxruntime" in shown.stdout
    facts = json.loads(tightrope(home, "show", "tiny.bundle", "--json").stdout)
    assert facts["content"]["lineage"]["source"] == "model"
    assert facts["attachments"]["quality"]["kind"] == "fidelity"
    verified = tightrope(home, "verify", "tiny.bundle", "--json")
    assert verified.returncode == 0 and json.loads(verified.stdout)["holds"] is True
    measured = tightrope(home, "measure", "tiny.bundle", "--lengths", "8,32", "--seconds", "2", "--json", "--attach")
    found = json.loads(measured.stdout)
    assert [item["tokens"] for item in found["latencies"]] == [8, 32]
    assert found["memory_peak_bytes"] > 10_000_000 and found["conditions"]["threads"] == 1
    assert json.loads(tightrope(home, "show", "tiny.bundle", "--json").stdout)["digest"] == facts["digest"]


def test_embedding_keeps_the_order_and_takes_what_people_have(home: Path) -> None:
    texts = ["the cat sat", "", "\x00 nul", "sat 😀 the", "the " * 5000, "cat"]
    (home / "texts.txt").write_text("\n".join(texts), newline="")
    done = tightrope(home, "embed", "tiny.bundle", "texts.txt", "--out", "vectors.npy", "--force")
    assert done.returncode == 0, done.stderr
    assert "1 of 6 texts were longer" in done.stderr
    vectors = np.load(home / "vectors.npy", allow_pickle=False)
    assert vectors.shape == (6, 32) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    lines = tightrope(home, "embed", "tiny.bundle", "-", stdin=b"cat\nthe cat sat\n").stdout.splitlines()
    assert np.allclose(json.loads(lines[0]), vectors[5], atol=2e-3)
    assert np.allclose(json.loads(lines[1]), vectors[0], atol=2e-2)


def test_there_and_back_as_one_file(home: Path) -> None:
    assert tightrope(home, "pack", "tiny.bundle", "--out", "tiny.tar").returncode == 0
    assert tightrope(home, "unpack", "tiny.tar", "--out", "again.bundle").returncode == 0
    assert tightrope(home, "verify", "again.bundle").returncode == 0


def test_rebuild_gives_the_same_digest(home: Path) -> None:
    done = tightrope(home, "rebuild", "tiny.bundle")
    assert done.returncode == 0, done.stdout + done.stderr
    was, now = (line.split()[1] for line in done.stdout.splitlines()[:2])
    assert was == now


@pytest.mark.parametrize("command", ["targets", "recipes", "cache"])
def test_lists_for_people_and_for_programs(home: Path, command: str) -> None:
    assert tightrope(home, command).stdout.strip()
    assert json.loads(tightrope(home, command, "--json").stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(home: Path, shell: str) -> None:
    assert "_TIGHTROPE_COMPLETE" in tightrope(home, "completion", shell).stdout


def test_help_is_there_for_every_command(home: Path) -> None:
    from tightrope.cli.main import COMMANDS

    for command in COMMANDS:
        done = tightrope(home, command, "--help")
        assert done.returncode == 0 and "Usage: " in done.stdout


REFUSED = {
    "no such model": ("fit", "nowhere", "--out", "x.bundle"),
    "no such bundle": ("verify", "nowhere.bundle"),
    "a budget that is nonsense": ("fit", "model", "--budget", "latency<=fast", "--out", "x.bundle"),
    "a budget that nothing meets": ("fit", "model", "--budget", "size<=-3MB", "--out", "x.bundle"),
    "a length that the model does not take": ("fit", "model", "--budget", "latency[500]<=1s", "--out", "x.bundle"),
    "a time that is nonsense": ("fit", "model", "--time", "soon", "--out", "x.bundle"),
    "no such engine": ("fit", "model", "--engines", "abacus", "--out", "x.bundle"),
    "no such target": ("fit", "model", "--target", "toaster", "--out", "x.bundle"),
    "a run that lies there": ("fit", "model", "--out", "earlier.bundle"),
    "a page that lies there": ("fit", "model", "--out", "earlier-page.bundle"),
    "a folder in the run's place": ("fit", "model", "--out", "x.bundle", "--json", "model", "--force"),
    "no such data": ("fit", "model", "--data", "nowhere.tsv", "--out", "x.bundle"),
    "no such pass": ("compress", "model", "--recipe", "int9", "--out", "x.bundle"),
    "no such option": ("compress", "model", "--recipe", "int8(bits=3)", "--out", "x.bundle"),
    "an option of the wrong kind": ("compress", "model", "--recipe", "int8(outliers=many)", "--out", "x.bundle"),
    "an option out of range": ("compress", "model", "--recipe", "smooth(alpha=3)", "--out", "x.bundle"),
    "a recipe that is nonsense": ("compress", "model", "--recipe", "int8(", "--out", "x.bundle"),
    "a bundle in the way": ("compress", "model", "--recipe", "int8-simple", "--out", "tiny.bundle"),
    "a folder in the way": ("compress", "model", "--recipe", "int8-simple", "--out", "model", "--force"),
    "an output in no folder": ("embed", "tiny.bundle", "texts.txt", "--out", "no/such/folder/x.npy"),
    "lengths that are nonsense": ("measure", "tiny.bundle", "--lengths", "short"),
    "a run that is none": ("report", "model/config.json"),
    "a bench that is none": ("measure", "tiny.bundle", "--bench", "false"),
    "scoring with an embedding model": ("score", "tiny.bundle", "texts.txt"),
    "no such prompt": ("embed", "tiny.bundle", "texts.txt", "--prompt", "nicely"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_an_error_of_two_lines_and_nothing_is_written(home: Path, what: str) -> None:
    (home / "texts.txt").write_text("the cat\n")
    before = {path for path in home.iterdir() if path.name != "cache"}
    refused(tightrope(home, *REFUSED[what]))
    assert {path for path in home.iterdir() if path.name != "cache"} == before


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"text_a\ttext_b\tscore\n",
        b"text_a\ttext_b\nthe\tcat\n",
        b"text_a\ttext_b\tlabel\nthe\tcat\tmaybe\n",
    ],
)
def test_broken_data_is_an_error_of_two_lines(home: Path, data: bytes) -> None:
    (home / "data.tsv").write_bytes(data)
    refused(tightrope(home, "fit", "model", "--data", "data.tsv", "--out", "x.bundle"))
    assert not (home / "x.bundle").exists()


def test_text_that_is_not_utf8_is_refused(home: Path) -> None:
    assert "UTF-8" in refused(tightrope(home, "embed", "tiny.bundle", "-", stdin=b"caf\xe9\n"))


def test_a_fit_ends_with_a_bundle_a_page_and_a_run(home: Path) -> None:
    done = tightrope(
        home, "fit", "model", "--budget", "size<=1GB, loss<=30%", "--time", "40s", "--engines", "onnxruntime",
        "--recipe", "int8-simple", "--recipe", "half", "--out", "fitted.bundle", "--json", "run.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads((home / "run.json").read_text())
    assert run["chosen"] and {trial["state"] for trial in run["trials"]} == {"timed"}
    page = (home / "fitted.report.html").read_text()
    assert "<script src" not in page and "http-equiv" in page
    assert tightrope(home, "verify", "fitted.bundle").returncode == 0
    assert tightrope(home, "report", "run.json", "--out", "again.html").returncode == 0
    assert (home / "again.html").read_text() == page


def test_when_nothing_fits_the_exit_code_is_3_and_the_report_says_why(home: Path) -> None:
    done = tightrope(
        home, "fit", "model", "--budget", "size<=1kB", "--time", "30s", "--engines", "onnxruntime",
        "--recipe", "int8-simple", "--out", "none.bundle",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "size" in done.stdout
    assert (home / "none.report.html").is_file() and not (home / "none.bundle").exists()
    assert json.loads((home / "none.run.json").read_text())["nearest"]


@pytest.mark.parametrize("after_s", [0.3, 2.0, 5.0])
def test_an_interrupt_leaves_nothing_half_written(home: Path, after_s: float) -> None:
    before = {path for path in home.iterdir() if path.name != "cache"}
    command = [sys.executable, "-m", "tightrope", "fit", "model", "--budget", "loss<=30%", "--out", "stopped.bundle"]
    process = subprocess.Popen(command, cwd=home, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:  # an interpreter that just starts may lose one in a callback; people press again
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert b"Traceback" not in err, err
    if process.returncode == 0:  # it had something to publish already
        assert tightrope(home, "verify", "stopped.bundle").returncode == 0
    else:
        assert process.returncode in (3, 130), (process.returncode, out, err)
    left = {path for path in home.iterdir() if path.name != "cache"} - before
    assert {path.name for path in left} <= {"stopped.bundle", "stopped.run.json", "stopped.report.html"}
    for path in left:
        subprocess.run(["rm", "-rf", str(path)], check=True)
