"""Bundles that were sent to this machine to be measured: kept by digest, so that none is sent twice.

A file arrives in pieces under a name that a bundle's content may bear, in a folder aside; `seal` checks the whole and
moves it into place. Nothing that the other side says can lead out of the folder.
"""

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from tightrope import bundle
from tightrope.errors import BenchError, BundleError
from tightrope.units import show

MAX_FILE_BYTES = 16_000_000_000
MOST_BUNDLES = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DAY_S = 86_400


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where tightrope keeps what it can make or fetch again: `$TIGHTROPE_CACHE`, or the user's cache folder."""
    root = environment.get("TIGHTROPE_CACHE")
    return Path(root) if root else Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tightrope"


class Received:
    """The sent bundles in `folder`, which is made when the first piece arrives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, digest: str) -> Path | None:
        """Where a bundle lies that was sent before."""
        path = self._folder / _checked(digest)
        return path if (path / bundle.MANIFEST).is_file() else None

    def add(self, digest: str, item: bundle.File, offset: int, data: bytes) -> None:
        """Append one piece of a file. The last piece completes it, and its digest is checked then.

        Raises `BenchError` for a name, a size or an order that no honest sender uses, `BundleError` for changed bytes.
        """
        if not bundle.is_place(item.path):
            raise BenchError(f"A bundle has no file {item.path!r:.80}.", hint="Send the bundle's own files.")
        if not 0 <= offset <= offset + len(data) <= item.size <= MAX_FILE_BYTES:
            raise BenchError(
                f"A piece of {item.path} lies outside its {item.size:,} bytes.",
                hint=f"Send the bundle again; a file may have {show(MAX_FILE_BYTES, 'bytes')} at most.",
            )
        path = self._aside(digest) / item.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb" if offset == 0 else "ab") as stream:
                if stream.tell() != offset:
                    raise BenchError(f"A piece of {item.path} came out of turn.", hint="Send the bundle again.")
                stream.write(data)
        except OSError as error:
            raise bundle.cannot_write(path, error) from error
        if offset + len(data) == item.size and bundle.sha256_of(path) != item.sha256:
            path.unlink()
            raise BundleError(f"{item.path} was changed on its way.", hint="Send the bundle again.")

    def seal(self, digest: str) -> Path:
        """Check the whole bundle and put it in place; the oldest ones beyond `MOST_BUNDLES` are removed."""
        aside, path = self._aside(digest), self._folder / digest
        try:
            found = bundle.read(aside)
            if found.digest != digest:
                raise BundleError(f"The bundle is {found.digest:.12}, not {digest:.12}.", hint="Send it again.")
            if not path.exists():
                aside.replace(path)
        except OSError as error:
            raise bundle.cannot_write(path, error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._prune(keep=path)
        return path

    def _aside(self, digest: str) -> Path:
        """The folder of this process alone: two benches may send the same bundle at once."""
        return self._folder / f"{_checked(digest)}.{os.getpid()}.part"

    def _prune(self, keep: Path) -> None:
        items = sorted((path.stat().st_mtime, path) for path in self._folder.iterdir() if path != keep)
        whole = [path for _, path in items if _DIGEST.fullmatch(path.name)]
        left_over = [path for at, path in items if path.name.endswith(".part") and at < time.time() - _DAY_S]
        for path in (*whole[: max(0, len(whole) - MOST_BUNDLES + 1)], *left_over):
            shutil.rmtree(path, ignore_errors=True)


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise BenchError(f"{digest!r:.80} is not a digest.", hint="Send sha256 in hex.")
    return digest
