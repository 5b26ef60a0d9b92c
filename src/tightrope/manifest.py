"""The manifest: what a bundle says about itself, and how far it is believed.

It comes from wherever the bundle comes from, so nothing in it is used before its type, its range and, for names of
files, its form are what they must be. What is not declared here is refused, but for the open parts of `Content`
(task, senses, settings, lineage, vectors), where only what tightrope relies on is looked at.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import EllipsisType, NoneType
from typing import Any

from tightrope.errors import BundleError
from tightrope.ports import Port

FORMAT = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16_000_000
FILE = re.compile(r"files/[0-9a-f]{16}\.[a-z0-9]{1,12}")
ATTACHMENT = re.compile(r"attachments/[a-z0-9][a-z0-9_-]{0,40}\.[a-z0-9]{1,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of the bundle: its path inside, its size and its sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What an artefact needs of the machine; an empty tuple asks for nothing."""

    architectures: tuple[str, ...] = ()
    isa: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A model in one engine's form. `files` maps the engine's roles (`model`, `weights`) to paths in the bundle."""

    engine: str
    precision: str
    files: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    requires: Requirements = Requirements()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A named model: its ports, and the same function as one or more artefacts, best first."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Everything the digest covers.

    `task` says what the bundle is for (`name`: embedding, scoring or classification, and its settings), `senses` how
    the world becomes arrays, `vectors` which texts or pictures prove that it answers as it should.
    """

    task: Mapping[str, Any]
    senses: Mapping[str, Any]
    models: tuple[Model, ...]
    recipe: str
    lineage: Mapping[str, Any]
    vectors: Mapping[str, Any]
    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of this content."""
        return hashlib.sha256(canonical(asdict(self))).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `manifest.json` says: the content, and the attachments, which the digest leaves out."""

    content: Content
    attachments: tuple[File, ...]

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "format": FORMAT,
            "digest": self.content.digest,
            "content": asdict(self.content),
            "attachments": [asdict(item) for item in self.attachments],
        }


def canonical(data: Any) -> bytes:
    """JSON in ASCII with sorted keys, no spaces and no nan: one value, one text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def load_json(path: Path) -> Any:
    """The JSON in a file. Raises `BundleError` for anything else, a number that is not finite, or too many bytes."""
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES:,} bytes.", hint="Fetch the bundle again.")
        return json.loads(path.read_bytes(), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}.", hint="Fetch the bundle again.") from error


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number:.40} is not a finite number")
    return value


# What is believed ---------------------------------------------------------------------------------------
#
# A shape is a type; a pattern that a text matches; a range that an integer is in; a set that a text is in;
# [shape] a list, [shape, ...] one that is not empty; a tuple of shapes any of them; a mapping an object of these
# names. A name with "?" may be left out, and `...` is the shape under every other name; without it there is none.

_NAMED: Any = {...: str}
_POSITIVE = range(1, 2**31)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILES: Any = [{"path": str, "size": range(2**63), "sha256": _SHA256}]
_PORTS: Any = [{"name": str, "dtype": str, "shape": [(int, str)]}, ...]
_ARTEFACT: Any = {
    "engine": str,
    "precision": str,
    "files": _NAMED,
    "settings": {"batch_tokens?": _POSITIVE, "length_multiple?": _POSITIVE, ...: object},
    "requires": {"architectures": [str], "isa": [str]},
}
_TASK: Any = {"width": _POSITIVE, ...: object}
_CONTENT: Any = {
    "task": (
        {"name": {"embedding"}, "normalize": bool} | _TASK,
        {"name": {"scoring"}} | _TASK,
        {"name": {"classification"}, "activation": {"softmax", "identity"}, "labels": [str, ...]} | _TASK,
    ),
    "senses": (
        {
            "kind": {"text"},
            "tokenizer": str,
            "wordpiece?": str,
            "max_length": _POSITIVE,
            "prompts": _NAMED,
            "default_prompt": (str, NoneType),
            ...: object,
        },
        {
            "kind": {"image"},
            "height": _POSITIVE,
            "width": _POSITIVE,
            "resize": range(2**31),
            "colours": {"rgb", "bgr", "grey"},
            "layout": {"nchw", "nhwc"},
            "mean": [(int, float), ...],
            "std": [(int, float), ...],
            "resample": {"nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"},
        },
    ),
    "models": [{"name": str, "inputs": _PORTS, "outputs": _PORTS, "artefacts": [_ARTEFACT, ...]}, ...],
    "recipe": str,
    "lineage": {...: object},
    "vectors": {
        "inputs?": [(str, [str])],
        "expected?": str,
        "original?": str,
        "tolerance?": (int, float),
        ...: object,
    },
    "files": _FILES,
}
_MANIFEST: Any = {"format": int, "digest": _SHA256, "content": _CONTENT, "attachments": _FILES}


def fault(value: Any, shape: Any, where: str) -> str | None:
    """What is wrong with a value that came out of JSON, or `None` if it is of that shape.

    >>> fault({"size": "3"}, {"size": range(9)}, "file")
    'file.size is not an integer from 0 to 8'
    """
    match shape:
        case tuple():
            faults = [fault(value, item, where) for item in shape]
            return None if None in faults else faults[0]
        case list():
            return _fault_in_list(value, shape, where)
        case dict():
            return _fault_in_object(value, shape, where)
        case range():
            fits = type(value) is int and value in shape
            return None if fits else f"{where} is not an integer from {shape.start} to {shape.stop - 1}"
        case set():
            fits = isinstance(value, str) and value in shape
            return None if fits else f"{where} is not {' or '.join(sorted(shape))}"
        case re.Pattern():
            fits = isinstance(value, str) and shape.fullmatch(value) is not None
            return None if fits else f"{where} is not of the form {shape.pattern}"
        case _:
            return None if shape is object or type(value) is shape else f"{where} is not {_KINDS[shape]}"


_KINDS = {str: "text", int: "an integer", float: "a number", bool: "true or false", NoneType: "null"}


def _fault_in_list(value: Any, shape: Any, where: str) -> str | None:
    if not isinstance(value, list):
        return f"{where} is not a list"
    if shape[1:] == [...] and not value:
        return f"{where} is empty"
    faults = (fault(item, shape[0], f"{where}[{index}]") for index, item in enumerate(value))
    return next(filter(None, faults), None)


def _fault_in_object(value: Any, shape: Mapping[str | EllipsisType, Any], where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where} is not an object"
    named = {name.removesuffix("?"): item for name, item in shape.items() if isinstance(name, str)}
    missing = sorted(name for name in shape if isinstance(name, str) and not name.endswith("?") and name not in value)
    if missing:
        return f"{where} has no {missing[0]}"
    unknown = sorted(value.keys() - named.keys())
    if unknown and ... not in shape:
        return f"{where} has {unknown[0]!r:.80}, which is not declared"
    faults = (
        fault(item, named[name], f"{where}.{name}")
        if name in named
        else fault(item, shape[...], f"{where}[{name!a:.80}]")
        for name, item in value.items()
    )
    return next(filter(None, faults), None)


def parse(data: Any, where: Path) -> Manifest:
    """The manifest that JSON holds. `where` is the bundle, for errors.

    Raises `BundleError` for another format, for what is not of the shape that it must be, and if the content is not
    what its digest says.
    """
    given = data.get("format") if isinstance(data, dict) else None
    if type(given) is int and given != FORMAT:
        raise BundleError(
            f"{where} has format {given!r:.40}; this version reads {FORMAT}.", hint="Update tightrope, or make it anew."
        )
    try:
        wrong = fault(data, _MANIFEST, "manifest")
        if wrong:
            raise BundleError(f"{where} is malformed: {wrong}.", hint="Make the bundle anew.")
        content = _content(data["content"])
        same = content.digest == data["digest"]
    except RecursionError as error:
        raise BundleError(f"The manifest of {where} is nested too deeply.", hint="Make the bundle anew.") from error
    if not same:
        digest = data["digest"]
        raise BundleError(f"The content of {where} is not what its digest {digest:.12} says.", hint="Fetch it again.")
    return Manifest(content=content, attachments=tuple(File(**item) for item in data["attachments"]))


def _content(data: Mapping[str, Any]) -> Content:
    def port(item: Mapping[str, Any]) -> Port:
        return Port(item["name"], item["dtype"], tuple(item["shape"]))

    def artefact(item: Mapping[str, Any]) -> Artefact:
        requires = Requirements(**{key: tuple(value) for key, value in item["requires"].items()})
        return Artefact(**{**item, "requires": requires})

    def model(item: Mapping[str, Any]) -> Model:
        return Model(
            name=item["name"],
            inputs=tuple(map(port, item["inputs"])),
            outputs=tuple(map(port, item["outputs"])),
            artefacts=tuple(map(artefact, item["artefacts"])),
        )

    fields = {
        **data,
        "models": tuple(map(model, data["models"])),
        "files": tuple(File(**item) for item in data["files"]),
    }
    return Content(**fields)
