"""A target: a kind of device, with what it can spare and what runs there.

Targets are files in `targets/*.toml`: one more device is one more file. What the machine
at hand really is, the machine itself tells (`tightrope.device.machine`).
"""

import tomllib
from dataclasses import dataclass
from importlib.resources import files

from tightrope.errors import UnknownNameError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of device. `isa` names the instruction sets that matter to int8 arithmetic."""

    name: str
    description: str
    architecture: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    engines: tuple[str, ...]


def names() -> tuple[str, ...]:
    """The targets that this installation describes."""
    folder = files("tightrope") / "targets"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def load(name: str) -> Target:
    """Read one target by name; `UnknownNameError` lists the known ones."""
    if name not in names():
        raise UnknownNameError(f"There is no target {name!r}.", hint=f"Known: {', '.join(names())}.")
    fields = tomllib.loads((files("tightrope") / "targets" / f"{name}.toml").read_text(encoding="utf-8"))
    return Target(
        name=name,
        description=str(fields["description"]),
        architecture=str(fields["architecture"]),
        isa=tuple(map(str, fields["isa"])),
        cores=int(fields["cores"]),
        memory_bytes=int(fields["memory_bytes"]),
        engines=tuple(map(str, fields["engines"])),
    )
