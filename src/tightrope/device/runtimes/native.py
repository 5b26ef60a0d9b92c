"""Our own engine: texts without padding, weights mapped from disk, the same answers whatever the batch."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.device import engine
from tightrope.device.session import Array, Executed, fed
from tightrope.errors import EngineError
from tightrope.ports import Capabilities, Port

version = engine.version


def open_artefact(files: Mapping[str, Path], settings: Mapping[str, Any], *, threads: int) -> "NativeSession":
    """Open `files["model"]`. Raises `EngineError` if it is changed, damaged or of another format.

    The bytes are read and compared with the file's name before the same open file is mapped: hashing through the
    mapping would bring every page into memory, and a path could be another file by then.
    `settings["half_attention"]` computes attention in bfloat16 where the processor multiplies it: faster for long texts
    by matrix tiles, but then answers depend on the instruction set.
    """
    path, halves = files["model"], bool(settings.get("half_attention", False))
    try:
        with path.open("rb") as stream:
            if not hashlib.file_digest(stream, "sha256").hexdigest().startswith(path.stem):
                raise EngineError(
                    f"{path.name} is not what its name says: it was changed.", hint="Fetch the bundle again."
                )
            return NativeSession(engine.Model(stream.fileno(), threads=threads, half_attention=halves))
    except OSError as error:
        raise EngineError(f"{path.name} cannot be read: {error.strerror}.", hint="Fetch the bundle again.") from error


class NativeSession:
    """An open model. Safe for use from several threads."""

    def __init__(self, model: engine.Model) -> None:
        self.model = model
        ids, offsets = Port("input_ids", "int32", ("tokens",)), Port("offsets", "int64", ("texts",))
        types = (Port("token_type_ids", "int32", ("tokens",)),) if model.types else ()
        self.inputs = (ids, offsets, *types)
        self.outputs = (Port("scores" if model.scores else "embedding", "float32", ("texts", model.width)),)
        self.capabilities = Capabilities(ragged=True, parallel=True, exact=True)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Rows for ids [tokens] and offsets [texts + 1], as `Ragged` holds them."""
        given = {port.name: fed(feeds, port) for port in self.inputs}
        rows = self.model.run(given["input_ids"], given["offsets"], given.get("token_type_ids"))
        return {self.outputs[0].name: rows}

    def close(self) -> None:
        """Unmap the file."""
        self.model.close()


def executed(files: Mapping[str, Path], settings: Mapping[str, Any], feeds: Mapping[str, Array]) -> Executed | None:
    """The share of multiply-adds by precision, from the file's own sections: there is no other way to run them."""
    records, elements = _sections(files["model"])
    lengths = np.diff(feeds["offsets"]).astype(np.float64)
    work: dict[str, float] = {}
    layers: dict[str, str] = {}
    between = 0.0
    for layer, record in records.items():
        width, out, integers = np.frombuffer(record, np.uint32, 3)
        rows = len(lengths) if layer.startswith("tail.") else lengths.sum()
        layers[layer] = "int8" if integers else _WEIGHTS.get(elements[layer], "fp32")
        work[layers[layer]] = work.get(layers[layer], 0.0) + float(rows) * int(width) * int(out)
        if layer.endswith(".output"):
            between += float((lengths**2).sum()) * int(width) * 2
    halves = settings.get("half_attention", False) and engine.isa() in ("amx", "avx512-bf16")
    work["bf16" if halves else "fp32"] = work.get("bf16" if halves else "fp32", 0.0) + between
    total = sum(work.values())
    return Executed(
        share={key: value / total for key, value in work.items() if value},
        by_layer=layers,
        source="the file's own sections",
        attention=between / total,
    )


_WEIGHTS = {3: "wint8", 4: "wint4"}
"""What float arithmetic on integer weights is called, by the kind of their section."""


def _sections(path: Path) -> tuple[dict[str, bytes], dict[str, int]]:
    """The record of each linear layer, and the kind of its weights; docs/formats/native.md says what lies where."""
    records, elements = {}, {}
    with path.open("rb") as stream:
        count = int.from_bytes(stream.read(64)[12:16], "little")
        for entry in [stream.read(64) for _ in range(count)]:
            layer, _, what = entry[:32].rstrip(b"\0").decode().rpartition(".")
            if what == "linear":
                stream.seek(int.from_bytes(entry[32:40], "little"))
                records[layer] = stream.read(int.from_bytes(entry[40:48], "little"))
            elif what == "weight":
                elements[layer] = int.from_bytes(entry[48:52], "little")
    return records, elements
