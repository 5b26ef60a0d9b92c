"""Places on disk: files and folders that are there whole, or not at all.

Everything is written aside, made durable, and moved into place in one step. A reader, a full disk or a power cut
in between finds the old or the new, never half.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tightrope.errors import OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""Both from Linux's `<fcntl.h>` and `<linux/fs.h>`."""


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


def replace_folder(aside: Path, path: Path) -> None:
    """Put a finished folder in place of an older one, which is removed, or where nothing lies yet.

    On Linux the two change places in one step. Where the system cannot do that, the older one is moved away first:
    killed between the two steps, it is left whole beside `path`, as `.<name>.old.…`; after an error it is put back.
    """
    aside.chmod(0o755)
    for folder in (*(item for item in aside.iterdir() if item.is_dir()), aside):
        sync(folder)
    if not path.exists():
        aside.replace(path)
    elif _exchange(aside, path):
        shutil.rmtree(aside, ignore_errors=True)
    else:
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
        try:
            path.replace(old)
            aside.replace(path)
        except BaseException:
            if path.exists():  # the first of the two failed: the empty folder is all that is left to remove
                old.rmdir()
            else:
                old.replace(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step: renameat2(2). `False` where system or file system cannot."""
    if sys.platform != "linux":
        return False
    import ctypes  # only where something is replaced: a device that opens a bundle does not pay for it

    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):  # a C library older than glibc 2.28
        return False
    flags = ctypes.c_uint(_RENAME_EXCHANGE)
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), flags) == 0)


def link_or_copy(source: Path, target: Path) -> None:
    """The same bytes under a second name: a hard link, or a durable copy where the file system has none."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        sync(target)


def sync(path: Path) -> None:
    """Make a file or folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def exists(path: Path) -> OutputError:
    """The error for a path that is taken."""
    return OutputError(f"{path} exists already.", hint="Choose another --out, or replace it with --force.")


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error for a path that the system would not let us write."""
    reason = error.strerror or str(error)
    return OutputError(f"{path} cannot be written: {reason}.", hint="Choose a folder with space and write permission.")
