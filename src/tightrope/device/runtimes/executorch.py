"""ExecuTorch on the CPU, by XNNPACK.

The package's runtime is bound to torch, which it loads: on a phone or a board it is a C++ library that needs none. One
text at a time, of any length up to the longest; a shorter one than the program's least is padded.
"""

import warnings
from collections.abc import Mapping
from importlib.metadata import version as _version
from pathlib import Path
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it calls itself experimental, each time
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime, Verification

import torch  # behind the engine: who lacks both is told of the engine

from tightrope.device.session import Array, Executed
from tightrope.errors import EngineError, UnsupportedError
from tightrope.ports import Capabilities, Port


def version() -> str:
    """The engine's version."""
    return _version("executorch")


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "ExecuTorchSession":
    """Open `files["model"]`. Raises `EngineError` if the engine refuses it.

    `settings`: `ports` of both sides as [name, dtype, shape], in the program's order; `shortest`, the least of an open
    length; `delegate`. Threads are the process's: the session opened last says how many there are.
    """
    delegate = settings.get("delegate", "xnnpack")
    if delegate != "xnnpack":
        raise UnsupportedError(
            f"This installation of ExecuTorch runs XNNPACK, not {delegate}.", hint="Convert the model anew."
        )
    return ExecuTorchSession(_method(files["model"], threads), settings)


def _method(model: Path, threads: int) -> Any:
    if not model.is_file():
        raise EngineError(f"There is no file {model.name}.", hint="Make the bundle anew.")
    portable_lib._unsafe_reset_threadpool(threads)
    try:
        return Runtime.get().load_program(model, verification=Verification.InternalConsistency).load_method("forward")
    except (RuntimeError, ValueError, TypeError) as error:
        raise EngineError(
            f"ExecuTorch {version()} refused {model.name}: {_first_line(error)}",
            hint="Make the bundle anew for this version.",
        ) from error


class ExecuTorchSession:
    """An opened program. Not safe for use from several threads at once."""

    def __init__(self, method: Any, settings: Mapping[str, Any]) -> None:
        self._method: Any = method
        self._shortest = int(settings.get("shortest", 1))
        self.inputs, self.outputs = (
            tuple(Port(name, dtype, tuple(shape)) for name, dtype, shape in settings["ports"][side])
            for side in ("inputs", "outputs")
        )
        self.capabilities = Capabilities()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for the feeds, row by row."""
        if self._method is None:
            raise EngineError("The ExecuTorch session is closed.", hint="Open the bundle again.")
        given = {port.name: _array(feeds, port) for port in self.inputs}
        by_row = [port.name for port in self.inputs if _is_open(port, 0)]
        counts = {len(given[name]) for name in by_row}
        if len(counts) > 1:
            raise EngineError(f"The inputs have {sorted(counts)} rows.", hint="Give all inputs as many rows.")
        rows = [{**given, **{name: given[name][row : row + 1] for name in by_row}} for row in range(*counts or {1})]
        answers = [self._row(row) for row in rows]
        return {
            port.name: _together(port, [answer[index] for answer in answers]) for index, port in enumerate(self.outputs)
        }

    def _row(self, given: Mapping[str, Array]) -> list[Array]:
        """The outputs for one text."""
        lengths = {given[port.name].shape[1] for port in self.inputs if _is_open(port, 1)}
        if len(lengths) > 1:
            raise EngineError(f"The inputs are {sorted(lengths)} long.", hint="Give all inputs the same length.")
        length = lengths.pop() if lengths else 0
        padded = [self._padded(given[port.name], port) for port in self.inputs]
        try:
            found = self._method.execute([torch.from_numpy(array) for array in padded])
        except RuntimeError as error:
            raise EngineError(
                f"ExecuTorch failed on a text of {length} tokens: {_first_line(error)}",
                hint="Cut the text to the model's longest, or check the bundle with `tightrope verify`.",
            ) from error
        answers = [np.array(item.numpy()) for item in found]
        return [
            answer[:, :length] if _is_open(port, 1) else answer
            for port, answer in zip(self.outputs, answers, strict=True)
        ]

    def _padded(self, array: Array, port: Port) -> Array:
        """At least as long as the program's least."""
        missing = self._shortest - array.shape[1] if _is_open(port, 1) else 0
        return array if missing <= 0 else np.pad(array, [(0, 0), (0, missing), *[(0, 0)] * (array.ndim - 2)])

    def close(self) -> None:
        """Give the program back."""
        self._method = None


def _is_open(port: Port, axis: int) -> bool:
    return len(port.shape) > axis and isinstance(port.shape[axis], str)


def _array(feeds: Mapping[str, Array], port: Port) -> Array:
    array = feeds.get(port.name)
    if array is None or not _fits(array, port):
        shape = "missing" if array is None else " x ".join(map(str, array.shape))
        raise EngineError(
            f"{port.name} must be an array of {' x '.join(map(str, port.shape))}; it is {shape}.",
            hint="Give what the inputs ask for.",
        )
    found = np.ascontiguousarray(array, port.dtype)
    return found if found.flags.writeable else found.copy()  # torch takes no array that cannot be written


def _fits(array: Array, port: Port) -> bool:
    sizes = zip(port.shape, array.shape, strict=False)
    return array.ndim == len(port.shape) and all(isinstance(size, str) or size == real for size, real in sizes)


def _together(port: Port, answers: list[Array]) -> Array:
    if answers and not _is_open(port, 0):
        return answers[0]
    empty = np.zeros([0 if isinstance(size, str) else size for size in port.shape], port.dtype)
    return np.concatenate(answers) if answers else empty


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by precision, as noted when XNNPACK took its part of the program; it tells no more."""
    ports = [(name, len(shape) > 1 and isinstance(shape[1], str)) for name, _, shape in settings["ports"]["inputs"]]
    length = next((feeds[name].shape[1] for name, is_open in ports if is_open), 1)
    work: dict[str, float] = {}
    layers: dict[str, str] = {}
    between = 0.0
    for name, precision, is_between, amounts in settings.get("work", ()):
        amount = _at(amounts, length)
        work[precision] = work.get(precision, 0.0) + amount
        layers[name] = precision
        between += amount if is_between else 0
    total = sum(work.values())
    share = {key: value / total for key, value in work.items()}
    source = "what the delegate took of the program"
    return Executed(share=share, by_layer=layers, source=source, attention=between / total) if total else None


def _at(amounts: list[int], length: int) -> float:
    """The value at a length of the polynomial of second degree through the values at 1, 2 and 3.

    >>> _at([1, 4, 9], 12)
    144.0
    """
    one, two, three = amounts
    square = (three - 2 * two + one) / 2
    slope = two - one - 3 * square
    return square * length**2 + slope * length + one - square - slope
