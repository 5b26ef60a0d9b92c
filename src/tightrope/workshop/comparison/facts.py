"""What is known of engines without asking them: names, licences, wheels, and what they take on disk here."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

from tightrope import device, plugins
from tightrope.workshop.comparison.outcome import Engine

LIBRARIES = ("libtightrope.so", "libtightrope.dylib")


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    text = (files("tightrope.workshop.comparison") / "engines.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def known(name: str, version: str | None = None) -> Engine:
    """All that is known of an engine. `version` is what the engine itself says, if it was asked."""
    if name not in _table():
        return replace(_from_metadata(name), version=version)
    entry = _table()[name]
    size = _library_bytes() if name == "native" else installed_bytes(entry["distributions"])
    described = {key: entry[key] for key in ("title", "license", "python", "architectures", "source")}
    return Engine(name=name, version=version, install_bytes=size, **described)


def installed_bytes(distributions: Iterable[str]) -> int | None:
    """What the files of these distributions take together, by their own records; `None` if the first is not here."""
    total = 0
    for position, name in enumerate(distributions):
        try:
            listed = metadata.distribution(name).files or ()
        except metadata.PackageNotFoundError:
            if position == 0:
                return None
            continue
        total += sum(_size(Path(str(item.locate()))) for item in listed)
    return total or None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # byte code that was never written, or was removed


def _library_bytes() -> int | None:
    sizes = [_size(Path(folder) / name) for folder in device.__path__ for name in LIBRARIES]
    return max(sizes) or None


def _from_metadata(name: str) -> Engine:
    """An engine of another package, as that package describes itself."""
    for entry in metadata.entry_points(group="tightrope.runtimes", name=name):
        if entry.dist is not None:
            about, named = entry.dist.metadata.json, entry.dist.name
            return Engine(
                name=name,
                title=name,
                license=_text(about.get("license_expression") or about.get("license")),
                python=_text(about.get("requires_python")),
                source=f"{named} {entry.dist.version}, by its own metadata",
                install_bytes=installed_bytes([named]),
            )
    return Engine(name=name, title=name)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def names() -> tuple[str, ...]:
    """Every engine that has a converter and a runtime, installed or not: those that come first begin."""
    rooms = [set(plugins.names(room)) for room in ("converters", "runtimes")]
    both = rooms[0] & rooms[1]
    return (*(name for name in _table() if name in both), *sorted(both - set(_table())))
