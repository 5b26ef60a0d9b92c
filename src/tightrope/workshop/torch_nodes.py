"""A node of a graph as the bridge to torch walks it, and the values that flow between nodes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Value = Any
"""A tensor, a number, or a numpy array of sizes."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a graph: its attributes are plain Python values."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


Operator = Callable[..., Value]


def tensor(value: Value) -> torch.Tensor:
    """A number or sizes as a tensor; a tensor as it is."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype != object:
            return torch.from_numpy(np.array(value))
        found = [torch.scalar_tensor(size, dtype=torch.int64) for size in value.ravel()]
        return torch.stack(found).reshape(value.shape)
    return torch.tensor(value)


def whole(size: Any) -> Any:
    """A number of numpy as Python's own, which torch wants; an open size as it is."""
    return int(size) if isinstance(size, np.integer) else size
