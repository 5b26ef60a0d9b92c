"""Tables of texts: .txt, .tsv, .csv and .jsonl, with a header or without.

With a header, columns are found by the names people use (`NAMES`). Without one: text; text and text; text, text and
score; score, text and text; or the layout of the STS Benchmark (tab-separated, the score in column 5, the texts in
columns 6 and 7). Scores that are only 0 and 1 make labelled pairs, any others graded ones; pairs with neither are
read as texts.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tightrope.errors import DataError
from tightrope.samples import LabelledPairs, ScoredPairs, Texts
from tightrope.workshop.data.files import Row, lines, objects, read_text, rows, wrong

SUFFIXES = (".txt", ".tsv", ".csv", ".jsonl")
Role = Literal["text", "first", "second", "score", "label"]

NAMES: Mapping[Role, tuple[str, ...]] = {
    "text": ("text", "sentence", "content", "review"),
    "first": (
        *("text_a", "text1", "text_1", "sentence1", "sentence_1", "sentence_a", "query", "question", "question1"),
        *("anchor", "premise", "#1 string"),
    ),
    "second": (
        *("text_b", "text2", "text_2", "sentence2", "sentence_2", "sentence_b", "passage", "document", "answer"),
        *("question2", "candidate", "positive", "hypothesis", "#2 string"),
    ),
    "score": ("score", "similarity", "similarity_score", "relatedness_score"),
    "label": ("label", "is_duplicate", "match", "quality"),
}
"""What each column may be called, in any case."""

STS_BENCHMARK_RANGE = (0.0, 5.0)
OUTLIERS = 0.01
"""Below this share, labels that are neither 0 nor 1 are mistakes, not grades."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Records, the column of each role, and the range that scores must lie in, where the layout has one."""

    path: Path
    rows: list[Row]
    columns: Mapping[Role, int]
    limits: tuple[float, float] | None = None


def read_table(path: Path, kind: str | None = None) -> Texts | ScoredPairs | LabelledPairs:
    """Read one file; see `tightrope.workshop.data.read`."""
    table = _open(path)
    if "first" in table.columns and kind != "texts":
        if "score" in table.columns or "label" in table.columns:
            return _pairs(table, kind)
        if kind is not None:
            raise wrong(path, table.rows[0].line, "there is no column for the score.", _expected("label"))
    if kind in ("sts", "pairs"):
        raise wrong(path, table.rows[0].line, "there are texts, but no pairs.", _expected("first", "second"))
    parts: tuple[Role, ...] = ("first", "second") if "first" in table.columns else ("text",)
    texts = dict.fromkeys(text for row in table.rows for part in parts if (text := _field(table, row, part).strip()))
    return Texts(tuple(texts))


def _open(path: Path) -> Table:
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return _from_objects(path)
    if suffix == ".txt":
        plain = list(lines(read_text(path)))
        if any("\t" not in line for _, line in plain):
            return Table(path=path, rows=[Row(number, (line,)) for number, line in plain], columns={"text": 0})
    return _from_rows(path, rows(path))


def _from_objects(path: Path) -> Table:
    found = list(objects(path))
    if all(isinstance(value, str) for _, value in found):
        return Table(path=path, rows=[Row(number, (value,)) for number, value in found], columns={"text": 0})
    for number, value in found:
        if not isinstance(value, dict):
            raise wrong(path, number, f"it is a {type(value).__name__}, not an object.", _expected("first", "second"))
    names = list(found[0][1])
    records = []
    for number, value in found:
        missing = next((name for name in names if name not in value), None)
        if missing is not None:
            raise wrong(
                path, number, f"it has no {missing!r}, as line {found[0][0]} has.", "Give every line the same keys."
            )
        records.append(Row(number, tuple(_written(value[name]) for name in names)))
    return Table(path=path, rows=records, columns=_by_name(path, names, found[0][0]))


def _written(value: object) -> str:
    """A JSON value as a table would hold it: true and false are the labels 1 and 0."""
    return str(int(value)) if isinstance(value, bool) else "" if value is None else str(value)


def _from_rows(path: Path, records: list[Row]) -> Table:
    if not records:
        raise wrong(path, None, "every line is empty.", "Give at least a few texts.")
    head = records[0]
    names = [name.strip().lower() for name in head.fields]
    known = {name for group in NAMES.values() for name in group}
    if known.intersection(names) and (len(names) == 1 or all(len(name) < 40 for name in names)):
        if len(records) == 1:
            raise wrong(path, head.line, "there is a header, but nothing below it.", "Give at least a few texts.")
        return Table(path=path, rows=records[1:], columns=_by_name(path, names, head.line))
    if len(names) >= 7 and _number(head.fields[4]) is not None:
        columns: dict[Role, int] = {"score": 4, "first": 5, "second": 6}
        return Table(path=path, rows=records, columns=columns, limits=STS_BENCHMARK_RANGE)
    return Table(path=path, rows=records, columns=_by_content(path, records))


def _by_name(path: Path, names: list[str], line: int) -> dict[Role, int]:
    lowered = [name.strip().lower() for name in names]
    found: dict[Role, int] = {}
    for role, known in NAMES.items():
        places = [place for place, name in enumerate(lowered) if name in known]
        if places:
            found[role] = places[0]
    columns = ", ".join(repr(name) for name in names)
    if ("first" in found) != ("second" in found):
        if "text" in found and ("score" in found or "label" in found) and len(lowered) > 2:
            pass  # such as text, query, label: told below what is missing
        elif "text" in found:
            return {"text": found["text"]}
        missing: Role = "second" if "first" in found else "first"
        if "score" not in found and "label" not in found:  # one column of texts under another name
            return {"text": found["first" if "first" in found else "second"]}
        raise wrong(path, line, f"there is no {missing} text among {columns}.", _expected(missing))
    if "first" not in found and "text" not in found:
        raise wrong(path, line, f"there is no text among the columns {columns}.", _expected("text", "first", "second"))
    return found


def _by_content(path: Path, records: list[Row]) -> dict[Role, int]:
    """Columns of a file without header, by what the first records hold."""
    count = len(records[0].fields)
    sample = [row.fields for row in records[:50] if len(row.fields) == count]
    shares = [sum(_number(fields[place]) is not None for fields in sample) / len(sample) for place in range(count)]
    if count == 1:
        return {"text": 0}
    if count == 2 and max(shares) < 1:
        return {"first": 0, "second": 1}
    if count == 3 and shares[0] == 1:
        return {"score": 0, "first": 1, "second": 2}
    if count == 3 and shares[2] >= 0.5:  # a line that is wrong is told by its own number
        return {"first": 0, "second": 1, "score": 2}
    raise wrong(
        path,
        records[0].line,
        f"{count} columns without a header that is understood.",
        _expected("first", "second", "label"),
    )


def _expected(*roles: Role) -> str:
    wanted = "; ".join(f"{role}: {', '.join(NAMES[role][:3])}" for role in roles)
    return f"Name the columns in the first line ({wanted}); see docs/guide/data.md."


def _field(table: Table, row: Row, role: Role) -> str:
    place = table.columns[role]
    if place >= len(row.fields):
        wanted = max(table.columns.values()) + 1
        raise wrong(
            table.path,
            row.line,
            f"{len(row.fields)} columns, where {wanted} are needed.",
            "Complete or remove the line.",
        )
    return row.fields[place]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _pairs(table: Table, kind: str | None) -> ScoredPairs | LabelledPairs:
    pairs, scores = [], []
    for row, score in zip(table.rows, _scores(table), strict=True):
        first, second = _field(table, row, "first").strip(), _field(table, row, "second").strip()
        if not first or not second:
            raise wrong(table.path, row.line, "one of the two texts is empty.", "Complete or remove the line.")
        pairs.append((first, second))
        scores.append(score)
    if kind == "pairs" or (kind is None and _are_labels(table, scores)):
        _check_labels(table, scores)
        return LabelledPairs(pairs=tuple(pairs), labels=tuple(int(score) for score in scores))
    if len(set(scores)) == 1:
        raise wrong(table.path, None, f"every score is {scores[0]:g}, so nothing can be ranked.", "Give graded pairs.")
    return ScoredPairs(pairs=tuple(pairs), scores=tuple(scores))


def _scores(table: Table) -> Iterator[float]:
    role: Role = "score" if "score" in table.columns else "label"
    low, high = table.limits or (-math.inf, math.inf)
    for row in table.rows:
        written = _field(table, row, role)
        value = _number(written)
        if value is None or not math.isfinite(value):
            raise wrong(table.path, row.line, f"the {role} {written!r} is not a number.", "Correct or remove the line.")
        if not low <= value <= high:
            raise wrong(
                table.path,
                row.line,
                f"the score {value:g} is out of range.",
                f"Scores here lie from {low:g} to {high:g}.",
            )
        yield value


def _are_labels(table: Table, scores: list[float]) -> bool:
    others = sum(score not in (0, 1) for score in scores)
    return others == 0 or (
        "label" in table.columns and "score" not in table.columns and others < OUTLIERS * len(scores)
    )


def _check_labels(table: Table, scores: list[float]) -> None:
    for row, score in zip(table.rows, scores, strict=True):
        if score not in (0, 1):
            raise wrong(
                table.path, row.line, f"the label {score:g} is out of range.", "Labels are 0 (differs) and 1 (matches)."
            )
    if len(set(scores)) == 1:
        raise DataError(
            f"{table.path.name}: every label is {scores[0]:g}.", hint="Give pairs that match and pairs that do not."
        )
