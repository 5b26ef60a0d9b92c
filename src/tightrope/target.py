"""A target: a kind of device, with what it can spare and what runs there.

Targets are files in `targets/*.toml`: one more device is one more file. Their figures are those of its makers, each
with its source. What a device really does, `tightrope probe` measures there and writes as a target file of its own.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from tightrope.errors import DataError, UnknownNameError

RATES = "rates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of device. `isa` names the instruction sets that matter to int8 arithmetic.

    `clock_hz` and the multiply-adds of a cycle are of one core, by its best instructions; `bandwidth_bytes_per_s` is
    the memory's. `limits`: what to know before one is bought. `sources`: where each figure is from, by its name.
    `rates`: seconds by kind of work, for an engine in a precision, as a probe found them; empty if nobody probed one.
    """

    name: str
    description: str
    architecture: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    engines: tuple[str, ...]
    clock_hz: float | None = None
    float_macs_per_cycle: float | None = None
    int8_macs_per_cycle: float | None = None
    bandwidth_bytes_per_s: float | None = None
    limits: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def names() -> tuple[str, ...]:
    """The targets that this installation describes."""
    folder = files("tightrope") / "targets"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def load(name: str) -> Target:
    """Read one target: a known one by its name, or a file that a probe wrote, by a path that ends in `.toml`.

    Raises `UnknownNameError`, which lists the known ones, or `DataError` for a file that describes no target.
    """
    if name.endswith(".toml"):
        return _read_file(Path(name))
    if name not in names():
        known = ", ".join(names())
        raise UnknownNameError(
            f"There is no target {name!r}.", hint=f"Known: {known}; or the .toml file of `tightrope probe`."
        )
    return _target(name, tomllib.loads((files("tightrope") / "targets" / f"{name}.toml").read_text(encoding="utf-8")))


def _read_file(path: Path) -> Target:
    try:
        return _target(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", hint="Name a file of `tightrope probe`."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise DataError(
            f"{path} describes no target: {type(error).__name__}, {error}.", hint="Make it anew: tightrope probe."
        ) from error


def _target(name: str, given: Mapping[str, Any]) -> Target:
    unknown = set(given) - {item.name for item in fields(Target)}
    if unknown:
        raise ValueError(f"unknown words {', '.join(sorted(unknown))}")
    numbers = {
        key: float(given[key])
        for key in ("clock_hz", "float_macs_per_cycle", "int8_macs_per_cycle", "bandwidth_bytes_per_s")
        if key in given
    }
    return Target(
        name=name,
        description=str(given["description"]),
        architecture=str(given["architecture"]),
        isa=tuple(map(str, given["isa"])),
        cores=int(given["cores"]),
        memory_bytes=int(given["memory_bytes"]),
        engines=tuple(map(str, given["engines"])),
        limits=tuple(map(str, given.get("limits", ()))),
        sources={str(key): str(value) for key, value in given.get("sources", {}).items()},
        measured=_floats(given.get("measured", {})),
        rates={str(key): _floats(value) for key, value in given.get(RATES, {}).items()},
        **numbers,
    )


def _floats(given: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): float(value) for key, value in given.items()}


def written(target: Target) -> str:
    """A target as the text of a TOML file, which `load` reads back. TOML's strings and arrays of them are JSON's."""
    plain: list[str] = []
    tables: list[str] = []
    for item in fields(Target):
        value = getattr(target, item.name)
        if item.name == "name" or value is None or value in ((), {}):
            continue
        if not isinstance(value, Mapping):
            plain.append(f"{item.name} = {_toml(value)}")
            continue
        parts = value if item.name == RATES else {"": value}
        for part, pairs in parts.items():
            head = f"[{item.name}.{json.dumps(part)}]" if part else f"[{item.name}]"
            tables.append("\n".join([head, *(f"{json.dumps(key)} = {_toml(one)}" for key, one in pairs.items())]))
    return "\n".join(plain) + "\n" + "".join(f"\n{table}\n" for table in tables)


def _toml(value: object) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
