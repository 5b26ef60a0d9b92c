"""A run on disk: one JSON file, read back with every value checked, so that a report never stumbles over it.

JSON has no nan and no infinity. Where a broken candidate measured one, the file says `null`, and reading gives nan.
"""

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from tightrope.bundle import cannot_write, write_atomic
from tightrope.errors import DataError
from tightrope.workshop.comparison.outcome import Comparison
from tightrope.workshop.search.trial import Run

MAX_RUN_BYTES = 64_000_000


class _Malformed(Exception):
    """Where a value is not what a run holds there, and what it is."""


def write_run(run: Run | Comparison, path: Path) -> None:
    """Write a run or a comparison as JSON, at once or not at all. Raises `OutputError` if it cannot be written."""
    try:
        write_atomic(path, (json.dumps(plain(run), indent=1, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def plain(run: Run | Comparison) -> dict[str, Any]:
    """A run or a comparison as JSON can say it: `to_json`, with `None` for what is not a finite number."""
    data: dict[str, Any] = _finite(run.to_json())
    return data


def read_run(path: Path) -> Run:
    """Read what `write_run` or `fit --json` wrote. Raises `DataError` that names the value that is wrong."""
    hint = "Give the file that `tightrope fit --json` wrote."
    data = _read(path, hint)
    try:
        run = Run.from_json(_checked(data, Run, "the run"))
        _check_names(run)
    except _Malformed as error:
        raise DataError(f"{path} is not a run: {error}.", hint=hint) from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not a run of this version: {error}.", hint=hint) from error
    return run


def read_comparison(path: Path) -> Comparison:
    """Read what `write_run` or `compare --json` wrote. Raises `DataError` that names the value that is wrong."""
    hint = "Give the file that `tightrope compare --json` wrote."
    data = _read(path, hint)
    try:
        return Comparison.from_json(_checked(data, Comparison, "the comparison"))
    except _Malformed as error:
        raise DataError(f"{path} is not a comparison: {error}.", hint=hint) from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not a comparison of this version: {error}.", hint=hint) from error


def is_comparison(path: Path) -> bool:
    """Whether a file looks like a comparison rather than a run. Raises `DataError` if it is no JSON."""
    data = _read(path, "Give the file that `tightrope fit --json` or `tightrope compare --json` wrote.")
    return isinstance(data, dict) and "cells" in data


def _read(path: Path, hint: str) -> Any:
    try:
        if path.stat().st_size > MAX_RUN_BYTES:
            raise DataError(f"{path} is larger than {MAX_RUN_BYTES:,} bytes.", hint=hint)
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}.", hint=hint) from error


def _check_names(run: Run) -> None:
    known = {trial.recipe for trial in (*run.trials, run.baseline)}
    for name in (*run.frontier, run.chosen, run.nearest):
        if name is not None and name not in known:
            raise _Malformed(f"no trial has the recipe {name!r}")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _checked(value: Any, kind: Any, where: str) -> Any:
    """The value, if it is of that kind, with nan for the `null` of a number; raises `_Malformed`."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        inner = next(item for item in typing.get_args(kind) if item is not types.NoneType)
        return None if value is None else _checked(value, inner, where)
    if is_dataclass(kind):
        return _checked_fields(value, kind, where)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        return [_checked(part, item, f"{where}[{i}]") for i, part in enumerate(_of(list, value, "a list", where))]
    if origin is not None and origin is not Literal:
        item = typing.get_args(kind)[1]
        return {key: _checked(part, item, f"{where}[{key!r}]") for key, part in _object(value, where).items()}
    return _checked_leaf(value, kind, where)


def _checked_leaf(value: Any, kind: Any, where: str) -> Any:
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise _Malformed(f"{where} is {_brief(value)}, not one of {', '.join(typing.get_args(kind))}")
        return value
    if kind is float:
        if value is None:
            return math.nan
        number = _of((int, float), value, "a number", where)
        try:
            return float(number)
        except OverflowError:
            raise _Malformed(f"{where} is too large") from None
    if kind is int:
        if abs(_of(int, value, "a whole number", where)) >= 2**63:
            raise _Malformed(f"{where} is too large")
        return value
    return _of(kind, value, {str: "a text", bool: "true or false"}[kind], where)


def _checked_fields(value: Any, kind: Any, where: str) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    declared = {item.name: item for item in fields(kind)}
    given = _object(value, where)
    for name in given:
        if name not in declared:
            raise _Malformed(f"{where} has a field {name!r} that this version does not know")
    for name, item in declared.items():
        if name not in given and item.default is MISSING and item.default_factory is MISSING:
            raise _Malformed(f"{where} lacks {name!r}")
    prefix = "" if kind is Run else f"{where}."
    return {name: _checked(item, hints[name], f"{prefix}{name}") for name, item in given.items()}


def _object(value: Any, where: str) -> dict[str, Any]:
    found: dict[str, Any] = _of(dict, value, "an object", where)
    return found


def _of(kind: type | tuple[type, ...], value: Any, name: str, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _Malformed(f"{where} is {_brief(value)}, not {name}")
    return value


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
