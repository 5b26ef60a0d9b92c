"""Pickled weights made into safetensors, by torch's weights-only loader, which builds tensors and runs no code.

Needs the extra [torch]. The pickles stay where they are; the new files are written beside them in one step.
"""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tightrope.errors import OutputError, SourceError
from tightrope.workshop.sources._files import FETCH_AGAIN, brief, read_json

_INDEX = "pytorch_model.bin.index.json"


def convert(folder: Path | str) -> list[Path]:
    """Write model.safetensors beside each pytorch_model.bin of a model and its modules; returns the new files.

    Raises `SourceError` if there is none, or if one holds anything but tensors; `OutputError` if it cannot be written.
    """
    root = Path(folder)
    places = [place for place in (root, *sorted(root.glob("*/"))) if _parts(place)]
    if not places:
        raise SourceError(f"{root} has no pytorch_model.bin.", hint="Give the folder that holds it.")
    return [_write(_read(_parts(place)), place / "model.safetensors") for place in places]


def _parts(place: Path) -> list[Path]:
    """The pickles of one folder: one file, or the shards that its index names."""
    if (place / _INDEX).is_file():
        mapping = read_json(place / _INDEX, hint=FETCH_AGAIN).get("weight_map")
        names = sorted(set(map(str, mapping.values()))) if isinstance(mapping, dict) else []
        if not names or any(Path(name).name != name for name in names):
            raise SourceError(f"{place / _INDEX} names no weight files of this folder.", hint=FETCH_AGAIN)
        return [place / name for name in names]
    return [place / "pytorch_model.bin"] if (place / "pytorch_model.bin").is_file() else []


def _read(parts: list[Path]) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for part in parts:
        try:
            loaded = torch.load(part, map_location="cpu", weights_only=True)
        except Exception as error:  # a foreign file fails in as many ways as there are foreign files
            raise SourceError(
                f"{part} holds more than tensors, or is broken: {brief(error)}.",
                hint="Do not trust this file; give a model with safetensors.",
            ) from error
        if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
            raise SourceError(f"{part} holds no named tensors.", hint="Give a model's own pytorch_model.bin.")
        # Tied weights share memory, which safetensors refuses: each is written out.
        tensors |= {str(name): value.detach().clone().contiguous() for name, value in loaded.items()}
    return tensors


def _write(tensors: dict[str, Any], target: Path) -> Path:
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        save_file(tensors, aside, metadata={"format": "pt"})
        aside.replace(target)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {brief(error)}.", hint="Give a folder you may write."
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    return target
