"""Bundles that are sent: kept once, checked whole, and never outside their folder."""

import os
from pathlib import Path

import pytest

from tightrope import bundle
from tightrope.bundle import Bundle, File
from tightrope.device.meter import received
from tightrope.device.meter.received import Received, cache_folder
from tightrope.errors import BenchError, BundleError, OutputError


def everything(source: Bundle) -> list[File]:
    manifest = source.path / bundle.MANIFEST
    own = File(path=bundle.MANIFEST, size=manifest.stat().st_size, sha256=bundle.sha256_of(manifest))
    return [own, *source.content.files, *source.attachments]


def send(source: Bundle, to: Received, *, piece: int = 7) -> None:
    for item in everything(source):
        data = (source.path / item.path).read_bytes()
        for offset in range(0, len(data), piece):
            to.add(source.digest, item, offset, data[offset : offset + piece])


def test_a_bundle_arrives_in_pieces(bundle_without_engine: Bundle, tmp_path: Path) -> None:
    kept = Received(tmp_path / "cache")
    assert kept.find(bundle_without_engine.digest) is None
    send(bundle_without_engine, kept)
    assert kept.find(bundle_without_engine.digest) is None  # not before it is whole
    path = kept.seal(bundle_without_engine.digest)
    assert bundle.read(path).content == bundle_without_engine.content
    assert kept.find(bundle_without_engine.digest) == path
    assert [item.name for item in (tmp_path / "cache").iterdir()] == [bundle_without_engine.digest]


def test_sending_it_again_is_no_error(bundle_without_engine: Bundle, tmp_path: Path) -> None:
    kept = Received(tmp_path / "cache")
    for _ in range(2):
        send(bundle_without_engine, kept, piece=10_000)
        kept.seal(bundle_without_engine.digest)
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    "name",
    [
        "../escape",
        "/etc/passwd",
        "files/../../0123456789abcdef.bin",
        "files/0123456789abcdef.bin/x",
        "files/0123456789abcdef.bin\n",
        "manifest.json\x00",
        "",
        "files",
        "FILES/0123456789abcdef.bin",
    ],
)
def test_a_name_that_no_bundle_has_is_refused(name: str, tmp_path: Path) -> None:
    kept = Received(tmp_path / "cache")
    with pytest.raises(BenchError, match="has no file"):
        kept.add("0" * 64, File(path=name, size=1, sha256="0" * 64), 0, b"x")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("digest", ["", "..", "0" * 63, "../" + "0" * 61, "A" * 64, "0" * 64 + "\n"])
def test_a_digest_that_is_none_is_refused(digest: str, tmp_path: Path) -> None:
    kept = Received(tmp_path / "cache")
    for act in (
        lambda: kept.find(digest),
        lambda: kept.seal(digest),
        lambda: kept.add(digest, File(path="manifest.json", size=1, sha256=""), 0, b"x"),
    ):
        with pytest.raises(BenchError, match="is not a digest"):
            act()


@pytest.mark.parametrize(("offset", "data", "size"), [(-1, b"x", 4), (2, b"xyz", 4), (0, b"x", 10**12), (5, b"", 4)])
def test_a_piece_outside_its_file_is_refused(offset: int, data: bytes, size: int, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="lies outside"):
        Received(tmp_path).add("0" * 64, File(path="manifest.json", size=size, sha256="0" * 64), offset, data)


def test_a_piece_out_of_turn_is_refused(tmp_path: Path) -> None:
    kept, item = Received(tmp_path), File(path="manifest.json", size=9, sha256="0" * 64)
    kept.add("0" * 64, item, 0, b"abc")
    with pytest.raises(BenchError, match="out of turn"):
        kept.add("0" * 64, item, 6, b"ghi")


def test_bytes_changed_on_the_way_are_refused(tmp_path: Path) -> None:
    kept, item = Received(tmp_path), File(path="manifest.json", size=3, sha256="0" * 64)
    with pytest.raises(BundleError, match="changed on its way"):
        kept.add("0" * 64, item, 0, b"abc")


def test_what_is_sent_under_another_digest_is_not_kept(bundle_without_engine: Bundle, tmp_path: Path) -> None:
    kept, wrong = Received(tmp_path / "cache"), "f" * 64
    for item in everything(bundle_without_engine):
        kept.add(wrong, item, 0, (bundle_without_engine.path / item.path).read_bytes())
    with pytest.raises(BundleError, match="not ffffffffffff"):
        kept.seal(wrong)
    assert kept.find(wrong) is None
    assert not list((tmp_path / "cache").iterdir())


def test_half_a_bundle_is_not_kept(bundle_without_engine: Bundle, tmp_path: Path) -> None:
    kept, item = Received(tmp_path / "cache"), everything(bundle_without_engine)[0]
    kept.add(bundle_without_engine.digest, item, 0, (bundle_without_engine.path / item.path).read_bytes())
    with pytest.raises(BundleError, match="missing"):
        kept.seal(bundle_without_engine.digest)
    assert kept.find(bundle_without_engine.digest) is None


def test_the_oldest_make_room(bundle_without_engine: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    for number in range(received.MOST_BUNDLES + 3):
        path = folder / f"{number:064x}"
        path.mkdir(parents=True)
        os.utime(path, (number, number))
    stale, fresh = folder / f"{'a' * 64}.1.part", folder / f"{'b' * 64}.2.part"
    stale.mkdir()
    os.utime(stale, (5, 5))
    fresh.mkdir()
    kept = Received(folder)
    send(bundle_without_engine, kept, piece=10_000)
    path = kept.seal(bundle_without_engine.digest)
    left = {item.name for item in folder.iterdir()}
    assert {path.name, fresh.name, f"{received.MOST_BUNDLES + 2:064x}"} <= left
    assert len(left) == received.MOST_BUNDLES + 1  # and the one that is still arriving
    assert f"{0:064x}" not in left and stale.name not in left


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        Received(tmp_path / "cache").add("0" * 64, File(path="manifest.json", size=3, sha256=""), 0, b"ab")


def test_where_sent_bundles_are_kept() -> None:
    assert cache_folder({"TIGHTROPE_CACHE": "/a"}) == Path("/a")
    assert cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/tightrope")
    assert cache_folder({}) == Path.home() / ".cache/tightrope"
