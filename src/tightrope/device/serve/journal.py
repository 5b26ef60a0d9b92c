"""A journal: facts in the order in which they became true, which survive `kill -9`, a power cut and a full disk.

A record is one line: checksum, number, canonical JSON. It counts once its line is whole and synced. What a crash left
half-written at the end is cut off. A line that was whole once and is not any more is damage: it is said, the records
around it still count, and the damaged file is kept beside the journal.
"""

import fcntl
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any, Self

from tightrope import places
from tightrope.errors import OutputError, ServeError
from tightrope.manifest import canonical

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the bytes of a journal say: the whole records, where the last of them ends, and what is wrong before."""

    records: tuple[Record, ...]
    size_bytes: int
    damage: str = ""


def line(number: int, record: Record) -> bytes:
    """One record as it is written.

    >>> line(1, {"op": "current"})
    b'89bdc6e1 1 {"op":"current"}\\n'
    """
    body = b"%d %s" % (number, canonical(record))
    return b"%08x %s\n" % (zlib.crc32(body), body)


def replay(data: bytes) -> Replay:
    """Read a journal back. Never fails: what is not whole is left out, and said unless it is the end."""
    records: list[Record] = []
    whole, position, expected, faults = 0, 0, 1, []
    doubtful: list[int] = []
    for piece in data.split(b"\n")[:-1]:
        found = _parsed(piece)
        start, position = position, position + len(piece) + 1
        if found is None or found[0] < expected:
            doubtful.append(start)
            continue
        number, record = found
        if doubtful or number > expected:
            faults.append(f"{doubtful[0] if doubtful else start:,}")
        doubtful, expected, whole = [], number + 1, position
        records.append(record)
    damage = f"records at byte {', '.join(faults[:4])} are not what was written there" if faults else ""
    return Replay(records=tuple(records), size_bytes=whole, damage=damage)


def _parsed(piece: bytes) -> tuple[int, Record] | None:
    checksum, _, body = piece.partition(b" ")
    number, _, text = body.partition(b" ")
    if not number.isdigit() or len(number) > 18 or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        record = loads(text)
    except (JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
    return (int(number), record) if isinstance(record, dict) else None


class Journal:
    """An open journal; `records` are those it held when it was opened. A context manager: one process at a time.

    On a file system that cannot be written it opens all the same, and only appending fails. Raises `ServeError` if
    another process has it open, or if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ""
        """What was found wrong with it, in words; empty if nothing was."""
        self.records: tuple[Record, ...] = ()
        self.size_bytes = 0
        self._file: int | None = None
        self._lock: int | None = None
        self._why_not: OSError | None = None
        self._number = 1
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, record: Record) -> None:
        """Make one more fact durable. Raises `OutputError` if it cannot be: the journal is then as it was before."""
        if self._file is None:
            raise places.cannot_write(self.path, self._why_not or OSError("it is closed"))
        data = line(self._number, record)
        try:
            _write(self._file, data)
            os.fsync(self._file)
        except OSError as error:
            self._take_back()
            raise places.cannot_write(self.path, error) from error
        self._number += 1
        self.size_bytes += len(data)

    def rewrite(self, records: Iterable[Record]) -> None:
        """Let these records stand for all there were. Raises `OutputError` if they cannot be written."""
        if self._file is None:
            raise places.cannot_write(self.path, self._why_not or OSError("it is closed"))
        lines = [line(number, record) for number, record in enumerate(records, 1)]
        try:
            places.write_atomic(self.path, b"".join(lines))
            written = _opened(self.path)
        except OSError as error:
            raise places.cannot_write(self.path, error) from error
        os.close(self._file)
        self._file, self._number, self.size_bytes = written, len(lines) + 1, sum(map(len, lines))

    def close(self) -> None:
        """Let another process open it."""
        for handle in (self._file, self._lock):
            if handle is not None:
                os.close(handle)
        self._file = self._lock = None

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            new = not self.path.exists()
            self._file = _opened(self.path)
            if new:
                places.sync(self.path.parent)
        except OSError as error:  # a read-only file system, mostly: what is known can still be served
            self._why_not = error
        if self._lock is not None:
            self._hold(self._lock)
        found = replay(self._read())
        self.records, self.damage, self._number = found.records, found.damage, len(found.records) + 1
        self.size_bytes = found.size_bytes
        if self._file is not None:
            self._mend(found)

    def _hold(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServeError(
                f"{self.path.parent} is in use by another server.", hint="Stop that one, or give this one a --state."
            ) from error

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServeError(f"{self.path} cannot be read: {reason}.", hint="Allow this user to read it.") from error

    def _mend(self, found: Replay) -> None:
        """Cut a torn end; write a damaged journal anew, beside the damaged one."""
        assert self._file is not None
        try:
            if found.damage:
                kept = self.path.with_name(self.path.name + ".damaged")
                kept.unlink(missing_ok=True)
                places.link_or_copy(self.path, kept)
                self.rewrite(found.records)
            elif os.fstat(self._file).st_size > found.size_bytes:
                os.ftruncate(self._file, found.size_bytes)
                os.fsync(self._file)
        except (OSError, OutputError) as error:
            os.close(self._file)  # to append behind what is not whole would make it damage
            self._file, self._why_not = None, error if isinstance(error, OSError) else OSError(error.message)

    def _take_back(self) -> None:
        """After a failed write: the end is where it was, or nothing is written any more."""
        assert self._file is not None
        try:
            os.ftruncate(self._file, self.size_bytes)
        except OSError as error:
            os.close(self._file)
            self._file, self._why_not = None, error


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
