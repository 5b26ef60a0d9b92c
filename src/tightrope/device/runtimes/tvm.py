"""Apache TVM on the CPU (experimental): a library of machine code made of a model, one text at a time.

A bundle never brings code along that is run unasked, and this artefact is nothing else. So a library is loaded only if
this user made or trusted it: `trust` notes its digest in the user's cache, and the converter does so for its own.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tightrope.device.session import Array, Executed, check_files, fed, one_by_one
from tightrope.errors import EngineError
from tightrope.ports import Capabilities, of_lists

POSITIONS = "positions"
"""The input that counts a text's tokens from zero; what it is fed besides the model's own inputs."""


def version() -> str:
    """The engine's version."""
    return str(tvm.__version__)


def _notes() -> Path:
    """Where the digests of trusted libraries are, one empty file each: beside what tightrope itself keeps."""
    root = os.environ.get("TIGHTROPE_CACHE")
    folder = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tightrope"
    return folder / "trusted-code"


def trust(library: bytes) -> None:
    """Note that this user lets these bytes be run as code. Raises `EngineError` if the note cannot be written."""
    try:
        _notes().mkdir(parents=True, exist_ok=True)
        (_notes() / hashlib.sha256(library).hexdigest()).touch()
    except OSError as error:
        raise EngineError(
            f"{_notes()} cannot be written: {error.strerror}.", hint="Set TIGHTROPE_CACHE to a folder that can."
        ) from error


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "TvmSession":
    """Open `files["model"]` (.so) with `files["weights"]`. Raises `EngineError` if they are damaged or not trusted.

    `settings["weights"]` says how the arrays lie in the file, in the order in which the library takes them;
    `settings["limits"]` below what the numbers of an input must stay, for TVM does not look. The library was made for
    one thread.
    """
    return TvmSession(_checked(files, settings), files, settings)


def _checked(files: Mapping[str, Path], settings: Mapping[str, Any]) -> bytes:
    """The library's bytes, if they are what they should be and this user trusts them."""
    library = check_files(files, settings["weights_bytes"])
    digest = hashlib.sha256(library).hexdigest()
    if not (_notes() / digest).exists():
        raise EngineError(
            f"{files['model'].name} is machine code, which a bundle may not bring along unasked.",
            hint="If you trust its maker, give its bytes to tightrope.device.runtimes.tvm.trust once on this machine.",
        )
    return library


def _loaded(library: bytes) -> Any:
    """The library as a module, from a copy that nobody else has: what was looked at is what is run."""
    with tempfile.NamedTemporaryFile(suffix=".so") as copy:
        copy.write(library)
        copy.flush()
        return tvm.runtime.load_module(copy.name)


class TvmSession:
    """A loaded library in TVM's virtual machine. Not safe for use from several threads at once."""

    def __init__(self, library: bytes, files: Mapping[str, Path], settings: Mapping[str, Any]) -> None:
        self.inputs, self.outputs = of_lists(settings["inputs"]), of_lists(settings["outputs"])
        self._takes: list[str] = settings["takes"]
        self._limits: Mapping[str, int] = settings["limits"]
        self._is_text = any(port.name == "offsets" for port in self.inputs)
        self.capabilities = Capabilities(ragged=self._is_text, exact=self._is_text)
        data = files["weights"].read_bytes()
        try:
            self._machine: Any = relax.VirtualMachine(_loaded(library), tvm.cpu())
            self._weights = [tvm.runtime.tensor(_array(data, entry)) for entry in settings["weights"]]
        except Exception as error:  # TVM raises classes of many kinds
            raise EngineError(
                f"TVM {version()} refused {files['model'].name}: {_first_line(error)}",
                hint="Make the bundle anew for this version and machine.",
            ) from error

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Rows for ids [tokens] and offsets [texts + 1]; for other inputs all outputs."""
        if self._machine is None:
            raise EngineError("The TVM session is closed.", hint="Open the bundle again.")
        feeds = {port.name: fed(feeds, port) for port in self.inputs}
        rows = [self._one(item) for item in (_texts(feeds) if self._is_text else [self._fitting(feeds)])]
        return {port.name: np.concatenate([row[index] for row in rows]) for index, port in enumerate(self.outputs)}

    def _fitting(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The feeds as their ports want them; a size that is stated must be so."""
        for port in self.inputs:
            shape = feeds[port.name].shape
            if any(isinstance(size, int) and size != given for size, given in zip(port.shape, shape, strict=True)):
                raise EngineError(f"{port.name} has the shape {shape}.", hint=f"It must be {port.shape}.")
        return dict(feeds)

    def _one(self, item: Mapping[str, Array]) -> list[Array]:
        for name, limit in self._limits.items():
            if name in item and (item[name].min() < 0 or item[name].max() >= limit):
                raise EngineError(f"{name} goes beyond 0 to {limit - 1}.", hint="Give what the inputs ask for.")
        try:
            given = [tvm.runtime.tensor(np.ascontiguousarray(item[name])) for name in self._takes]
            found = self._machine["main"](*given, *self._weights)
            parts = [found] if len(self.outputs) == 1 else list(found)
            return [np.asarray(part.numpy()) for part in parts]
        except Exception as error:
            raise EngineError(f"TVM failed: {_first_line(error)}", hint="Check with `tightrope verify`.") from error

    def close(self) -> None:
        """Release the machine and the weights."""
        self._machine = None
        self._weights = []


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


def _texts(feeds: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """Each text's inputs as a batch of one, and its positions."""
    for text in one_by_one(feeds):
        length = len(text["input_ids"])
        batch = {name: array.astype(np.int64)[None] for name, array in text.items()}
        mask = np.ones((1, length), np.int64)
        yield batch | {"attention_mask": mask, POSITIONS: np.arange(length, dtype=np.int64)}


def _array(data: bytes, entry: Mapping[str, Any]) -> Array:
    """An array out of the file; codes are widened: (code - zero point) · scale, along the axis, in blocks."""

    def part(key: str, dtype: str, shape: Any) -> Array:
        count = int(np.prod(shape))
        return np.frombuffer(data, dtype, count, entry[key]).reshape(shape)

    shape = entry["shape"]
    if "scale" not in entry:
        stored = part("data", entry["dtype"], shape)
        return stored.astype(np.float32) if entry["dtype"] == "float16" else stored
    if entry["bits"] == 4:
        pairs = part("data", "uint8", (-(-int(np.prod(shape)) // 2),))
        codes = np.stack([pairs & 15, pairs >> 4], 1).ravel()[: int(np.prod(shape))].reshape(shape).astype(np.float32)
        codes -= entry["middle"]
    else:
        codes = part("data", entry["dtype"], shape).astype(np.float32)
    grid, axis = entry["grid"], entry["axis"]

    def spread(values: Array) -> Array:
        if entry["block"] is None:
            return values.reshape([-1 if index == axis else 1 for index in range(len(shape))])
        return np.repeat(values, entry["block"], axis).take(range(shape[axis]), axis)

    if "zero" in entry:
        codes -= spread(part("zero", entry["dtype"], grid).astype(np.float32))
    return np.ascontiguousarray(codes * spread(part("scale", "float32", grid)), np.float32)


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by precision, from the layers of which the library was made."""
    _checked(files, settings)
    lengths = np.diff(feeds["offsets"]).astype(np.float64) if "offsets" in feeds else np.ones(1)
    work: dict[str, float] = {}
    for precision, amount in settings["layers"].values():
        work[precision] = work.get(precision, 0.0) + float(lengths.sum()) * amount
    between = 2.0 * settings["attention_width"] * float((lengths**2).sum())
    work["fp32"] = work.get("fp32", 0.0) + between
    total = sum(work.values())
    if not total:
        return None
    share = {key: value / total for key, value in work.items() if value}
    layers = {name: precision for name, (precision, _) in settings["layers"].items()}
    return Executed(share=share, by_layer=layers, source="the layers that were compiled", attention=between / total)
