"""The journal: what was appended is there again, whatever happened to the end of the file, and damage is said."""

import os
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.device.serve.journal import Journal, line, replay
from tightrope.errors import OutputError, ServeError

records = st.lists(
    st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(max_size=8), max_size=4),
    min_size=1,
    max_size=6,
)


def written(items) -> bytes:
    return b"".join(line(number, item) for number, item in enumerate(items, 1))


def ends(items) -> list[int]:
    return list(accumulate(len(line(number, item)) for number, item in enumerate(items, 1)))


@given(records, st.data())
def test_a_cut_anywhere_leaves_the_whole_records_before_it_and_no_damage(items, data) -> None:
    whole = written(items)
    cut = data.draw(st.integers(0, len(whole)))
    found = replay(whole[:cut])
    count = sum(end <= cut for end in ends(items))
    assert list(found.records) == items[:count]
    assert found.size_bytes == ([0, *ends(items)][count])
    assert not found.damage


@given(records, st.data())
def test_a_changed_byte_is_never_believed_and_in_the_middle_it_is_said(items, data) -> None:
    whole = bytearray(written(items))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    found = replay(bytes(whole))
    spoilt = sum(end <= place for end in ends(items))
    lost = {spoilt, spoilt + 1} if place + 1 in ends(items) else {spoilt}
    assert list(found.records) == [item for index, item in enumerate(items) if index not in lost]
    assert bool(found.damage) == (max(lost) < len(items) - 1)


@given(st.binary(max_size=200))
def test_anything_can_be_read(data: bytes) -> None:
    found = replay(data)
    assert found.size_bytes <= len(data)


def test_a_line_that_is_gone_or_there_twice_is_found() -> None:
    lines = [line(number, {"n": number}) for number in (1, 2, 3)]
    gone = replay(lines[0] + lines[2])
    assert [record["n"] for record in gone.records] == [1, 3] and gone.damage
    twice = replay(lines[0] + lines[1] + lines[1] + lines[2])
    assert [record["n"] for record in twice.records] == [1, 2, 3] and twice.damage


def test_what_was_appended_is_there_after_opening_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "state" / "journal") as journal:
        journal.append({"op": "one"})
        journal.append({"op": "two"})
    with Journal(tmp_path / "state" / "journal") as journal:
        assert journal.records == ({"op": "one"}, {"op": "two"})
        journal.append({"op": "three"})
    with Journal(tmp_path / "state" / "journal") as journal:
        assert [record["op"] for record in journal.records] == ["one", "two", "three"]
        assert not journal.damage


@pytest.mark.parametrize("end", [b"1234", b"\0" * 4096, b"00000000 3 {}\n", b"\n\n"])
def test_a_torn_end_is_cut_so_that_the_next_record_follows_a_whole_one(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(written([{"n": 1}, {"n": 2}]) + end)
    with Journal(path) as journal:
        assert len(journal.records) == 2 and not journal.damage
        journal.append({"n": 3})
    assert path.read_bytes() == written([{"n": 1}, {"n": 2}, {"n": 3}])


def test_damage_is_said_and_kept_and_the_journal_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    spoilt = written([{"n": 1}, {"n": 2}, {"n": 3}]).replace(b'{"n":2}', b'{"n":9}')
    path.write_bytes(spoilt)
    with Journal(path) as journal:
        assert journal.damage.startswith("records at byte 19 ")
        assert journal.records == ({"n": 1}, {"n": 3})
        journal.append({"n": 4})
    assert (tmp_path / "journal.damaged").read_bytes() == spoilt
    with Journal(path) as journal:
        assert not journal.damage and journal.records == ({"n": 1}, {"n": 3}, {"n": 4})


def test_rewritten_it_is_short_again_and_takes_more(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        for number in range(50):
            journal.append({"n": number})
        long = journal.size_bytes
        journal.rewrite([{"n": 49}])
        assert journal.size_bytes < long / 20
        journal.append({"n": 50})
    with Journal(tmp_path / "journal") as journal:
        assert journal.records == ({"n": 49}, {"n": 50})


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal"), pytest.raises(ServeError, match="in use by another server"):
        Journal(tmp_path / "journal")
    Journal(tmp_path / "journal").close()


_FULL = """
import resource, sys
from pathlib import Path
from tightrope.device.serve.journal import Journal
from tightrope.errors import OutputError
with Journal(Path(sys.argv[1])) as journal:
    journal.append({"n": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size_bytes + 7, resource.RLIM_INFINITY))
    for doing in (lambda: journal.append({"n": 2}), lambda: journal.rewrite([{"n": n} for n in range(9)])):
        try:
            doing()
        except OutputError as error:
            print(error.message)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    journal.append({"n": 3})
"""


def test_where_there_is_no_room_a_record_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / "journal")], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("cannot be written: File too large") == 2
    assert sorted(item.name for item in tmp_path.iterdir()) == ["journal", "journal.lock"]
    with Journal(tmp_path / "journal") as journal:
        assert journal.records == ({"n": 1}, {"n": 3}) and not journal.damage


def test_on_a_file_system_that_cannot_be_written_it_can_be_read(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "journal"
    path.write_bytes(written([{"n": 1}]) + b"torn")
    real = os.open

    def refuse(name, flags, *rest, **named):
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(30, "Read-only file system")
        return real(name, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    with Journal(path) as journal:
        assert journal.records == ({"n": 1},)
        with pytest.raises(OutputError, match="Read-only file system"):
            journal.append({"n": 2})
        with pytest.raises(OutputError, match="Read-only file system"):
            journal.rewrite([])
    assert path.read_bytes().endswith(b"torn")
