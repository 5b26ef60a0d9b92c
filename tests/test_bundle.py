import copy
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope import bundle, places
from tightrope.bundle import Artefact, Bundle, Content, Model, Writer
from tightrope.errors import BundleError, OutputError, TightropeError
from tightrope.ports import Port


def content(writer: Writer, paths: dict[str, str]) -> Content:
    artefact = Artefact(engine="onnxruntime", precision="int8", files=paths)
    model = Model(
        name="m", inputs=(Port("x", "int64", ("n",)),), outputs=(Port("y", "float32", (4,)),), artefacts=(artefact,)
    )
    return Content(
        task={"name": "embedding", "width": 4, "normalize": True},
        senses={"kind": "text", "tokenizer": "", "max_length": 64, "prompts": {"query": "q: "}, "default_prompt": None},
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


class Killed(BaseException):
    """What no `except OSError` sees, as a kill."""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Killed()])
def test_attaching_leaves_the_old_or_the_new_wherever_it_ends(
    made: Bundle, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    real, ends = os.fsync, 0
    while True:
        left = ends

        def fsync(handle: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise error
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            bundle.attach(made, {"measurement": {"p50": 0.7}, "quality": {"loss": 0.01}})
            break
        except (OutputError, Killed):
            found = bundle.read(made.path)
            assert found.digest == made.digest
            values = found.attachment("measurement"), found.attachment("quality")
            assert values in [({"p50": 0.5}, None), ({"p50": 0.7}, {"loss": 0.01})]
            ends += 1
    assert ends > 3
    assert bundle.read(made.path).attachment("quality") == {"loss": 0.01}
    assert [item.name for item in made.path.parent.iterdir()] == ["a.bundle"]


@pytest.mark.parametrize("links", [True, False])
def test_attaching_takes_no_second_copy_where_the_file_system_has_links(
    made: Bundle, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def none(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", none)
    weights = next((made.path / "files").iterdir())
    before = weights.stat().st_ino
    bundle.attach(made, {"quality": 1})
    assert (weights.stat().st_ino == before) == links
    assert bundle.read(made.path).attachment("measurement") == {"p50": 0.5}


@pytest.mark.parametrize("swaps", [True, False])
def test_a_folder_is_replaced_at_once_or_by_way_of_a_second_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    asked = []
    real = places._exchange
    monkeypatch.setattr(places, "_exchange", lambda one, other: asked.append(other) or (swaps and real(one, other)))
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    places.replace_folder(tmp_path / "new", tmp_path / "old")
    assert asked == [tmp_path / "old"]
    assert [item.name for item in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "which").read_text() == "new"


@pytest.mark.parametrize("failing", [1, 2])
def test_what_was_replaced_comes_back_if_the_new_cannot_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    real, calls = Path.replace, 0

    def replace(path: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(5, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(places, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "replace", replace)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    with pytest.raises(OSError, match="Input/output"):
        places.replace_folder(tmp_path / "new", tmp_path / "old")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["new", "old"]
    assert (tmp_path / "old" / "which").read_text() == "old"


def edit(folder: Path, change: "callable") -> None:  # type: ignore[valid-type]
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)  # type: ignore[operator]
    (folder / "manifest.json").write_bytes(bundle.canonical(manifest))


def put(*keys: str | int, value: Any) -> Any:
    """A change of one value of the manifest, by its keys."""

    def change(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return lambda folder: edit(folder, change)


def without(*keys: str | int) -> Any:
    """A manifest that lacks one value."""

    def change(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        del manifest[keys[-1]]

    return lambda folder: edit(folder, change)


def spell(folder: Path, old: bytes, new: bytes) -> None:
    path = folder / "manifest.json"
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


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
    "no finite number": lambda folder: spell(folder, b'"width":4', b'"width":1e999'),
    "no finite number in the open": lambda folder: spell(folder, b'"vectors":{}', b'"vectors":{"x":1e999}'),
    "vectors nested deeply": lambda folder: spell(
        folder, b'"vectors":{}', b'"vectors":{"x":' + b"[" * 900 + b"]" * 900 + b"}"
    ),
    "a number of 5,000 digits": lambda folder: spell(folder, b'"width":4', b'"width":' + b"9" * 5000),
    "a width beyond any": put("content", "task", "width", value=10**30),
    "no format": without("format"),
    "true for a format": put("format", value=True),
    "a nested format": put("format", value=deep(500)),
    "a size in words": put("content", "files", 0, "size", value="3"),
    "a size below zero": put("attachments", 0, "size", value=-1),
    "a digest that is a number": put("digest", value=5),
    "no digest": put("digest", value=None),
    "a digest of many lines": put("digest", value="a\nb\nc"),
    "a sha256 that is a list": put("content", "files", 0, "sha256", value=[]),
    "deep lineage": put("content", "lineage", "source", value=deep(400)),
    "a task that is a number": put("content", "task", value=5),
    "a task of another name": put("content", "task", "name", value="painting"),
    "a task whose name is a list": put("content", "task", "name", value=["embedding"]),
    "no normalize": without("content", "task", "normalize"),
    "no models": put("content", "models", value=[]),
    "models by name": put("content", "models", value={"a": 1}),
    "no artefacts": put("content", "models", 0, "artefacts", value=[]),
    "no outputs": put("content", "models", 0, "outputs", value=[]),
    "an artefact with more": put("content", "models", 0, "artefacts", 0, "run", value="rm"),
    "files that are a list": put("content", "models", 0, "artefacts", 0, "files", value=["a"]),
    "requirements in a text": put("content", "models", 0, "artefacts", 0, "requires", "isa", value="avx2"),
    "batches of nothing": put("content", "models", 0, "artefacts", 0, "settings", value={"batch_tokens": 0}),
    "a length that is a text": put("content", "senses", "max_length", value="64"),
    "no tokenizer": without("content", "senses", "tokenizer"),
    "prompts in a list": put("content", "senses", "prompts", value=["q: "]),
    "a prompt that is a number": put("content", "senses", "prompts", "a\nb", value=5),
    "a recipe in a list": put("content", "recipe", value=[]),
    "texts that are numbers": put("content", "vectors", "inputs", value=[1, 2]),
    "a tolerance in words": put("content", "vectors", "tolerance", value="0.9"),
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def containers(value: Any) -> Iterator[Any]:
    """Every list and object in a JSON value that holds anything."""
    if isinstance(value, dict | list) and value:
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mutated") / "a.bundle"
    with Writer(path) as writer:
        writer.seal(content(writer, {"model": writer.add(b"weights", "onnx")}), {"measurement": {"p50": 0.5}})
    shutil.copyfile(path / "manifest.json", path.parent / "manifest.json")
    return path


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_a_manifest_says_it_is_read_or_refused(whole: Path, data: st.DataObject) -> None:
    manifest = json.loads((whole.parent / "manifest.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(list(containers(manifest))))
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if data.draw(st.booleans()):
            place[key] = copy.deepcopy(data.draw(JSON | st.sampled_from(list(containers(manifest)))))
        else:
            del place[key]
        if not manifest:
            break
    if data.draw(st.booleans()) and isinstance(manifest.get("content"), dict):
        manifest["digest"] = hashlib.sha256(json.dumps(manifest["content"], **CANONICAL).encode()).hexdigest()
    (whole / "manifest.json").write_text(json.dumps(manifest))
    try:
        found = bundle.read(whole)
    except BundleError as error:
        assert len(str(error).splitlines()) == 2
    else:
        assert found.content.models[0].artefacts[0].engine.__class__ is str
        assert found.content.task["name"] in ("embedding", "scoring")
        assert found.content.task["width"] > 0 < found.content.senses["max_length"]


CANONICAL: Any = {"sort_keys": True, "separators": (",", ":")}


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path(__file__)):
        with pytest.raises(TightropeError):
            bundle.read(path)
