"""The programs of the engine, compiled against the library: the example in C, and tightrope-embed."""

import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tightrope.device import engine

SOURCES = Path(__file__).parents[2] / "engine"
LINES = ["the cat sat", "", "sat", "é 漢字 the"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Callable[..., subprocess.CompletedProcess]]:
    """`program(source)`: compiles it, and gives back how to run it: (arguments, input)."""
    folder = tmp_path_factory.mktemp("programs")
    library = Path(engine.library()._name).resolve()

    def build(source: str) -> Callable[..., subprocess.CompletedProcess[str]]:
        compiler = shutil.which("cc" if source.endswith(".c") else "c++")
        if compiler is None:
            pytest.skip("needs a C and a C++ compiler: apt-get install g++")
        made = folder / Path(source).stem
        if not made.exists():
            standard = "-std=c11" if source.endswith(".c") else "-std=c++20"
            flags = [standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", SOURCES / "include"]
            link = [library, f"-Wl,-rpath,{library.parent}", "-Wl,--allow-shlib-undefined"]
            subprocess.run([compiler, *flags, SOURCES / source, *link, "-o", made], check=True)
        return lambda *arguments, given="": subprocess.run(
            [made, *map(str, arguments)],
            input=given,
            capture_output=True,
            text=True,
            errors="surrogateescape",  # so that a test can give bytes that are no text
            timeout=60,
            check=False,
        )

    return build


@pytest.fixture
def embed(program):
    return program("programs/embed.cpp")


@pytest.fixture
def expected(file_of, opened):
    """What the library says to the lines, through Python."""
    model = opened(file_of("rotated"))
    ids, _, offsets, _ = model.tokenize(LINES, pairs=False, max_length=64)
    return model.run(ids, offsets)


def test_the_example_says_how_alike_two_texts_are(program, file_of):
    example = program("programs/example.c")
    done = example(file_of("rotated"))
    assert (done.returncode, done.stderr) == (0, "") and -1 <= float(done.stdout) <= 1


def test_the_example_fails_in_two_lines(program, tmp_path):
    example = program("programs/example.c")
    done = example(tmp_path / "none")
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 2
    assert example().returncode == 2


def test_lines_become_rows_of_text(embed, file_of, expected):
    done = embed(file_of("rotated"), given="\n".join(LINES))
    assert (done.returncode, done.stderr) == (0, "")
    found = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
    assert found.tobytes() == expected.tobytes()


def test_lines_become_a_file_of_numpy(embed, file_of, expected, tmp_path):
    done = embed(file_of("rotated"), "--npy", tmp_path / "out.npy", "--threads", "2", given="\n".join(LINES) + "\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert np.load(tmp_path / "out.npy").tobytes() == expected.tobytes()
    assert embed(file_of("rotated"), "--npy", tmp_path / "none.npy").returncode == 0
    assert np.load(tmp_path / "none.npy").shape == (0, 32)


def test_many_lines_are_answered_in_parts(embed, file_of, expected, tmp_path):
    done = embed(file_of("rotated"), "--npy", tmp_path / "out.npy", given="\n".join(LINES * 700))
    assert done.returncode == 0
    assert np.load(tmp_path / "out.npy").tobytes() == np.tile(expected, (700, 1)).tobytes()


def test_pairs_become_scores(embed, file_of):
    done = embed(file_of("scorer"), "--score", "--half-attention", given="the cat\tsat\nthe\t\n")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2
    done = embed(file_of("scorer"), "--score", given="the cat\tsat\nno tab\n")
    assert done.returncode == 2 and done.stderr.splitlines()[0] == "Line 2 has no tab."


def test_ids_are_printed(embed, file_of, opened):
    done = embed(file_of("rotated"), "--ids", given="\n".join(LINES))
    ids, _, offsets, _ = opened(file_of("rotated")).tokenize(LINES, pairs=False, max_length=64)
    rows = [ids[start:end] for start, end in pairwise(offsets)]
    assert done.stdout == "".join(" ".join(map(str, row)) + "\n" for row in rows)


def test_time_is_told_apart_from_answers(embed, file_of, expected):
    done = embed(file_of("rotated"), "--time", given="\n".join(LINES))
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(LINES)
    assert done.stderr.startswith("start-up ") and "p50" in done.stderr and "texts/s" in done.stderr


def test_help_names_every_option(embed):
    done = embed("--help")
    assert done.returncode == 0 and done.stderr == ""
    for option in ("--score", "--ids", "--npy", "--threads", "--half-attention", "--time"):
        assert option in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["MODEL", "--threads"],
        ["MODEL", "--threads", "many"],
        ["MODEL", "--threads", "9999"],
        ["MODEL", "--fast"],
        ["MODEL", "another"],
        ["MODEL", "--ids", "--npy", "x"],
        ["MODEL", "--npy", "/nowhere/x.npy"],
        ["MODEL", "--score"],
        ["/nowhere/x.tightrope"],
        ["/"],
    ],
)
def test_what_is_wrong_is_said_in_two_lines(embed, file_of, arguments):
    given = [str(file_of("rotated")) if word == "MODEL" else word for word in arguments]
    done = embed(*given, given="the\tcat\n")
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 2, done.stderr


def test_a_line_that_is_not_utf_8_is_refused(embed, file_of):
    done = embed(file_of("rotated"), given="the\n\udcff\n")
    assert done.returncode == 2 and "UTF-8" in done.stderr
