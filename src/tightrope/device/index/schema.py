"""The tables of an index, and how a database is opened: docs/formats/index.md describes them."""

import os
import sqlite3
from pathlib import Path

from tightrope.errors import OutputError, SearchError, TightropeError

APPLICATION = 0x74726978
FORMAT = 1
TABLES = """
CREATE TABLE about(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE documents(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    answer TEXT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE TABLE fields(
    name TEXT NOT NULL, value NOT NULL, document INTEGER NOT NULL, PRIMARY KEY(name, value, document)
) WITHOUT ROWID;
CREATE INDEX fields_of ON fields(document);
CREATE TABLE passages(
    slot INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents(id), position INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX passages_of ON passages(document, position);
CREATE TABLE vectors(slot INTEGER PRIMARY KEY, exact BLOB NOT NULL, scale REAL NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE codes(slot INTEGER PRIMARY KEY, scale REAL NOT NULL, checksum INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize="porter unicode61 remove_diacritics 2");
"""
"""`id`s are never used again: what was seen as one document never turns into another."""

_SETTINGS = """
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA cache_size = -1024;
PRAGMA busy_timeout = 5000;
"""
_WRITING = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 500;"


def create(path: Path) -> sqlite3.Connection:
    """A new database with the tables."""
    connection = _connect(f"file:{_quoted(path)}?mode=rwc")
    connection.executescript(_SETTINGS + _WRITING)
    connection.executescript(TABLES)
    connection.executescript(f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};")
    return connection


def connect(path: Path, *, writing: bool) -> sqlite3.Connection:
    """The database of an index. Raises `SearchError` for a file that is none, or one of another format."""
    try:
        connection = _connect(f"file:{_quoted(path)}?{'mode=rw' if writing else _reading(path)}")
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if (application, version) != (APPLICATION, FORMAT):
                raise SearchError(
                    f"{path.parent.parent} is not an index of format {FORMAT}.", hint="Build it with this tightrope."
                )
            connection.executescript(_SETTINGS + (_WRITING if writing else ""))
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise broken(path.parent.parent, error) from error
    return connection


def _connect(address: str) -> sqlite3.Connection:
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


def _reading(path: Path) -> str:
    """A reader shares the writer's log, for which it needs the right to write; on a read-only disk nobody writes."""
    return "mode=ro" if os.access(path.parent, os.W_OK) else "mode=ro&immutable=1"


def _quoted(path: Path) -> str:
    """A path as SQLite's addresses want it."""
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def broken(index: Path, error: sqlite3.Error) -> TightropeError:
    """An error of SQLite in our words: a full disk is an `OutputError`, the rest a `SearchError`."""
    if "full" in str(error) or "readonly" in str(error):
        return OutputError(
            f"{index} cannot be written: {error}.", hint="Give it space and write permission; nothing was changed."
        )
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return closed(index)
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return SearchError(f"{index} is in use by another process.", hint="Try again when that is done.")
    return SearchError(f"{index} cannot be read: {error}.", hint="It is damaged: build it anew from its documents.")


def closed(index: Path) -> SearchError:
    """The error for an index that was closed."""
    return SearchError(f"{index} is closed.", hint="Open it again.")
