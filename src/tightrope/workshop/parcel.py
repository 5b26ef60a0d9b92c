"""A model as two files, for another process of ours: a converter that crashes must not take the model with it.

`model.json` tells the values that the model is made of, `arrays.bin` holds every array one after another; the reader
maps them and copies nothing. It is no format to keep: the process on the other side is always of the same version. No
name in it can lead to code: only the frozen values of the workshop's own modules are built from it.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

import ml_dtypes  # noqa: F401  (tells numpy the name bfloat16)
import numpy as np
import onnx

from tightrope.errors import DataError
from tightrope.workshop.model import Model

VALUES, ARRAYS = "model.json", "arrays.bin"
MODULES = (
    "tightrope.device.senses.image",
    "tightrope.workshop.model",
    "tightrope.workshop.network",
    "tightrope.workshop.graph",
    "tightrope.workshop.numerics.quantized",
)
"""Where the values that a model is made of are defined."""
ALIGNMENT = 64


def write(model: Model, folder: Path) -> None:
    """Put a model into a folder that exists."""
    with (folder / ARRAYS).open("wb") as stream:
        described = _describe(model, stream)
    (folder / VALUES).write_text(json.dumps(described), encoding="utf-8")


def read(folder: Path) -> Model:
    """The model in a folder. Its arrays are read-only and mapped. Raises `DataError` for what is no parcel."""
    try:
        described = json.loads((folder / VALUES).read_text(encoding="utf-8"))
        size = (folder / ARRAYS).stat().st_size
        data = np.memmap(folder / ARRAYS, np.uint8, "r") if size else np.empty(0, np.uint8)
        return cast(Model, _build(described, data))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder} holds no model: {error}.", hint="Write it anew with the same version.") from error


def _describe(value: Any, stream: BinaryIO) -> Any:
    """Plain values as they are; every other as an object with one key, that says what it is."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, onnx.ModelProto):
        return {"onnx": base64.b64encode(value.SerializeToString(deterministic=True)).decode()}
    if isinstance(value, np.ndarray):
        return {"array": _store(value, stream)}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_describe(item, stream) for item in value]}
    if isinstance(value, Mapping):
        return {"mapping": [[_describe(key, stream), _describe(item, stream)] for key, item in value.items()]}
    assert is_dataclass(value) and type(value).__module__ in MODULES, type(value)
    held = {item.name: _describe(getattr(value, item.name), stream) for item in fields(value)}
    return {"value": [type(value).__module__, type(value).__name__, held]}


def _store(array: Any, stream: BinaryIO) -> list[Any]:
    stream.write(b"\0" * (-stream.tell() % ALIGNMENT))
    offset = stream.tell()
    stream.write(np.ascontiguousarray(array).tobytes())
    return [array.dtype.name, list(array.shape), offset]


def _build(described: Any, data: Any) -> Any:
    if not isinstance(described, dict):
        return described
    ((kind, held),) = described.items()
    match kind:
        case "bytes":
            return base64.b64decode(held, validate=True)
        case "onnx":
            return onnx.ModelProto.FromString(base64.b64decode(held, validate=True))
        case "array":
            return _load(held, data)
        case "tuple":
            return tuple(_build(item, data) for item in held)
        case "list":
            return [_build(item, data) for item in held]
        case "mapping":
            return {_build(key, data): _build(item, data) for key, item in held}
        case "value":
            return _value(held, data)
    raise ValueError(f"{kind!r:.40} is no kind of value")


def _load(held: list[Any], data: Any) -> Any:
    dtype, shape, offset = held
    size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
    if not 0 <= offset <= offset + size <= len(data):
        raise ValueError("an array lies outside its file")
    return np.asarray(data[offset : offset + size]).view(dtype).reshape(shape)


def _value(described: list[Any], data: Any) -> Any:
    module, name, held = described
    kind = getattr(import_module(module), name) if module in MODULES else None
    if not (isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module):
        raise ValueError(f"{module}.{name} is no value of a model")
    return kind(**{key: _build(item, data) for key, item in held.items()})
