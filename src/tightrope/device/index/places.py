"""Where an index lies on disk, who may write it, and which generation of it counts.

    docs.index/
        current                 JSON: the format, and the name of the generation that counts
        lock                    held by whoever writes
        3f9c01d2/               a generation
            store.sqlite        documents, texts, metadata, exact vectors
            codes.bin           their eight-bit codes

A new generation is made beside the old one and counts from the moment in which `current` is replaced: SQLite's files
must never be renamed while somebody has them open.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
from pathlib import Path

from tightrope.errors import OutputError, SearchError
from tightrope.places import cannot_write, sync, write_atomic

FORMAT = 1
STORE, CODES = "store.sqlite", "codes.bin"
_CURRENT, _LOCK = "current", "lock"
_GENERATION = re.compile(r"[0-9a-f]{8}")


class Lock:
    """The right to write an index, for one at a time on this machine. It goes with the process, however that ends."""

    def __init__(self, index: Path) -> None:
        try:
            self._descriptor = os.open(index / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise cannot_write(index, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise SearchError(
                f"{index} is being written by another.",
                hint="Ask that one, a server takes documents; or end it.",
            ) from error

    def release(self) -> None:
        """Let another write. Twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def current(index: Path) -> Path:
    """The folder of the generation that counts. Raises `SearchError` if there is no index."""
    try:
        told = json.loads((index / _CURRENT).read_bytes()[:4096])
        name = told["generation"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise SearchError(f"{index} is not an index.", hint="Make one: tightrope index build DOCUMENTS") from error
    if told.get("format") != FORMAT or not isinstance(name, str) or not _GENERATION.fullmatch(name):
        raise SearchError(f"{index} is not an index of format {FORMAT}.", hint="Build it with this tightrope.")
    return index / name


def new_generation(index: Path) -> Path:
    """An empty folder for one more generation. The caller holds the lock."""
    folder = index / secrets.token_hex(4)
    try:
        folder.mkdir()
    except OSError as error:
        raise cannot_write(index, error) from error
    return folder


def make_current(index: Path, generation: Path) -> None:
    """From here on this generation counts. Its files are made durable first."""
    try:
        for item in (*generation.iterdir(), generation):
            sync(item)
        text = json.dumps({"format": FORMAT, "generation": generation.name})
        write_atomic(index / _CURRENT, text.encode())
    except OSError as error:
        raise cannot_write(index, error) from error


def remove_others(index: Path) -> None:
    """Remove what interrupted builds and older generations left behind. The caller holds the lock."""
    keep = current(index).name
    for item in index.iterdir():
        if item.name != keep and _GENERATION.fullmatch(item.name) and item.is_dir() and not item.is_symlink():
            shutil.rmtree(item, ignore_errors=True)


def prepare(index: Path, *, force: bool) -> bool:
    """Make the folder of an index, and say whether it is new. Raises `OutputError` if something else lies there.

    An index is there to be replaced only with `force`; what an interrupted first build left behind is free.
    """
    try:
        index.mkdir(parents=True, exist_ok=True)
        found = {item.name for item in index.iterdir()}
    except FileExistsError:
        raise OutputError(f"{index} is a file.", hint="Choose another --out.") from None
    except OSError as error:
        raise cannot_write(index, error) from error
    if any(name not in (_CURRENT, _LOCK) and not _GENERATION.fullmatch(name) for name in found):
        raise OutputError(f"{index} exists and is not an index.", hint="Choose another --out.")
    if _CURRENT in found and not force:
        raise OutputError(f"{index} exists already.", hint="Choose another --out, or replace it with --force.")
    return _CURRENT not in found
