import io
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from tightrope import bundle, transport
from tightrope.bundle import Artefact, Bundle, Content, Model, Writer
from tightrope.errors import BundleError, OutputError
from tightrope.ports import Port


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    with Writer(tmp_path / "a.bundle") as writer:
        artefact = Artefact(engine="fake", precision="fp32", files={"model": writer.add(b"weights" * 10_000, "onnx")})
        ports = (Port("x", "int64", ("n",)),), (Port("y", "float32", (4,)),)
        senses = {"kind": "text", "tokenizer": "", "max_length": 64, "prompts": {}, "default_prompt": None}
        content = Content(
            task={"name": "scoring", "width": 1},
            senses=senses,
            models=(Model(name="m", inputs=ports[0], outputs=ports[1], artefacts=(artefact,)),),
            recipe="",
            lineage={},
            vectors={},
            files=writer.files,
        )
        return writer.seal(content, {"measurement": {"p50": 0.5}})


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


@pytest.mark.parametrize(
    "place", ["file/x", "file/x/y", ".", "..", "folder", "a.bundle/x.tar", "a.bundle/manifest.json"]
)
@pytest.mark.parametrize("force", [False, True])
def test_a_place_where_no_file_can_lie_is_an_output_error(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, force: bool
) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for path in (Path(place), tmp_path / place):
        with pytest.raises(OutputError) as caught:
            transport.pack(made, path, force=force)
        assert len(str(caught.value).splitlines()) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert bundle.read(made.path) == made


def test_packing_never_holds_a_whole_file_and_cannot_be_raced(made: Bundle, tmp_path: Path) -> None:
    big = 64_000_000
    with Writer(tmp_path / "big.bundle") as writer:
        with (tmp_path / "zeros").open("wb") as stream:
            stream.truncate(big)
        writer.add(tmp_path / "zeros", "bin")
        source = writer.seal(replace(made.content, files=writer.files))
    (tmp_path / ".big.tar.part").mkdir()  # what another process left
    tracemalloc.start()
    try:
        packed = transport.pack(source, tmp_path / "big.tar")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert packed.stat().st_size > big > 10 * peak
    assert packed.stat().st_mode & 0o777 == 0o644


def test_a_file_beyond_eight_gigabytes_gets_a_header_for_its_size(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine gigabytes are not for a test to write: of such an entry only the header is."""
    real, big = tarfile.TarFile.addfile, 9_000_000_000

    def addfile(archive: tarfile.TarFile, entry: tarfile.TarInfo, data: IO[bytes]) -> None:
        if entry.name.startswith("files/"):
            assert archive.fileobj is not None
            entry.size = big
            archive.fileobj.write(entry.tobuf(archive.format))
        else:
            real(archive, entry, data)

    monkeypatch.setattr(tarfile.TarFile, "addfile", addfile)
    packed = transport.pack(made, tmp_path / "a.tar")
    with tarfile.open(packed) as archive:
        archive.next()
        item = archive.next()
        assert item is not None
        assert item.size == big


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
    "a file of holes": lambda: entry("files/0123456789abcdef.onnx", type=tarfile.GNUTYPE_SPARSE),
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
