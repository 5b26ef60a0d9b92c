"""What spoils an index: torn writes, changed bits, cut files, kills and full disks at any moment, two at once."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tightrope.device.index.documents import Document
from tightrope.device.index.making import create, open_index
from tightrope.device.index.mapped import FIRST_ROW
from tightrope.errors import OutputError, SearchError, TightropeError

WIDTH, COUNT = 64, 120


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def documents(count: int, first: int = 0) -> list[Document]:
    return [Document(key=f"d{n}", passages=(f"text {n}",)) for n in range(first, first + count)]


@pytest.fixture
def place(tmp_path) -> Path:
    path = tmp_path / "victim.index"
    with create(path, digest="ab" * 32, width=WIDTH) as index:
        index.add(documents(COUNT), vectors(COUNT))
    return path


def file(place: Path, name: str) -> Path:
    return next(place.glob(f"*/{name}"))


def whole(place: Path) -> bool:
    with open_index(place) as index:
        rows = vectors(COUNT)
        return index.check() == [] and all(index.search(rows[n], 1)[0].key == f"d{n}" for n in range(0, COUNT, 7))


@pytest.mark.parametrize("offset", [0, 20, FIRST_ROW, FIRST_ROW + 64 * 50 + 3, FIRST_ROW + 64 * (COUNT - 1)])
def test_a_changed_bit_in_the_codes_is_found_and_repaired(place, offset):
    path = file(place, "codes.bin")
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)
    with open_index(place) as index:
        assert index.repaired == (COUNT if offset < FIRST_ROW else 1)
    assert whole(place)


@pytest.mark.parametrize("size", [0, 10, FIRST_ROW, FIRST_ROW + 64 * 60 + 30])
def test_cut_codes_are_made_again(place, size):
    os.truncate(file(place, "codes.bin"), size)
    with pytest.raises(SearchError, match="damaged"):
        open_index(place, writing=False)
    assert whole(place)
    open_index(place, writing=False).close()


def test_codes_that_are_gone_or_another_index_are_made_again(place, tmp_path):
    file(place, "codes.bin").unlink()
    assert whole(place)
    with create(tmp_path / "other.index", digest="cd" * 32, width=WIDTH) as other:
        other.add(documents(COUNT), vectors(COUNT, seed=9))
    shutil.copyfile(file(tmp_path / "other.index", "codes.bin"), file(place, "codes.bin"))
    assert whole(place)


def test_a_link_in_the_place_of_the_codes_is_not_followed(place, tmp_path):
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    path = file(place, "codes.bin")
    path.unlink()
    path.symlink_to(target)
    with pytest.raises(TightropeError):
        open_index(place)
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("block", range(12))
def test_a_spoilt_store_never_crashes(place, block):
    path = file(place, "store.sqlite")
    data = bytearray(path.read_bytes())
    start = block * len(data) // 12
    data[start : start + 512] = bytes(np.random.default_rng(block).integers(0, 256, 512, dtype=np.uint8))
    path.write_bytes(data)
    try:
        with open_index(place) as index:
            for n in range(0, COUNT, 11):
                index.search(vectors(COUNT)[n], 10)
                index.matching(f"text {n}", 10)
            index.check()
            index.replace(documents(3), vectors(3))
    except TightropeError as error:
        assert error.message and error.hint


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 20_000])
def test_a_cut_store_is_refused_in_words(place, size):
    os.truncate(file(place, "store.sqlite"), size)
    with pytest.raises(SearchError), open_index(place) as index:
        index.search(vectors(1)[0], 10)
        raise AssertionError("it must not open")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"generation": "../../etc", "format": 1}',
        "{" * 5000,
        '{"generation": 5, "format": 1}',
        '{"generation": "00000000", "format": 2}',
    ],
)
def test_a_spoilt_pointer_is_refused(place, text):
    (place / "current").write_text(text)
    with pytest.raises(SearchError):
        open_index(place)


_KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from tightrope.device.index.documents import Document
from tightrope.device.index.making import open_index
place, step = Path(sys.argv[1]), int(sys.argv[2])
index = open_index(place)
rows = np.random.default_rng(5).normal(size=(40, 64)).astype(np.float32)
count = 0

def step_done(name, real):
    def wrapped(*given, **named):
        global count
        count += 1
        if count == step:
            os.kill(os.getpid(), 9)
        return real(*given, **named)
    return wrapped

for name in ("pwrite", "fsync", "ftruncate"):
    setattr(os, name, step_done(name, getattr(os, name)))
from tightrope.device.index import store
for name in ("insert", "remove", "insert_vectors", "set_about"):
    setattr(store, name, step_done(name, getattr(store, name)))
new = [Document(key=f"d{n}", passages=(f"new {n}",)) for n in range(100, 140)]
index.replace(new, rows)
print("done", count)
"""


def test_killed_at_any_step_the_old_or_the_new_is_there(place, tmp_path):
    """SIGKILL before each write, fsync and statement of a call that replaces 20 documents and adds 20."""
    ended = False
    for step in (1, 2, 3, 4, 5, 10, 25, 44, 60, 66, 1000):
        copy = tmp_path / f"copy{step}"
        shutil.copytree(place, copy)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(_KILLED), copy, str(step)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        with open_index(copy) as index:
            assert index.check() == []
            kept = index.about.documents
            assert kept == (140 if done.returncode == 0 else COUNT)
            text = index.search(vectors(COUNT)[3], 1)[0].text
            assert text == "text 3"
            new = index.matching("new", 100)
            assert len(new) == (40 if done.returncode == 0 else 0)
        ended |= done.returncode == 0
        shutil.rmtree(copy)
    assert ended, "the last run reaches the end"


@pytest.mark.parametrize("call", ["pwrite", "fsync", "ftruncate"])
def test_a_full_disk_leaves_the_index_as_it_was(place, monkeypatch, call):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_index(place) as index:
        monkeypatch.setattr(os, call, refuse)
        with pytest.raises(OutputError, match="No space left"):
            index.add(documents(2000, first=500), vectors(2000, seed=1))
        monkeypatch.undo()
        assert index.about.documents == COUNT and index.check() == []
        index.add(documents(5, first=500), vectors(5, seed=1))
        assert index.search(vectors(5, seed=1)[2], 1)[0].key == "d502"
    assert whole(place)


def test_nan_and_other_widths_change_nothing(place):
    with open_index(place) as index:
        for given in (np.full((1, WIDTH), np.nan), np.ones((1, WIDTH + 1)), np.zeros((1, WIDTH)), np.ones((2, WIDTH))):
            with pytest.raises(TightropeError):
                index.add(documents(1, first=900), given)
            with pytest.raises(TightropeError):
                index.search(given[0] if given.shape != (2, WIDTH) else np.full(WIDTH, np.inf))
        assert index.about.documents == COUNT
    assert whole(place)


def test_a_second_process_cannot_write(place):
    with open_index(place):
        code = f"from tightrope.device.index.making import open_index; open_index({str(place)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "is being written by another" in done.stderr


def test_what_is_left_of_an_interrupted_build_is_removed(place):
    (place / "deadbeef").mkdir()
    (place / "deadbeef" / "store.sqlite").write_bytes(b"half")
    assert whole(place)
    assert not (place / "deadbeef").exists()
