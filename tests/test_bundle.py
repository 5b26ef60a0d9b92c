import json
import os
import stat
from pathlib import Path

import pytest

from tightrope import bundle
from tightrope.bundle import Artefact, Bundle, Content, Model, Writer
from tightrope.errors import BundleError, OutputError, TightropeError
from tightrope.ports import Port


def content(writer: Writer, paths: dict[str, str]) -> Content:
    artefact = Artefact(engine="onnxruntime", precision="int8", files=paths)
    model = Model(
        name="m", inputs=(Port("x", "int64", ("n",)),), outputs=(Port("y", "float32", (4,)),), artefacts=(artefact,)
    )
    return Content(
        task={"name": "embedding", "width": 4},
        senses={"kind": "text"},
        models=(model,),
        recipe="int8 -> onnxruntime",
        lineage={"source": "a \ud800 folder"},
        vectors={},
        files=writer.files,
    )


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    with Writer(tmp_path / "a.bundle") as writer:
        path = writer.add(b"weights" * 100, "onnx")
        return writer.seal(content(writer, {"model": path}), {"measurement": {"p50": 0.5}})


def test_what_is_written_is_read_back(made: Bundle) -> None:
    again = bundle.read(made.path)
    assert again == made
    assert again.attachment("measurement") == {"p50": 0.5}
    assert again.attachment("quality") is None
    assert again.size_bytes == 700 + (made.path / "manifest.json").stat().st_size


def test_the_digest_follows_the_content_and_nothing_else(made: Bundle, tmp_path: Path) -> None:
    attached = bundle.attach(made, {"quality": {"loss": 0.01}, "measurement": {"p50": 0.6}})
    assert attached.digest == made.digest == bundle.read(made.path).digest
    moved = bundle.copy(made, tmp_path / "b.bundle")
    assert moved.digest == made.digest
    assert moved.attachments == ()
    with Writer(tmp_path / "c.bundle") as writer:
        other = writer.seal(content(writer, {"model": writer.add(b"other", "onnx")}))
    assert other.digest != made.digest


def test_an_existing_bundle_is_kept_until_the_new_one_is_whole(made: Bundle) -> None:
    with pytest.raises(OutputError, match="exists already"):
        Writer(made.path)
    with pytest.raises(RuntimeError), Writer(made.path, force=True) as writer:
        writer.add(b"half", "onnx")
        raise RuntimeError("interrupted")
    assert bundle.read(made.path) == made
    assert [item.name for item in made.path.parent.iterdir()] == ["a.bundle"]
    with Writer(made.path, force=True) as writer:
        new = writer.seal(content(writer, {"model": writer.add(b"new", "onnx")}))
    assert bundle.read(made.path).digest == new.digest != made.digest
    assert [item.name for item in made.path.parent.iterdir()] == ["a.bundle"]


def test_force_replaces_bundles_only(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    for path in (tmp_path / "precious", tmp_path / "precious" / "thesis.txt"):
        with pytest.raises(OutputError):
            Writer(path, force=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


@pytest.mark.skipif(os.geteuid() == 0, reason="needs to run as a user who is not root: permissions do not bind root")
def test_a_read_only_folder_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(OutputError, match="cannot be written"):
        Writer(tmp_path / "a.bundle")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle.os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"), Writer(tmp_path / "a.bundle") as writer:
        writer.add(b"weights", "onnx")
    assert list(tmp_path.iterdir()) == []


def edit(folder: Path, change: "callable") -> None:  # type: ignore[valid-type]
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)  # type: ignore[operator]
    (folder / "manifest.json").write_bytes(bundle.canonical(manifest))


ATTACKS = {
    "a changed byte": lambda folder: flip(next((folder / "files").iterdir())),
    "a truncated file": lambda folder: cut(next((folder / "files").iterdir())),
    "a missing file": lambda folder: next((folder / "files").iterdir()).unlink(),
    "an undeclared file": lambda folder: (folder / "files" / "0123456789abcdef.py").write_text("print()"),
    "an undeclared file at the top": lambda folder: (folder / "setup.py").write_text("print()"),
    "an undeclared link to a folder": lambda folder: (folder / "etc").symlink_to("/etc"),
    "a link in place of a file": lambda folder: relink(next((folder / "files").iterdir())),
    "a changed attachment": lambda folder: flip(next((folder / "attachments").iterdir())),
    "a changed recipe": lambda folder: edit(folder, lambda m: m["content"].update(recipe="half -> x")),
    "a path that escapes": lambda folder: edit(folder, lambda m: m["attachments"][0].update(path="../../x.json")),
    "another format": lambda folder: edit(folder, lambda m: m.update(format=2)),
    "no content": lambda folder: edit(folder, lambda m: m.pop("content")),
    "a list for a manifest": lambda folder: (folder / "manifest.json").write_text("[]"),
    "half a manifest": lambda folder: cut(folder / "manifest.json"),
    "a bottomless manifest": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "nan": lambda folder: (folder / "manifest.json").write_text('{"format": NaN}'),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def relink(path: Path) -> None:
    away = path.parent.parent.parent / "away"
    path.rename(away)
    path.symlink_to(away)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_tampered_bundle_is_refused_in_two_lines(made: Bundle, attack: str) -> None:
    ATTACKS[attack](made.path)
    with pytest.raises(BundleError) as caught:
        bundle.read(made.path)
    assert len(str(caught.value).splitlines()) == 2


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path(__file__)):
        with pytest.raises(TightropeError):
            bundle.read(path)
