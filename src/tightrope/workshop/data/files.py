"""Bytes to text and lines, with errors that name the line."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightrope.errors import DataError

MOST_BYTES = 2_000_000_000
ENCODING_HINT = "Save it as UTF-8."


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one record, and the line where it begins."""

    line: int
    fields: tuple[str, ...]


def wrong(path: Path, line: int | None, what: str, hint: str) -> DataError:
    """The error for one line of a file (or the whole file)."""
    where = f"{path.name}, line {line}" if line is not None else path.name
    return DataError(f"{where}: {what}", hint=hint)


def read_text(path: Path) -> str:
    """The whole file as text, without a byte order mark. Raises `DataError` for what is not UTF-8 text."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise wrong(path, None, f"{size:,} bytes are more than {MOST_BYTES:,}.", "Give a part of it.")
        data = path.read_bytes()
    except OSError as error:
        raise wrong(
            path, None, f"it cannot be read: {error.strerror}.", "Check the path and its permissions."
        ) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise wrong(path, 1, "it is UTF-16, not UTF-8.", ENCODING_HINT)
    nul = data.find(b"\0")
    if nul >= 0:
        raise wrong(path, _line(data, nul), "there is a NUL byte.", "Give a text file.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"the byte 0x{data[error.start]:02x} is not UTF-8."
        raise wrong(path, _line(data, error.start), byte, ENCODING_HINT) from error
    if not text.strip():
        raise wrong(path, None, "it is empty.", "Give at least a few texts.")
    return text


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Lines that are not blank, with their numbers. Only \n and \r\n end a line, as editors count."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def rows(path: Path) -> list[Row]:
    """The records of a .csv or .tsv file. A file with a tab in its first line is tab-separated, whatever its name."""
    text = read_text(path)
    first = next(lines(text))[1]
    if "\t" in first or path.suffix.lower() == ".tsv":
        return [Row(number, tuple(map(_unquoted, line.split("\t")))) for number, line in lines(text)]
    return list(_comma_separated(path, text, ";" if ";" in first and "," not in first else ","))


def _unquoted(field: str) -> str:
    """Quotes are plain characters between tabs, unless a spreadsheet doubled the inner ones."""
    inner = field[1:-1]
    if len(field) > 3 and field[0] == field[-1] == '"' and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return field


def _comma_separated(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin = 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield Row(begin, tuple(fields))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise wrong(
            path, begin, f"the quotes do not close ({error}).", 'Write a quote inside a quoted field as "".'
        ) from error


def objects(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a .jsonl file with their lines."""
    for number, line in lines(read_text(path)):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise wrong(path, number, f"it is not JSON: {error}.", "Write one JSON object on each line.") from error
