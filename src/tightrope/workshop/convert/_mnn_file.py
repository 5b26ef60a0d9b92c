"""MNN's file between its converter and the artefact: read as JSON, weights on a grid put in, written again.

The converter's library knows two forms of a model, the file (a flatbuffer) and JSON, and can keep large arrays in a
file beside either. So an operator is changed in JSON, and its weights are bytes of ours. JSON has six digits of each
number; small constants and epsilons are therefore read out of the flatbuffer itself.
"""

import contextlib
import hashlib
import io
import json
import struct
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.device.runtimes.mnn import overheard, version
from tightrope.errors import UnsupportedError
from tightrope.workshop.convert._forms import signed
from tightrope.workshop.numerics.quantized import Array, Floats, Quantized

with overheard():
    import _tools  # MNN's converter itself; MNN.tools around it installs packages and reports usage over the network

_SUCCESS = {"ONNX": "Converted Success!", "MNN": "has convert to JsonFile", "JSON": "has convert to MNNModel"}
_OPLISTS, _MAIN, _FLOATS, _EPSILON = 3, 2, 7, 1
"""Where Net, Op, Blob and LayerNorm keep these fields, by MNN's schema; a flatbuffer's fields never move."""
_HALVES, _CODES, _PACKED = 3, 4, 1
"""What IDSTQuan calls weights in halves, codes of a byte each, and codes packed behind a table of their values."""


def _tool(kind: str, target: Path, *options: str) -> None:
    """Run the converter in this process. It reports no failure: what it wrote and what it said are looked at.

    It keeps weights in a file of a fixed name in the current folder meanwhile: two of them in one folder would mix up
    theirs, so each works where its own target lies.
    """
    arguments = ["mnnconvert", "-f", kind, "--bizCode", "tightrope", *options]
    with contextlib.chdir(target.parent), overheard() as heard:
        _tools.mnnconvert(arguments)
    if _SUCCESS[kind] not in heard() or not target.is_file():
        said = [line for line in heard().splitlines() if "rror" in line or "upport" in line] or ["it does not say why"]
        raise UnsupportedError(
            f"MNN {version()} cannot convert the model: {said[-1].strip()[:300]}",
            hint="Choose another engine, or report it with the model's name.",
        )


class Net:
    """A converted model in the making: `data` is MNN's JSON; arrays beside it are read with `array`."""

    def __init__(self, folder: Path, onnx: Path) -> None:
        whole, described = folder / "float.mnn", folder / "float.json"
        exact = ("--useGeluApproximation", "0", "--groupConvNative")
        _tool("ONNX", whole, "--modelFile", str(onnx), "--MNNModel", str(whole), "--saveExternalData", *exact)
        _tool("MNN", described, "--modelFile", str(whole), "--JsonFile", str(described))
        self.data: dict[str, Any] = json.loads(described.read_bytes())
        self._arrays = whole.with_name("float.mnn.weight").read_bytes()
        self._written = io.BytesIO()
        _restore_numbers(self.data, whole.read_bytes())

    @property
    def operators(self) -> list[dict[str, Any]]:
        """The operators in running order."""
        operators: list[dict[str, Any]] = self.data["oplists"]
        return operators

    def array(self, operator: Mapping[str, Any], index: int = 0) -> Floats:
        """One of the float arrays that an operator keeps outside."""
        start, *sizes = operator["main"]["external"]
        start += sum(sizes[:index])
        return np.frombuffer(self._arrays[start : start + sizes[index]], np.float32)

    def keep(self, operator: dict[str, Any]) -> None:
        """Take over the arrays of an operator as they are."""
        start, *sizes = operator["main"]["external"]
        self._put(operator, [self._arrays[start : start + sum(sizes)]], sizes)

    def quantise(self, operator: dict[str, Any], weight: Quantized) -> None:
        """Give a convolution the codes [out, …] and scales of a weight instead of its floats."""
        codes, alpha, main = *_grid(weight), operator["main"]
        bias = self.array(operator, 1).tobytes()
        kind, least = (_PACKED, -8) if weight.bits == 4 else (_CODES, -128)
        pairs = 0 if weight.zero_point is None else len(codes)
        main["quanParameter"] = _parameter(kind, bits=weight.bits, least=least, pairs=pairs)
        main["quanParameter"]["shapeInt32"] = max(len(codes), codes[0].size) > 0xFFFF
        data = _nibbles(codes) if kind == _PACKED else codes.tobytes()
        self._put(operator, [data, alpha.tobytes(), bias], [len(data), alpha.nbytes, len(bias), 0])

    def halve(self, operator: dict[str, Any]) -> None:
        """Store a convolution's weights in half precision."""
        halves, bias = self.array(operator).astype(np.float16).tobytes(), self.array(operator, 1).tobytes()
        operator["main"]["quanParameter"] = _parameter(_HALVES, bits=16, least=0, pairs=0)
        self._put(operator, [halves, bias], [len(halves), 0, len(bias), 0])

    def _put(self, operator: dict[str, Any], parts: Sequence[bytes], sizes: Sequence[int]) -> None:
        operator["main"]["external"] = [self._written.tell(), *sizes]
        for part in parts:
            self._written.write(part)

    def write(self, folder: Path) -> tuple[bytes, bytes]:
        """The file and the file of its arrays. The identity that MNN draws by lot is made from the content."""
        source, target = folder / "whole.json", folder / "whole.mnn"
        weights = self._written.getvalue()
        self.data["mnn_uuid"] = ""
        seed = hashlib.sha256(json.dumps(self.data, sort_keys=True).encode() + hashlib.sha256(weights).digest())
        self.data["mnn_uuid"] = str(uuid.UUID(bytes=seed.digest()[:16], version=4))
        source.write_text(json.dumps(self.data))
        _tool("JSON", target, "--modelFile", str(source), "--MNNModel", str(target))
        return target.read_bytes(), weights


def converted(onnx: bytes, weights: tuple[str, bytes], change: Callable[[Net], None]) -> tuple[bytes, bytes]:
    """The MNN file of an ONNX file, and the file of its arrays; `change` sees to every operator that has arrays."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(onnx)
        (folder / weights[0]).write_bytes(weights[1])
        net = Net(folder, folder / "model.onnx")
        change(net)
        return net.write(folder)


def _parameter(kind: int, *, bits: int, least: int, pairs: int) -> dict[str, Any]:
    """How a convolution's weights are stored; `pairs` outputs have a least value beside their scale."""
    return {"type": kind, "quantScale": 1.0, "aMaxOrBits": bits, "aMin": least, "readType": pairs}


def _grid(weight: Quantized) -> tuple[Array, Floats]:
    """Codes as int8 [out, inputs], and for each output (or block) its scale, or its least value and its scale.

    The least value is what the least code stands for: -8 for 4 bits, -128 for all others.
    """
    codes, zero = signed(weight)
    least = -128
    if weight.bits == 4:
        least = -8
        if weight.codes.dtype == np.uint8:
            codes, zero = codes - np.int8(8), zero - np.int8(8)
    flat = np.ascontiguousarray(codes.reshape(len(codes), -1))
    if weight.zero_point is None and weight.codes.dtype == np.int8:
        return flat, np.ascontiguousarray(weight.scale, np.float32)
    lowest = (least - zero.astype(np.float32)) * weight.scale
    return flat, np.ascontiguousarray(np.stack([lowest, weight.scale], -1), np.float32)


def _nibbles(codes: Array) -> bytes:
    """Codes [out, inputs] of 4 bits: the shape, a table of all sixteen values, two codes to a byte, high first."""
    wide = max(codes.shape) > 0xFFFF
    header = struct.pack("<BII" if wide else "<BHH", 2, *codes.shape) + struct.pack("<B16b", 16, *range(-8, 8))
    flat = (codes.ravel().astype(np.int16) + 8).astype(np.uint8)
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return header + ((flat[0::2] << 4) | flat[1::2]).tobytes()


# Exact numbers ------------------------------------------------------------------------------------------


def _restore_numbers(data: dict[str, Any], file: bytes) -> None:
    """Put the exact values of small float constants and epsilons where JSON has six digits of them."""
    operators = _Table(file, struct.unpack_from("<I", file)[0]).tables(_OPLISTS)
    for operator, table in zip(data["oplists"], operators, strict=True):
        main = operator.get("main", {})
        if "float32s" in main:
            main["float32s"] = table.table(_MAIN).floats(_FLOATS)
        elif operator["main_type"] == "LayerNorm":
            main["epsilon"] = table.table(_MAIN).number(_EPSILON)


class _Table:
    """A table of a flatbuffer, whose fields are known by their place in the schema."""

    def __init__(self, file: bytes, start: int) -> None:
        self._file, self._start = file, start
        self._fields = start - struct.unpack_from("<i", file, start)[0]

    def _at(self, field: int) -> int:
        """Where a field is; zero if it has its default."""
        place = 4 + 2 * field
        size = struct.unpack_from("<H", self._file, self._fields)[0]
        offset = struct.unpack_from("<H", self._file, self._fields + place)[0] if place < size else 0
        return self._start + offset if offset else 0

    def _follow(self, at: int) -> int:
        return int(at + struct.unpack_from("<I", self._file, at)[0])

    def number(self, field: int) -> float:
        at = self._at(field)
        return float(struct.unpack_from("<f", self._file, at)[0]) if at else 0.0

    def table(self, field: int) -> "_Table":
        return _Table(self._file, self._follow(self._at(field)))

    def tables(self, field: int) -> list["_Table"]:
        start = self._follow(self._at(field))
        count = struct.unpack_from("<I", self._file, start)[0]
        return [_Table(self._file, self._follow(start + 4 + 4 * index)) for index in range(count)]

    def floats(self, field: int) -> list[float]:
        start = self._follow(self._at(field))
        return list(struct.unpack_from(f"<{struct.unpack_from('<I', self._file, start)[0]}f", self._file, start + 4))
