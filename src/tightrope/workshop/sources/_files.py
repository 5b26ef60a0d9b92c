"""Files of a model, read as data: JSON objects and safetensors. Whatever else they hold is refused with a reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tightrope.errors import SourceError
from tightrope.workshop.numerics.quantized import Array

MAX_JSON_BYTES = 64_000_000
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
FETCH_AGAIN = "Fetch the model again."


def brief(error: BaseException) -> str:
    """The first line of what another library said, so that an error of ours keeps its two lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")


def read_json(path: Path, *, hint: str) -> dict[str, Any]:
    """A JSON object from a file; `SourceError` if it is missing, too large, broken or something else."""
    data = _parsed(path, hint)
    if not isinstance(data, dict):
        raise SourceError(f"{path} holds no JSON object.", hint=hint)
    return data


def read_list(path: Path, *, hint: str) -> list[dict[str, Any]]:
    """A JSON list of objects from a file; `SourceError` as for `read_json`."""
    data = _parsed(path, hint)
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise SourceError(f"{path} holds no list of JSON objects.", hint=hint)
    return data


def optional_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that may be missing."""
    return read_json(path, hint=FETCH_AGAIN) if path.is_file() else {}


def _parsed(path: Path, hint: str) -> Any:
    if not path.is_file():
        raise SourceError(f"{path} is missing.", hint=hint)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise SourceError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes.", hint=hint)
    try:
        data = json.loads(path.read_bytes(), parse_constant=_refuse)
        json.dumps(data, ensure_ascii=False).encode()  # a lone surrogate parses, but can never be written again
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not valid JSON: {brief(error)}.", hint=hint) from error
    return data


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a folder: one, or the shards that its index names."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        mapping = read_json(index, hint=FETCH_AGAIN).get("weight_map")
        names = list(mapping.values()) if isinstance(mapping, dict) else []
        plain = all(
            isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors") for name in names
        )
        if not names or not plain:
            raise SourceError(f"{index} names no weight files of this folder.", hint=FETCH_AGAIN)
        return [path / name for name in sorted(set(names))]
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    refuse_pickles(path)
    found = sorted(item.relative_to(path) for pattern in ("*.onnx", "onnx/*.onnx") for item in path.glob(pattern))
    raise SourceError(
        f"{path} has no weights.",
        hint=f"Give its ONNX file: {path / found[0]}." if found else "Put model.safetensors beside config.json.",
    )


def refuse_pickles(path: Path) -> None:
    """Raise `SourceError` if a folder's weights are a pickle."""
    pickles = sorted(item.name for pattern in PICKLES for item in path.glob(pattern))
    if pickles:
        raise SourceError(
            f"{path} holds its weights as a pickle ({pickles[0]}), which can run code when read.",
            hint="Convert it to model.safetensors, or let torch read it without code: pip install 'tightrope[torch]', "
            "then tightrope.workshop.sources.pickled.convert(folder).",
        )


def read_safetensors(path: Path) -> dict[str, Array]:
    """The tensors of one file, half precision widened. Raises `SourceError` if it is missing, truncated or corrupt."""
    if not path.is_file():
        raise SourceError(f"{path} is missing.", hint=FETCH_AGAIN)
    try:
        with safe_open(path, framework="np") as opened:
            return {name: _widened(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, AttributeError, OSError) as error:  # numpy lacks eight-bit floats
        raise SourceError(f"{path} is not a whole safetensors file: {brief(error)}.", hint=FETCH_AGAIN) from error


def _widened(array: Array) -> Array:
    return array if array.dtype.kind in "iub" or array.dtype == np.float32 else array.astype(np.float32)
