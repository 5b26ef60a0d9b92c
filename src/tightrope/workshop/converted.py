"""What a converter hands back: the artefact's files as bytes, and what they are."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from tightrope import plugins
from tightrope.bundle import Requirements
from tightrope.ports import Port
from tightrope.workshop.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """One engine's form of a model. `files` maps a role (`model`, `weights`) to its suffix and bytes.

    A file may refer to another of them by `file_name`, under which a bundle stores it.

    `tokenizer`: the role of the file that holds the tokenizer in the native engine's form, if one does.
    `floats`: linear layers that were annotated for integers but run in float on this engine, with the reason.
    `approximations`: layers that this engine quantises by its own rule instead of the annotation's, with the rule.
    """

    engine: str
    engine_version: str
    precision: str
    files: Mapping[str, tuple[str, bytes]]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    requires: Requirements = field(default_factory=Requirements)
    floats: Mapping[str, str] = field(default_factory=dict)
    approximations: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None

    def write(self, folder: Path) -> dict[str, Path]:
        """Put the files into a folder, named as in a bundle: where each role lies."""
        paths = {role: folder / file_name(data, suffix) for role, (suffix, data) in self.files.items()}
        for role, path in paths.items():
            path.write_bytes(self.files[role][1])
        return paths


def file_name(data: bytes, suffix: str) -> str:
    """The name of a file in a bundle, made from its content."""
    return f"{hashlib.sha256(data).hexdigest()[:16]}.{suffix}"


class Converter(Protocol):
    """What a file in `convert/` offers. One that takes only models of a known family says `TAKES = Network`."""

    def convert(self, model: Model) -> Converted:
        """Raises `UnsupportedError` with the layer's name for what the engine cannot express."""
        ...


def takes(engine: str, model: Model) -> bool:
    """Whether an engine's converter takes this kind of model."""
    return isinstance(model, getattr(plugins.load("converters", engine), "TAKES", object))


def convert(model: Model, engine: str) -> Converted:
    """A model in one engine's form. Raises `UnknownNameError` or `MissingExtraError` for an engine that is not here."""
    return cast(Converter, plugins.load("converters", engine)).convert(model)
