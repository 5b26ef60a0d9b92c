"""The store: documents, texts, metadata and exact vectors in SQLite, which is the truth of an index.

One connection writes, in transactions that are durable when they end (WAL, synchronous=FULL); another reads, so that a
search does not wait for a writer. Errors of SQLite leave as ours.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightrope.device.index import filters, schema
from tightrope.device.index.codes import Quantized, checksum
from tightrope.device.index.documents import Document, Hit
from tightrope.device.index.words import expression, indexed
from tightrope.errors import SearchError

Slots = NDArray[np.int64]
_AT_ONCE = 512


class Store:
    """An open database. Reading is safe from many threads; writing is for one at a time, who holds the index's lock."""

    def __init__(self, index: Path, path: Path, *, writing: bool) -> None:
        self._index = index
        self._reader = schema.connect(path, writing=writing)
        self._writer = schema.connect(path, writing=True) if writing else None
        self._lock = threading.Lock()
        self._seen = -1

    # Reading --------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A view of the store that does not change until the end."""
        with self._lock, self._ours():
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                if self._reader.in_transaction:
                    self._reader.execute("COMMIT")

    def about(self) -> dict[str, Any]:
        """What the index says of itself."""
        with self.reading() as view:
            return dict(view.execute("SELECT name, value FROM about"))

    def changed(self) -> bool:
        """Whether another process wrote since this was asked last."""
        with self._lock, self._ours():
            (version,) = self._reader.execute("PRAGMA data_version").fetchone()
        before, self._seen = self._seen, version
        return bool(before != version)

    def slots(self) -> Iterator[tuple[int, float, int]]:
        """Slot, scale and checksum of every row of codes in use."""
        with self.reading() as view:
            rows = view.execute("SELECT slot, scale, checksum FROM codes ORDER BY slot")
            while some := rows.fetchmany(_AT_ONCE):
                yield from some

    def later(self, version: int) -> Slots:
        """The slots in use that were written after a version."""
        with self.reading() as view:
            rows = view.execute("SELECT slot FROM codes WHERE version > ?", [version])
            return np.fromiter((slot for (slot,) in rows), np.int64)

    def slots_end(self) -> int:
        """One more than the highest slot in use."""
        with self.reading() as view:
            (last,) = view.execute("SELECT max(slot) FROM codes").fetchone()
        return 0 if last is None else int(last) + 1

    def exact(self, slots: Sequence[int]) -> tuple[Slots, Quantized]:
        """Exact vectors of these slots, and which of them are in use still. Raises `SearchError` for damage."""
        with self.reading() as view:
            return self._exact(view, slots)

    def _exact(self, view: sqlite3.Connection, slots: Sequence[int]) -> tuple[Slots, Quantized]:
        marks = ", ".join("?" * len(slots))
        rows = view.execute(
            f"SELECT slot, exact, scale, checksum FROM vectors WHERE slot IN ({marks}) ORDER BY slot", list(slots)
        ).fetchall()
        if any(checksum(exact) != crc for _, exact, _, crc in rows):
            raise SearchError(f"{self._index} holds damaged vectors.", hint="Build it anew from its documents.")
        whole = np.frombuffer(b"".join(exact for _, exact, _, _ in rows), "<i2")
        found = np.array([slot for slot, *_ in rows], np.int64)
        scales = np.array([scale for _, _, scale, _ in rows], np.float32)
        return found, Quantized(whole.reshape(len(rows), -1 if rows else 0).astype(np.int16), scales)

    def allowed(self, where: Mapping[str, Any]) -> Slots:
        """The slots of what a filter lets through. Raises `DataError` for a filter that cannot be read."""
        sql, parameters = filters.condition(where)
        with self.reading() as view:
            rows = view.execute(f"SELECT slot FROM passages WHERE {sql}", parameters)
            return np.fromiter((slot for (slot,) in rows), np.int64)

    def matching(
        self, words: Sequence[str], most: int, where: Mapping[str, Any] | None, having: Sequence[str] = ()
    ) -> list[tuple[int, float]]:
        """Slots and BM25 scores of the passages with any of the words, and any of `having` if given, the best first.

        Walking a list of passages is cheap, scoring one is dear: `+` keeps FTS5 from seeking each one anew, and a score
        is computed for those alone that have one of the second words.
        """
        sql, parameters = "", [expression(words)]
        if having:
            sql += " AND +rowid IN (SELECT rowid FROM words WHERE words MATCH ?)"
            parameters.append(expression(having))
        if where is not None:
            only, given = filters.condition(where)
            sql += f" AND rowid IN (SELECT slot FROM passages WHERE {only})"
            parameters += given
        with self.reading() as view:
            return view.execute(
                f"SELECT rowid, -rank FROM words WHERE words MATCH ?{sql} ORDER BY rank, rowid LIMIT ?",
                [*parameters, most],
            ).fetchall()

    def frequency(self, word: str, most: int) -> int:
        """How many passages have the word; counting stops at `most`."""
        with self.reading() as view:
            (found,) = view.execute(
                "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)", [expression([word]), most]
            ).fetchone()
        return int(found)

    def hits(self, scores: Mapping[int, float]) -> list[Hit]:
        """What lies in these slots, in their order; what is gone by now is left out."""
        with self.reading() as view:
            return self._hits(view, scores)

    def _hits(self, view: sqlite3.Connection, scores: Mapping[int, float]) -> list[Hit]:
        marks = ", ".join("?" * len(scores))
        found = {
            slot: Hit(
                key=key,
                text=text,
                title=title,
                answer=answer,
                position=position,
                metadata=json.loads(metadata),
                score=scores[slot],
            )
            for slot, key, text, title, answer, position, metadata in view.execute(
                "SELECT slot, key, text, title, answer, position, metadata FROM passages JOIN documents"
                f" ON id = document WHERE slot IN ({marks})",
                list(scores),
            )
        }
        return [found[slot] for slot in scores if slot in found]

    def slots_of(self, keys: Sequence[str]) -> dict[str, list[int]]:
        """The slots of each document that is there, in the order of its passages."""
        found = dict[str, list[int]]()
        with self.reading() as view:
            for key in keys:
                slots = view.execute(
                    "SELECT slot FROM documents JOIN passages ON document = id WHERE key = ? ORDER BY position", [key]
                ).fetchall()
                if slots:
                    found[key] = [slot for (slot,) in slots]
        return found

    def numbered(self, after: int, most: int) -> list[tuple[int, Document]]:
        """Documents in the order in which they came, those after one number: one that was replaced has come anew."""
        with self.reading() as view:
            rows = view.execute(
                "SELECT id, key, title, answer, metadata FROM documents WHERE id > ? ORDER BY id LIMIT ?", [after, most]
            ).fetchall()
            return [
                (
                    number,
                    Document(
                        key=key,
                        title=title,
                        answer=answer,
                        metadata=json.loads(metadata),
                        passages=_passages(view, number),
                    ),
                )
                for number, key, title, answer, metadata in rows
            ]

    def keys(self, after: str, most: int) -> list[str]:
        """Keys in their order, those after one key."""
        with self.reading() as view:
            rows = view.execute("SELECT key FROM documents WHERE key > ? ORDER BY key LIMIT ?", [after, most])
            return [key for (key,) in rows]

    def counts(self) -> tuple[int, int]:
        """How many documents and how many passages there are."""
        with self.reading() as view:
            (documents,) = view.execute("SELECT count(*) FROM documents").fetchone()
            (passages,) = view.execute("SELECT count(*) FROM codes").fetchone()
        return documents, passages

    def check(self) -> list[str]:
        """What SQLite finds wrong in its file; nothing if it is whole."""
        with self.reading() as view:
            found = [row for (row,) in view.execute("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    # Writing --------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: durable when it ends, undone if anything is raised in it."""
        assert self._writer is not None
        with self._ours():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _ours(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise schema.broken(self._index, error) from error

    def close(self) -> None:
        """Close both connections; the last one that closes folds the log into the database."""
        with self._lock:
            self._reader.close()
            if self._writer is not None:
                self._writer.close()


def _passages(view: sqlite3.Connection, number: int) -> tuple[str, ...]:
    rows = view.execute("SELECT text FROM passages WHERE document = ? ORDER BY position", [number])
    return tuple(text for (text,) in rows)


def set_about(writer: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    """Write down what the index says of itself."""
    writer.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values.items())


def insert(writer: sqlite3.Connection, document: Document, slots: Iterable[int]) -> None:
    """A document that is not there, its passages in these slots."""
    metadata = json.dumps(document.metadata, ensure_ascii=False)
    number = writer.execute(
        "INSERT INTO documents(key, title, answer, metadata) VALUES (?, ?, ?, ?)",
        [document.key, document.title, document.answer, metadata],
    ).lastrowid
    writer.executemany("INSERT OR IGNORE INTO fields VALUES (?, ?, ?)", _fields(document, number))
    for position, (slot, text) in enumerate(zip(slots, document.passages, strict=True)):
        writer.execute("INSERT INTO passages VALUES (?, ?, ?, ?)", [slot, number, position, text])
        writer.execute("INSERT INTO words(rowid, text) VALUES (?, ?)", [slot, indexed(text)])


def _fields(document: Document, number: int | None) -> Iterator[tuple[str, Any, int | None]]:
    for name, value in document.metadata.items():
        for item in value if isinstance(value, list | tuple) else (value,):
            yield name, filters.stored(item), number


def insert_vectors(
    writer: sqlite3.Connection, slots: Slots, rows: Quantized, crcs: Iterable[int], version: int
) -> None:
    """The exact vectors of these slots, and what is known of their codes."""
    exact = [row.astype("<i2").tobytes() for row in rows.exact]
    numbers = slots.tolist()
    writer.executemany(
        "INSERT INTO vectors VALUES (?, ?, ?, ?)",
        zip(numbers, exact, rows.scales.tolist(), map(checksum, exact), strict=True),
    )
    writer.executemany(
        "INSERT INTO codes VALUES (?, ?, ?, ?)",
        zip(numbers, rows.coarse_scales.tolist(), crcs, [version] * len(numbers), strict=True),
    )


def remove(writer: sqlite3.Connection, key: str) -> list[int]:
    """Take a document out, if it is there; the slots that it had."""
    found = writer.execute("SELECT id FROM documents WHERE key = ?", [key]).fetchone()
    if found is None:
        return []
    rows = writer.execute("SELECT slot, text FROM passages WHERE document = ?", found).fetchall()
    for slot, text in rows:
        writer.execute("INSERT INTO words(words, rowid, text) VALUES ('delete', ?, ?)", [slot, indexed(text)])
        for table in ("passages", "vectors", "codes"):
            writer.execute(f"DELETE FROM {table} WHERE slot = ?", [slot])
    writer.execute("DELETE FROM fields WHERE document = ?", found)
    writer.execute("DELETE FROM documents WHERE id = ?", found)
    return [slot for slot, _ in rows]
