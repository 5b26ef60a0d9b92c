"""Memory: a file is mapped and not copied, two processes share it, and closing gives everything back."""

import hashlib
import shutil
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from tightrope import bundle
from tightrope.device import engine
from tightrope.device.model import open_bundle
from tightrope.device.runtimes import native
from tightrope.errors import BundleError, EngineError

MAPS = """
import sys
from pathlib import Path
import numpy as np
from tightrope.device import engine
def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
def mapped(path, name):
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith(name + ":"):
            found += int(line.split()[1]) * 1024
    return found
def ask(model, count):
    ids = (np.arange(count * 64, dtype=np.int32) * 131) % 131_072
    model.run(ids, np.arange(count + 1) * 64)
path = Path(sys.argv[1])
"""
"""What children measure about themselves, and a call that reads `count * 64` rows of the big file's vocabulary."""

CYCLES = """
def cycle(threads):
    with engine.Model.open(path, threads=threads) as model:
        ask(model, 2)
for _ in range(50):
    cycle(1), cycle(2)
before = status("VmRSS")
for _ in range(1000):
    cycle(1)
one = status("VmRSS")
for _ in range(1000):
    cycle(2)
print(one - before, status("VmRSS") - one)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("plain_build")
def test_a_thousand_times_opened_and_closed_leave_nothing(child, big_file):
    done = child(MAPS + CYCLES, big_file)
    assert done.returncode == 0, done.stderr
    assert all(growth < 1 << 20 for growth in map(int, done.stdout.split()))


OPENED = """
with engine.Model.open(path): pass
private, resident = status("RssAnon"), status("VmRSS")
model = engine.Model.open(path)
print(status("RssAnon") - private, status("VmRSS") - resident, mapped(path, "Rss"))
ask(model, 2048)
print(mapped(path, "Rss"), mapped(path, "Anonymous"))
"""


@pytest.mark.usefixtures("plain_build")
def test_opening_copies_no_weights(child, big_file):
    done = child(MAPS + OPENED, big_file)
    assert done.returncode == 0, done.stderr
    private, resident, in_map, read, copied = map(int, done.stdout.split())
    assert private < 256 << 10 and max(resident, in_map) < 4 << 20  # the system maps neighbours of what is read
    assert read > 12 << 20 and copied == 0


SHARED = """
import subprocess
model = engine.Model.open(path)
ask(model, 2048)
if len(sys.argv) > 2:
    print("ready", flush=True)
    sys.stdin.read()
else:
    with subprocess.Popen([*sys.orig_argv, "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\\n"
        print(mapped(path, "Rss"), mapped(path, "Pss"))
        other.stdin.close()
"""


@pytest.mark.usefixtures("plain_build")
def test_two_processes_share_the_pages(child, big_file):
    done = child(MAPS + SHARED, big_file)
    assert done.returncode == 0, done.stderr
    resident, share = map(int, done.stdout.split())
    assert resident > 12 << 20 and share < 0.6 * resident


def test_sections_lie_at_multiples_of_64(form, file_of):
    data = file_of(form).read_bytes()
    count, size = struct.unpack_from("<IQ", data, 12)
    assert size == len(data) and size % 64 == 0
    places = [struct.unpack_from("<QQ", data, 64 + 64 * index + 32) for index in range(count)]
    assert all(offset % 64 == 0 for offset, _ in places)
    assert places == sorted(places) and all(a + b <= c for (a, b), (c, _) in pairwise(places))


# The digest ---------------------------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path, big_file: Path) -> Path:
    """The big file, named by its digest as in a bundle."""
    path = tmp_path / f"{hashlib.sha256(big_file.read_bytes()).hexdigest()[:16]}.tightrope"
    shutil.copy(big_file, path)
    return path


def test_a_changed_file_is_refused(named):
    native.open_artefact({"model": named}, {}, threads=1).close()
    data = bytearray(named.read_bytes())
    data[-200] ^= 1
    named.write_bytes(data)
    with pytest.raises(EngineError, match="was changed"):
        native.open_artefact({"model": named}, {}, threads=1)


def test_what_is_mapped_is_what_was_hashed(named, file_of, monkeypatch):
    """The path becomes another file between hashing and mapping: the one that was hashed is opened."""
    hashed = hashlib.file_digest

    def then_replace(stream, name):
        found = hashed(stream, name)
        other = named.with_suffix(".new")
        shutil.copy(file_of("dense"), other)
        other.replace(named)
        return found

    monkeypatch.setattr(hashlib, "file_digest", then_replace)
    session = native.open_artefact({"model": named}, {}, threads=1)
    assert session.outputs[0].shape == ("texts", 32)
    session.close()


HASHED = """
from tightrope.device.runtimes import native
session = native.open_artefact({"model": path}, {}, threads=1)
print(mapped(path, "Rss"))
"""


@pytest.mark.usefixtures("plain_build")
def test_hashing_brings_no_pages_into_the_map(child, named):
    done = child(MAPS + HASHED, named)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 << 20


def test_a_bundle_with_a_changed_file_is_refused(sealed):
    made = sealed("integers")
    damaged = made.file(made.content.models[0].artefacts[0].files["model"])
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0x10
    damaged.chmod(0o644)
    damaged.write_bytes(data)
    with pytest.raises(BundleError):
        open_bundle(made.path)
    with pytest.raises(EngineError, match="was changed"):
        open_bundle(bundle.read(made.path, verify=False))


def test_a_path_that_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(EngineError) as caught:
            engine.Model.open(path)
        assert len(str(caught.value).splitlines()) == 2
