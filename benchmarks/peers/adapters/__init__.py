"""One file a library: `open_peer(options)` gives a `Peer`.

These run in the library's own environment, without tightrope. An adapter makes the library's own best use easy: it
never slows a peer by padding, copying or threads that its users could avoid.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Peer(Protocol):
    """An open model: texts in, unit vectors out."""

    batchings: Sequence[int]
    """Ways to batch many texts that are worth trying; what a number means is the adapter's business."""
    files: Sequence[Path]
    """The files that hold the model."""
    versions: Mapping[str, str]

    def encode(self, texts: Sequence[str]) -> Floats:
        """One call as a user makes it: vectors float32 [n, width]."""
        ...

    def encode_all(self, texts: Sequence[str], batching: int) -> Floats:
        """Many texts in one of the `batchings`; rows in the order given."""
        ...

    def engine(self, text: str) -> Callable[[], object] | None:
        """What is left of `encode` once this text is tokenized; `None` where the library has no such door."""
        ...


def versions_of(*names: str) -> dict[str, str]:
    """The installed versions of these packages."""
    from importlib.metadata import version

    return {name: version(name) for name in names}


def open_peer(adapter: str, options: Mapping[str, Any]) -> Peer:
    """Import one adapter and open its model."""
    from importlib import import_module

    peer: Peer = import_module(f"{__name__}.{adapter}").open_peer(options)
    return peer
