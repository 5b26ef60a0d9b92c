"""ncnn on the CPU: one text at a time, of any length, without padding; or one image at a time.

ncnn's arrays have no batch. It believes what its files say, so files that are not what they should be are refused
before it sees them; and a `Mat` made of an array does not own its memory, which ncnn takes for granted: it is cloned.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import ncnn
import numpy as np

from tightrope.device.session import Array, Executed, check_files, fed, one_by_one
from tightrope.errors import EngineError
from tightrope.ports import Capabilities, Port, of_lists

_HALVES = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")
_HUSHING = Lock()
POSITIONS = "positions"
"""The input that counts a text's tokens from zero; what it is fed besides the model's own inputs."""


def version() -> str:
    """The engine's version."""
    return str(ncnn.__version__)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what ncnn says to the standard error to ourselves: a failure is told in our words."""
    with _HUSHING:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "NcnnSession":
    """Open `files["model"]` (.param) with `files["weights"]` (.bin). Raises `EngineError` if they are damaged.

    `settings["inputs"]` and `settings["outputs"]` are the ports, `settings["weights_bytes"]` is the size of the
    weights. `settings["halves"]` lets it compute in half precision where the processor can.
    """
    check_files(files, settings["weights_bytes"])
    return NcnnSession(files, settings, threads)


class NcnnSession:
    """An open net. Safe for use from several threads: each call has an extractor of its own."""

    def __init__(self, files: Mapping[str, Path], settings: Mapping[str, Any], threads: int) -> None:
        self.inputs, self.outputs = of_lists(settings["inputs"]), of_lists(settings["outputs"])
        self._is_text = any(port.name == "offsets" for port in self.inputs)
        self.capabilities = Capabilities(ragged=self._is_text, parallel=True, exact=True)
        net: Any = ncnn.Net()
        net.opt.num_threads = threads
        net.opt.lightmode = True
        for name in _HALVES:
            setattr(net.opt, name, bool(settings.get("halves", False)))
        with _hushed():
            failed = net.load_param(str(files["model"])) or net.load_model(str(files["weights"]))
        if failed:
            raise EngineError(
                f"ncnn {version()} refused {files['model'].name}.", hint="Make the bundle anew for this version."
            )
        self._net = net
        self._takes = set(net.input_names())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Rows for ids [tokens] and offsets [texts + 1]; for other inputs one for each index of their first axis."""
        if self._net is None:
            raise EngineError("The ncnn session is closed.", hint="Open the bundle again.")
        feeds = {port.name: fed(feeds, port) for port in self.inputs}
        each = list(_texts(feeds) if self._is_text else _items(feeds, self.inputs))
        rows = [self._one(item) for item in each]
        return {port.name: np.stack([row[index] for row in rows]) for index, port in enumerate(self.outputs)}

    def _one(self, item: Mapping[str, Array]) -> list[Array]:
        extractor = self._net.create_extractor()
        arrays = {name: np.ascontiguousarray(item[name]) for name in self._takes}
        failed = any(extractor.input(name, ncnn.Mat(array).clone()) for name, array in arrays.items())
        found = [extractor.extract(port.name) for port in self.outputs]
        if failed or any(code for code, _ in found):
            raise EngineError("ncnn failed on an input.", hint="Check the bundle with `tightrope verify`.")
        return [
            np.array(mat, np.float32).reshape(self._shape(port))
            for (_, mat), port in zip(found, self.outputs, strict=True)
        ]

    def _shape(self, port: Port) -> tuple[int, ...]:
        """The port's shape without the batch; one size at most is open."""
        return tuple(size if isinstance(size, int) else -1 for size in port.shape[1:])

    def close(self) -> None:
        """Release the net."""
        self._net = None


def _texts(feeds: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """Each text's inputs, and its positions."""
    for text in one_by_one(feeds):
        length = len(text["input_ids"])
        yield {name: array.astype(np.int32) for name, array in text.items()} | {
            "attention_mask": np.ones(length, np.float32),
            POSITIONS: np.arange(length, dtype=np.int32),
        }


def _items(feeds: Mapping[str, Array], inputs: tuple[Port, ...]) -> Iterator[dict[str, Array]]:
    """Each index of the first axis. Sizes that are stated must be so."""
    counts = {len(feeds[port.name]) for port in inputs}
    for port in inputs:
        found = feeds[port.name].shape
        stated = zip(port.shape[1:], found[1:], strict=True)
        if len(counts) != 1 or counts == {0} or any(isinstance(size, int) and size != given for size, given in stated):
            raise EngineError(f"{port.name} has the shape {found}.", hint=f"It must be {port.shape}.")
    for index in range(counts.pop()):
        yield {port.name: feeds[port.name][index].astype(np.float32) for port in inputs}


# What it runs -------------------------------------------------------------------------------------------

_PRECISIONS = ("int8", "wint8", "wint4")


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by precision, from the file's own lines: there is no other way to run them."""
    check_files(files, settings["weights_bytes"])
    lengths = np.diff(feeds["offsets"]) if "offsets" in feeds else np.ones(1)
    work: dict[str, float] = {}
    layers: dict[str, str] = {}
    between = 0.0
    for line in files["model"].read_text().splitlines()[2:]:
        kind, name, *rest = line.split()
        values = dict(item.split("=", 1) for item in rest if "=" in item)
        if kind == "Gemm":
            size = int(values["8"]) * int(values["9"])
            rows = lengths.sum() * settings["places"].get(name, 1)
            suffix = name.rpartition(".")[2]
            layers[name] = suffix if suffix in _PRECISIONS else "fp32"
            work[layers[name]] = work.get(layers[name], 0.0) + float(rows) * size
        elif kind.startswith("Convolution"):
            layers[name] = "int8" if "8" in values else "fp32"
            amount = int(values["6"]) * settings["places"][name]
            work[layers[name]] = work.get(layers[name], 0.0) + float(amount)
        elif kind == "SDPA":
            between += float((lengths.astype(np.float64) ** 2).sum()) * 2 * settings["attention_width"]
    work["fp32"] = work.get("fp32", 0.0) + between
    total = sum(work.values())
    share = {key: value / total for key, value in work.items() if value}
    return (
        Executed(share=share, by_layer=layers, source="the file's own lines", attention=between / total)
        if total
        else None
    )
