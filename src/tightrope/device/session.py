"""The seam on the device: an opened artefact, which maps named arrays to named arrays.

A runtime is a module in `runtimes/` that offers `open_artefact`, `version` and `executed`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import EngineError
from tightrope.ports import Capabilities, Port

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of unequal length without padding: `values` int32 [total], `offsets` int64 [rows + 1]."""

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @staticmethod
    def of(rows: "Sequence[Sequence[int]]") -> "Ragged":
        """Pack rows one after another."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return Ragged(np.fromiter((value for row in rows for value in row), np.int32, int(offsets[-1])), offsets)

    @staticmethod
    def join(parts: "Sequence[Ragged]") -> "Ragged":
        """The rows of all parts, one part after another."""
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Ragged(np.concatenate([part.values for part in parts]), offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The length of each row."""
        return self.offsets[1:] - self.offsets[:-1]

    def take(self, rows: NDArray[np.int64]) -> "Ragged":
        """The chosen rows in the chosen order."""
        parts = [self.values[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return Ragged(np.concatenate(parts) if parts else self.values[:0], offsets)

    def slice(self, start: int, stop: int) -> "Ragged":
        """The rows from `start` to before `stop`, without a copy of their values."""
        first, last = self.offsets[start], self.offsets[stop]
        return Ragged(self.values[first:last], self.offsets[start : stop + 1] - first)

    def padded(self, *, multiple: int = 1, most: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Values and mask, both int64 [rows, longest], padded with zeros at the end.

        The longest is rounded up by `stepped`, but not above `most`, which no row exceeds.
        """
        bounds = self.offsets.tolist()  # plain numbers and slices: for a text alone, steps of numpy cost more than rows
        longest = max([1, *(stop - start for start, stop in pairwise(bounds))])
        width = stepped(longest, multiple)
        shape = (len(bounds) - 1, width if most is None or width <= most else most)
        values, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, (start, stop) in enumerate(pairwise(bounds)):
            values[row, : stop - start] = self.values[start:stop]
            mask[row, : stop - start] = 1
        return values, mask


def stepped(length: int, multiple: int) -> int:
    """A length rounded up to the multiple, beyond 8 of it to the double, beyond 32 to four times as much.

    So an engine that prepares itself for each shape meets few, and padding is a small part of what is long.

    >>> [stepped(length, 4) for length in (1, 12, 32, 33, 128, 129)]
    [4, 12, 32, 40, 128, 144]
    >>> stepped(129, 1)
    129
    """
    if multiple == 1:
        return length
    step = multiple if length <= 8 * multiple else 2 * multiple if length <= 32 * multiple else 4 * multiple
    return -(-length // step) * step


class Session(Protocol):
    """An opened artefact. Not safe for use from several threads at once unless its capabilities say `parallel`."""

    @property
    def inputs(self) -> tuple[Port, ...]: ...
    @property
    def outputs(self) -> tuple[Port, ...]: ...
    @property
    def capabilities(self) -> Capabilities: ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds. Raises `EngineError` if the engine fails."""
        ...

    def close(self) -> None:
        """Give back what the engine holds; the session is of no use afterwards."""
        ...


def fed(feeds: Mapping[str, Array], port: Port) -> Array:
    """What a port is fed, contiguous and of its dtype. Raises `EngineError` for none, or one of other dimensions."""
    array = feeds.get(port.name)
    if array is None or array.ndim != len(port.shape):
        raise EngineError(
            f"{port.name} must be an array of {len(port.shape)} dimensions.", hint="Give what the inputs ask for."
        )
    return np.ascontiguousarray(array, port.dtype)


def one_by_one(feeds: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """Of ids [tokens] and offsets [texts + 1] each text's own arrays [its tokens], as they are fed but for the offsets.

    Raises `EngineError` for offsets that do not rise from 0 to the number of tokens.
    """
    offsets, tokens = feeds["offsets"].tolist(), len(feeds["input_ids"])
    if offsets[:1] != [0] or offsets[-1] != tokens or any(stop <= start for start, stop in pairwise(offsets)):
        raise EngineError("offsets must rise from 0 to the number of tokens.", hint="Give what the inputs ask for.")
    for start, stop in pairwise(offsets):
        yield {name: array[start:stop] for name, array in feeds.items() if name != "offsets"}


def check_files(files: Mapping[str, Path], weights_bytes: int) -> bytes:
    """The bytes of `files["model"]`, if they are what the file's name says, and the weights' file is of this size.

    Raises `EngineError` otherwise: for engines that believe whatever they are given.
    """
    model, weights = files["model"], files["weights"]
    try:
        data, size = model.read_bytes(), weights.stat().st_size
    except OSError as error:
        raise EngineError(
            f"{error.filename} cannot be read: {error.strerror}.", hint="Fetch the bundle again."
        ) from error
    known = hashlib.sha256(data).hexdigest().startswith(model.stem)
    for path, is_right in ((model, known), (weights, size == weights_bytes)):
        if not is_right:
            raise EngineError(f"{path.name} is damaged, or was changed.", hint="Fetch the bundle again.")
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """How an engine really runs a model: the share of multiply-adds by the precision they are executed in.

    `by_layer` maps a layer to its precision as the engine names it; `share` maps `int8`, `bf16`, `fp32` … to the
    fraction of multiply-adds. `None` in place of this value means that the engine cannot tell.
    """

    share: Mapping[str, float]
    by_layer: Mapping[str, str]
    source: str
    """Where this is known from: the engine's profile, its compiled graph …"""
    attention: float = 0.0
    """The share of multiply-adds between two activations, which no engine here runs on integers."""


class Opener(Protocol):
    """What makes a session of an artefact."""

    def open_artefact(self, files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> Session:
        """Open the files of an artefact, by role. Raises `EngineError` if the engine refuses them."""
        ...


class Runtime(Opener, Protocol):
    """What a file in `runtimes/` offers."""

    def version(self) -> str:
        """The engine's version."""
        ...

    def executed(
        self, files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]
    ) -> Executed | None:
        """What really runs in which precision for these feeds, or `None` if the engine cannot tell."""
        ...
