"""Filters on metadata: a JSON object becomes SQL over the table of fields, every value a parameter.

    {"language": "en"}                      the field is, or its list has, this value
    {"language": ["en", "de"]}              any of these
    {"year": {"gte": 2000, "lt": 2010}}     gt, gte, lt, lte: numbers with numbers, texts with texts
    {"status": {"not": "draft"}}            none of these; a document without the field is kept

All fields of a filter must hold.
"""

from collections.abc import Mapping
from typing import Any

from tightrope.device.index.documents import MAX_FIELDS, Scalar, scalar
from tightrope.errors import DataError

_COMPARED = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_MOST_VALUES = 1000

Condition = tuple[str, list[Any]]
"""SQL, which is true of a passage by its `document`, and its parameters."""

_HAS = "document {} (SELECT document FROM fields WHERE name = ? AND {})"


def condition(where: Mapping[str, Any]) -> Condition:
    """The filter as SQL. Raises `DataError` for one that cannot be read."""
    if not isinstance(where, Mapping) or not 0 < len(where) <= MAX_FIELDS:
        raise DataError(
            f"{where!r:.60} is no filter.", hint=f"Give an object of 1 to {MAX_FIELDS} fields and what they must be."
        )
    parts, parameters = [], list[Any]()
    for name, wanted in where.items():
        for sql, given in _conditions(name, wanted):
            parts.append(sql)
            parameters += given
    return " AND ".join(parts), parameters


def _conditions(name: str, wanted: Any) -> list[Condition]:
    name = str(scalar(name, name))
    if not isinstance(wanted, Mapping):
        return [_any_of(name, wanted, "IN")]
    ranges = {key: value for key, value in wanted.items() if key != "not"}
    if not wanted or not ranges.keys() <= _COMPARED.keys():
        raise DataError(
            f"{wanted!r:.60} says nothing of {name!r:.60}.", hint=f"Known are {', '.join(_COMPARED)} and not."
        )
    found = [_within(name, ranges)] if ranges else []
    return found + ([_any_of(name, wanted["not"], "NOT IN")] if "not" in wanted else [])


def _any_of(name: str, wanted: Any, how: str) -> Condition:
    values = [scalar(name, value) for value in (wanted if isinstance(wanted, list | tuple) else [wanted])]
    if not 0 < len(values) <= _MOST_VALUES:
        raise DataError(
            f"{name!r:.60} is compared with {len(values)} values.", hint=f"Give 1 to {_MOST_VALUES} of them."
        )
    marks = ", ".join("?" * len(values))
    return _HAS.format(how, f"value IN ({marks})"), [name, *map(stored, values)]


def _within(name: str, ranges: Mapping[str, Any]) -> Condition:
    """Both ends of a range hold for the same value of a list. SQLite would sort every text after every number."""
    values = [scalar(name, value) for value in ranges.values()]
    kinds = {"text" if isinstance(value, str) else "number" for value in values}
    if len(kinds) != 1 or any(isinstance(value, bool) for value in values):
        raise DataError(f"{dict(ranges)!r:.60} is no range.", hint="Give numbers, or texts.")
    ends = " AND ".join(f"value {_COMPARED[key]} ?" for key in ranges)
    kind = "typeof(value) = 'text'" if kinds == {"text"} else "typeof(value) != 'text'"
    return _HAS.format("IN", f"{ends} AND {kind}"), [name, *values]


def stored(value: Scalar) -> Scalar:
    """A value as the table of fields keeps it: true and false as texts of their own, so that they are no numbers.

    >>> stored(True), stored(1), stored("en")
    ('\\x00true', 1, 'en')
    """
    return ("\0true" if value else "\0false") if isinstance(value, bool) else value
