"""The cache: finished steps of earlier runs, found by the digest of what went into them.

A folder for each entry, `<kind>/<key>`; an entry is complete or absent. `tightrope cache` shows and prunes it.
"""

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tightrope import bundle
from tightrope.device.meter.received import cache_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry: its kind, its folder, its size, and when it was last used (seconds since the epoch)."""

    kind: str
    path: Path
    size_bytes: int
    used_at: float


def key(*parts: object) -> str:
    """The digest of everything that an entry depends on."""
    return hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def load_json(kind: str, name: str) -> Any:
    """A stored JSON value, or `None` if there is none that can be read."""
    path = cache_folder() / kind / f"{name}.json"
    try:
        value = json.loads(path.read_bytes())
        os.utime(path)
    except (OSError, ValueError):
        return None
    return value


def store_json(kind: str, name: str, value: Any) -> None:
    """Keep a JSON value. A cache that cannot be written is not an error: the step is done again next time."""
    path = cache_folder() / kind / f"{name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        bundle.write_atomic(path, bundle.canonical(value))
    except OSError:
        return


def touch(path: Path) -> None:
    """Note that an entry was used."""
    with suppress(OSError):
        os.utime(path)


def scratch(kind: str, name: str) -> Path:
    """The path for an entry that is a folder; its parent exists. Where the cache cannot be written it is elsewhere."""
    path = cache_folder() / kind / name
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path if os.access(path.parent, os.W_OK) else _elsewhere() / name


@cache
def _elsewhere() -> Path:
    """A folder for this process alone, gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="tightrope-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def entries() -> Iterator[Entry]:
    """Everything in the cache, the longest unused first."""
    root = cache_folder()
    found = []
    for kind in sorted(item for item in root.iterdir() if item.is_dir()) if root.is_dir() else ():
        for path in kind.iterdir():
            with suppress(OSError):  # another process may be pruning
                files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
                size = sum(item.stat().st_size for item in files)
                found.append(Entry(kind=kind.name, path=path, size_bytes=size, used_at=path.stat().st_mtime))
    return iter(sorted(found, key=lambda entry: entry.used_at))


def prune(keep_bytes: int, kinds: Sequence[str] = ()) -> int:
    """Remove the longest unused entries, of some kinds or all, until they take at most `keep_bytes`; returns what
    was freed, in bytes."""
    kept = [entry for entry in entries() if not kinds or entry.kind in kinds]
    total, freed = sum(entry.size_bytes for entry in kept), 0
    for entry in kept:
        if total - freed <= keep_bytes:
            break
        if entry.path.is_dir():
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            entry.path.unlink(missing_ok=True)
        freed += entry.size_bytes
    return freed
