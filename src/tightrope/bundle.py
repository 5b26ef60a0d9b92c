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
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightrope import manifest, places
from tightrope.errors import BundleError, OutputError
from tightrope.manifest import (
    FORMAT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Artefact,
    Content,
    File,
    Manifest,
    Model,
    Requirements,
    canonical,
)
from tightrope.places import cannot_write, exists, write_atomic

__all__ = [
    "FORMAT",
    "MANIFEST",
    "MAX_MANIFEST_BYTES",
    "Artefact",
    "Bundle",
    "Content",
    "File",
    "Model",
    "Requirements",
    "Writer",
    "attach",
    "cannot_write",
    "canonical",
    "check_free",
    "copy",
    "exists",
    "is_place",
    "read",
    "sha256_of",
    "write_atomic",
]


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
        return manifest.load_json(self.path / path)

    @property
    def size_bytes(self) -> int:
        """What the device must store: the content's files and the manifest, not the attachments."""
        return sum(item.size for item in self.content.files) + (self.path / MANIFEST).stat().st_size


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
            places.sync(target)
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
            _write_manifest(self.folder, Manifest(content=content, attachments=()))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return Bundle(path=self.folder, content=content, digest=content.digest)

    def seal(self, content: Content, attachments: Mapping[str, Any] | None = None) -> Bundle:
        """Write the manifest, make all of it durable, and move it into place. Attachments are JSON values."""
        try:
            attached = _write_attachments(self.folder, attachments or {})
            _write_manifest(self.folder, Manifest(content=content, attachments=attached))
            places.replace_folder(self.folder, self.path)
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
    """Add or replace JSON attachments of a bundle on disk. The digest stays what it is.

    The bundle is made anew beside itself, of hard links to the same files, and put in place at once: whatever happens
    on the way, the path holds a whole bundle. Raises `OutputError` if it cannot be written.
    """
    path = bundle.path.resolve()
    with Writer(path, force=True) as writer:
        try:
            for item in (*bundle.content.files, *bundle.attachments):
                (writer.folder / item.path).parent.mkdir(exist_ok=True)
                places.link_or_copy(path / item.path, writer.folder / item.path)
            kept = {item.path: item for item in bundle.attachments}
            kept |= {item.path: item for item in _write_attachments(writer.folder, attachments)}
            merged = tuple(kept[name] for name in sorted(kept))
            _write_manifest(writer.folder, Manifest(content=bundle.content, attachments=merged))
            places.replace_folder(writer.folder, path)
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


def is_place(path: str) -> bool:
    """Whether a bundle may hold a file at this path."""
    return path == MANIFEST or bool(manifest.FILE.fullmatch(path) or manifest.ATTACHMENT.fullmatch(path))


def _write_attachments(folder: Path, attachments: Mapping[str, Any]) -> tuple[File, ...]:
    written = []
    for name in sorted(attachments):
        path = f"attachments/{name}.json"
        if not manifest.ATTACHMENT.fullmatch(path):
            raise BundleError(f"{name!r} cannot name an attachment.", hint="Use lower-case letters, digits, - and _.")
        (folder / "attachments").mkdir(exist_ok=True)
        data = canonical(attachments[name])
        write_atomic(folder / path, data)
        written.append(File(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest()))
    return tuple(written)


def _write_manifest(folder: Path, written: Manifest) -> None:
    write_atomic(folder / MANIFEST, canonical(written.to_json()))


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
    try:
        found = _load_manifest(folder)
        _check_declared(folder, found.content.files, manifest.FILE)
        _check_declared(folder, found.attachments, manifest.ATTACHMENT)
        declared = (*found.content.files, *found.attachments)
        _check_nothing_else(folder, {item.path for item in declared} | {MANIFEST})
        for item in declared if verify else ():
            if sha256_of(folder / item.path) != item.sha256:
                raise BundleError(f"{item.path} in {folder} was changed.", hint="Fetch the bundle again.")
    except OSError as error:
        reason = error.strerror or str(error)
        raise BundleError(f"{folder} cannot be read: {reason}.", hint="Allow this user to read it.") from error
    content = found.content
    return Bundle(path=folder, content=content, digest=content.digest, attachments=found.attachments)


def _load_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{folder} has no {MANIFEST}.", hint="Give a folder that tightrope made.")
    return manifest.parse(manifest.load_json(path), folder)


def _check_declared(folder: Path, declared: tuple[File, ...], shape: re.Pattern[str]) -> None:
    for item in declared:
        if not shape.fullmatch(item.path):
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
