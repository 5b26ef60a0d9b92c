"""Files to texts: txt, md, html, csv, jsonl by the standard library, pdf by pypdf.

A reader yields what it finds; what cannot be read raises `DataError`, and the build goes on with the next file. Nothing
in a file is executed, and nothing that it points to is fetched.
"""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tightrope.errors import DataError, MissingExtraError
from tightrope.plugins import import_optional

MOST_BYTES = 200_000_000
LOOKED_AT_BYTES = 1_000_000
"""Of a file, to see whether it is text."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\v\f\r\x1a\x1b") + b"\x7f"
_TEXT_FIELDS = ("text", "content", "body", "passage")
_KEY_FIELDS = ("key", "id", "_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a file holds, or a line of it: a document before it is cut. An empty `key` is that of the file alone."""

    text: str
    key: str = ""
    title: str = ""
    answer: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Iterator[Source]:
    """The documents of a file, by its suffix. Raises `DataError` for one that cannot be read."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is of no known kind.", hint=f"Known are: {', '.join(READERS)}.")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} is larger than {MOST_BYTES // 10**6} MB.", hint="Divide it.")
        if reader is not _pdf:
            _check_is_text(path)
        yield from reader(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", hint="Allow this user to read it.") from error


def _text(path: Path) -> Iterator[Source]:
    yield Source(text=_decoded(path), title=path.stem)


def _markdown(path: Path) -> Iterator[Source]:
    """The text with its headings, without addresses of links and pictures, comments and front matter."""
    text = _decoded(path)
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]\n]*)\]\([^)\n]*\)", r"\1", text)
    text = re.sub(r"^(```|~~~).*$", "", text, flags=re.MULTILINE)
    heading = re.search(r"^#+\s+(.+?)\s*#*$", text, re.MULTILINE)
    text = re.sub(r"^#+\s+(.+?)\s*#*$", r"\n\1.\n", text, flags=re.MULTILINE)
    yield Source(text=text, title=heading[1] if heading else path.stem)


def _html(path: Path) -> Iterator[Source]:
    page = _Page()
    page.feed(_decoded(path))
    page.close()
    yield Source(text="".join(page.found), title=" ".join("".join(page.title).split()) or path.stem)


def _csv(path: Path) -> Iterator[Source]:
    csv.field_size_limit(min(sys.maxsize, MOST_BYTES))
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        sample = stream.read(65536)
        stream.seek(0)
        try:
            dialect: Any = csv.Sniffer().sniff(sample.partition("\n")[0], ",;\t|")
        except csv.Error:
            dialect = csv.excel
        rows = csv.DictReader(stream, dialect=dialect, restkey="more", restval="")
        try:
            for line, row in enumerate(rows, 2):
                yield _record({name: value for name, value in row.items() if name != "more"}, path, line)
        except csv.Error as error:
            raise DataError(f"{path} is no CSV: {error}.", hint="Save it as CSV with a line of names.") from error


def _jsonl(path: Path) -> Iterator[Source]:
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number} is no JSON: {error}.", hint="Give one object a line.") from error
            if not isinstance(record, dict):
                raise DataError(f"{path}:{number} is no object.", hint="Give one object a line.")
            yield _record(record, path, number)


def _record(record: Mapping[str, Any], path: Path, line: int) -> Source:
    """A line of a table: `question` and `answer`, or a text; a key and a title if it has them; the rest is metadata."""
    texts = ("question",) if record.get("answer") else _TEXT_FIELDS
    text = next((name for name in texts if record.get(name)), None)
    if text is None and not any(name in record for name in ("question", *_TEXT_FIELDS)):
        wanted = ", ".join(("question and answer", *_TEXT_FIELDS))
        raise DataError(f"{path}:{line} has no text.", hint=f"Name the columns: {wanted}.")
    key = next((name for name in _KEY_FIELDS if record.get(name) not in (None, "")), "")
    nested = record.get("metadata")
    known = {text, key, "answer", "title", "metadata"}
    others = {name: value for name, value in record.items() if name not in known and value not in (None, "")}
    return Source(
        text=str(record[text]) if text else "",
        key=str(record[key]) if key else f"{path.name}:{line}",
        title=str(record.get("title") or ""),
        answer=str(record.get("answer") or ""),
        metadata={**others, **(nested if isinstance(nested, dict) else {})},
    )


def _pdf(path: Path) -> Iterator[Source]:
    pypdf = import_optional("pypdf", wanted_by="reading PDF")
    try:
        document = pypdf.PdfReader(path)
        if document.is_encrypted and not document.decrypt(""):
            raise DataError(f"{path} is locked with a password.", hint="Save it without one.")
        pages = [page.extract_text() for page in document.pages]
        title = str((document.metadata or {}).get("/Title") or "")
    except (DataError, MissingExtraError, OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file raises anything there
        raise DataError(f"{path} is no PDF that can be read: {error}.", hint="Save it anew.") from error
    yield Source(text="\n\n".join(pages), title=title or path.stem)


def _check_is_text(path: Path) -> None:
    """Raise `DataError` for a picture, a program or an archive, whatever it is called."""
    with path.open("rb") as stream:
        start = stream.read(LOOKED_AT_BYTES)
    if start[:2] in _UTF_16:
        return
    strange = len(start) - len(start.translate(None, _CONTROLS))
    if b"\0" in start or strange > len(start) / 20:
        raise DataError(f"{path} holds no text but other bytes.", hint="Leave it out, or save its text as UTF-8.")


def _decoded(path: Path) -> str:
    """UTF-8, or UTF-16 with its mark, or what Western Windows writes."""
    data = path.read_bytes()
    if data[:2] in _UTF_16:
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


class _Page(HTMLParser):
    """The text of a page: without scripts and styles, a paragraph for each block."""

    _SILENT = frozenset({"script", "style", "template", "noscript", "svg"})
    _INLINE = frozenset(
        {
            "a",
            "abbr",
            "b",
            "bdi",
            "cite",
            "code",
            "em",
            "i",
            "kbd",
            "mark",
            "q",
            "s",
            "small",
            "span",
            "strong",
            "sub",
            "sup",
            "time",
            "u",
            "var",
            "wbr",
        }
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.title: list[str] = []
        self._silent = 0
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in self._SILENT
        self._in_title = tag == "title"
        if tag not in self._INLINE:
            self.found.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._SILENT and self._silent:
            self._silent -= 1
        self._in_title = False
        if tag not in self._INLINE:
            self.found.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._silent:
            self.found.append(data)


READERS: dict[str, Callable[[Path], Iterator[Source]]] = {
    ".txt": _text,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".pdf": _pdf,
}
"""Each kind of file by its suffix, and how it is read."""
