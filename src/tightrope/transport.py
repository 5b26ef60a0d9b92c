"""Transport: a bundle as one file, for copying and sending.

A plain tar archive of exactly the declared files, in order, without times or owners: one bundle, one archive.
Unpacking takes regular files at the places a bundle has, refuses everything else, and verifies what came out
before it is put in place.
"""

import io
import shutil
import tarfile
import tempfile
from pathlib import Path

from tightrope import bundle
from tightrope.bundle import MANIFEST, Bundle
from tightrope.errors import BundleError

MAX_BYTES = 64_000_000_000


def pack(source: Bundle, path: Path, *, force: bool = False) -> Path:
    """Write the bundle as one file. Raises `OutputError` if something lies there and `force` is not given."""
    if path.exists() and not force:
        raise bundle.exists(path)
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name in (MANIFEST, *(item.path for item in (*source.content.files, *source.attachments))):
                data = (source.path / name).read_bytes()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
        bundle.sync(aside)
        aside.replace(path)
    except OSError as error:
        raise bundle.cannot_write(path, error) from error
    finally:
        aside.unlink(missing_ok=True)
    return path


def unpack(path: Path, out: Path, *, force: bool = False) -> Bundle:
    """Unpack and verify a bundle. Raises `BundleError` for links, paths that escape, or anything not declared."""
    if not path.is_file():
        raise BundleError(f"There is no file {path}.", hint="Give a file that `tightrope pack` wrote.")
    bundle.check_free(out, force=force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise bundle.cannot_write(out, error) from error
    try:
        _extract(path, aside)
        bundle.read(aside)
        bundle.replace_folder(aside, out)
    except tarfile.TarError as error:
        raise BundleError(f"{path} is not a packed bundle: {error}.", hint="Fetch it again.") from error
    except OSError as error:
        raise bundle.cannot_write(out, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return bundle.read(out, verify=False)


def _extract(path: Path, folder: Path) -> None:
    room = MAX_BYTES
    with tarfile.open(path, "r:") as archive:
        for entry in archive:
            if not entry.isreg() or not bundle.is_place(entry.name):
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
            bundle.sync(target)
