import json
import os
import subprocess
import sys

import pytest

from tightrope.device.serve import keys
from tightrope.device.serve.keys import Keys
from tightrope.errors import DataError, OutputError, RefusedError, ServeError, UnknownNameError
from tightrope.testing import FakeClock


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys"


def test_a_key_is_known_by_its_hash_alone(file):
    secret = keys.new(file, "phone")
    assert len(secret) > 40 and secret not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    found = Keys(file)
    assert found.check(secret).name == "phone"
    for wrong in ("", secret[:-1], secret + "x", secret.upper(), "tr_", "\udcff", keys._hash(secret)):
        assert found.check(wrong) is None


def test_a_revoked_key_is_refused_by_a_server_that_runs(file):
    clock = FakeClock()
    kept, gone = keys.new(file, "kept"), keys.new(file, "gone")
    running = Keys(file, clock)
    session = running.check(gone)
    keys.revoke(file, "gone")
    clock.advance(keys.FRESH_S)
    assert running.check(gone) is None and not running.is_current(session)
    assert running.check(kept).name == "kept"


def test_a_file_that_is_gone_or_broken_lets_nobody_in(file):
    clock = FakeClock()
    secret = keys.new(file, "phone")
    running = Keys(file, clock)
    file.write_text("{")
    clock.advance(keys.FRESH_S)
    assert running.check(secret) is None
    file.unlink()
    clock.advance(keys.FRESH_S)
    assert running.check(secret) is None


def test_a_rate_is_kept_to(file):
    clock = FakeClock()
    keys.new(file, "phone", rate=2)
    running = Keys(file, clock)
    key = keys.read(file)[0]
    for _ in range(2):
        running.begin(key)
    with pytest.raises(RefusedError) as refused:
        running.begin(key)
    assert refused.value.retry_after_s == pytest.approx(0.5)
    clock.advance(0.5)
    running.begin(key)


def test_so_many_at_once_and_no_more(file):
    keys.new(file, "phone", in_flight=1)
    running, key = Keys(file), keys.read(file)[0]
    running.begin(key)
    with pytest.raises(RefusedError, match="under way"):
        running.begin(key)
    running.end(key)
    running.begin(key)


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 65, "a\n", "ключ"])
def test_names_are_names(file, name):
    with pytest.raises(DataError):
        keys.new(file, name)
    assert not file.exists()


def test_a_name_is_taken_once_and_an_unknown_one_is_said(file):
    keys.new(file, "phone")
    with pytest.raises(DataError, match="already"):
        keys.new(file, "phone")
    with pytest.raises(UnknownNameError, match="tablet"):
        keys.revoke(file, "tablet")


def test_a_file_that_others_may_read_is_refused(file):
    keys.new(file, "phone")
    file.chmod(0o644)
    with pytest.raises(ServeError, match="others"):
        Keys(file)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"keys": [1]}',
        '{"keys": [{"name": "x"}]}',
        '{"keys": [{"name": "x", "sha256": "12"}]}',
        "[" * 9999,
    ],
)
def test_what_is_no_file_of_keys_is_refused(file, text):
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ServeError):
        Keys(file)


def test_no_keys_are_no_server(file):
    keys.new(file, "phone")
    keys.revoke(file, "phone")
    with pytest.raises(ServeError, match="no keys"):
        Keys(file)


def test_a_file_is_the_old_one_or_the_new_one(file, monkeypatch):
    keys.new(file, "phone")
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space"):
        keys.new(file, "tablet")
    assert file.read_bytes() == before and len(json.loads(before)["keys"]) == 1
    assert {item.name for item in file.parent.iterdir()} == {"keys", ".keys.lock"}


MANY = """
import sys
from pathlib import Path
from tightrope.device.serve import keys

path, who = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    keys.new(path, f"{who}-{number}")
    if number % 2:
        keys.revoke(path, f"{who}-{number}")
"""


def test_processes_that_change_the_file_at_once_lose_nothing(file):
    processes = [
        subprocess.Popen([sys.executable, "-c", MANY, file, who], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for who in ("one", "two", "three")
    ]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60) and process.returncode for process in processes] == [0, 0, 0]
    kept = {f"{who}-{number}" for who in ("one", "two", "three") for number in range(0, 10, 2)}
    assert {key.name for key in keys.read(file)} == kept


def test_who_may_not_write_there_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        keys.new(tmp_path / "file" / "keys", "phone")
