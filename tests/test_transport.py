import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tightrope import bundle, transport
from tightrope.bundle import Bundle, Content, Writer
from tightrope.errors import BundleError, OutputError


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    with Writer(tmp_path / "a.bundle") as writer:
        writer.add(b"weights" * 10_000, "onnx")
        empty = Content(task={}, senses={}, models=(), recipe="", lineage={}, vectors={}, files=writer.files)
        return writer.seal(empty, {"measurement": {"p50": 0.5}})


def test_there_and_back(made: Bundle, tmp_path: Path) -> None:
    packed = transport.pack(made, tmp_path / "a.tar")
    assert packed.read_bytes() == transport.pack(made, tmp_path / "again.tar").read_bytes()
    back = transport.unpack(packed, tmp_path / "b.bundle")
    assert back.digest == made.digest
    assert back.attachment("measurement") == {"p50": 0.5}
    with pytest.raises(OutputError):
        transport.pack(made, packed)
    with pytest.raises(OutputError):
        transport.unpack(packed, tmp_path / "b.bundle")
    assert transport.unpack(packed, tmp_path / "b.bundle", force=True) == back


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


HOSTILE: dict[str, Callable[[], tarfile.TarInfo]] = {
    "a path that climbs": lambda: entry("../evil.txt"),
    "an absolute path": lambda: entry("/tmp/evil.txt"),
    "a path that climbs from inside": lambda: entry("files/../../evil.txt"),
    "a symbolic link": lambda: entry("files/0123456789abcdef.onnx", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": lambda: entry("files/0123456789abcdef.onnx", type=tarfile.LNKTYPE, linkname="manifest.json"),
    "a device": lambda: entry("files/0123456789abcdef.onnx", type=tarfile.CHRTYPE),
    "a folder": lambda: entry("files", type=tarfile.DIRTYPE),
    "code": lambda: entry("files/evil.py"),
    "the manifest again": lambda: entry("manifest.json"),
    "something undeclared": lambda: entry("files/0123456789abcdef.onnx"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(made: Bundle, tmp_path: Path, kind: str) -> None:
    packed = transport.pack(made, tmp_path / "a.tar")
    with tarfile.open(packed, "a") as archive:
        archive.addfile(HOSTILE[kind](), io.BytesIO(b""))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(BundleError):
        transport.unpack(packed, tmp_path / "out" / "b.bundle")
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(path.name for path in tmp_path.rglob("*") if path.name != "out") == before


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"\x1f\x8b" + data, lambda data: b""]
)
def test_a_broken_archive_is_refused(made: Bundle, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    packed = transport.pack(made, tmp_path / "a.tar")
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(BundleError):
        transport.unpack(packed, tmp_path / "b.bundle")
    with pytest.raises(BundleError):
        transport.unpack(tmp_path / "nothing.tar", tmp_path / "b.bundle")
    assert bundle.read(made.path) == made
