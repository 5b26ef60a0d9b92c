"""A bundle: a sealed folder that holds a model, all it needs, and the proof of what it should answer.

    minilm.bundle/
        manifest.json       canonical JSON: the content, its digest, and the declared attachments
        files/              named by their content: <first 16 hex digits of sha256>.<suffix>
        attachments/        measurements, later signatures: declared, but outside the digest

The digest covers the content alone, so the same inputs give the same digest, and measuring a
bundle does not change what it is. `read` refuses what is undeclared, missing, truncated or
changed. Nothing in a bundle is code, and nothing from it is ever executed or unpickled here.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tightrope.errors import BundleError, OutputError
from tightrope.ports import Port

FORMAT = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16_000_000
_FILE = re.compile(r"files/[0-9a-f]{16}\.[a-z0-9]{1,12}")
_ATTACHMENT = re.compile(r"attachments/[a-z0-9][a-z0-9_-]{0,40}\.[a-z0-9]{1,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of the bundle: its path inside, its size and its sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What an artefact needs of the machine; an empty tuple asks for nothing."""

    architectures: tuple[str, ...] = ()
    isa: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A model in one engine's form. `files` maps the engine's roles (`model`, `weights`) to paths in the bundle."""

    engine: str
    precision: str
    files: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    requires: Requirements = Requirements()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A named model: its ports, and the same function as one or more artefacts, best first."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Everything the digest covers.

    `task` says what the bundle is for (`name`: embedding or scoring, and its settings), `senses` how the
    world becomes arrays, `vectors` which texts prove that it answers as it should.
    """

    task: Mapping[str, Any]
    senses: Mapping[str, Any]
    models: tuple[Model, ...]
    recipe: str
    lineage: Mapping[str, Any]
    vectors: Mapping[str, Any]
    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of this content."""
        return hashlib.sha256(canonical(asdict(self))).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle that was read from disk and found whole."""

    path: Path
    content: Content
    digest: str
    attachments: tuple[File, ...] = ()

    def file(self, path: str) -> Path:
        """Where a declared file of the content lies on disk."""
        if not any(item.path == path for item in self.content.files):
            raise BundleError(f"{path!r} is not declared in {self.path}.", hint="Make the bundle anew.")
        return self.path / path

    def attachment(self, name: str) -> Any:
        """A JSON attachment by its name without suffix, or `None` if the bundle has none of that name."""
        path = f"attachments/{name}.json"
        if not any(item.path == path for item in self.attachments):
            return None
        return _load_json(self.path / path)

    @property
    def size_bytes(self) -> int:
        """What the device must store: the content's files and the manifest, not the attachments."""
        return sum(item.size for item in self.content.files) + (self.path / MANIFEST).stat().st_size


def canonical(data: Any) -> bytes:
    """JSON in ASCII with sorted keys, no spaces and no nan: one value, one text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex, by plain reads."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# Writing ------------------------------------------------------------------------------------------------


class Writer:
    """A bundle in the making: files are written aside, and `seal` puts the whole in place at once.

    Use as a context manager: whatever happens before `seal`, nothing is left behind and an
    existing bundle at the same path is untouched.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        check_free(path, force=force)
        self.path = path
        """Where the bundle will lie."""
        self._files: dict[str, File] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            (self.folder / "files").mkdir()
        except OSError as error:
            raise cannot_write(path, error) from error

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, data: bytes | Path, suffix: str) -> str:
        """Store bytes, or a copy of a file, under a name made from its content; returns the path inside the bundle."""
        digest = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else sha256_of(data)
        path = f"files/{digest[:16]}.{suffix}"
        target = self.folder / path
        try:
            if isinstance(data, bytes):
                target.write_bytes(data)
            else:
                shutil.copyfile(data, target)
            sync(target)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._files[path] = File(path=path, size=target.stat().st_size, sha256=digest)
        return path

    def file(self, path: str) -> Path:
        """Where a file that was added lies while the bundle is being made."""
        return self.folder / path

    @property
    def files(self) -> tuple[File, ...]:
        """What was added so far, in canonical order."""
        return tuple(self._files[path] for path in sorted(self._files))

    def draft(self, content: Content) -> Bundle:
        """What was added so far as a bundle that can be opened, before it is finished and put in place."""
        try:
            _write_manifest(self.folder, content, ())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return Bundle(path=self.folder, content=content, digest=content.digest)

    def seal(self, content: Content, attachments: Mapping[str, Any] | None = None) -> Bundle:
        """Write the manifest, make all of it durable, and move it into place. Attachments are JSON values."""
        try:
            attached = _write_attachments(self.folder, attachments or {})
            _write_manifest(self.folder, content, attached)
            replace_folder(self.folder, self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return Bundle(path=self.path, content=content, digest=content.digest, attachments=attached)


def copy(source: Bundle, path: Path, attachments: Mapping[str, Any] | None = None, *, force: bool = False) -> Bundle:
    """The same content at another place, with other attachments. Raises `OutputError` as `Writer` does."""
    with Writer(path, force=force) as writer:
        for item in source.content.files:
            writer.add(source.path / item.path, Path(item.path).suffix.removeprefix("."))
        return writer.seal(source.content, attachments)


def attach(bundle: Bundle, attachments: Mapping[str, Any]) -> Bundle:
    """Add or replace JSON attachments of a bundle on disk. The digest stays what it is."""
    kept = {item.path: item for item in bundle.attachments}
    try:
        new = _write_attachments(bundle.path, attachments)
        kept |= {item.path: item for item in new}
        merged = tuple(kept[path] for path in sorted(kept))
        _write_manifest(bundle.path, bundle.content, merged)
    except OSError as error:
        raise cannot_write(bundle.path, error) from error
    return Bundle(path=bundle.path, content=bundle.content, digest=bundle.digest, attachments=merged)


def check_free(path: Path, *, force: bool) -> None:
    """Raise `OutputError` if something lies at `path`, unless it is a bundle and `force` allows to replace it."""
    if not path.exists() and not path.is_symlink():
        return
    if not force:
        raise exists(path)
    if not (path / MANIFEST).is_file() or path.is_symlink():
        raise OutputError(
            f"{path} exists and is not a bundle.", hint="Choose another --out; --force replaces bundles only."
        )


def exists(path: Path) -> OutputError:
    """The error for a path that is taken."""
    return OutputError(f"{path} exists already.", hint="Choose another --out, or replace it with --force.")


def is_place(path: str) -> bool:
    """Whether a bundle may hold a file at this path."""
    return path == MANIFEST or bool(_FILE.fullmatch(path) or _ATTACHMENT.fullmatch(path))


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error for a path that the system would not let us write."""
    reason = error.strerror or str(error)
    return OutputError(f"{path} cannot be written: {reason}.", hint="Choose a folder with space and write permission.")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file aside, make it durable and rename it into place: a reader sees the old or the new, never half."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def _write_attachments(folder: Path, attachments: Mapping[str, Any]) -> tuple[File, ...]:
    written = []
    for name in sorted(attachments):
        path = f"attachments/{name}.json"
        if not _ATTACHMENT.fullmatch(path):
            raise BundleError(f"{name!r} cannot name an attachment.", hint="Use lower-case letters, digits, - and _.")
        (folder / "attachments").mkdir(exist_ok=True)
        data = canonical(attachments[name])
        write_atomic(folder / path, data)
        written.append(File(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest()))
    return tuple(written)


def _write_manifest(folder: Path, content: Content, attachments: tuple[File, ...]) -> None:
    manifest = {
        "format": FORMAT,
        "digest": content.digest,
        "content": asdict(content),
        "attachments": [asdict(item) for item in attachments],
    }
    write_atomic(folder / MANIFEST, canonical(manifest))


def replace_folder(aside: Path, path: Path) -> None:
    """Put a finished folder in place of an older one; if that fails half-way the older one is put back."""
    aside.chmod(0o755)
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
        path.replace(old)
        try:
            aside.replace(path)
        except BaseException:
            old.replace(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        aside.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file or folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Reading ------------------------------------------------------------------------------------------------


def read(path: Path | str, *, verify: bool = True) -> Bundle:
    """Read a bundle and, unless told otherwise, check every byte of it against its manifest.

    Raises `BundleError` for anything undeclared, missing, truncated or changed, for a link, and for a
    manifest of another format.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file; unpack it first" if folder.is_file() else "does not exist"
        raise BundleError(
            f"{folder} {what}.", hint="Give the folder that `tightrope fit --out` wrote (see `tightrope unpack`)."
        )
    manifest = _load_manifest(folder)
    try:
        content = _content(manifest["content"])
        attachments = tuple(File(**item) for item in manifest["attachments"])
        digest = manifest["digest"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(f"The manifest of {folder} is malformed: {error!r}.", hint="Make the bundle anew.") from error
    if content.digest != digest:
        raise BundleError(f"The content of {folder} is not what its digest {digest:.12} says.", hint="Fetch it again.")
    _check_declared(folder, content.files, _FILE)
    _check_declared(folder, attachments, _ATTACHMENT)
    _check_nothing_else(folder, {item.path for item in (*content.files, *attachments)} | {MANIFEST})
    if verify:
        for item in (*content.files, *attachments):
            if sha256_of(folder / item.path) != item.sha256:
                raise BundleError(f"{item.path} in {folder} was changed.", hint="Fetch the bundle again.")
    return Bundle(path=folder, content=content, digest=digest, attachments=attachments)


def _load_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{folder} has no {MANIFEST}.", hint="Give a folder that tightrope made.")
    manifest = _load_json(path)
    if not isinstance(manifest, dict):
        raise BundleError(f"The manifest of {folder} is not an object.", hint="Fetch the bundle again.")
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"{folder} has format {manifest.get('format')!r}; this version reads {FORMAT}.",
            hint="Update tightrope, or make it anew.",
        )
    return manifest


def _load_json(path: Path) -> Any:
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES:,} bytes.", hint="Fetch the bundle again.")
    try:
        return json.loads(path.read_bytes(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}.", hint="Fetch the bundle again.") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _content(data: Mapping[str, Any]) -> Content:
    def port(item: Mapping[str, Any]) -> Port:
        return Port(item["name"], item["dtype"], tuple(item["shape"]))

    def artefact(item: Mapping[str, Any]) -> Artefact:
        requires = Requirements(**{key: tuple(value) for key, value in item["requires"].items()})
        return Artefact(**{**item, "requires": requires})

    def model(item: Mapping[str, Any]) -> Model:
        return Model(
            name=item["name"],
            inputs=tuple(map(port, item["inputs"])),
            outputs=tuple(map(port, item["outputs"])),
            artefacts=tuple(map(artefact, item["artefacts"])),
        )

    fields = {
        **data,
        "models": tuple(map(model, data["models"])),
        "files": tuple(File(**item) for item in data["files"]),
    }
    return Content(**fields)


def _check_declared(folder: Path, declared: tuple[File, ...], shape: re.Pattern[str]) -> None:
    for item in declared:
        if not isinstance(item.path, str) or not shape.fullmatch(item.path):
            raise BundleError(
                f"{folder} declares the path {item.path!r}.", hint="Do not trust this bundle; fetch it again."
            )
        path = folder / item.path
        if path.is_symlink() or path.parent.is_symlink():
            raise BundleError(f"{item.path} in {folder} is a link.", hint="Do not trust this bundle; fetch it again.")
        if not path.is_file():
            raise BundleError(f"{item.path} is missing from {folder}.", hint="Fetch the bundle again.")
        if path.stat().st_size != item.size:
            raise BundleError(
                f"{item.path} in {folder} has {path.stat().st_size:,} bytes, not {item.size:,}.",
                hint="Fetch the bundle again.",
            )


def _check_nothing_else(folder: Path, declared: set[str]) -> None:
    for root, folders, names in os.walk(folder):
        for name in [*names, *(item for item in folders if (Path(root) / item).is_symlink())]:
            path = (Path(root) / name).relative_to(folder).as_posix()
            if path not in declared:
                raise BundleError(f"{path} in {folder} is not declared.", hint="Remove it, or fetch the bundle again.")
