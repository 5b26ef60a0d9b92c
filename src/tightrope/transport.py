"""Transport: a bundle as one file, for copying and sending.

A plain tar archive of exactly the declared files, in order, without times or owners: one bundle, one archive.
Unpacking takes regular files at the places a bundle has, refuses everything else, and verifies what came out
before it is put in place.
"""

import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from tightrope import bundle, places
from tightrope.bundle import MANIFEST, Bundle
from tightrope.errors import BundleError, OutputError

MAX_BYTES = 64_000_000_000


def pack(source: Bundle, path: Path, *, force: bool = False) -> Path:
    """Write the bundle as one file, read piece by piece.

    Raises `OutputError` if a file lies at `path` and `force` is not given, or if no file can be put there.
    """
    _check_free(source, path, force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise places.cannot_write(path, error) from error
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            _archive(source, stream)
            stream.flush()
            os.fsync(handle)
        aside.chmod(0o644)
        aside.replace(path)
        places.sync(path.parent)
    except OSError as error:
        raise places.cannot_write(path, error) from error
    finally:
        aside.unlink(missing_ok=True)
    return path


def _check_free(source: Bundle, path: Path, force: bool) -> None:
    taken = path.exists() or path.is_symlink()
    if taken and not path.is_file():
        raise OutputError(f"{path} is not a file.", hint="Give --out the name of the file to write.")
    if path.resolve().is_relative_to(source.path.resolve()):
        raise OutputError(f"{path} lies in the bundle itself.", hint="Choose an --out outside of it.")
    if taken and not force:
        raise places.exists(path)


def _archive(source: Bundle, stream: IO[bytes]) -> None:
    """The files one after another. An entry beyond 8 GB gets the header that POSIX.1-2001 (pax) has for it."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in (MANIFEST, *(item.path for item in (*source.content.files, *source.attachments))):
            with (source.path / name).open("rb") as data:
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = os.fstat(data.fileno()).st_size, 0o644
                archive.addfile(entry, data)


def unpack(path: Path, out: Path, *, force: bool = False) -> Bundle:
    """Unpack and verify a bundle. Raises `BundleError` for links, paths that escape, or anything not declared."""
    if not path.is_file():
        raise BundleError(f"There is no file {path}.", hint="Give a file that `tightrope pack` wrote.")
    bundle.check_free(out, force=force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise places.cannot_write(out, error) from error
    try:
        _extract(path, aside)
        bundle.read(aside)
        places.replace_folder(aside, out)
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the last two: numbers that no file has
        raise BundleError(f"{path} is not a packed bundle: {error}.", hint="Fetch it again.") from error
    except OSError as error:
        raise places.cannot_write(out, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return bundle.read(out, verify=False)


def _extract(path: Path, folder: Path) -> None:
    room = MAX_BYTES
    with tarfile.open(path, "r:") as archive:
        for entry in archive:
            if not entry.isreg() or entry.issparse() or not bundle.is_place(entry.name):
                raise BundleError(
                    f"{path} holds {entry.name!r}, which no bundle holds.", hint="Do not trust this file."
                )
            target = folder / entry.name
            if target.exists():
                raise BundleError(f"{path} holds {entry.name} twice.", hint="Do not trust this file.")
            room -= entry.size
            if room < 0:
                raise BundleError(f"{path} unpacks to more than {MAX_BYTES:,} bytes.", hint="Do not trust this file.")
            target.parent.mkdir(exist_ok=True)
            stream = archive.extractfile(entry)
            assert stream is not None
            with target.open("wb") as out:
                shutil.copyfileobj(stream, out)
            places.sync(target)
